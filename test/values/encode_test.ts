// @effect-diagnostics globalDate:off schemaNumber:off
import { assert, describe, it } from "@effect/vitest"
import {
  BigDecimal,
  Chunk,
  DateTime,
  Duration,
  Effect,
  HashMap,
  Option,
  Redacted,
  Result,
  Schema,
} from "effect"
import * as Decode from "../../src/values/decode.ts"
import * as Encode from "../../src/values/encode.ts"
import { NdArray } from "../../src/values.ts"

const encoded = (value: unknown): unknown => {
  const { buffers, text } = Result.getOrThrow(Encode.encode(value))
  return buffers.length === 0 ? JSON.parse(text) : [JSON.parse(text), ...buffers]
}
const refused = (value: unknown) => {
  const { detail, path, valueType } = Effect.runSync(Effect.flip(Effect.fromResult(Encode.encode(value))))
  return [valueType, path, detail]
}

class Custom {
  readonly field = 1
}

describe("encode", () => {
  it("JSON as it is", () => {
    const json = { a: [1, -1.5, "x", true, null], b: {}, "": [], 'q"': "\0\\\n😀" }
    assert.deepStrictEqual(encoded(json), json)
    assert.deepStrictEqual(encoded({ kept: 1, gone: undefined, list: [undefined] }), {
      kept: 1,
      list: [null],
    })
    assert.deepStrictEqual(encoded(Object.create(null, { a: { value: 1, enumerable: true } })), { a: 1 })
  })

  it("numbers keep what JSON would lose", () => {
    assert.deepStrictEqual(encoded([-0, NaN, Infinity, -Infinity, 2 ** 53, 1e300]), [
      { $: "float", v: "-0.0" },
      { $: "float", v: "NaN" },
      { $: "float", v: "inf" },
      { $: "float", v: "-inf" },
      { $: "float", v: "9007199254740992" },
      { $: "float", v: "1e+300" },
    ])
    assert.deepStrictEqual(encoded([0n, -255n]), [{ $: "int", v: "0" }, { $: "int", v: "-ff" }])
  })

  it("binary goes in buffers, not in the JSON", () => {
    const bytes = Uint8Array.of(1, 2, 3)
    assert.deepStrictEqual(encoded([bytes, { b: bytes.buffer }]), [
      [{ $: "bytes", v: 1 }, { b: { $: "bytes", v: 2 } }],
      bytes,
      bytes,
    ])
    assert.deepStrictEqual(encoded(new NdArray(Int16Array.of(1, 2), [2, 1])), [
      { $: "array", dtype: "i2", shape: [2, 1], v: 1 },
      Uint8Array.of(1, 0, 2, 0),
    ])
  })

  it("types of Effect and JavaScript", () => {
    assert.deepStrictEqual(
      encoded([
        new Date(0),
        DateTime.makeUnsafe(0),
        DateTime.makeZonedUnsafe(0, { timeZone: "+02:00" }),
        DateTime.makeZonedUnsafe(0, { timeZone: "Europe/Berlin" }),
        Duration.nanos(1_000n),
        BigDecimal.fromStringUnsafe("-1.50"),
        Option.none(),
        Option.some(1),
        new URL("http://example.org/a"),
        Chunk.make(1, 2),
      ]),
      [
        { $: "datetime", v: "1970-01-01T00:00:00.000+00:00" },
        { $: "datetime", v: "1970-01-01T00:00:00.000+00:00" },
        { $: "datetime", v: "1970-01-01T02:00:00.000+02:00" },
        { $: "datetime", v: "1970-01-01T00:00:00.000+00:00", zone: "Europe/Berlin" },
        { $: "timedelta", v: "1" },
        { $: "decimal", v: "-150E-2" },
        null,
        1,
        "http://example.org/a",
        [1, 2],
      ],
    )
    assert.deepStrictEqual(encoded(new Map<unknown, unknown>([[1, "a"]])), { $: "map", v: [[1, "a"]] })
    assert.deepStrictEqual(encoded(HashMap.make(["k", 1])), { $: "map", v: [["k", 1]] })
    assert.deepStrictEqual(encoded(new Set([1])), { $: "set", v: [1] })
  })

  it("objects that look like tags, or have dangerous keys, are objects", () => {
    const looks = JSON.parse('{"$": "bytes", "v": 1, "__proto__": {"a": 1}}')
    const { buffers, text } = Result.getOrThrow(Encode.encode([looks]))
    const [back] = [Result.getOrThrow(Decode.decode([new TextEncoder().encode(text), ...buffers]))].flat()
    assert.deepStrictEqual(Object.entries(Object(back)), Object.entries(looks))
    assert.isFalse("a" in {})
  })

  it("what has no encoding is refused with its type and path", () => {
    const rows = [{}, {}, {}, { handle: () => {} }]
    assert.deepStrictEqual(refused({ rows }), ["function", "$.rows[3].handle", "It has no encoding"])
    assert.deepStrictEqual(refused({ "a b": Symbol("s") }).slice(0, 2), ["symbol", '$["a b"]'])
    assert.deepStrictEqual(refused([new Custom()]).slice(0, 2), ["Custom", "$[0]"])
    assert.deepStrictEqual(refused(new Map([["k", /x/]])).slice(0, 2), ["RegExp", "$.k"])
    assert.strictEqual(refused(Redacted.make("secret"))[1], "$")
    assert.strictEqual(refused([Promise.resolve()])[0], "Promise")
    assert.strictEqual(refused(new DataView(new ArrayBuffer(1)))[0], "DataView")
    assert.strictEqual(refused(new Date(NaN))[0], "Date")
    assert.strictEqual(
      refused(new Date(8.64e15))[2],
      "It is out of the range of datetime, the years from 1 to 9999",
    )
    assert.strictEqual(refused(Duration.infinity)[2], "It is infinite")
    assert.strictEqual(refused(Duration.nanos(1n))[2], "It is no whole number of microseconds")
    assert.strictEqual(refused(new NdArray(new Int8Array(3), [2, 2]))[1], "$")
  })

  it("what Python has no hash for is in no set and no key", () => {
    assert.deepStrictEqual(refused(new Set(["a", { b: 1 }])).slice(0, 2), ["Object", "$[1]"])
    assert.deepStrictEqual(refused({ s: new Set([[1, [Float64Array.of(1)]]]) }).slice(0, 2), [
      "Float64Array",
      "$.s[0][1][0]",
    ])
    assert.strictEqual(refused(new Map([[new Map(), 1]]))[0], "Map")
    assert.strictEqual(refused(new Set([Option.some(HashMap.empty())]))[1], "$[0][0]")
    assert.isDefined(encoded(new Set([[1, "a"], new Set([1]), Uint8Array.of(1), new Date(0), null])))
  })

  it("a shape has whole, non-negative sizes", () => {
    for (const shape of [[-1, -4], [0.5, 8], [NaN], [2]]) {
      assert.strictEqual(refused([new NdArray(Float64Array.of(1, 2, 3, 4), shape)])[1], "$[0]")
    }
  })

  it("cycles and depth are errors, repetition is none", () => {
    const cycle: { self?: unknown } = {}
    cycle.self = [cycle]
    assert.deepStrictEqual(refused(cycle), ["Object", "$.self[0]", "It contains itself"])
    let deep: unknown = 1
    for (let level = 0; level < 100_000; level++) deep = [deep]
    assert.strictEqual(refused(deep)[2], "It is nested deeper than 200 levels")
    const shared = { a: 1 }
    assert.deepStrictEqual(encoded([shared, shared]), [shared, shared])
  })
})

