/** Binary values, large ones, without base64 and within bounds. */
import { assert, layer } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { readFileSync } from "node:fs"
import process from "node:process"
import { KernelClient } from "../src/mod.ts"
import { kernelLayer, slow } from "./support/kernel.ts"

const { KernelClient: Client } = KernelClient
const size = 100_000_000

/** Resident memory of this process, in MB. */
function residentMB(): number {
  const [, kB = "0"] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${process.pid}/status`, "utf8")) ?? []
  return Number(kB) / 1024
}

layer(kernelLayer(), slow)("binary", (it) => {
  it.effect(
    "set and evaluate transfer 100 MB unchanged, within bounded memory",
    () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const bytes = new Uint8Array(size)
        for (let index = 0; index < size; index += 4096) bytes[index] = index / 4096
        const before = residentMB()
        let highest = 0
        for (let round = 0; round < 3; round++) {
          yield* kernel.set("data", { name: "blob", bytes })
          highest = Math.max(highest, residentMB())
          const back = yield* kernel.evaluate(
            "data",
            Schema.Struct({ name: Schema.String, bytes: Schema.Uint8Array }),
          )
          highest = Math.max(highest, residentMB())
          assert.strictEqual(back.name, "blob")
          assert.strictEqual(Buffer.compare(back.bytes, bytes), 0)
        }
        const grown = Math.round(highest - before)
        yield* Effect.logInfo(`Grew by ${grown} MB for 100 MB three times each way`)
        assert.isBelow(grown, 500, "MB that the client grew for 100 MB each way")
      }),
    240_000,
  )

  it.effect(
    "set refuses a value larger than a message, and feed sends it in batches",
    () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* kernel.execute("huge = bytes(500_000_001)")
        const error = yield* Effect.flip(kernel.evaluate("huge", Schema.Uint8Array))
        assert.strictEqual(error._tag, "ExecutionError")
        assert.include(error.message, "more than a message can carry")
        const parts = kernel.iterate(
          "(huge[n:n + 50_000_000] for n in range(0, 150_000_000, 50_000_000))",
          Schema.Uint8Array,
        )
        assert.strictEqual(
          yield* Stream.runFold(parts, () => 0, (sum, part) => sum + part.length),
          150_000_000,
        )
        yield* kernel.execute("del huge")
      }),
    240_000,
  )

  it.effect("evaluate returns bytes as they were, although Python changes them after that", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.execute(
        "import array\nbuffer = bytearray(b'a' * 10_000_000)\nnumbers = array.array('d', [1.0]) * 1_000_000",
      )
      const [bytes, numbers] = yield* Effect.all([
        kernel.evaluate("buffer", Schema.Uint8Array),
        kernel.evaluate("numbers", Schema.instanceOf(Float64Array)),
        kernel.execute("buffer[:] = b'b' * len(buffer)\nnumbers[0] = numbers[-1] = 2.0"),
      ], { concurrency: "unbounded" })
      assert.isTrue(bytes.every((byte) => byte === 97))
      assert.isTrue(numbers.every((number) => number === 1))
    }))
})
