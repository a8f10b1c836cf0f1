/** Much output, and little memory for it. */
import { assert, layer } from "@effect/vitest"
import { Effect, Option, Stream } from "effect"
import { readFileSync } from "node:fs"
import process from "node:process"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"
import { descendants, supervisors } from "./support/processes.ts"

const MB = 1024 * 1024
const { KernelClient: Client } = KernelClient

/** Resident memory of a process, in MB. */
function residentMB(pid: number | "self"): number {
  const [, kB = "0"] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? []
  return Number(kB) / 1024
}

/** The gateway's process. */
function gatewayPid(): number {
  const [supervisor] = supervisors(process.pid)
  const [gateway] = supervisor === undefined ? [] : descendants(supervisor.pid)
  return gateway?.pid ?? 0
}

layer(kernelLayer(), slow)("volume", (it) => {
  it.effect("50 cells of 200 kB: the reply does not overtake the output", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (let cell = 0; cell < 50; cell++) {
        assert.strictEqual((yield* text(kernel.execute("print('x' * 200_000)")))?.length, 200_000)
      }
    }))

  it.effect("40 cells of 10 MB: the kernel keeps none of it", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const resident = Effect.map(
        text(kernel.execute("print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])")),
        (kB) => Number(kB) / 1024,
      )
      for (
        const code of [
          "print('x' * 10_000_000)",
          "import sys; print('x' * 10_000_000, file=sys.stderr)",
          "display({'text/html': 'x' * 10_000_000}, raw=True)",
          "import os; os.write(1, b'x' * 10_000_000) and None",
        ]
      ) {
        const run = kernel.execute(code, { outputLimit: 1000 })
        yield* Effect.repeat(run, { times: 1 })
        const before = yield* resident
        yield* Effect.repeat(run, { times: 7 })
        assert.isBelow((yield* resident) - before, 30, code)
      }
    }))

  it.effect("300 MB in one print", () =>
    Effect.gen(function* () {
      const output = yield* text((yield* Client).execute("print('y' * 300_000_000)"))
      assert.strictEqual(output?.length, 300_000_000)
    }), 120_000)

  it.effect("one line of 60 MB", () =>
    Effect.gen(function* () {
      const output = yield* text((yield* Client).execute("print('ü' * 30_000_000)"))
      assert.strictEqual(output?.length, 30_000_000)
    }))

  it.effect("100,000 lines", () =>
    Effect.gen(function* () {
      const output = yield* text((yield* Client).execute("for i in range(100_000): print(i)"))
      assert.strictEqual(output, Array.from({ length: 100_000 }, (_, index) => index).join("\n"))
    }))

  it.effect("20,000 flushed lines", () =>
    Effect.gen(function* () {
      const output = yield* text((yield* Client).execute("for i in range(20_000): print(i, flush=True)"))
      assert.strictEqual(output, Array.from({ length: 20_000 }, (_, index) => index).join("\n"))
    }))

  it.effect("6,000 displays", () =>
    Effect.gen(function* () {
      const { displays } = yield* (yield* Client).execute("for i in range(6_000): display(i)")
      assert.deepStrictEqual(
        displays.map((display) => display.text),
        Array.from({ length: 6_000 }, (_, index) => `${index}`),
      )
    }))

  it.effect(
    "outputLimit keeps head and tail, says how much is left out, and bounds the memory",
    () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const before = residentMB("self")
        const gatewayBefore = residentMB(gatewayPid())
        let highest = 0
        let highestOfGateway = 0
        const line = "print(f'{i:>9}', 'z' * 1000)"
        const result = yield* kernel.stream(`for i in range(200_000): ${line}`, { outputLimit: 10_000 }).pipe(
          Stream.tap(() =>
            Effect.sync(() => {
              highest = Math.max(highest, residentMB("self"))
              highestOfGateway = Math.max(highestOfGateway, residentMB(gatewayPid()))
            })
          ),
          Stream.runLast,
        )
        const output = Option.getOrUndefined(result)
        assert.strictEqual(output?._tag, "ExecutionResult")
        if (output?._tag !== "ExecutionResult") return
        // 1011 bytes a line: what is missing is known to the byte.
        const kept = output.text ?? ""
        const [, missing = ""] = /\n\[effect-jupyter\] (\d+) bytes left out\n/.exec(kept) ?? []
        const rest = kept.replace(/\n\[effect-jupyter\] \d+ bytes left out\n/, "")
        assert.isTrue(kept.startsWith("        0 zzz"))
        assert.match(kept, / 199999 z+$/)
        // The last line ends with a line break, which is stripped.
        assert.strictEqual(Number(missing) + rest.length, 200_000 * 1011 - 1)
        assert.isBelow(highest - before, 400, "MB that the client grew for 200 MB of output")
        assert.isBelow(highestOfGateway - gatewayBefore, 300, "MB that the gateway grew")
        yield* Effect.logInfo(
          `Client grew by ${Math.round(highest - before)} MB, gateway by ${
            Math.round(highestOfGateway - gatewayBefore)
          } MB`,
        )
      }),
    120_000,
  )

  it.effect("code of 12 MB and of 60 MB", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const size of [12, 60]) {
        assert.strictEqual(
          yield* text(kernel.execute(`s = '${"a".repeat(size * MB)}'\nlen(s)`)),
          `${size * MB}`,
        )
      }
    }), 240_000)

  it.effect("the gateway is still there", () =>
    Effect.gen(function* () {
      const { join } = yield* KernelGateway.KernelGateway
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(join, "10 millis")))
    }))
})
