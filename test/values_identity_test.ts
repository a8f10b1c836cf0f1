// @effect-diagnostics globalDate:off schemaNumber:off
/** Values that go to Python and come back as they were. */
import { assert, layer } from "@effect/vitest"
import { Arbitrary, BigDecimal, DateTime, Duration, Effect, Schema, Stream } from "effect"
import { inspect } from "node:util"
import { KernelClient, Values } from "../src/mod.ts"
import * as Any from "./support/arbitrary.ts"
import { kernelLayer, slow } from "./support/kernel.ts"
import { utc } from "./support/values.ts"

const { KernelClient: Client } = KernelClient

const Text = Schema.String

/** Microseconds: what a `timedelta` counts in. */
const micros = Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: -1e15, maximum: 1e15 })))

/** Milliseconds of the years from 1 to 9999, those of `datetime`. */
const millis = Arbitrary.schema(
  Schema.Int.check(Schema.isBetween({ minimum: -62_135_000_000_000, maximum: 253_402_000_000_000 })),
)

const zones = Arbitrary.schema(Schema.Literals(["UTC", "Europe/Berlin", "Asia/Kolkata", "+05:30", "-03:00"]))

class Account extends Schema.Class<Account>("Account")({
  id: Schema.BigInt,
  owner: Schema.Struct({ name: Text, keys: Schema.ReadonlyMap(Text, Schema.Uint8Array) }),
  balance: Schema.BigDecimal,
  note: Schema.OptionFromNullOr(Text),
}) {}

interface Tree {
  readonly value: bigint
  readonly children: ReadonlyArray<Tree>
}
const Tree: Schema.Codec<Tree> = Schema.Struct({
  value: Schema.BigInt,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree)),
})

type Codec = Schema.Codec<unknown, unknown>

/** Whatever a schema has values of; for some only those that Python has, too. */
const kinds: ReadonlyArray<readonly [schema: Codec, values?: Arbitrary.Arbitrary<unknown>]> = [
  [Schema.Null],
  [Schema.Undefined],
  [Schema.Boolean],
  [Schema.Int],
  [Schema.Number],
  [Schema.BigInt],
  [Text],
  [Text, Any.text],
  [Schema.Literals(["a", 1, true, 2n])],
  [Schema.Enum({ A: "a", B: 2 })],
  [Schema.Uint8Array],
  [Schema.Array(Schema.Array(Schema.Number))],
  [Schema.NonEmptyArray(Schema.NullOr(Schema.Boolean))],
  [Schema.Tuple([Text, Schema.BigInt])],
  [Schema.TupleWithRest(Schema.Tuple([Text]), [Schema.Int, Schema.Boolean])],
  [Schema.Record(Text, Schema.Union([Schema.BigInt, Text, Schema.Null]))],
  [Schema.Record(Text, Schema.Record(Text, Schema.Array(Schema.BigInt)))],
  [Schema.ReadonlyMap(Schema.Int, Text)],
  [Schema.ReadonlyMap(Text, Schema.Uint8Array)],
  [Schema.ReadonlyMap(Schema.Tuple([Text, Schema.Int]), Schema.Option(Text))],
  [Schema.HashMap(Text, Schema.Int)],
  [Schema.ReadonlySet(Text)],
  [Schema.HashSet(Schema.Int)],
  [Schema.Option(Schema.Int)],
  [Schema.Chunk(Text)],
  [Schema.BigDecimal],
  [Schema.Json],
  [Schema.Struct({ a: Schema.optionalKey(Schema.Number), b: Schema.Option(Schema.BigInt) })],
  [Schema.Struct({
    a: Schema.optionalKey(Schema.NullOr(Text)),
    "": Schema.Int,
    "a b": Schema.UndefinedOr(Text),
  })],
  [Schema.Union([
    Schema.TaggedStruct("Bytes", { value: Schema.Uint8Array }),
    Schema.TaggedStruct("Whole", { value: Schema.BigInt }),
    Schema.TaggedStruct("Text", { value: Text }),
  ])],
  [Account],
  [Tree],
  [Schema.Redacted(Text)],
  [Schema.Result(Schema.BigInt, Text)],
  [Schema.Duration, Arbitrary.map(micros, (n) => Duration.nanos(BigInt(n) * 1000n))],
  [Schema.DateTimeUtc, Arbitrary.map(millis, (n) => DateTime.makeUnsafe(n))],
  [Schema.Date, Arbitrary.map(millis, (n) => new Date(n))],
  [
    Schema.DateTimeZoned,
    Arbitrary.map(
      Arbitrary.all([millis, zones]),
      ([n, timeZone]) => DateTime.makeZonedUnsafe(n, { timeZone }),
    ),
  ],
  [
    Schema.ReadonlyMap(Schema.DateTimeUtc, Schema.Duration),
    Arbitrary.map(millis, (n) => new Map([[DateTime.makeUnsafe(n), Duration.millis(n)]])),
  ],
]

