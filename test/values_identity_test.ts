// @effect-diagnostics globalDate:off schemaNumber:off
/** Values that go to Python and come back as they were. */
import { assert, layer } from "@effect/vitest"
import { Arbitrary, DateTime, Duration, Effect, Schema } from "effect"
import { inspect } from "node:util"
import { KernelClient, Values } from "../src/mod.ts"
import * as Any from "./support/arbitrary.ts"
import { kernelLayer, slow } from "./support/kernel.ts"
import { utc } from "./support/values.ts"

const { KernelClient: Client } = KernelClient

layer(kernelLayer(), slow)("there and back", (it) => {
  it.effect("TypeScript → Python → TypeScript is the identity", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const Micros = Schema.Int.check(Schema.isBetween({ minimum: -1e15, maximum: 1e15 }))
      const Text = Schema.String
      const schemas: ReadonlyArray<Schema.Codec<unknown, unknown>> = [
        Schema.Null,
        Schema.Boolean,
        Schema.Int,
        Schema.Number,
        Schema.BigInt,
        Text,
        Schema.Uint8Array,
        Schema.Array(Schema.Array(Schema.Number)),
        Schema.Tuple([Text, Schema.BigInt]),
        Schema.Record(Text, Schema.Union([Schema.BigInt, Text, Schema.Null])),
        Schema.ReadonlyMap(Schema.Int, Text),
        Schema.ReadonlyMap(Text, Schema.Uint8Array),
        Schema.HashMap(Text, Schema.Int),
        Schema.ReadonlySet(Text),
        Schema.HashSet(Schema.Int),
        Schema.Option(Schema.Int),
        Schema.Chunk(Text),
        Schema.BigDecimal,
        Schema.Json,
        Schema.Struct({
          a: Schema.optionalKey(Schema.Number),
          b: Schema.Option(Schema.BigInt),
        }),
      ]
      const moments: ReadonlyArray<Arbitrary.Arbitrary<unknown>> = [
        Arbitrary.schema(Micros).pipe(Arbitrary.map((n) => Duration.nanos(BigInt(n) * 1000n))),
        Arbitrary.schema(Micros).pipe(
          Arbitrary.map((n) =>
            utc("2000-01-01T00:00:00Z").pipe(DateTime.add({ milliseconds: Math.trunc(n / 100) }))
          ),
        ),
      ]
      let count = 0
      for (const schema of schemas) {
        const values = yield* Arbitrary.sampleEffect(Arbitrary.schema(schema), { count: 200 })
        yield* kernel.set("values", values, { schema: Schema.Array(schema) })
        const back = yield* kernel.evaluate("values", Schema.Array(schema))
        const same = Schema.toEquivalence(schema)
        values.forEach((value, index) =>
          assert.isTrue(same(value, back[index]), `${inspect(value)} became ${inspect(back[index])}`)
        )
        count += back.length
      }
      const texts = yield* Arbitrary.sampleEffect(Any.text, { count: 300 })
      yield* kernel.set("values", texts)
      assert.deepStrictEqual(yield* kernel.evaluate("values", Schema.Unknown), texts)
      const spans = yield* Arbitrary.sampleEffect(moments[0] ?? Any.text, { count: 200 })
      yield* kernel.set("values", spans)
      const backSpans = yield* kernel.evaluate("values", Schema.Array(Schema.Duration))
      assert.deepStrictEqual(
        backSpans.map(Duration.toNanos),
        spans.map((span) => Duration.isDuration(span) ? Duration.toNanos(span) : assert.fail()),
      )
      const times = yield* Arbitrary.sampleEffect(moments[1] ?? Any.text, { count: 200 })
      yield* kernel.set("values", times)
      assert.deepStrictEqual(yield* kernel.evaluate("values", Schema.Array(Schema.DateTimeUtc)), times)
      assert.strictEqual(count, schemas.length * 200)
    }))

  it.effect("numbers by the thousand: typed arrays, NumPy arrays of any shape", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const halves = Float64Array.from({ length: 10_000 }, (_, n) => n / 2)
      yield* kernel.set("halves", halves)
      // NumPy is never imported because of us.
      assert.strictEqual(yield* kernel.evaluate("type(halves).__name__", Schema.String), "array")
      assert.isFalse(yield* kernel.evaluate("'numpy' in __import__('sys').modules", Schema.Boolean))
      assert.deepStrictEqual(yield* kernel.evaluate("halves", Schema.instanceOf(Float64Array)), halves)
      yield* kernel.execute("import numpy as np")
      const arrays = [
        halves,
        Float32Array.of(1.5, NaN),
        Int8Array.of(-1),
        Int16Array.of(-2),
        Int32Array.of(-3),
        BigInt64Array.of(-4n),
        Uint16Array.of(5),
        Uint32Array.of(6),
        BigUint64Array.of(2n ** 64n - 1n),
      ]
      yield* kernel.set("arrays", arrays)
      assert.deepStrictEqual(
        yield* kernel.evaluate("[type(a).__name__ + str(a.dtype) for a in arrays][:3]", Schema.Unknown),
        ["ndarrayfloat64", "ndarrayfloat32", "ndarrayint8"],
      )
      assert.deepStrictEqual(yield* kernel.evaluate("arrays", Schema.Unknown), arrays)
      const matrix = new Values.NdArray(Float64Array.of(1, 2, 3, 4, 5, 6), [3, 2])
      yield* kernel.set("m", matrix)
      assert.deepStrictEqual(yield* kernel.evaluate("m", Schema.instanceOf(Values.NdArray)), matrix)
      const Matrix = Schema.Array(Schema.Array(Schema.Finite))
      assert.deepStrictEqual(yield* kernel.evaluate("m.T", Matrix), [[1, 3, 5], [2, 4, 6]])
      assert.deepStrictEqual(
        yield* kernel.evaluate("np.arange(24).reshape(2, 3, 4)[1, 2]", Schema.Array(Schema.BigInt)),
        [20n, 21n, 22n, 23n],
      )
      assert.deepStrictEqual(
        yield* kernel.evaluate(
          "np.int64(1), np.float32(0.5), np.bool_(True), np.str_('s'), np.datetime64('2026-01-01T00:00'), " +
            "np.timedelta64(1, 's'), np.array(['2026-01-01'], 'M8[D]'), np.array([True, False]), np.array(['a', None]), " +
            "np.ma.array([1, 2], mask=[True, False]), np.array([(1, 'x')], [('n', 'i4'), ('t', 'U1')]), np.float16(1)",
          Schema.Tuple([
            Schema.Int,
            Schema.Finite,
            Schema.Boolean,
            Schema.String,
            Schema.DateTimeUtc,
            Schema.Duration,
            Schema.Array(Schema.String),
            Schema.Array(Schema.Boolean),
            Schema.Array(Schema.NullOr(Schema.String)),
            Schema.Array(Schema.NullOr(Schema.Int)),
            Schema.Array(Schema.Struct({ n: Schema.Int, t: Schema.String })),
            Schema.Finite,
          ]),
        ),
        [
          1,
          0.5,
          true,
          "s",
          utc("2026-01-01T00:00:00Z"),
          Duration.seconds(1),
          ["2026-01-01"],
          [true, false],
          [
            "a",
            null,
          ],
          [null, 2],
          [{ n: 1, t: "x" }],
          1,
        ],
      )
      const complex = yield* Effect.flip(kernel.evaluate("{'z': np.array([1j])}", Schema.Unknown))
      assert.strictEqual(complex._tag === "UnsupportedValue" ? complex.path : complex._tag, "$.z")
    }))
})
