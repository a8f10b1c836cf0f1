/** Introspection of idle and busy kernels. */
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Latch, Stream } from "effect"
import { Execution, Introspection, KernelClient } from "../src/mod.ts"
import { collect, kernelLayer, slow, text, texts } from "./support/kernel.ts"

/** Runs something while code runs, which begins before and is interrupted afterwards. */
const during = <A, E, R>(kernel: KernelClient.Kernel, code: string, effect: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.gen(function* () {
    const begun = yield* Latch.make()
    yield* kernel.stream(code).pipe(
      Stream.runForEach(() => begun.open),
      Effect.ignore,
      Effect.forkScoped,
    )
    yield* begun.await
    return yield* effect
  }))
const sleeping = "import time; print('begun', flush=True); time.sleep(600)"

/** A new kernel whose completer is loaded, which takes seconds on a busy machine, and more in a sandbox. */
const warm = Effect.tap(
  KernelClient.make(),
  (kernel) => kernel.complete("prin", undefined, { timeout: "30 seconds" }),
)

/** Asked in both states. */
const questions = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
  const completion = yield* kernel.complete("some_na")
  assert.deepStrictEqual([completion.matches, completion.start, completion.end], [["some_name"], 0, 7])
  // Jupyter counts "😀" as one character, JavaScript as two.
  const code = "s = '😀😀'; some_na + 1"
  const inside = yield* kernel.complete(code, code.indexOf(" + 1"))
  assert.deepStrictEqual(inside.matches, ["some_name"])
  assert.strictEqual(code.slice(inside.start, inside.end), "some_na")

  const { data, found } = yield* kernel.inspect("'😀'; documented(", undefined)
  assert.isTrue(found)
  assert.include(data["text/plain"], "Says what it is")
  assert.notInclude(data["text/plain"], "\u001b")
  assert.notInclude(data["text/plain"], "return 42")
  const detailed = yield* kernel.inspect("documented", 3, { detail: 1 })
  assert.include(detailed.data["text/plain"], "return 42")
  assert.isFalse((yield* kernel.inspect("nowhere_to_be_found")).found)

  assert.strictEqual((yield* kernel.isComplete("1 + 1")).status, "complete")
  const { indent, status } = yield* kernel.isComplete("for i in x:")
  assert.deepStrictEqual([status, indent], ["incomplete", "    "])
  assert.strictEqual((yield* kernel.isComplete("a b c")).status, "invalid")

  const history = yield* kernel.history()
  assert.deepStrictEqual(history[0], new Introspection.HistoryEntry({ executionCount: 1, code: definitions }))
  assert.deepStrictEqual(yield* kernel.history({ last: 1 }), history.slice(-1))
  assert.deepStrictEqual(yield* kernel.history({ last: 0 }), [])

  const info = yield* kernel.info
  assert.deepStrictEqual([info.language, info.implementation], ["python", "ipython"])
  assert.match(info.languageVersion, /^3\./)

  const variables = yield* kernel.variables
  const names = variables.map(({ name }) => name)
  assert.includeMembers(names, ["some_name", "documented", "broken", "long", "array"])
  assert.notIncludeMembers(names, ["In", "Out", "exit", "get_ipython", "_hidden", "variables_of", "numpy"])
  const of = (name: string) => variables.find((variable) => variable.name === name)
  assert.deepStrictEqual([of("some_name")?.type, of("some_name")?.repr], ["int", "1"])
  assert.strictEqual(of("broken")?.type, "Broken")
  assert.deepStrictEqual(of("long")?.shape, [1_000_000])
  assert.isAtLeast(of("long")?.bytes ?? 0, 8_000_000)
  assert.isAtMost(of("long")?.repr.length ?? 0, 200)
  assert.deepStrictEqual([of("array")?.type, of("array")?.shape, of("array")?.bytes], [
    "numpy.ndarray",
    [2, 3],
    48,
  ])
})

