/** A moment without descriptors, in the program or in the kernel, is told as what it is and leaves nothing broken. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { execFileSync } from "node:child_process"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { text } from "./support/kernel.ts"

const Seen = Schema.fromJsonString(
  Schema.Struct({
    during: Schema.Array(Schema.String),
    after: Schema.Array(Schema.String),
    long: Schema.String,
  }),
)

/** Takes all descriptors that a kernel may have. */
const exhaust = `
import os
opened = []
try:
    while True: opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass`
const limited = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 1000))"

describe("a moment without descriptors", { concurrent: false }, () => {
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

  for (const fork of [true, false]) {
    it.live(
      `of a kernel that is ${fork ? "forked" : "started"}: its first exception is told, values come and go`,
      () =>
        Effect.gen(function* () {
          const gateway = yield* KernelGateway.make({ fork })
          const kernel = yield* Effect.provideService(
            KernelClient.make(),
            KernelGateway.KernelGateway,
            gateway,
          )
          yield* kernel.execute(limited)
          yield* kernel.execute(exhaust)
          const during = yield* Effect.flip(kernel.execute("1 / 0"))
          assert.strictEqual(during._tag === "ExecutionError" && during.ename, "ZeroDivisionError")
          assert.strictEqual(yield* kernel.evaluate("1 + 1", Schema.Finite), 2)
          assert.include((yield* kernel.variables).map(({ name }) => name), "opened")
          yield* kernel.execute("for descriptor in opened: os.close(descriptor)")
          const after = yield* Effect.flip(kernel.execute("x = 1\nx / 0"))
          assert.match(after.message, /ZeroDivisionError[^]*----> 2 x \/ 0/)
          assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
        }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
      60_000,
    )
  }
})
