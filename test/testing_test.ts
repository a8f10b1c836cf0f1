import { assert, describe, it } from "@effect/vitest"
import { Clock, DateTime, Effect, Fiber, Logger, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Execution, KernelClient, KernelPool, Testing } from "../src/mod.ts"

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

  it.effect("execute bounds images and onChunk by its timeout, as other kernels do", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const endless = () => Effect.never
      const handlers: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        kernel.execute("plot()", { timeout: "10 seconds", images: endless }),
        kernel.evaluate("live", Schema.Unknown, { timeout: "10 seconds", onChunk: endless }),
        kernel.execute("ask()", { timeout: "10 seconds", onInput: endless }),
      ]
      for (const handler of handlers) {
        const fiber = yield* Effect.forkChild(Effect.flip(handler), { startImmediately: true })
        yield* TestClock.adjust("9 seconds")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("10 seconds")
        assert.instanceOf(yield* Fiber.join(fiber), Execution.ExecutionTimeout)
        assert.strictEqual((yield* execute("1 + 1")).text, "2")
      }
    }).pipe(Effect.provide(Testing.layer([...scripts, { match: "ask()", chunks: [{ prompt: "Name? " }] }]))))

  it.effect("execute checks options as other kernels do, and does not count typed values as cells", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const error = yield* Effect.flip(kernel.execute("1 + 1", { outputLimit: -1 }))
      assert.instanceOf(error, Execution.KernelError)
      assert.strictEqual(error.reason._tag, "InvalidOption")
      yield* kernel.evaluate("1 + 1", Schema.Unknown)
      assert.strictEqual((yield* kernel.execute("1 + 1")).executionCount, 1)
    }).pipe(provide))

  it.effect("evaluate gives values of every schema, decoded or encoded, and of what a function makes", () =>
    Effect.gen(function* () {
      class Order extends Schema.Class<Order>("Order")({ id: Schema.FiniteFromString }) {}
      const order = new Order({ id: 1 })
      const seen: Array<unknown> = []
      const made = [order, { id: "1" }, { id: 1 }, undefined]
      yield* Effect.gen(function* () {
        const kernel = yield* KernelClient.KernelClient
        assert.deepStrictEqual(yield* kernel.evaluate("decoded", Order), order)
        assert.deepStrictEqual(yield* kernel.evaluate("encoded", Order), order)
        assert.strictEqual(yield* kernel.evaluate("decoded", Schema.Unknown), order)
        assert.isNull(yield* kernel.evaluate("none", Schema.NullOr(Order)))
        const elements = yield* kernel.iterate("all", Order).pipe(
          Stream.tap((element) => Effect.sync(() => seen.push(element))),
          Stream.runDrain,
          Effect.flip,
        )
        assert.strictEqual(elements._tag, "SchemaError")
        assert.deepStrictEqual(seen, [order, order])
        const at = new Date(0)
        assert.strictEqual(
          yield* kernel.call("same", [at], { kwargs: { at }, returns: Schema.Boolean }),
          true,
        )
        const raised = yield* Effect.flip(kernel.evaluate("throws", Schema.Unknown))
        assert.instanceOf(raised, Execution.ExecutionError)
        assert.deepStrictEqual([raised.ename, raised.evalue], ["RangeError", "no"])
        const failed = yield* Effect.flip(kernel.set("f", () => 1))
        assert.strictEqual(failed._tag, "UnsupportedValue")
      }).pipe(Effect.provide(Testing.layer([
        { match: "decoded", value: order },
        { match: "encoded", value: { id: "1" } },
        { match: "none" },
        { match: "all", value: made },
        { match: "same", value: (a: Date, { at }: { at: Date }) => a === at },
        {
          match: "throws",
          value: () => {
            throw new RangeError("no")
          },
        },
      ])))
    }))

  it.effect("iterate emits what comes before a failure, and pulls in executions of their own", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const seen: Array<number> = []
      const error = yield* kernel.iterate("rows", Schema.Int, { batchSize: 2 }).pipe(
        Stream.tap((row) => Effect.sync(() => seen.push(row))),
        Stream.runDrain,
        Effect.flip,
      )
      assert.instanceOf(error, Execution.ExecutionError)
      assert.deepStrictEqual([error.ename, seen], ["ValueError", [1, 2, 3]])
      const refused = yield* Effect.flip(Stream.runDrain(kernel.iterate("number", Schema.Int)))
      assert.instanceOf(refused, Execution.ExecutionError)
      assert.strictEqual(refused.evalue, "'number' object is not iterable")
      assert.deepStrictEqual(yield* Testing.executed, ["rows", "number"])
    }).pipe(Effect.provide(Testing.layer([
      { match: "rows", value: [1, 2, 3], error: { ename: "ValueError" } },
      { match: "number", value: 1 },
    ]))))

  it.effect("a kernel that died fails what is asked beside executions, and is closed with its scope", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      yield* Effect.flip(kernel.execute("die"))
      const failures = yield* Effect.all([
        Effect.flip(kernel.complete("x")),
        Effect.flip(kernel.interrupt),
        Effect.flip(kernel.evaluate("1 + 1", Schema.Unknown)),
      ])
      for (const failure of failures) {
        assert.instanceOf(failure, Execution.KernelError)
        assert.strictEqual(failure.reason._tag, "KernelDied")
      }
      return kernel
    }).pipe(
      provide,
      Effect.flatMap((kernel) => Effect.flip(kernel.execute("1 + 1"))),
      Effect.map((error) => assert.include(error.message, "closed")),
    ))
})