const definitions = `import numpy
some_name = 1
_hidden = 2
def documented():
    """Says what it is."""
    return 42
class Broken:
    shape = property(lambda self: 1 / 0)
    def __repr__(self): raise SystemExit
    def __sizeof__(self): raise KeyboardInterrupt
broken = Broken()
long = [1] * 1_000_000
array = numpy.ones((2, 3))`

layer(kernelLayer(), slow)("introspection", (it) => {
  it.effect("of an idle kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* warm
      yield* kernel.execute(definitions)
      yield* questions(kernel)
      // It leaves nothing behind.
      assert.strictEqual((yield* kernel.execute("1")).executionCount, 2)
      assert.strictEqual(
        yield* text(kernel.execute("[n for n in dir() if 'variables_of' in n or 'source' in n]")),
        "[]",
      )
    }))

  it.effect("of a kernel that runs code", () =>
    Effect.gen(function* () {
      const kernel = yield* warm
      yield* kernel.execute(definitions)
      yield* during(kernel, sleeping, questions(kernel))
      // The interrupt hit the code.
      assert.strictEqual((yield* kernel.execute("some_name")).text, "1")
      yield* during(kernel, "print('begun', flush=True)\nwhile True: pass", questions(kernel))
    }))

  for (
    const [which, prepare] of [
      ["a kernel", "pass"],
      // As it is where another made the kernel: the latest request counts as the source of what threads print.
      ["a kernel that is not ours", "del type(get_ipython().kernel).set_parent"],
    ] as const
  ) {
    it.effect(`does not disturb the code of ${which}: all output is its own, of threads and plots too`, () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ images: "bytes" })
        yield* kernel.execute("import matplotlib.pyplot as plt")
        yield* kernel.execute(prepare)
        const running = yield* Effect.forkChild(collect(kernel.stream(`import sys, threading, time
def work():
    for i in range(200):
        sys.stdout.write(f'thread {i}\\n')
        time.sleep(0.005)
thread = threading.Thread(target=work)
thread.start()
plt.plot([1, 2])
for i in range(200):
    sys.stdout.write(f'main {i}\\n')
    time.sleep(0.005)
plt.title('whole')
thread.join()
late = threading.Thread(target=lambda: print('late', flush=True))
late.start(); late.join()`)))
        const asked = yield* Effect.forkChild(Effect.forever(Effect.all([
          kernel.variables,
          kernel.complete("pri"),
          kernel.info,
        ])))
        const elements = yield* Fiber.join(running)
        yield* Fiber.interrupt(asked)
        const lines = texts(elements).join("").split("\n")
        for (const who of ["main", "thread"]) {
          assert.deepStrictEqual(
            lines.filter((line) => line.startsWith(who)),
            Array.from({ length: 200 }, (_, index) => `${who} ${index}`),
          )
        }
        assert.include(lines, "late")
        const result = elements.at(-1)
        assert.instanceOf(result, Execution.ExecutionResult)
        assert.lengthOf(result.images, 1)
        assert.lengthOf(result.displays, 1)
      }))
  }

  it.effect("does not swallow interrupts", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const asked = yield* Effect.forkChild(Effect.forever(kernel.complete("pri")))
      for (let round = 0; round < 5; round++) {
        const error = yield* Effect.flip(kernel.execute("while True: pass", { timeout: "300 millis" }))
        assert.instanceOf(error, Execution.ExecutionTimeout)
      }
      yield* Fiber.interrupt(asked)
      assert.strictEqual((yield* kernel.execute("1 + 1")).text, "2")
    }))

  it.effect("ends with the kernel, by a reset or a death, at once", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const slow = "import time\nclass Slow:\n    def __dir__(self): time.sleep(600)\nslow = Slow()"
      yield* kernel.execute(slow)
      const first = yield* Effect.forkChild(Effect.flip(kernel.complete("slow.")), { startImmediately: true })
      yield* Effect.sleep("300 millis")
      yield* kernel.reset
      const reset = yield* Fiber.join(first)
      assert.instanceOf(reset, Execution.KernelError)
      assert.strictEqual(reset.reason._tag, "ExecutionAborted")

      yield* kernel.execute("import os, threading\nthreading.Timer(0.5, lambda: os._exit(1)).start()")
      yield* kernel.execute(slow)
      const died = yield* Effect.flip(kernel.complete("slow."))
      assert.instanceOf(died, Execution.KernelError)
      assert.strictEqual(died.reason._tag, "KernelDied")
      const asked: ReadonlyArray<Effect.Effect<unknown, KernelClient.IntrospectionFailure>> = [
        kernel.complete("a"),
        kernel.inspect("a"),
        kernel.isComplete("a"),
        kernel.history(),
        kernel.info,
        kernel.variables,
      ]
      for (const question of asked) {
        const [elapsed, error] = yield* Effect.timed(Effect.flip(question))
        assert.instanceOf(error, Execution.KernelError)
        assert.strictEqual(error.reason._tag, "KernelDied")
        assert.isBelow(Duration.toMillis(elapsed), 500)
      }
    }))

  it.effect("has a bound, and the next question is answered all the same", () =>
    Effect.gen(function* () {
      const kernel = yield* warm
      yield* kernel.execute(
        "import time\nclass Slow:\n    def __dir__(self): time.sleep(600); return []\nslow = Slow()",
      )
      const error = yield* Effect.flip(kernel.complete("slow.", undefined, { timeout: "1 second" }))
      assert.instanceOf(error, Introspection.IntrospectionFailed)
      assert.include(error.message, "No answer came within 1s")
      assert.include((yield* kernel.complete("prin")).matches, "print")
      assert.strictEqual((yield* kernel.execute("1 + 1")).text, "2")
    }))

  it.effect("many at once, each with its own bound", () =>
    Effect.gen(function* () {
      const kernel = yield* warm
      yield* kernel.execute(
        "import time\nclass Slow:\n    def __dir__(self): time.sleep(0.4); return ['attribute']\nslow = Slow()",
      )
      const answers = yield* Effect.forEach(
        Array.from({ length: 8 }),
        () => kernel.complete("slow.", undefined, { timeout: "2 seconds" }),
        { concurrency: "unbounded" },
      )
      for (const { matches } of answers) assert.deepStrictEqual(matches, ["attribute"])
      const all = yield* Effect.forEach(
        Array.from({ length: 50 }),
        () => kernel.complete("prin"),
        { concurrency: "unbounded" },
      )
      for (const { matches } of all) assert.include(matches, "print")
    }))

  it.effect("of a kernel without subshells: answers when it is idle, and refuses otherwise", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute(`kernel = get_ipython().kernel
info = {**kernel.kernel_info, "supported_features": []}
type(kernel).kernel_info = property(lambda self: info)
${definitions}`)
      assert.deepStrictEqual((yield* kernel.info).features, [])
      yield* kernel.complete("some_na", undefined, { timeout: "30 seconds" })
      assert.deepStrictEqual((yield* kernel.complete("some_na")).matches, ["some_name"])
      assert.include((yield* kernel.variables).map(({ name }) => name), "some_name")
      const refusal = yield* during(kernel, sleeping, Effect.flip(kernel.complete("some_na")))
      assert.instanceOf(refusal, Introspection.KernelBusy)
      assert.include(refusal.message, kernel.id)
      assert.deepStrictEqual((yield* kernel.complete("some_na")).matches, ["some_name"])
    }))

  it.effect("of a kernel that ignores interrupts", () =>
    Effect.gen(function* () {
      const kernel = yield* warm
      const stubborn = "import time\nwhile True:\n  try: time.sleep(1)\n  except BaseException: pass"
      const error = yield* Effect.flip(kernel.execute(stubborn, { timeout: "200 millis" }))
      assert.instanceOf(error, Execution.KernelError)
      assert.strictEqual(error.reason._tag, "KernelUnresponsive")
      assert.include((yield* kernel.complete("prin")).matches, "print")
    }))
})
