/** An interrupt of a cell that awaits is told as the interrupt that it is. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Option, Schema, Stream } from "effect"
import { Execution, KernelClient } from "../src/mod.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"
import { eventually } from "./support/processes.ts"

const { KernelClient: Client } = KernelClient

const awaits = {
  "asyncio.sleep": "await asyncio.sleep(60)",
  "a coroutine of its own": "async def inner():\n    await asyncio.sleep(60)\nawait inner()",
  "asyncio.gather": "await asyncio.gather(asyncio.sleep(60), asyncio.sleep(61))",
  "a task": "await asyncio.create_task(asyncio.sleep(60))",
  "a future": "await asyncio.get_running_loop().create_future()",
  "a queue, in a block": "async with asyncio.Lock():\n    await asyncio.Queue().get()",
  "wait_for": "await asyncio.wait_for(asyncio.sleep(60), 120)",
  "an iterator":
    "async def forever():\n    while True:\n        yield 1\n        await asyncio.sleep(60)\nasync for _ in forever(): pass",
  "a handler that raises it again":
    "try: await asyncio.sleep(60)\nexcept asyncio.CancelledError:\n    print('cleaned')\n    raise",
}

layer(kernelLayer(), slow)("code that cancels all tasks", (it) => {
  const others = "asyncio.all_tasks() - {asyncio.current_task()}"
  const cancels = {
    "of a cell": [
      "[task.cancel() for task in asyncio.all_tasks()]\nawait asyncio.sleep(0)",
      "CancelledError",
    ],
    "but its own, and awaits them": [
      `others = ${others}
[task.cancel() for task in others]
await asyncio.gather(*others, return_exceptions=True)`,
      undefined,
    ],
    "before a cell begins": [
      `async def cancel():
    while True:
        await asyncio.sleep(0)
        [task.cancel() for task in ${others}]
canceling = asyncio.create_task(cancel())
await asyncio.sleep(0)`,
      undefined,
    ],
    "of a call": ["[task.cancel() for task in asyncio.all_tasks()]", undefined],
  } as const

  it.effect.each(Object.entries(cancels))(
    "%s does not affect its kernel",
    ([, [code, ename]]) =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const exit = yield* Effect.flip(kernel.execute(`import asyncio\n${code}`)).pipe(Effect.option)
        const error = Option.getOrUndefined(exit)
        assert.strictEqual(error?._tag === "ExecutionError" ? error.ename : undefined, ename)
        yield* Effect.exit(kernel.execute("await asyncio.sleep(0.05)"))
        yield* kernel.execute("'canceling' in globals() and canceling.cancel()")
        assert.strictEqual(yield* text(kernel.execute("await asyncio.sleep(0.01); 6 * 7")), "42")
      }),
  )
})

layer(kernelLayer(), slow)("interrupt", (it) => {
  /** Interrupts what runs once it waits, which the kernel says by a line. */
  const interrupted = <A>(
    kernel: KernelClient.Kernel,
    run: (onChunk: () => Effect.Effect<void>) => Effect.Effect<A, unknown>,
  ) =>
    Effect.gen(function* () {
      let hasBegun = false
      const onChunk = () =>
        Effect.sync(() => {
          hasBegun = true
        })
      const fiber = yield* Effect.forkChild(Effect.flip(run(onChunk)), { startImmediately: true })
      yield* eventually(() => hasBegun ? undefined : "It has not begun")
      yield* Effect.sleep("50 millis")
      yield* kernel.interrupt
      return yield* Fiber.join(fiber)
    })
  const begin = "import asyncio\nprint('begun', flush=True)\n"

  for (const [what, code] of Object.entries(awaits)) {
    it.effect(`is a KeyboardInterrupt with the traceback of ${what}`, () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const error = yield* interrupted(kernel, (onChunk) =>
          Stream.runForEach(kernel.stream(begin + code), onChunk))
        assert.instanceOf(error, Execution.ExecutionError)
        assert.strictEqual(error.ename, "KeyboardInterrupt")
        assert.match(error.traceback.join("\n"), /await|async for/)
        assert.notMatch(error.message, /^(?:asyncio\.)?CancelledError/m)
        assert.notInclude(error.partial.text ?? "", "Traceback")
        assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      }))
  }

  it.effect("is a KeyboardInterrupt of evaluate, too", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.execute(
        "import asyncio\nasync def work():\n    print('begun', flush=True)\n    await asyncio.sleep(60)",
      )
      const error = yield* interrupted(kernel, (onChunk) =>
        kernel.evaluate("await work()", Schema.Unknown, { onChunk }))
      assert.instanceOf(error, Execution.ExecutionError)
      assert.strictEqual(error.ename, "KeyboardInterrupt")
    }))

  it.effect("is not what a cell is told that cancels itself, or that handles its cancellation", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const own = yield* Effect.flip(kernel.execute(
        "import asyncio\nasyncio.current_task().cancel()\nawait asyncio.sleep(1)",
      ))
      assert.strictEqual(own._tag === "ExecutionError" && own.ename, "CancelledError")
      const other = yield* interrupted(kernel, (onChunk) =>
        Stream.runForEach(
          kernel.stream(
            `${begin}try: await asyncio.sleep(60)\nexcept asyncio.CancelledError: raise ValueError('mine')`,
          ),
          onChunk,
        ))
      assert.instanceOf(other, Execution.ExecutionError)
      assert.strictEqual(other.ename, "ValueError")
      const later = yield* Effect.flip(kernel.execute("raise asyncio.CancelledError"))
      assert.strictEqual(later._tag === "ExecutionError" && later.ename, "CancelledError")
    }))
})
