// @effect-diagnostics globalDate:off schemaNumber:off
import { assert, describe, it } from "@effect/vitest"
import {
  BigDecimal,
  Cause,
  Chunk,
  DateTime,
  Duration,
  Effect,
  Exit,
  HashMap,
  Option,
  Redacted,
  Result,
  Schema,
  Stream,
} from "effect"
import { Buffer } from "node:buffer"
import { runInNewContext } from "node:vm"
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
  it("keeps JSON unchanged", () => {
    const json = { a: [1, -1.5, "x", true, null], b: {}, "": [], q: "\0\\\n😀" }
    assert.deepStrictEqual(encoded(json), json)
    assert.deepStrictEqual(encoded({ kept: 1, gone: undefined, list: [undefined] }), {
      kept: 1,
      list: [null],
    })
    assert.deepStrictEqual(encoded(Object.create(null, { a: { value: 1, enumerable: true } })), { a: 1 })
  })

  it("encodes records with keys that JSON escapes as pairs", () => {
    assert.deepStrictEqual(encoded({ "\\": 1 }), { $: "record", v: [["\\", 1]] })
    assert.deepStrictEqual(encoded({ a: 0, "\n": 1 }), { $: "record", v: [["a", 0], ["\n", 1]] })
    assert.deepStrictEqual(encoded({ $a: 1, é: 2 }), { $a: 1, é: 2 })
  })

  it("tags numbers that JSON cannot represent", () => {
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

  it("puts binary data in buffers", () => {
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

  it("tags types of Effect and JavaScript", () => {
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

  it("encodes objects that look like tags, or have dangerous keys, as records", () => {
    const looks = JSON.parse('{"$": "bytes", "v": 1, "__proto__": {"a": 1}}')
    const { buffers, text } = Result.getOrThrow(Encode.encode([looks]))
    const [back] = [Result.getOrThrow(Decode.decode([new TextEncoder().encode(text), ...buffers]))].flat()
    assert.deepStrictEqual(Object.entries(Object(back)), Object.entries(looks))
    assert.isFalse("a" in {})
  })

  it("refuses values without an encoding with their type and path", () => {
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
    assert.strictEqual(refused(Duration.nanos(1n))[2], "It is not a whole number of microseconds")
    assert.strictEqual(refused(new NdArray(new Int8Array(3), [2, 2]))[1], "$")
  })

  it("refuses set elements and keys that Python cannot hash", () => {
    assert.deepStrictEqual(refused(new Set(["a", { b: 1 }])).slice(0, 2), ["Object", "$[1]"])
    assert.deepStrictEqual(refused({ s: new Set([[1, [Float64Array.of(1)]]]) }).slice(0, 2), [
      "Float64Array",
      "$.s[0][1][0]",
    ])
    assert.strictEqual(refused(new Map([[new Map(), 1]]))[0], "Map")
    assert.strictEqual(refused(new Set([Option.some(HashMap.empty())]))[1], "$[0][0]")
    assert.isDefined(encoded(new Set([[1, "a"], new Set([1]), Uint8Array.of(1), new Date(0), null])))
  })

  it("refuses elements and keys that are equal in Python", () => {
    const same = "in Python"
    for (
      const items of [[1, true], [0n, false], [2 ** 53, 2n ** 53n], [null, undefined], [null, Option.none()]]
    ) {
      const [type, path, detail = ""] = refused({ a: [new Set<unknown>(items)] })
      assert.deepStrictEqual([type, path], ["Set", "$.a[0]"])
      assert.include(detail, `elements are the same ${same}`)
      const map = new Map<unknown, unknown>(items.map((item) => [item, 1]))
      assert.deepStrictEqual(refused([map]), ["Map", "$[0]", `Two of its keys are the same ${same}`])
    }
    assert.isDefined(
      encoded(new Set<unknown>(["1", 1, "true", 1.5, NaN, "null", null, 2n ** 64n, 2n ** 64n + 1n])),
    )
  })

  it("names types of Effect in errors, with their path", () => {
    const named: ReadonlyArray<readonly [unknown, string]> = [
      [Result.succeed(1), "Result"],
      [Exit.succeed(1), "Exit"],
      [Cause.fail(1), "Cause"],
      [Effect.never, "Effect"],
      [Stream.make(1), "Stream"],
      [Redacted.make("secret"), "Redacted"],
      [Duration.infinity, "Duration"],
      [new Error("e"), "Error"],
      [/x/, "RegExp"],
      [new URLSearchParams("a=1"), "URLSearchParams"],
      [new WeakMap(), "WeakMap"],
      [Object(1), "Number"],
      [Object("x"), "String"],
      [Object(1n), "BigInt"],
      [new Date(NaN), "Date"],
    ]
    for (const [value, name] of named) {
      assert.deepStrictEqual(refused({ a: [value] }).slice(0, 2), [name, "$.a[0]"])
    }
  })

  it("refuses symbols as keys and Option.some of an absent value", () => {
    assert.deepStrictEqual(refused([{ a: 1, [Symbol("k")]: 2 }]), [
      "Object",
      "$[0]",
      "Its key Symbol(k) has no encoding",
    ])
    for (const nothing of [null, undefined, Option.none()]) {
      assert.deepStrictEqual(refused({ o: Option.some(nothing) }).slice(0, 2), ["Option", "$.o"])
    }
    // Properties that are not enumerable are left out, as by `Object.entries`.
    assert.deepStrictEqual(encoded(Object.defineProperty({ a: 1 }, "hidden", { value: 2 })), { a: 1 })
    assert.deepStrictEqual(encoded([1, , 3]), [1, null, 3])
  })

  it("refuses values whose getters throw, with their path", () => {
    const hostile = (trap: ProxyHandler<object>) => new Proxy({}, trap)
    const fail = (): never => {
      throw new Error("boom")
    }
    const getter = {
      get late(): number {
        return fail()
      },
    }
    assert.deepStrictEqual(refused({ a: [getter] }), [
      "unknown",
      "$.a[0].late",
      "It cannot be read: Error: boom",
    ])
    for (const value of [hostile({ ownKeys: fail }), hostile({ getPrototypeOf: fail })]) {
      assert.deepStrictEqual(refused({ a: value }), ["unknown", "$.a", "It cannot be read: Error: boom"])
    }
    for (const target of [{}, []]) {
      const { proxy, revoke } = Proxy.revocable(target, {})
      revoke()
      assert.deepStrictEqual(refused([proxy]).slice(0, 2), ["unknown", "$[0]"])
      assert.deepStrictEqual(refused(proxy).slice(0, 2), ["unknown", "$"])
    }
    const odd = hostile({
      ownKeys: () => {
        throw Object.create(null)
      },
    })
    assert.include(refused([odd])[2], "A value that is not an error")
    // A key that is no text does not become some: it might throw, too.
    assert.deepStrictEqual(refused(new Map([[[Symbol("s")], 1]])).slice(0, 2), ["symbol", '$["(Array)"][0]'])
    // One that behaves is what it stands for.
    assert.deepStrictEqual(encoded([new Proxy({ a: 1 }, {}), new Proxy([1], {})]), [{ a: 1 }, [1]])
    assert.strictEqual(refused({ a: new Proxy(Uint8Array.of(1), {}) })[1], "$.a")
  })

  it("recognizes values of other realms", () => {
    const value = runInNewContext(
      "({ a: [1], d: new Date(0), m: new Map([[1, 2]]), s: new Set([1]), b: new Uint8Array([7]) })",
    )
    assert.deepStrictEqual(encoded(value), [
      {
        a: [1],
        d: { $: "datetime", v: "1970-01-01T00:00:00.000+00:00" },
        m: { $: "map", v: [[1, 2]] },
        s: { $: "set", v: [1] },
        b: { $: "bytes", v: 1 },
      },
      Uint8Array.of(7),
    ])
  })

  it("does not copy bytes", () => {
    const shared = new SharedArrayBuffer(8)
    const bytes = new Uint8Array(shared, 2, 3)
    const { buffers } = Result.getOrThrow(Encode.encode([bytes, shared, Buffer.from("ab"), Int16Array.of(1)]))
    assert.deepStrictEqual(buffers.map(({ byteLength }) => byteLength), [3, 8, 2, 2])
    assert.strictEqual(buffers[0]?.buffer, shared)
    assert.strictEqual(buffers[1]?.buffer, shared)
    for (const buffer of buffers) assert.strictEqual(buffer.constructor, Uint8Array)
  })

  it("widens Float16Array, and encodes Uint8ClampedArray as numbers", () => {
    assert.deepStrictEqual(encoded(Uint8ClampedArray.of(1)), [
      { $: "array", dtype: "u1", shape: [1], v: 1 },
      Uint8Array.of(1),
    ])
    const Half: unknown = Reflect.get(globalThis, "Float16Array")
    // Node 22 has none.
    if (typeof Half !== "function") return
    const { buffers, text } = Result.getOrThrow(Encode.encode(Reflect.construct(Half, [[1.5, -2]])))
    assert.deepStrictEqual(JSON.parse(text), { $: "array", dtype: "f4", shape: [2], v: 1 })
    assert.deepStrictEqual(new Float32Array(buffers[0]?.buffer ?? assert.fail()), Float32Array.of(1.5, -2))
  })

  it("refuses transferred memory", () => {
    const buffer = new ArrayBuffer(8)
    const values = [
      new Uint8Array(buffer),
      new Float64Array(buffer),
      new NdArray(new Int8Array(buffer)),
      buffer,
    ]
    structuredClone(buffer, { transfer: [buffer] })
    for (const value of values) {
      assert.deepStrictEqual(refused({ a: value }).slice(1), ["$.a", "Its memory was transferred elsewhere"])
    }
  })

  it("refuses shapes with fractional or negative sizes", () => {
    for (const shape of [[-1, -4], [0.5, 8], [NaN], [2]]) {
      assert.strictEqual(refused([new NdArray(Float64Array.of(1, 2, 3, 4), shape)])[1], "$[0]")
    }
  })

  it("refuses cycles and values that are too deep, but not repeated values", () => {
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

  it("refuses malformed answers", () => {
    for (const value of [{ $: "what" }, { $: "bytes", v: 7 }, { $: "set", v: 1 }, { $: "int", v: "x" }]) {
      assert.isTrue(Result.isFailure(Decode.decode([json(value)])), JSON.stringify(value))
    }
    assert.isTrue(Result.isFailure(Decode.decode([new TextEncoder().encode("{")])))
    assert.isTrue(Result.isFailure(Decode.decode([])))
  })

  it("refuses sets and maps with equal elements or keys", () => {
    for (const value of [{ $: "set", v: ["a", "a"] }, { $: "map", v: [[1, 2], [1, 3]] }]) {
      assert.isTrue(Result.isFailure(Decode.decode([json(value)])), JSON.stringify(value))
    }
  })

  it("accepts arrays at any offset in the message", () => {
    const frame = new Uint8Array(1 + 8 * 20_000)
    new DataView(frame.buffer).setFloat64(1, 1.5, true)
    const tag = json({ $: "array", dtype: "f8", shape: [20_000], v: 1 })
    const array = Result.getOrThrow(Decode.decode([tag, frame.subarray(1)]))
    assert.instanceOf(array, NdArray)
    if (array instanceof NdArray) assert.deepStrictEqual([array.data[0], array.data.length], [1.5, 20_000])
  })

  it("copies bytes that are a small part of their message", () => {
    const frame = new Uint8Array(1_000_000)
    const [small, large] = [frame.subarray(8, 400_008), frame.subarray(400_008, 1_000_000)]
    const tags = ["bytes", "array"].map((kind) => ({ $: kind, dtype: "u1", shape: [400_000], v: 1 }))
    const value = [...tags, { $: "bytes", v: 2 }]
    const back = Result.getOrThrow(Decode.decode([json(value), small, large]))
    const [bytes, array, most] = Array.isArray(back) ? back : assert.fail()
    assert.strictEqual(bytes.buffer.byteLength, 400_000)
    assert.strictEqual(array.data.buffer.byteLength, 400_000)
    // Most of the message: copying it would cost more than it keeps.
    assert.strictEqual(most.buffer, frame.buffer)
    frame.fill(1)
    assert.isTrue([bytes, array.data].every((values) => values.every((n: number) => n === 0)))
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
