// @effect-diagnostics globalDate:off
import { assert, it } from "@effect/vitest"
import { BigDecimal, Chunk, DateTime, Duration, Effect, HashMap, HashSet, Option, Stream } from "effect"
import { batched } from "../../src/values/batches.ts"

const lengths = <A, E>(
  stream: Stream.Stream<A, E>,
  options: { readonly batchSize?: number; readonly batchBytes?: number },
) => Stream.runCollect(Stream.map(batched(stream, options), (batch) => batch.length))

it.effect("batched ends a batch with the element that fills it, by count or by bytes", () =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* lengths(Stream.range(1, 25), { batchSize: 10 }), [10, 10, 5])
    assert.deepStrictEqual(yield* lengths(Stream.range(1, 4).pipe(Stream.rechunk(1)), { batchSize: 2 }), [
      2,
      2,
    ])
    assert.deepStrictEqual(yield* lengths(Stream.empty, {}), [])
    const text = "x".repeat(1000)
    const values = [
      text,
      new Uint8Array(1000),
      new ArrayBuffer(1000),
      [text],
      { a: { b: text } },
      { [text]: 1 },
      new Map([["a", text]]),
      new Set([text]),
      Chunk.of(text),
      HashMap.make(["a", text]),
      Array.from({ length: 200 }, (_, n) => n),
    ]
    for (const value of values) {
      const rows = Stream.range(1, 10).pipe(Stream.map(() => value))
      const [first = 0, ...rest] = yield* lengths(rows, { batchBytes: 5000 })
      assert.isAtLeast(first, 2)
      assert.isAtMost(first, 5)
      assert.strictEqual(rest.reduce((sum, length) => sum + length, first), 10)
    }
  }))

it.effect("batched estimates small values of Effect as less than 1,000 bytes", () =>
  Effect.gen(function* () {
    const values = [
      BigDecimal.fromStringUnsafe("1.50"),
      Chunk.of(1),
      DateTime.makeUnsafe(0),
      DateTime.makeZonedUnsafe(0, { timeZone: "Asia/Tokyo" }),
      Duration.millis(1),
      HashMap.make(["a", 1]),
      HashSet.make(1),
      Option.some(1),
      new Date(0),
      1n,
    ]
    for (const value of values) {
      const rows = Stream.range(1, 100).pipe(Stream.map(() => value))
      assert.deepStrictEqual(yield* lengths(rows, { batchBytes: 100_000 }), [100], String(value))
    }
  }))

it.effect("batched estimates values with cycles and getters that throw", () =>
  Effect.gen(function* () {
    const cycle: Array<unknown> = []
    cycle.push(cycle, "x".repeat(1000))
    const raising = Object.defineProperty({}, "a", {
      enumerable: true,
      get: () => {
        throw new Error("no a")
      },
    })
    assert.deepStrictEqual(yield* lengths(Stream.make(cycle, raising, raising), { batchBytes: 1000 }), [1, 2])
  }))

it.effect("batched emits elements before a failure", () =>
  Effect.gen(function* () {
    const emitted: Array<ReadonlyArray<number>> = []
    const failure = yield* batched(Stream.concat(Stream.range(1, 5), Stream.fail("mine")), { batchSize: 3 })
      .pipe(
        Stream.runForEach((batch) => Effect.sync(() => void emitted.push(batch))),
        Effect.flip,
      )
    assert.strictEqual(failure, "mine")
    assert.deepStrictEqual(emitted, [[1, 2, 3], [4, 5]])
  }))
