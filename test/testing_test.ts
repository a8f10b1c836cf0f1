import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Fiber, Logger, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Execution, KernelClient, Testing } from "../src/mod.ts"

const execute = (code: string, options?: KernelClient.ExecuteOptions) =>
  KernelClient.KernelClient.use((kernel) => kernel.execute(code, options))
const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

const scripts: ReadonlyArray<Testing.Script> = [
  { match: "x = 1" },
  { match: "1 + 1", result: "2" },
  {
    match: /bar/g,
    chunks: ["\r 1%", new Execution.TextChunk({ name: "stderr", text: "\r99%" }), "\n"],
    interval: "1 second",
    delay: "2 seconds",
    result: { "text/plain": "done", "text/html": "<b>done</b>" },
  },
  {
    match: (code) => code.startsWith("plot"),
    chunks: [Testing.display({ "image/png": png, "text/plain": "<Figure>" })],
  },
  {
    match: "live",
    chunks: [
      Testing.display({ "text/plain": "a" }, { displayId: "1" }),
      { update: Testing.display({ "text/plain": "b" }, { displayId: "1" }) },
      Testing.display({ "text/plain": "c" }),
      new Execution.ClearOutput({ wait: true }),
      Testing.display({ "text/plain": "d" }),
    ],
  },
  { match: "1 / 0", chunks: ["before"], error: { ename: "ZeroDivisionError", evalue: "division by zero" } },
  { match: "die", times: 1, error: new Execution.KernelDied({ kernelId: "k" }) },
  { match: "die", result: "alive" },
  { match: /sleep/, chunks: ["begun\n"], delay: "1 hour" },
]
const epoch = DateTime.toDateUtc(DateTime.makeUnsafe(0))
const provide = Effect.provide(Testing.layer(scripts))

