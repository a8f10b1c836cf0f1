/** Output that comes when the execution it is of has ended, from real kernels. */
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Metric, Ref, Stream } from "effect"
import { Execution, KernelClient } from "../src/mod.ts"
import { kernelLayer, slow } from "./support/kernel.ts"

const { KernelClient: Client } = KernelClient

/** The late output from now on until a text contains the end. */
const until = Effect.fnUntraced(function* (kernel: KernelClient.Kernel, end: string) {
  const outputs = yield* Ref.make<ReadonlyArray<Execution.KernelOutput>>([])
  const ended = yield* Deferred.make<void>()
  yield* kernel.output.pipe(
    Stream.runForEach((output) =>
      Effect.andThen(
        Ref.update(outputs, (all) => [...all, output]),
        textOf(output.chunk).includes(end) ? Deferred.succeed(ended, undefined) : Effect.void,
      )
    ),
    Effect.forkScoped({ startImmediately: true }),
  )
  return { all: Effect.andThen(Deferred.await(ended), Ref.get(outputs)) }
})

const textOf = (chunk: Execution.Chunk): string => chunk._tag === "ClearOutput" ? "" : chunk.text ?? ""

layer(kernelLayer(), slow)("Kernel.output", (it) => {
  const sources: Record<string, string> = {
    "a thread":
      "def work():\n    go.wait(); print('late'); print('end')\nthreading.Thread(target=work).start()",
    "a timer": "threading.Timer(0.3, lambda: (go.wait(), print('late'), print('end'))).start()",
    "an executor": "future = pool.submit(lambda: (go.wait(), print('late'), print('end')))",
    "a task":
      "async def work():\n    while not go.is_set(): await asyncio.sleep(0.01)\n    print('late'); print('end')\ntask = asyncio.create_task(work())",
    "logging":
      "def work():\n    go.wait(); logging.warning('late'); logging.warning('end')\nthreading.Thread(target=work).start()",
    "a display":
      "def work():\n    go.wait(); display('late'); display('end')\nthreading.Thread(target=work).start()",
    "a callback of the loop":
      "handle = asyncio.get_running_loop().call_later(0.3, lambda: (print('late'), print('end')))",
  }
  const imports = "import asyncio, logging, threading, time, concurrent.futures\ngo = threading.Event()\n"

  for (const [name, code] of Object.entries(sources)) {
    it.effect(`of ${name}, with the execution that it came from`, () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* kernel.execute(`${imports}pool = concurrent.futures.ThreadPoolExecutor(1)`)
        yield* kernel.execute("pool.submit(int).result()")
        const { all: outputs } = yield* until(kernel, "end")
        const { executionCount, text } = yield* kernel.execute(code)
        assert.isUndefined(text)
        yield* kernel.execute("import threading\nthreading.Timer(0.1, go.set).start()")
        const all = yield* outputs
        assert.match(all.map(({ chunk }) => textOf(chunk)).join(""), /late[^]*end/)
        for (const output of all) {
          assert.strictEqual(output.executionCount, executionCount)
          assert.isString(output.executionId)
          assert.strictEqual(output.missed, 0)
        }
      }))
  }

  it.effect("a thread of an earlier execution puts out nothing in others, a pool what it is asked for", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const first = yield* kernel.execute(`${imports}pool = concurrent.futures.ThreadPoolExecutor(1)
pool.submit(int).result()
def work():
    while not go.wait(0.01): print('leak')
    print('end')
threading.Thread(target=work).start()`)
      const { all: outputs } = yield* until(kernel, "end")
      const second = yield* kernel.execute("time.sleep(0.2); pool.submit(print, 'asked').result()\n6 * 7")
      assert.strictEqual(second.text, "asked\n42")
      yield* kernel.execute("go.set()")
      assert.deepStrictEqual(
        new Set((yield* outputs).map((output) => output.executionCount)),
        new Set([first.executionCount]),
      )
    }))

  it.effect("what the next execution awaits is output of that execution too", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const { all: outputs } = yield* until(kernel, "end")
      yield* kernel.execute(`${imports}async def work():
    await go2.wait()
    print('awaited'); display('shown'); print('end')
go2 = asyncio.Event()
task = asyncio.create_task(work())`)
      const { text } = yield* kernel.execute("go2.set()\nawait task\nprint('own')")
      assert.strictEqual(text, "awaited\n'shown'\nend\nown")
      assert.strictEqual((yield* outputs).map(({ chunk }) => textOf(chunk)).join(""), "awaited\n'shown'end\n")
      const { text: next } = yield* kernel.execute("print('alone')")
      assert.strictEqual(next, "alone")
    }))

  it.effect("goes on after a reset, keeps images, and reaches every consumer", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make({ images: "bytes" })
      const { all: one } = yield* until(kernel, "end")
      const { all: two } = yield* until(kernel, "end")
      yield* kernel.reset
      yield* kernel.execute(`import threading
from IPython.display import Image
png = b'\\x89PNG\\r\\n\\x1a\\n'
threading.Timer(0.1, lambda: (display(Image(png)), print('end'))).start()`)
      const [first, second] = yield* Effect.all([one, two])
      for (const [output] of [first, second]) {
        assert.strictEqual(output?.chunk._tag, "DisplayChunk")
        if (output?.chunk._tag === "DisplayChunk") assert.strictEqual(output.chunk.image?.bytes?.length, 8)
      }
    }))

  it.effect("output counts in missed what a slow consumer lost, and a metric counts output without a consumer", () =>
    Effect.gen(function* () {
      const unread = Metric.value(Metric.counter("effect_jupyter_unread_outputs_total", {
        description: "Late outputs that no consumer read, or not in time",
        incremental: true,
      }))
      const kernel = yield* KernelClient.make()
      const before = Number((yield* unread).count)
      const code = (n: number, end: string) =>
        `import threading, sys
def work():
    import time; time.sleep(0.2)
    for i in range(${n}): print('a' * 100_000, flush=True)
    print('${end}')
    done.set()
done = threading.Event()
threading.Thread(target=work).start()`
      yield* kernel.execute(code(3, "end"))
      yield* kernel.execute("done.wait()")
      assert.isAbove(Number((yield* unread).count), before)
      const gate = yield* Deferred.make<void>()
      const consumer = yield* kernel.output.pipe(
        Stream.tap(() => Deferred.await(gate)),
        Stream.takeUntil(({ chunk }) => textOf(chunk).includes("last")),
        Stream.runCollect,
        Effect.forkScoped({ startImmediately: true }),
      )
      yield* kernel.execute(code(500, "end"))
      yield* kernel.execute("done.wait()")
      yield* Deferred.succeed(gate, undefined)
      yield* kernel.execute(code(0, "last"))
      const outputs = yield* Fiber.join(consumer)
      const missed = outputs.reduce((sum, output) => sum + output.missed, 0)
      assert.isAbove(missed, 100)
      assert.isBelow(outputs.reduce((sum, { chunk }) => sum + textOf(chunk).length, 0), 40_000_000)
    }))

  it.effect("ends with the scope of its kernel", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        return yield* Effect.forkDetach(Stream.runCollect(kernel.output), { startImmediately: true })
      }))
      assert.deepStrictEqual(yield* Fiber.join(fiber), [])
    }))
})
