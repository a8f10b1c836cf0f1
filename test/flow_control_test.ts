/**
 * What the consumer does not take, the kernel does not make: nothing grows while a stream is not read. The variable
 * EFFECT_JUPYTER_TEST_FLOW_SECONDS makes it look longer, and prints what it sees.
 */
import { assert, layer } from "@effect/vitest"
import { Clock, Effect, Fiber, Latch, Schema, Stream } from "effect"
import { readFileSync } from "node:fs"
import process from "node:process"
import { KernelClient } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"
import { descendants, eventually, supervisors } from "./support/processes.ts"

const { KernelClient: Client } = KernelClient
const seconds = Number(Platform.variable("EFFECT_JUPYTER_TEST_FLOW_SECONDS") ?? 3)

/** Seconds until all queues are full. */
const filling = 2

/** Resident memory in MB, and CPU seconds, of a process; nothing of one that ended. */
function usage(pid: number): { readonly memory: number; readonly cpu: number } {
  try {
    const [, kB = "0"] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? []
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const [user, system] = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 13)
    return { memory: Number(kB) / 1024, cpu: (Number(user) + Number(system)) / 100 }
  } catch {
    return { memory: 0, cpu: 0 }
  }
}

/** Memory of the program and of the gateway with all that it has started, and CPU time of the latter. */
const look = Effect.sync(() => {
  const others = supervisors(process.pid).flatMap(({ pid }) => [{ pid }, ...descendants(pid)]).map((
    { pid },
  ) => usage(pid))
  return {
    program: usage(process.pid).memory,
    others: others.reduce((sum, { memory }) => sum + memory, 0),
    cpu: others.reduce((sum, { cpu }) => sum + cpu, 0),
  }
})

const floods = {
  "an endless print": "while True: print('x' * 1000)",
  "prints that are flushed": "while True: print('x' * 1000, flush=True)",
  "writes to the file descriptor": "import os\nwhile True: os.write(1, b'x' * 1000 + b'\\n')",
  "endless displays": "while True: display({'text/plain': 'x' * 10_000}, raw=True)",
  "endless displays of bytes":
    "while True: display({'image/png': bytes.fromhex('89504e470d0a1a0a') + bytes(100_000)}, raw=True)",
  "two threads": `import threading
def flood():
    while not over: print('y' * 1000)
over = False
threads = [threading.Thread(target=flood) for _ in range(2)]
try:
    for thread in threads: thread.start()
    for thread in threads: thread.join()
finally:
    over = True`,
}

layer(kernelLayer({}, { images: "bytes" }), slow)("a consumer that takes nothing", (it) => {
  it.effect.each(Object.entries(floods))(
    "stops %s: nothing grows, and the kernel can be asked",
    ([name, code]) =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* kernel.execute("number = 1")
        // The first one loads what completes.
        yield* kernel.complete("numb")
        let isTaken = false
        const consumer = yield* kernel.stream(code).pipe(
          Stream.tap(() => {
            isTaken = true
            return Effect.never
          }),
          Stream.runDrain,
          Effect.forkChild,
        )
        yield* eventually(() => isTaken ? undefined : "The first chunk did not come")
        yield* Effect.sleep(`${filling} seconds`)
        const before = yield* look
        // What does not wait for the code does not wait for its output either.
        const start = yield* Clock.currentTimeMillis
        assert.include((yield* kernel.info).banner, "Python")
        const { matches } = yield* kernel.complete("numb")
        assert.include(matches, "number")
        assert.isBelow((yield* Clock.currentTimeMillis) - start, 2000)
        yield* Effect.sleep(`${seconds} seconds`)
        const after = yield* look
        assert.isBelow(after.others - before.others, 20, "MB that the kernel and the gateway grew")
        assert.isBelow(after.program - before.program, 60, "MB that the program grew")
        assert.isBelow(after.cpu - before.cpu, 0.3 * seconds + 0.5, "CPU seconds of who should wait")
        if (seconds > 3) {
          const figures = (["program", "others"] as const).map((whose) =>
            `${whose} ${before[whose].toFixed(0)} → ${after[whose].toFixed(0)} MB`
          )
          yield* Effect.logInfo(
            `${name}, ${seconds} s: ${figures.join(", ")}, ${(after.cpu - before.cpu).toFixed(2)} s of CPU`,
          )
        }
        const stopping = yield* Clock.currentTimeMillis
        yield* Fiber.interrupt(consumer)
        assert.isBelow((yield* Clock.currentTimeMillis) - stopping, 5000)
        assert.strictEqual(yield* text(kernel.execute("print('clean'); number")), "clean\n1")
      }),
    60_000 + 1000 * seconds,
  )

  it.effect("interrupts code that waits for it, which goes on when it is read", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const code = `try:
    while True: print('x' * 1000)
except KeyboardInterrupt:
    print('interrupted')`
      let isTaken = false
      const gate = yield* Latch.make()
      const consumer = yield* kernel.stream(code).pipe(
        Stream.tap(() => {
          isTaken = true
          return gate.await
        }),
        Stream.runLast,
        Effect.forkChild,
      )
      yield* eventually(() => isTaken ? undefined : "The first chunk did not come")
      yield* Effect.sleep("1 second")
      yield* kernel.interrupt
      yield* gate.open
      const last = yield* Fiber.join(consumer)
      assert.strictEqual(last._tag, "Some")
    }))

  it.effect("stops an iterator of bytes", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      let isTaken = false
      const consumer = yield* kernel.iterate("iter(lambda: bytes(1_000_000), None)", Schema.Uint8Array).pipe(
        Stream.tap(() => {
          isTaken = true
          return Effect.never
        }),
        Stream.runDrain,
        Effect.forkChild,
      )
      yield* eventually(() => isTaken ? undefined : "The first bytes did not come")
      yield* Effect.sleep("1 second")
      const before = yield* look
      yield* Effect.sleep("1 second")
      const after = yield* look
      assert.isBelow(after.others - before.others, 20)
      yield* Fiber.interrupt(consumer)
      assert.strictEqual(yield* text(kernel.execute("1 + 1")), "2")
    }))
})