describe("Testing.layerPool", () => {
  const use = <A, E>(f: (kernel: KernelClient.Kernel) => Effect.Effect<A, E>) =>
    Effect.scoped(Effect.flatMap(KernelPool.KernelPool, ({ get }) => Effect.flatMap(get, f)))

  it.effect("get hands out kernels at once, which share scripts and record", () =>
    Effect.gen(function* () {
      const texts = yield* Effect.all(
        Array.from({ length: 3 }, () =>
          use((kernel) => Effect.zip(Effect.sync(() => kernel.id), kernel.execute("1 + 1")))),
        { concurrency: "unbounded" },
      )
      assert.deepStrictEqual(
        texts.map(([, { text }]) =>
          text
        ),
        ["2", "2", "2"],
      )
      assert.strictEqual(new Set(texts.map(([id]) => id)).size, 3)
      assert.lengthOf(yield* Testing.executed, 3)
      const pool = yield* KernelPool.KernelPool
      const { busy, gateways } = yield* pool.state
      assert.deepStrictEqual([busy, gateways.length], [0, 1])
    }).pipe(Effect.provide(Testing.layerPool(scripts))))

  it.effect("get waits within the limits of the pool", () =>
    Effect.gen(function* () {
      const running = yield* Effect.forkChild(use((kernel) => kernel.execute("sleep()")), {
        startImmediately: true,
      })
      yield* TestClock.adjust("1 second")
      const waiting = yield* Effect.forkChild(use((kernel) => kernel.execute("1 + 1")), {
        startImmediately: true,
      })
      yield* TestClock.adjust("1 second")
      const refused = yield* Effect.flip(use(() => Effect.void))
      assert.strictEqual(refused.reason._tag, "KernelStartFailed")
      yield* Fiber.interrupt(running)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(waiting)).text, "2")
    }).pipe(Effect.provide(Testing.layerPool(scripts, { size: 1, maxWaiting: 1 }))))

  it.effect("the pool closes while a kernel waits for its deletion, although the clock stands still", () =>
    Effect.gen(function* () {
      const start = yield* Clock.currentTimeMillis
      yield* Effect.gen(function* () {
        yield* use((kernel) => kernel.execute("1 + 1"))
        // The deletion begins and pauses.
        yield* TestClock.adjust(0)
      }).pipe(Effect.provide(Testing.layerPool(scripts)))
      assert.strictEqual(yield* Clock.currentTimeMillis, start)
    }))

  it.effect("reset replaces a kernel that died by another of the pool", () =>
    use((kernel) =>
      Effect.gen(function* () {
        const { id } = kernel
        yield* Effect.flip(kernel.execute("die"))
        yield* kernel.reset
        assert.notStrictEqual(kernel.id, id)
        assert.strictEqual((yield* kernel.execute("die")).text, "alive")
        assert.deepStrictEqual(yield* kernel.variables, [])
      })
    ).pipe(Effect.provide(Testing.layerPool(scripts, { members: { variables: Effect.succeed([]) } }))))
})
