/** Iterables of Python as Streams, and Streams that Python is fed with. */
import { assert, layer } from "@effect/vitest"
import { Clock, DateTime, Effect, Exit, Fiber, Schema, Scope, Stream } from "effect"
import { type Execution, KernelClient } from "../src/mod.ts"
import { kernelLayer, slow } from "./support/kernel.ts"
import { reasonOf, timed } from "./support/outcome.ts"

const { KernelClient: Client } = KernelClient

const definitions = `
import asyncio, time
yielded, closed = 0, 0

def numbers(pause=0, fail_at=None):
    global yielded, closed
    yielded = 0
    try:
        while yielded != fail_at:
            yielded += 1
            yield yielded
            time.sleep(pause)
        raise ValueError("enough")
    finally:
        closed += 1

async def later(pause=0.001, fail_at=None):
    global yielded, closed
    yielded = 0
    try:
        while yielded != fail_at:
            yielded += 1
            yield yielded
            await asyncio.sleep(pause)
        raise ValueError("enough")
    finally:
        await asyncio.sleep(0.001)
        closed += 1

class Countdown:
    def __iter__(self):
        return iter([3, 2, 1])
`

const prepared = Effect.tap(Client, (kernel) => kernel.execute(`${definitions}\nclosed = 0`))

/** The elements that a stream emits before it fails, and the failure. */
const toFailure = <A, E>(stream: Stream.Stream<A, E>) =>
  Effect.suspend(() => {
    const emitted: Array<A> = []
    return stream.pipe(
      Stream.runForEach((element) => Effect.sync(() => void emitted.push(element))),
      Effect.flip,
      Effect.map((error) => [emitted, error] as const),
    )
  })

