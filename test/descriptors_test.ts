/** A moment without descriptors, is told as what it is and leaves nothing broken. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { execFileSync } from "node:child_process"
import process from "node:process"
import { fileURLToPath } from "node:url"

const Seen = Schema.fromJsonString(
  Schema.Struct({
    during: Schema.Array(Schema.String),
    after: Schema.Array(Schema.String),
    long: Schema.String,
  }),
)

describe("a moment without descriptors", () => {
  it.live(
    "of the program: typed failures, evaluate and variables work in it and after it",
    () =>
      Effect.gen(function* () {
        const program = fileURLToPath(new URL("./support/no_descriptors.ts", import.meta.url))
        const args = ["--no-warnings", "--conditions=effect-jupyter-source", program]
        const output = execFileSync(process.execPath, args, {
          encoding: "utf8",
          stdio: ["ignore", "pipe", "ignore"],
        })
        const { after, during, long } = yield* Schema.decodeEffect(Seen)(output)
        const [used, kernel, gateway] = during
        assert.strictEqual(used, "3 x")
        assert.include(kernel, "EMFILE")
        assert.match(gateway ?? "", /EMFILE.*ulimit -n/)
        assert.deepStrictEqual(after, ["3 x", "3 x"])
        assert.match(long, /E2BIG.*shorten the variables of "env"/)
      }),
    60_000,
  )
})