describe("decode", () => {
  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

  it("refuses what is no value", () => {
    for (const value of [{ $: "what" }, { $: "bytes", v: 7 }, { $: "set", v: 1 }, { $: "int", v: "x" }]) {
      assert.isTrue(Result.isFailure(Decode.decode([json(value)])), JSON.stringify(value))
    }
    assert.isTrue(Result.isFailure(Decode.decode([new TextEncoder().encode("{")])))
    assert.isTrue(Result.isFailure(Decode.decode([])))
  })

  it("refuses sets and maps whose elements or keys are the same", () => {
    for (const value of [{ $: "set", v: ["a", "a"] }, { $: "map", v: [[1, 2], [1, 3]] }]) {
      assert.isTrue(Result.isFailure(Decode.decode([json(value)])), JSON.stringify(value))
    }
  })

  it("arrays of numbers may begin anywhere in the message", () => {
    const frame = new Uint8Array(1 + 8 * 20_000)
    new DataView(frame.buffer).setFloat64(1, 1.5, true)
    const tag = json({ $: "array", dtype: "f8", shape: [20_000], v: 1 })
    const array = Result.getOrThrow(Decode.decode([tag, frame.subarray(1)]))
    assert.instanceOf(array, NdArray)
    if (array instanceof NdArray) assert.deepStrictEqual([array.data[0], array.data.length], [1.5, 20_000])
  })

  it.effect.prop(
    "gives back JSON, numbers with -0 and without end included",
    [Schema.Array(Schema.Record(Schema.String, Schema.Union([Schema.Number, Schema.String, Schema.Null])))],
    ([value]) =>
      Effect.gen(function* () {
        const { text } = yield* Effect.fromResult(Encode.encode(value))
        const back = yield* Effect.fromResult(Decode.decode([new TextEncoder().encode(text)]))
        assert.deepStrictEqual(back, value)
      }),
  )
})