/** Values that a schema must not be asked for: they are there in each run. */
const edges: ReadonlyArray<readonly [schema: Codec, values: ReadonlyArray<unknown>]> = [
  [Schema.Number, [
    0,
    -0,
    NaN,
    Infinity,
    -Infinity,
    5e-324,
    1.7976931348623157e308,
    2 ** 53,
    -(2 ** 53),
    1e21,
    0.1,
  ]],
  [Schema.Unknown, [0, -0, NaN, Infinity, -Infinity, 2 ** 53 - 1, 1.5, null, true, "", "nan", []]],
  [Schema.BigInt, [0n, 2n ** 53n, -(2n ** 53n) - 1n, 2n ** 63n, 2n ** 64n, -(2n ** 64n), 2n ** 4000n]],
  [Text, ["", "\0", "\ud800", "\udc00\ud800", "\ufeff", "😀", "\u2028", '{"$":"bytes","v":1}']],
  [Schema.Uint8Array, [new Uint8Array(), Uint8Array.of(0, 255), new Uint8Array(70_000).fill(7)]],
  [Schema.Record(Text, Schema.Unknown), [
    JSON.parse('{"__proto__": {"a": 1}, "constructor": 2, "": 3, "10": 4, "9": 5, "toJSON": 6}'),
    { $: "bytes", v: 1 },
  ]],
  [
    Schema.BigDecimal,
    ["0", "-0.00", "1e500", "1e-500", "123456789012345678901234567890.5"].map(BigDecimal.fromStringUnsafe),
  ],
  [Schema.Duration, [Duration.zero, Duration.days(-1), Duration.nanos(1000n), Duration.weeks(1_000_000)]],
  [
    Schema.Date,
    ["0001-01-02T00:00:00Z", "1969-12-31T23:59:59.999Z", "9999-12-30T00:00:00Z"].map((iso) => new Date(iso)),
  ],
  [Schema.ReadonlySet(Schema.Unknown), [new Set(), new Set([NaN]), new Set([null]), new Set([["a", 1]])]],
  [Schema.ReadonlyMap(Schema.Unknown, Schema.Unknown), [
    new Map(),
    new Map<unknown, unknown>([[null, 1], [1.5, null]]),
  ]],
]

layer(kernelLayer(), slow)("there and back", (it) => {
  it.effect("set and evaluate are the identity on any value of a schema", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const [schema, arbitrary = Arbitrary.schema(schema)] of kinds) {
        const values = yield* Arbitrary.sampleEffect(arbitrary, { count: 200 })
        yield* kernel.set("values", values, { schema: Schema.Array(schema) })
        const back = yield* kernel.evaluate("values", Schema.Array(schema))
        const same = Schema.toEquivalence(schema)
        assert.lengthOf(back, 200)
        values.forEach((value, index) =>
          assert.isTrue(same(value, back[index]), `${inspect(value)} became ${inspect(back[index])}`)
        )
      }
    }))

  it.effect("set, evaluate, feed and iterate are the identity on limits of types", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const [schema, values] of edges) {
        yield* kernel.set("values", values, { schema: Schema.Array(schema) })
        assert.deepStrictEqual(yield* kernel.evaluate("values", Schema.Array(schema)), values)
        const echoed = kernel.feed("list", Stream.fromIterable(values), {
          schema,
          returns: Schema.Array(schema),
          batchSize: 2,
        })
        assert.deepStrictEqual((yield* Stream.runCollect(echoed)).flat(), values)
        assert.deepStrictEqual(yield* Stream.runCollect(kernel.iterate("values", schema)), values)
      }
    }))

  it.effect("set and evaluate are the identity without schemas for types that Python has", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const texts = yield* Arbitrary.sampleEffect(Any.text, { count: 300 })
      const spans = (yield* Arbitrary.sampleEffect(micros, { count: 200 })).map((n) =>
        Duration.micros(BigInt(n))
      )
      const times = (yield* Arbitrary.sampleEffect(millis, { count: 200 })).map((n) => DateTime.makeUnsafe(n))
      yield* kernel.set("values", { texts, spans, times })
      const back = yield* kernel.evaluate(
        "values",
        Schema.Struct({
          texts: Schema.Unknown,
          spans: Schema.Array(Schema.Duration),
          times: Schema.Array(Schema.DateTimeUtc),
        }),
      )
      assert.deepStrictEqual(back.texts, texts)
      assert.deepStrictEqual(back.spans.map(Duration.toNanos), spans.map(Duration.toNanos))
      assert.deepStrictEqual(back.times, times)
    }))

  it.effect("set and evaluate keep typed arrays and NumPy arrays of any shape", () =>
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