layer(kernelLayer(), slow)("iterate", (it) => {
  it.effect("iterate accepts iterables and generators, asynchronous ones included", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const all = (expression: string) => Stream.runCollect(kernel.iterate(expression, Schema.Int))
      assert.deepStrictEqual(yield* all("[1, 2, 3]"), [1, 2, 3])
      assert.deepStrictEqual(yield* all("[]"), [])
      assert.deepStrictEqual(yield* all("Countdown()"), [3, 2, 1])
      assert.strictEqual((yield* all("range(10_001)")).length, 10_001)
      assert.deepStrictEqual(
        yield* Stream.runCollect(kernel.iterate("later()", Schema.Int).pipe(Stream.take(3))),
        [1, 2, 3],
      )
      assert.deepStrictEqual(
        yield* Stream.runCollect(
          kernel.iterate("{'a': 1}.items()", Schema.Tuple([Schema.String, Schema.BigInt])),
        ),
        [["a", 1n]],
      )
    }))

  for (const generator of ["numbers()", "later()"]) {
    it.effect(`${generator} runs a batch ahead and no further, and is closed when the consumer ends early`, () =>
      Effect.gen(function* () {
        const kernel = yield* prepared
        const count = (name: string) => kernel.evaluate(name, Schema.Int)
        const seen: Array<readonly [number, number]> = []
        yield* kernel.iterate(generator, Schema.Int, { batchSize: 10 }).pipe(
          Stream.take(25),
          // Other executions come in between.
          Stream.runForEach((n) => Effect.map(count("yielded"), (yielded) => void seen.push([n, yielded]))),
        )
        assert.deepStrictEqual(seen.map(([n]) => n), Array.from({ length: 25 }, (_, index) => index + 1))
        for (const [n, yielded] of seen) assert.isAtMost(yielded, n + 9, `${yielded} at ${n}`)
        assert.strictEqual(yield* count("closed"), 1)
        assert.strictEqual(yield* count("yielded"), seen.at(-1)?.[1])
        assert.strictEqual(
          yield* kernel.evaluate(
            "len(__import__('sys').modules['effect_jupyter.values.requests'].iterators)",
            Schema.Int,
          ),
          0,
        )
      }))
  }

  for (const generator of ["numbers(fail_at=25)", "later(fail_at=25)"]) {
    it.effect(`${generator} fails after what it yielded`, () =>
      Effect.gen(function* () {
        const kernel = yield* prepared
        const [emitted, error] = yield* toFailure(kernel.iterate(generator, Schema.Int, { batchSize: 10 }))
        assert.deepStrictEqual(emitted, Array.from({ length: 25 }, (_, index) => index + 1))
        assert.deepInclude({ ...error }, { _tag: "ExecutionError", ename: "ValueError", evalue: "enough" })
        assert.notInclude(error.message, "effect_jupyter")
        assert.strictEqual(yield* kernel.evaluate("closed", Schema.Int), 1)
      }))
  }

  it.effect("iterate emits elements before one that the schema refuses or that has no encoding", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const [ints, schema] = yield* toFailure(
        kernel.iterate("(n if n != 3 else 'x' for n in numbers())", Schema.Int),
      )
      assert.deepStrictEqual([ints, schema._tag], [[1, 2], "SchemaError"])
      assert.strictEqual(yield* kernel.evaluate("closed", Schema.Int), 1)
      const [values, unsupported] = yield* toFailure(
        kernel.iterate(
          "({'n': n if n != 3 else object()} for n in range(9))",
          Schema.Struct({ n: Schema.Int }),
        ),
      )
      assert.deepStrictEqual(values, [{ n: 0 }, { n: 1 }, { n: 2 }])
      assert.deepInclude({ ...unsupported }, {
        _tag: "UnsupportedValue",
        path: "$[3].n",
        valueType: "object",
      })
      const [none, error] = yield* toFailure(kernel.iterate("5", Schema.Int))
      assert.deepStrictEqual([none, error._tag === "ExecutionError" ? error.ename : error._tag], [
        [],
        "TypeError",
      ])
    }))

  it.effect("iterate emits elements of a slow generator before a batch is full", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const begun = yield* Clock.currentTimeMillis
      const times: Array<number> = []
      yield* kernel.iterate("numbers(pause=0.5)", Schema.Int).pipe(
        Stream.take(4),
        Stream.runForEach(() => Effect.map(Clock.currentTimeMillis, (now) => void times.push(now - begun))),
      )
      const [first = NaN, , , last = NaN] = times
      assert.isAbove(last - first, 900)
    }))

  it.effect("timeout bounds each batch of iterate, and earlier elements are emitted", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const stuck = "(n if n < 5 else time.sleep(60) for n in range(9))"
      const [[emitted, error], time] = yield* timed(
        toFailure(kernel.iterate(stuck, Schema.Int, { timeout: "1 second", batchSize: 2 })),
      )
      assert.deepStrictEqual([emitted, error._tag], [[0, 1, 2, 3, 4], "ExecutionTimeout"])
      assert.isBelow(time, 8000)
      assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
    }))

  it.effect("iterate interrupts Python and closes the generator when the consumer is interrupted", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      for (const expression of ["numbers(pause=60)", "later(pause=60)"]) {
        const fiber = yield* Effect.forkChild(
          Stream.runDrain(kernel.iterate(expression, Schema.Int, { batchSize: 2 })),
          { startImmediately: true },
        )
        yield* Effect.sleep("1 second")
        const [, time] = yield* timed(Fiber.interrupt(fiber))
        assert.isBelow(time, 5000)
      }
      assert.strictEqual(yield* kernel.evaluate("closed", Schema.Int), 2)
    }))

  it.effect("iterate leaves an idle kernel and no iterator when interrupted at any moment", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      for (const delay of [0, 1, 2, 5, 10, 20, 35, 50, 80, 120]) {
        for (const expression of ["numbers()", "later()", "[bytes(1_000_000)] * 10**6"]) {
          const fiber = yield* Effect.forkChild(Stream.runDrain(kernel.iterate(expression, Schema.Unknown)), {
            startImmediately: true,
          })
          yield* Effect.sleep(delay)
          const [, time] = yield* timed(Fiber.interrupt(fiber))
          assert.isBelow(time, 10_000, `${expression} after ${delay} ms`)
        }
      }
      const left = "len(__import__('sys').modules['effect_jupyter.values.requests'].iterators)"
      assert.strictEqual(yield* kernel.evaluate(left, Schema.Int), 0)
    }))

  it.effect("iterate waits for a generator that does not close within a bound", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute(
        "import time\ndef stubborn():\n    try:\n        yield 1\n        yield 2\n    finally:\n        time.sleep(60)",
      )
      const stream = kernel.iterate("stubborn()", Schema.Int, { batchSize: 1 }).pipe(Stream.take(1))
      const [, time] = yield* timed(Stream.runDrain(stream))
      assert.isBelow(time, 9000)
      assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
    }))

  it.effect("iterate fails after a reset, with the reason", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const failure = yield* kernel.iterate("iter(range(100))", Schema.Int, { batchSize: 5 }).pipe(
        Stream.runForEach((n) => n === 4 ? kernel.reset : Effect.void),
        Effect.flip,
      )
      assert.deepInclude(
        ["ExecutionAborted"],
        failure._tag === "KernelError" ? failure.reason._tag : failure._tag,
      )
      assert.include(failure.message, "iterators are gone")
      assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
    }))

  it.effect("iterate ends when the client closes", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const kernel = yield* Scope.provide(KernelClient.make(), scope)
      const failure = yield* kernel.iterate("iter(int, 1)", Schema.Int, { batchSize: 5 }).pipe(
        Stream.runForEach(() => Scope.close(scope, Exit.void)),
        Effect.flip,
      )
      assert.strictEqual(
        failure._tag === "SchemaError" || failure._tag === "UnsupportedValue"
          ? failure._tag
          : reasonOf(failure),
        "ExecutionAborted",
      )
    }))

  it.effect("iterate supports two iterators of one kernel, with batches bounded by bytes", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const pairs = yield* kernel.iterate("range(3000)", Schema.Int).pipe(
        Stream.zip(kernel.iterate("(-n for n in range(3000))", Schema.Int)),
        Stream.runCollect,
      )
      assert.strictEqual(pairs.length, 3000)
      for (const [a, b] of pairs) assert.strictEqual(a + b, 0)
      const lengths = yield* kernel.iterate("(bytes(1_000_000) for n in numbers())", Schema.Uint8Array, {
        batchBytes: 2_500_000,
      }).pipe(Stream.map((bytes) => bytes.length), Stream.take(2), Stream.runCollect)
      assert.deepStrictEqual(lengths, [1_000_000, 1_000_000])
      assert.strictEqual(yield* kernel.evaluate("yielded", Schema.Int), 3)
    }))

  it.effect("iterate and feed pass output to onChunk as it arrives", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const chunks: Array<Execution.Chunk> = []
      yield* kernel.iterate("(print(n) or n for n in range(4))", Schema.Int, {
        batchSize: 2,
        onChunk: (chunk) => Effect.sync(() => void chunks.push(chunk)),
      }).pipe(Stream.runDrain)
      const said = chunks.map((chunk) => chunk._tag === "TextChunk" ? chunk.text : "").join("")
      assert.strictEqual(said, "0\n1\n2\n3\n")
    }))
})