describe("a kernel for tests", () => {
  it.effect("answers by the script and records what was executed", () =>
    Effect.gen(function* () {
      assert.isUndefined((yield* execute("x = 1")).text)
      const result = yield* execute(" 1 + 1\n")
      assert.deepStrictEqual([result.text, result.executionCount], ["2", 2])
      assert.strictEqual(result.displays[0]?.executionCount, 2)
      assert.deepStrictEqual(yield* Testing.executed, ["x = 1", " 1 + 1\n"])
    }).pipe(provide))

  it.effect("emits chunks as time passes, and makes text and displays as other kernels do", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const seen: Array<string> = []
      const fiber = yield* kernel.stream("bar()").pipe(
        Stream.tap((element) => Effect.sync(() => void seen.push(element._tag))),
        Stream.runLast,
        Effect.forkChild,
      )
      yield* TestClock.adjust("2500 millis")
      assert.lengthOf(seen, 2)
      yield* TestClock.adjust("500 millis")
      assert.lengthOf(seen, 3)
      yield* TestClock.adjust("2 seconds")
      const last = yield* Effect.fromOption(yield* Fiber.join(fiber))
      assert.deepStrictEqual(seen.slice(3), ["DisplayChunk", "ExecutionResult"])
      assert.instanceOf(last, Execution.ExecutionResult)
      assert.strictEqual(last.text, "99%\ndone")
      // The same expression matches again.
      const again = yield* Effect.forkChild(execute("bar()"))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(again)).text, "99%\ndone")
    }).pipe(provide))

  it.effect("shows displays as a notebook, and images without files", () =>
    Effect.gen(function* () {
      const { displays } = yield* execute("live")
      assert.deepStrictEqual(displays.map(({ text }) => text), ["d"])
      const { images, text } = yield* execute("plot()")
      assert.strictEqual(text, "<Figure>")
      assert.deepStrictEqual(images.map(({ bytes, mimeType }) => [mimeType, bytes?.[1]]), [[
        "image/png",
        0x50,
      ]])
    }).pipe(provide))

  it.effect("fails as the script says", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(execute("1 / 0"))
      assert.instanceOf(error, Execution.ExecutionError)
      assert.deepStrictEqual([error.ename, error.evalue, error.partial.text], [
        "ZeroDivisionError",
        "division by zero",
        "before",
      ])
      const died = yield* Effect.flip(execute("die"))
      assert.instanceOf(died, Execution.KernelError)
      assert.strictEqual(died.reason._tag, "KernelDied")
      const dead = yield* Effect.flip(execute("die"))
      assert.instanceOf(dead, Execution.KernelError)
      assert.strictEqual(dead.reason._tag, "KernelDied")
      yield* KernelClient.KernelClient.use((kernel) => kernel.reset)
      assert.strictEqual((yield* execute("die")).text, "alive")
    }).pipe(provide))

  it.effect("names the code for which there is no script", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(execute("unknown()"))
      assert.instanceOf(error, Execution.KernelError)
      assert.strictEqual(error.reason._tag, "ExecutionAborted")
      assert.include(
        error.message,
        `No script of the test matches the code "unknown()"; there is "x = 1", "1 + 1", /bar/g, a function, "live"`,
      )
      assert.deepStrictEqual(yield* Testing.executed, ["unknown()"])
    }).pipe(provide))

  it.effect("times out with what was put out before", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(Effect.flip(execute("sleep()", { timeout: "10 seconds" })))
      yield* TestClock.adjust("10 seconds")
      const error = yield* Fiber.join(fiber)
      assert.instanceOf(error, Execution.ExecutionTimeout)
      assert.strictEqual(error.partial.text, "begun")
      assert.strictEqual((yield* execute("1 + 1")).text, "2")
    }).pipe(provide))

  it.effect("runs one execution at a time, and withdraws those that wait", () =>
    Effect.gen(function* () {
      const first = yield* Effect.forkChild(execute("sleep(1)"), { startImmediately: true })
      const second = yield* Effect.forkChild(execute("sleep(2)"), { startImmediately: true })
      const third = yield* Effect.forkChild(execute("1 + 1"), { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* Testing.executed, ["sleep(1)"])
      yield* Fiber.interrupt(second)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* Fiber.join(first)).text, "begun")
      assert.strictEqual((yield* Fiber.join(third)).text, "2")
      assert.deepStrictEqual(yield* Testing.executed, ["sleep(1)", "1 + 1"])
    }).pipe(provide))

  it.effect("can be interrupted and reset", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      yield* kernel.interrupt
      const running = yield* Effect.forkChild(Effect.flip(execute("sleep()")), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      yield* kernel.interrupt
      const interrupted = yield* Fiber.join(running)
      assert.instanceOf(interrupted, Execution.ExecutionError)
      assert.deepStrictEqual([interrupted.ename, interrupted.partial.text], ["KeyboardInterrupt", "begun"])

      const { id } = kernel
      const fibers = yield* Effect.forEach(
        ["sleep()", "1 + 1"],
        (code) => Effect.forkChild(Effect.flip(execute(code)), { startImmediately: true }),
      )
      yield* TestClock.adjust("1 second")
      yield* kernel.reset
      for (const fiber of fibers) {
        const error = yield* Fiber.join(fiber)
        assert.instanceOf(error, Execution.KernelError)
        assert.strictEqual(error.reason._tag, "ExecutionAborted")
      }
      assert.notStrictEqual(kernel.id, id)
      assert.strictEqual((yield* execute("1 + 1")).executionCount, 1)
    }).pipe(provide))

  it.effect("is usable after an endless cell that was interrupted or timed out, also of a typed value", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const endless = [
        kernel.execute("sleep()"),
        Stream.runDrain(kernel.stream("sleep()")),
        kernel.evaluate("sleep()", Schema.Int),
        kernel.call("sleep", [], { returns: Schema.Void }),
        kernel.set("sleep", 1),
        Stream.runDrain(kernel.iterate("sleep()", Schema.Int)),
        Stream.runDrain(kernel.feed("sleep", Stream.make(1), { returns: Schema.Void })),
      ]
      for (const effect of endless) {
        const running: Effect.Effect<unknown, unknown> = effect
        const fiber = yield* Effect.forkChild(running, { startImmediately: true })
        yield* TestClock.adjust("30 minutes")
        assert.isUndefined(fiber.pollUnsafe())
        yield* Fiber.interrupt(fiber)
        assert.strictEqual((yield* execute("1 + 1")).text, "2")
      }
      const late = yield* Effect.forkChild(
        Effect.flip(kernel.evaluate("sleep()", Schema.Int, { timeout: "1 minute" })),
        { startImmediately: true },
      )
      yield* TestClock.adjust("1 minute")
      const error = yield* Fiber.join(late)
      assert.instanceOf(error, Execution.ExecutionTimeout)
      assert.strictEqual(error.partial.text, "begun")
    }).pipe(provide))

  it.effect("counts a timeout from when the turn of an execution comes", () =>
    Effect.gen(function* () {
      yield* Effect.forkChild(execute("sleep()"), { startImmediately: true })
      const second = yield* Effect.forkChild(Effect.flip(execute("sleep()", { timeout: "2 minutes" })), {
        startImmediately: true,
      })
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust("2 minutes")
      assert.instanceOf(yield* Fiber.join(second), Execution.ExecutionTimeout)
    }).pipe(provide))

  it.effect("asks for input, and closes what is iterated", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const prompts: Array<string> = []
      yield* kernel.execute("ask()", {
        onInput: ({ prompt }) => Effect.sync(() => prompts.push(prompt)).pipe(Effect.as("Ada")),
      })
      assert.deepStrictEqual(prompts, ["Name? "])
      const error = yield* Effect.flip(kernel.execute("ask()"))
      assert.instanceOf(error, Execution.KernelError)
      assert.strictEqual(error.reason._tag, "InputRequested")

      const few = yield* kernel.iterate("later()", Schema.Int).pipe(Stream.take(2), Stream.runCollect)
      assert.deepStrictEqual(few, [1, 2])
    }).pipe(Effect.provide(Testing.layer([
      { match: "ask()", chunks: [{ prompt: "Name? " }] },
      {
        match: "later()",
        value: async function* () {
          yield await Promise.resolve(1)
          yield 2
        },
      },
    ]))))

  it.effect("tells which scripts there are, and which are used up", () =>
    Effect.gen(function* () {
      yield* execute("once")
      const error = yield* Effect.flip(execute("once"))
      assert.include(error.message, `matches the code "once"; there is "once" (used up), /two/i`)
      const empty = yield* Effect.flip(execute("once").pipe(Effect.provide(Testing.layer([]))))
      assert.include(empty.message, `matches the code "once"; there is none`)
    }).pipe(Effect.provide(Testing.layer([{ match: "once", times: 1 }, { match: /two/i }]))))

  it.effect("logs output of typed values without onChunk", () =>
    Effect.gen(function* () {
      const logged: Array<unknown> = []
      const logger = Logger.make(({ message }) => void logged.push(message))
      yield* Effect.gen(function* () {
        const kernel = yield* KernelClient.KernelClient
        yield* kernel.evaluate("loud", Schema.Int)
        yield* kernel.evaluate("loud", Schema.Int, { onChunk: () => Effect.void })
        yield* kernel.evaluate("quiet", Schema.Int)
      }).pipe(Effect.provide(Logger.layer([logger])))
      assert.deepStrictEqual(logged, [["told"]])
    }).pipe(Effect.provide(Testing.layer([
      { match: "loud", chunks: ["told\n"], value: 1 },
      { match: "quiet", value: 1 },
    ]))))

  it.effect("is free when the consumer of a stream ends early", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const [chunk] = yield* Stream.runCollect(Stream.take(kernel.stream("sleep()"), 1))
      assert.strictEqual(chunk?._tag, "TextChunk")
      assert.strictEqual((yield* execute("1 + 1")).text, "2")
    }).pipe(provide))

  it.effect("exchanges typed values", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      assert.strictEqual(yield* kernel.evaluate("total", Schema.Int), 42)
      assert.deepStrictEqual(yield* kernel.evaluate("when", Schema.DateFromString), epoch)
      assert.deepStrictEqual(yield* kernel.evaluate("date", Schema.DateFromString), epoch)
      assert.strictEqual((yield* Effect.flip(kernel.evaluate("total", Schema.String)))._tag, "SchemaError")
      assert.strictEqual((yield* Effect.flip(kernel.evaluate("none", Schema.String)))._tag, "KernelError")
      yield* kernel.set("x", 1)
      assert.strictEqual(yield* kernel.call("math:hypot", [3, 4], { returns: Schema.Finite }), 5)
      const squares = yield* Stream.runCollect(kernel.iterate("squares()", Schema.Int))
      assert.deepStrictEqual(squares, [1, 4, 9])
      const sums = yield* Stream.runCollect(
        kernel.feed("sum", Stream.range(1, 5), { returns: Schema.Int, batchSize: 2 }),
      )
      assert.deepStrictEqual(sums, [3, 7, 5])
    }).pipe(Effect.provide(Testing.layer([
      { match: "total", value: 42 },
      { match: "when", value: "1970-01-01T00:00:00.000Z" },
      { match: "date", value: epoch },
      { match: "x" },
      { match: "math:hypot", value: Math.hypot },
      { match: /^squares/, value: new Set([1, 4, 9]) },
      { match: "sum", value: (batch: ReadonlyArray<number>) => batch.reduce((a, b) => a + b, 0) },
    ]))))

  it.effect("has the other members that the test gives, and names those that it does not", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const error = yield* Effect.flip(kernel.complete("pri"))
      assert.include(error.message, "members.complete")
      assert.deepStrictEqual(yield* kernel.variables, [])
    }).pipe(Effect.provide(Testing.layer([], { members: { variables: Effect.succeed([]) } }))))

  it.effect("comes to the cell that takes time before the test clock is adjusted", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const fiber = yield* Effect.forkChild(Effect.gen(function* () {
        for (let i = 0; i < 10; i++) yield* kernel.execute("1 + 1")
        yield* Effect.forEach([1, 2, 3], () => kernel.execute("live"), { concurrency: 3 })
        yield* Stream.runDrain(kernel.stream("plot()"))
        yield* Effect.flip(kernel.execute("1 / 0"))
        yield* kernel.set("x", 1)
        yield* kernel.call("f", [1], { returns: Schema.Void })
        yield* Stream.runDrain(kernel.iterate("rows", Schema.Int, { batchSize: 2 }))
        yield* Stream.runDrain(kernel.feed("f", Stream.range(1, 5), { returns: Schema.Void, batchSize: 2 }))
        yield* kernel.reset
        yield* kernel.execute("sleep()")
      }))
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(fiber)
    }).pipe(Effect.provide(Testing.layer([
      ...scripts,
      { match: "x" },
      { match: "f" },
      { match: "rows", value: [1, 2, 3, 4, 5] },
    ]))))

  it.effect("tests a pipeline as the guide shows", () =>
    Effect.gen(function* () {
      const pipeline = Effect.gen(function* () {
        const kernel = yield* KernelClient.KernelClient
        yield* kernel.set("path", "prices.csv")
        yield* kernel.execute("df = load(path)", { timeout: "1 minute" }).pipe(
          Effect.tapError(() => kernel.reset),
          Effect.retry({ times: 1 }),
        )
        return yield* kernel.evaluate("df.price.mean()", Schema.Finite)
      })
      const fiber = yield* Effect.forkChild(pipeline)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* Fiber.join(fiber), 1.5)
      assert.deepStrictEqual(yield* Testing.executed, [
        "path",
        "df = load(path)",
        "df = load(path)",
        "df.price.mean()",
      ])
    }).pipe(Effect.provide(Testing.layer([
      { match: "path" },
      { match: /load/, times: 1, error: new Execution.KernelDied({ kernelId: undefined }) },
      { match: /load/, chunks: ["loading\n"], delay: "5 seconds" },
      { match: "df.price.mean()", value: 1.5 },
    ]))))
})
