/** Iterators of Python and batches: what is held back, what is closed and when, how large a message gets. */
import { assert, layer } from "@effect/vitest"
import { Effect, Schedule, Schema, Stream } from "effect"
import { KernelClient } from "../src/mod.ts"
import { kernelLayer, slow, temporary } from "./support/kernel.ts"
import { reasonOf } from "./support/outcome.ts"

const { KernelClient: Client } = KernelClient

const definitions = `
import asyncio, time

log = []

def numbers(name="numbers", pause=0):
    try:
        for n in range(1000):
            yield n
            time.sleep(pause)
    finally:
        log.append(f"closed {name}")

async def later(name="later", pause=0.0):
    try:
        for n in range(1000):
            yield n
            await asyncio.sleep(pause)
    finally:
        await asyncio.sleep(0.001)
        log.append(f"closed {name}")

class Cursor:
    """Has something to close, as the cursors of databases."""
    def __init__(self, name="cursor", end=1000):
        self.name, self.end, self.n = name, end, -1
    def __iter__(self):
        return self
    def __next__(self):
        self.n += 1
        if self.n == self.end:
            raise StopIteration
        return self.n
    def close(self):
        log.append(f"closed {self.name}")

class Feed(Cursor):
    __iter__ = None
    def __aiter__(self):
        return self
    async def __anext__(self):
        try:
            return self.__next__()
        except StopIteration:
            raise StopAsyncIteration from None
    async def aclose(self):
        await asyncio.sleep(0.001)
        log.append(f"aclosed {self.name}")

class Table:
    def __iter__(self):
        return numbers("inner")

class Wrapper:
    def __init__(self, inner):
        self.inner = inner
    def __iter__(self):
        return self.inner

def deaf(seconds):
    """Hears no interrupt for some time."""
    try:
        yield 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                time.sleep(0.1)
            except KeyboardInterrupt:
                pass
        yield 1
        yield 2
    finally:
        log.append("closed deaf")
`

const prepared = Effect.tap(Client, (kernel) => kernel.execute(definitions))

const logOf = (kernel: KernelClient.Kernel) => kernel.evaluate("log", Schema.Array(Schema.String))