layer(kernelLayer(), slow)("feed", (it) => {
  const sums = "batches = []\ndef add(batch):\n    batches.append(len(batch))\n    return sum(batch)"

  it.effect("feed calls a function for each batch and emits the results", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.execute(sums)
      const returned = yield* Stream.runCollect(
        kernel.feed("add", Stream.range(1, 25), { returns: Schema.BigInt, batchSize: 10 }),
      )
      assert.deepStrictEqual(returned, [55n, 155n, 115n])
      assert.deepStrictEqual(yield* kernel.evaluate("batches", Schema.Array(Schema.Int)), [10, 10, 5])
    }))

  it.effect("feed pulls the next batch when the function has returned", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.execute(sums)
      let pulled = 0
      const source = Stream.range(1, 1000).pipe(
        Stream.rechunk(1),
        Stream.tap(() => Effect.sync(() => void pulled++)),
      )
      const ahead: Array<number> = []
      yield* kernel.feed("add", source, { returns: Schema.Int, batchSize: 10 }).pipe(
        Stream.runForEach(() => Effect.sync(() => void ahead.push(pulled))),
      )
      ahead.forEach((pulled, index) => assert.isAtMost(pulled, (index + 1) * 10))
    }))

  it.effect("feed encodes elements by their schema, and failures of both sides are typed", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.execute("def names(batch):\n    return [type(row['at']).__name__ for row in batch]")
      const Row = Schema.Struct({ at: Schema.DateTimeUtcFromDate })
      const rows = Stream.succeed({ at: yield* DateTime.now })
      assert.deepStrictEqual(
        yield* Stream.runCollect(
          kernel.feed("names", rows, { returns: Schema.Array(Schema.String), schema: Row }),
        ),
        [["datetime"]],
      )
      const options = { returns: Schema.Void, batchSize: 1 }
      assert.strictEqual(
        yield* Effect.flip(Stream.runDrain(kernel.feed("names", Stream.fail("mine"), options))),
        "mine",
      )
      const error = yield* Effect.flip(
        Stream.runDrain(kernel.feed("names", Stream.make({ at: 1 }, {}), options)),
      )
      assert.deepInclude(Object(error), { _tag: "ExecutionError", ename: "KeyError" })
    }))
})
