/** Fibers that are interrupted at any moment, executions that wait and are withdrawn. */
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Metric, Random, Stream } from "effect"
import * as Metrics from "../src/kernel/metrics.ts"
import { KernelClient } from "../src/mod.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"

const { KernelClient: Client } = KernelClient

/** Moments after the start of something, in milliseconds, denser where more happens. */
const moments = [0, 0, 1, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60, 100, 200]

/** Starts, waits and interrupts. */
const cut = <A, E, R>(effect: Effect.Effect<A, E, R>, moment: number) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    yield* Effect.sleep(moment)
    yield* Fiber.interrupt(fiber)
  })

/** What the next execution has to find: an idle kernel, and nothing of what was cut. */
const isClean = Effect.fnUntraced(function* (kernel: KernelClient.Kernel, marker: string) {
  assert.strictEqual(yield* text(kernel.execute(`print('${marker}')`)), marker)
})

layer(kernelLayer(), slow)("interruption", (it) => {
  it.effect("at any moment of an execution leaves the kernel idle and clean", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const moment of moments) {
        yield* cut(kernel.execute("print('old')\nimport time\nfor _ in range(500): time.sleep(0.01)"), moment)
        yield* isClean(kernel, `after ${moment} ms`)
      }
    }), 120_000)

  it.effect("at any moment of a short execution does too", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const before = yield* Metric.value(Metrics.ignored)
      for (const moment of [...moments, ...moments, ...moments, ...moments]) {
        yield* cut(kernel.execute("print('old')"), moment / 4)
        yield* isClean(kernel, `after ${moment / 4} ms`)
      }
      // An interrupt that hits the kernel while it writes a message makes it two that nobody understands.
      assert.deepStrictEqual(yield* Metric.value(Metrics.ignored), before)
    }), 120_000)

  it.effect("at any moment of a stream does too", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const moment of moments) {
        const stream = kernel.stream(
          "import time\nfor i in range(500):\n    print(i, flush=True)\n    time.sleep(0.01)",
        )
        yield* cut(Stream.runDrain(stream), moment)
        yield* isClean(kernel, `after ${moment} ms`)
      }
    }), 120_000)

  it.effect("at any moment of a reset leaves a clean kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      for (const moment of [0, 1, 5, 20, 50, 100, 200, 400, 800]) {
        yield* kernel.execute("mine = 1")
        yield* cut(kernel.reset, moment)
        assert.strictEqual(
          yield* text(kernel.execute("print('mine' in globals())")),
          "False",
          `after ${moment} ms`,
        )
      }
    }), 120_000)

  it.effect("at any moment of make leaves no kernel", () =>
    Effect.gen(function* () {
      for (const moment of [0, 1, 5, 20, 50, 100, 200, 400, 800]) {
        yield* cut(Effect.scoped(KernelClient.make()), moment)
      }
      yield* isClean(yield* Client, "still there")
    }), 120_000)
})

layer(kernelLayer(), slow)("concurrency", (it) => {
  it.effect("40 executions at once, some withdrawn in random order: each has its own output, the running one is untouched", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.execute("import time; ran = []")
      const running = yield* Effect.forkChild(
        text(kernel.execute("time.sleep(0.5)\nran.append(-1)\nprint('undisturbed')")),
        { startImmediately: true },
      )
      const fibers = yield* Effect.forEach(
        Array.from({ length: 40 }, (_, index) => index),
        (index) =>
          Effect.forkChild(text(kernel.execute(`ran.append(${index}); print(${index})`)), {
            startImmediately: true,
          }),
      )
      const order = yield* Random.shuffle(fibers.keys())
      const withdrawn = new Set([...order].slice(0, 20))
      yield* Effect.forEach(withdrawn, (index) => {
        const fiber = fibers[index]
        return fiber === undefined ? Effect.void : Fiber.interrupt(fiber)
      })
      assert.strictEqual(yield* Fiber.join(running), "undisturbed")
      for (const [index, fiber] of fibers.entries()) {
        const exit = yield* Fiber.await(fiber)
        if (withdrawn.has(index)) assert.isTrue(Exit.isFailure(exit))
        else assert.deepStrictEqual(exit, Exit.succeed(`${index}`))
      }
      const rest = Array.from({ length: 40 }, (_, index) => index).filter((index) => !withdrawn.has(index))
      assert.strictEqual(yield* text(kernel.execute("print(ran)")), `[${[-1, ...rest].join(", ")}]`)
    }))

  it.effect("executions that wait when the kernel is reset are not run on the new one", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const running = yield* Effect.forkChild(kernel.execute("import time; time.sleep(30)"), {
        startImmediately: true,
      })
      const waiting = yield* Effect.forkChild(kernel.execute("ran = True"), { startImmediately: true })
      yield* Effect.sleep("300 millis")
      yield* kernel.reset
      for (const fiber of [running, waiting]) {
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.strictEqual(error._tag === "KernelError" && error.reason._tag, "ExecutionAborted")
      }
      assert.strictEqual(yield* text(kernel.execute("print('ran' in globals())")), "False")
    }))

  it.effect("a consumer that is still reading does not keep others from the kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      // The consumer runs code, and resets, on the kernel whose stream it reads.
      const nested = yield* kernel.stream("print('outer')").pipe(
        Stream.mapEffect((element) =>
          element._tag === "ExecutionResult"
            ? text(kernel.execute("print('inner')"))
            : Effect.succeed("chunk")
        ),
        Stream.tap((element) => element === "inner" ? kernel.reset : Effect.void),
        Stream.runCollect,
        Effect.timeout("20 seconds"),
      )
      assert.deepStrictEqual(nested, ["chunk", "inner"])
    }))

  it.effect("two resets at once are one kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* Effect.all([kernel.reset, kernel.reset], { concurrency: 2 })
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))
})