layer(kernelLayer(), slow)("iterators", (it) => {
  for (const generator of ["numbers(pause=0.02)", "later(pause=0.02)"]) {
    it.effect(`elements of ${generator} are not held back until a batch is full`, () =>
      Effect.gen(function* () {
        const kernel = yield* prepared
        const sizes: Array<number> = []
        yield* kernel.iterate(generator, Schema.Int).pipe(
          Stream.take(20),
          Stream.runForEachArray((elements) => Effect.sync(() => void sizes.push(elements.length))),
        )
        // In the 50 ms that a batch may take there is room for the first of these and three pauses at most.
        for (const size of sizes) assert.isAtMost(size, 4, String(sizes))
        // It runs no further than the batch that was asked for: at most as many beyond the twentieth.
        assert.deepStrictEqual(yield* logOf(kernel), [`closed ${generator.split("(")[0]}`])
      }))
  }

  for (const generator of ["numbers()", "later()"]) {
    it.effect(`${generator} without pauses fills its batches`, () =>
      Effect.gen(function* () {
        const kernel = yield* prepared
        const sizes: Array<number> = []
        yield* kernel.iterate(
          `(n ${generator === "later()" ? "async " : ""}for n in ${generator})`,
          Schema.Int,
          {
            batchSize: 5,
          },
        ).pipe(
          Stream.runForEachArray((elements) => Effect.sync(() => void sizes.push(elements.length))),
        )
        assert.strictEqual(sizes.reduce((sum, size) => sum + size, 0), 1000)
        assert.isAtMost(Math.max(...sizes), 5)
      }))
  }

  it.effect("iterate closes an iterator that the expression creates, at the end and when the consumer ends early", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const folder = yield* temporary
      yield* kernel.set("path", `${folder}/lines`)
      yield* kernel.execute(`
class File:
    """A file that tells when it is closed."""
    def __init__(self, end):
        with open(path, "w") as file:
            file.writelines(f"{n}\\n" for n in range(end))
        self.file = open(path)
    def __iter__(self):
        return self
    def __next__(self):
        return int(next(self.file))
    def close(self):
        self.file.close()
        log.append("closed file")
`)
      for (
        const [expression, closed] of [
          ["numbers()", "closed numbers"],
          ["later()", "closed later"],
          ["Cursor()", "closed cursor"],
          ["Feed()", "aclosed cursor"],
          ["[Cursor()][0]", "closed cursor"],
          ["Table()", "closed inner"],
          ["Wrapper(Cursor())", "closed cursor"],
          ["File(1000)", "closed file"],
          ["(n for n in numbers())", "closed numbers"],
        ] as const
      ) {
        for (const count of [3, 2000]) {
          yield* kernel.execute("log.clear()")
          const elements = yield* kernel.iterate(expression, Schema.Int, { batchSize: 10 }).pipe(
            Stream.take(count),
            Stream.runCollect,
          )
          assert.strictEqual(elements.length, Math.min(count, 1000), expression)
          assert.deepStrictEqual(yield* logOf(kernel), [closed], `${expression} after ${count}`)
        }
      }
    }))

  it.effect("iterate keeps a named iterator open and continues it, unless it is a generator", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const folder = yield* temporary
      yield* kernel.set("path", `${folder}/lines`)
      yield* kernel.execute(`
with open(path, "w") as file:
    file.writelines(f"{n}\\n" for n in range(1000))
cursor = Cursor("held cursor")
feed = Feed("held feed")
file = open(path)
class Holder: pass
holder = Holder()
holder.rows = Cursor("attribute")
rows = {"a": [Cursor("item")]}
wrapper = Wrapper(Cursor("wrapped"))
lines = map(int, file)
held = numbers("held")
held_later = later("held later")
`)
      for (
        const expression of [
          " ( cursor ) # comment",
          "feed",
          "holder.rows",
          "rows['a'][0]",
          "wrapper",
          "lines",
        ]
      ) {
        const take = Stream.runCollect(
          kernel.iterate(expression, Schema.Int, { batchSize: 2 }).pipe(Stream.take(2)),
        )
        assert.deepStrictEqual(yield* take, [0, 1], expression)
        assert.deepStrictEqual(yield* take, [2, 3], expression)
      }
      assert.deepStrictEqual(yield* logOf(kernel), [])
      assert.isFalse(yield* kernel.evaluate("file.closed", Schema.Boolean))
      yield* Stream.runDrain(
        kernel.iterate("(assigned := Cursor('assigned'))", Schema.Int).pipe(Stream.take(1)),
      )
      assert.deepStrictEqual(yield* logOf(kernel), [])
      yield* kernel.execute("table = Table()")
      for (const expression of ["table", "held", "held_later"]) {
        yield* Stream.runDrain(kernel.iterate(expression, Schema.Int).pipe(Stream.take(1)))
      }
      assert.deepStrictEqual(yield* logOf(kernel), ["closed inner", "closed held", "closed held later"])
    }))

  it.effect("timeout bounds the creation of an iterator", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute(`
class Endless:
    def __iter__(self):
        while True: pass
class EndlessLater:
    def __aiter__(self):
        while True: pass
`)
      for (const expression of ["Endless()", "EndlessLater()"]) {
        const error = yield* Effect.flip(
          Stream.runDrain(kernel.iterate(expression, Schema.Int, { timeout: "300 millis" })),
        )
        assert.strictEqual(error._tag, "ExecutionTimeout", expression)
        assert.deepStrictEqual(yield* logOf(kernel), [])
      }
    }))

  it.effect("iterate fails with an exception of close after all elements", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute("class Broken(Cursor):\n    def close(self): raise ValueError('stays open')")
      const emitted: Array<number> = []
      const error = yield* kernel.iterate("Broken(end=3)", Schema.Int).pipe(
        Stream.runForEach((n) => Effect.sync(() => void emitted.push(n))),
        Effect.flip,
      )
      assert.deepStrictEqual(emitted, [0, 1, 2])
      assert.strictEqual(error._tag === "ExecutionError" ? error.evalue : error._tag, "stays open")
      assert.notInclude(error.message, "effect_jupyter")
    }))

  it.effect("iterate closes a generator when an unresponsive kernel responds again", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute(definitions)
      const error = yield* Effect.flip(
        Stream.runDrain(kernel.iterate("deaf(9)", Schema.Int, { batchSize: 1, timeout: "500 millis" })),
      )
      assert.strictEqual(
        error._tag === "SchemaError" || error._tag === "UnsupportedValue" ? error._tag : reasonOf(error),
        "KernelUnresponsive",
      )
      // Only the stream that has ended sent requests to the kernel.
      const refused = yield* Effect.flip(logOf(kernel))
      assert.strictEqual(
        refused._tag === "KernelError" ? refused.reason._tag : refused._tag,
        "KernelUnresponsive",
      )
      const closed = logOf(kernel).pipe(
        Effect.filterOrFail((log) => log.length > 0, () => "still open"),
        Effect.retry(Schedule.spaced("200 millis")),
        Effect.timeout("20 seconds"),
      )
      assert.deepStrictEqual(yield* closed, ["closed deaf"])
    }))

  it.effect("iterate and feed bound batches of large elements by bytes", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute(`
import sys
exchange = sys.modules["effect_jupyter.values.requests"].Exchange
send, sizes, batches = exchange.answer, [], []
def answer(self, content, text=b"", buffers=()):
    sizes.append(len(text) + sum(map(len, buffers)))
    return send(self, content, text, buffers)
exchange.answer = answer
def lengths(batch):
    batches.append(sum(map(len, batch)))
    return len(batch)
`)
      const megabyte = 1_000_000
      const limit = 8 * megabyte
      const rows = yield* kernel.iterate(`('é' * ${megabyte} for n in range(40))`, Schema.String).pipe(
        Stream.runFold(() => 0, (count) => count + 1),
      )
      assert.strictEqual(rows, 40)
      const sizes = yield* kernel.evaluate("sizes", Schema.Array(Schema.Int))
      assert.isAtMost(Math.max(...sizes), limit)
      yield* kernel.execute("exchange.answer = send")
      const values = [
        new Uint8Array(megabyte),
        "x".repeat(megabyte),
        { a: ["x".repeat(megabyte / 2), new Map([["k", new Uint8Array(megabyte / 2)]])] },
      ]
      for (const value of values) {
        yield* kernel.execute("batches.clear()")
        const source = Stream.range(1, 40).pipe(Stream.map(() => value))
        const counts = yield* Stream.runCollect(kernel.feed("lengths", source, { returns: Schema.Int }))
        assert.deepStrictEqual(counts, Array.from({ length: 8 }, () => 5))
      }
      const small = yield* Stream.runCollect(
        kernel.feed("lengths", Stream.make("a", "b", "c"), { returns: Schema.Int, batchBytes: 1 }),
      )
      assert.deepStrictEqual(small, [1, 1, 1])
    }))
})
