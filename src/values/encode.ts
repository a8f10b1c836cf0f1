/**
 * Encodes values of JavaScript for Python as JSON with tags for types that JSON does not have, and buffers.
 *
 * @module
 */
import * as BigDecimal from "effect/BigDecimal"
import * as Chunk from "effect/Chunk"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Builtin from "./builtin.ts"
import { NdArray } from "./nd_array.ts"
import * as Kind from "./kind.ts"

/** An encoded value: JSON, and the buffers that the JSON refers to. */
export interface Encoded {
  readonly text: string
  readonly buffers: ReadonlyArray<Uint8Array>
}

/** A value has no encoding. */
export class EncodeError
  extends Schema.TaggedError<EncodeError>("effect-jupyter/values/EncodeError")("EncodeError", {
    valueType: Schema.String,
    path: Schema.String,
    detail: Schema.String,
  }) {}

/** Maximum depth of values; the same as in the kernel. */
export const maxDepth = 200

/** Encodes a value. */
export function encode(value: unknown): Result.Result<Encoded, EncodeError> {
  const encoder = new Encoder()
  return Result.try({
    try: () => ({ text: JSON.stringify(encoder.encode(value)), buffers: encoder.buffers }),
    catch: (cause) => cause instanceof EncodeError ? cause : encoder.readError(cause),
  })
}

/** Matches the key of a tag, and keys that JSON escapes: V8 can confuse a later key with one that has a backslash. */
const unsafeKey = new RegExp('^\\$$|[\x00-\x1f"\\\\]')

class Encoder {
  readonly buffers: Array<Uint8Array> = []
  readonly #within = new Set<unknown>()
  readonly #path: Array<string | number> = []

  encode(value: unknown): unknown {
    switch (typeof value) {
      case "string":
      case "boolean":
        return value
      case "undefined":
        return null
      case "number":
        return Number.isSafeInteger(value) || (Number.isFinite(value) && !Number.isInteger(value))
          ? Object.is(value, -0) ? float("-0.0") : value
          : float(Number.isFinite(value) ? String(value) : String(value).replace("Infinity", "inf"))
      case "bigint":
        return { $: "int", v: value.toString(16) }
      case "object":
        return value === null ? null : this.#object(value)
      default:
        throw this.#errorFor(value, "It has no encoding")
    }
  }

  /** Returns the error for an exception of a getter or a proxy. */
  readError(cause: unknown): EncodeError {
    return new EncodeError({
      valueType: "unknown",
      path: this.#where(),
      detail: `It cannot be read: ${Kind.describe(cause)}`,
    })
  }

  #object(value: object): unknown {
    if (Array.isArray(value)) return this.#nested(value, () => this.#items(value))
    if (Kind.isPlain(value)) return this.#nested(value, () => this.#record(value))
    if (Builtin.isUint8Array(value)) return this.#bytes(value, value)
    if (Builtin.isAnyArrayBuffer(value)) return this.#bytes(value, value)
    if (value instanceof NdArray) return this.#array(value, value.data, value.shape)
    if (ArrayBuffer.isView(value)) return this.#array(value, value, undefined)
    if (Builtin.isDate(value)) return this.#date(value, Option.getOrUndefined(DateTime.make(value.getTime())))
    if (DateTime.isDateTime(value)) return this.#date(value, value)
    if (Duration.isDuration(value)) return this.#duration(value)
    if (BigDecimal.isBigDecimal(value)) return { $: "decimal", v: `${value.value}E${-value.scale}` }
    if (Option.isOption(value)) return this.#option(value)
    if (Builtin.isMap(value) || HashMap.isHashMap(value)) {
      return this.#nested(value, () => ({ $: "map", v: this.#pairs(value, [...value]) }))
    }
    if (Builtin.isSet(value) || HashSet.isHashSet(value)) {
      return this.#nested(value, () => {
        const items = [...value]
        const v = this.#items(items)
        items.forEach((item, index) => this.#hashable(index, item))
        this.#distinct(value, items, "elements")
        return { $: "set", v }
      })
    }
    if (Chunk.isChunk(value)) return this.#nested(value, () => this.#items(Chunk.toReadonlyArray(value)))
    if (value instanceof URL) return value.href
    if (Redacted.isRedacted(value)) {
      throw this.#errorFor(
        value,
        'A secret goes out by the option "schema", with "Schema.Redacted" in its place, or by "Redacted.value"',
      )
    }
    throw this.#errorFor(
      value,
      'It is not a plain value; encode it first, for instance by the option "schema"',
    )
  }

  #nested(value: object, encode: () => unknown): unknown {
    if (this.#within.has(value)) throw this.#errorFor(value, "It contains itself")
    if (this.#within.size >= maxDepth) {
      throw this.#errorFor(value, `It is nested deeper than ${maxDepth} levels`)
    }
    this.#within.add(value)
    const encoded = encode()
    this.#within.delete(value)
    return encoded
  }

  #at(step: string | number, value: unknown): unknown {
    this.#path.push(step)
    const encoded = this.encode(value)
    this.#path.pop()
    return encoded
  }

  #items(values: ReadonlyArray<unknown>): ReadonlyArray<unknown> {
    return Array.from(values, (value, index) => this.#at(index, value))
  }

  #record(record: { readonly [key: string]: unknown }): unknown {
    const encoded: Array<readonly [string, unknown]> = []
    for (const key of Object.keys(record)) {
      this.#path.push(key)
      const value = record[key]
      if (value !== undefined) encoded.push([key, this.encode(value)])
      this.#path.pop()
    }
    const symbol = Object.getOwnPropertySymbols(record).find((key) =>
      Object.prototype.propertyIsEnumerable.call(record, key)
    )
    if (symbol !== undefined) {
      throw this.#errorFor(record, `Its key ${String(symbol)} has no encoding`)
    }
    return encoded.some(([key]) => unsafeKey.test(key))
      ? { $: "record", v: encoded }
      : Object.fromEntries(encoded)
  }

  #pairs(map: object, pairs: ReadonlyArray<readonly [unknown, unknown]>): ReadonlyArray<unknown> {
    const encoded = pairs.map(([key, value]) => {
      const step = Kind.stepTo(key)
      const encoded = this.#at(step, key)
      this.#hashable(step, key)
      return [encoded, this.#at(step, value)]
    })
    this.#distinct(map, pairs.map(([key]) => key), "keys")
    return encoded
  }

  /** Refuses collections with elements or keys that are equal in Python, as 1, 1.0 and True, or null and undefined. */
  #distinct(collection: object, items: ReadonlyArray<unknown>, role: string): void {
    const [first] = items
    // Items of one primitive type are distinct in Python as in JavaScript.
    if (typeof first !== "object" && items.every((item) => typeof item === typeof first)) return
    const known = new Set<unknown>()
    for (const item of items) {
      const same = Kind.pythonIdentity(item)
      if (same === undefined) continue
      if (known.has(same)) throw this.#errorFor(collection, `Two of its ${role} are the same in Python`)
      known.add(same)
    }
  }

  #option(option: Option.Option<unknown>): unknown {
    if (Option.isNone(option)) return null
    const encoded = this.#nested(option, () => this.encode(option.value))
    if (encoded === null) {
      throw this.#errorFor(option, "What is some, but of nothing, would be None in Python")
    }
    return encoded
  }

  /** Refuses values that cannot be an element of a `set` or a key of a `dict`. */
  #hashable(step: string | number, value: unknown): void {
    const inner = Array.isArray(value)
      ? value
      : Chunk.isChunk(value)
      ? Chunk.toReadonlyArray(value)
      : undefined
    this.#path.push(step)
    if (inner !== undefined) inner.forEach((item, index) => this.#hashable(index, item))
    else if (Option.isOption(value) && Option.isSome(value)) this.#hashable(0, value.value)
    else if (Kind.isUnhashable(value)) {
      throw this.#errorFor(value, "Python has no hash for it: it can be in no set, and no key")
    }
    this.#path.pop()
  }

  #bytes(value: object, data: ArrayBufferView | ArrayBufferLike): unknown {
    this.#attached(value, ArrayBuffer.isView(data) ? data.buffer : data)
    return { $: "bytes", v: this.buffers.push(Kind.bytesOf(data)) }
  }

  #array(value: object, data: ArrayBufferView, shape: ReadonlyArray<number> | undefined): unknown {
    this.#attached(value, data.buffer)
    const kind = Kind.arrayKind(data)
    if (kind === undefined) throw this.#errorFor(value, "It has no encoding")
    const { bytes, dtype, length } = kind
    const isShape = shape === undefined ||
      shape.every((size) => Number.isSafeInteger(size) && size >= 0) &&
        shape.reduce((product, size) => product * size, 1) === length
    if (!isShape) {
      throw this.#errorFor(value, `Its ${length} numbers do not have the shape [${shape.join(", ")}]`)
    }
    return { $: "array", dtype, shape: shape ?? [length], v: this.buffers.push(bytes) }
  }

  /** Refuses memory that was transferred to another thread, which would be encoded as empty. */
  #attached(value: object, buffer: ArrayBufferLike): void {
    if ("detached" in buffer && buffer.detached) {
      throw this.#errorFor(value, "Its memory was transferred elsewhere")
    }
  }

  #date(value: object, moment: DateTime.DateTime | undefined): unknown {
    if (moment === undefined) throw this.#errorFor(value, "It is not a valid date")
    const millis = moment.epochMilliseconds
    if (!(millis >= firstMillis && millis < endMillis)) {
      throw this.#errorFor(value, "It is out of the range of datetime, the years from 1 to 9999")
    }
    if (DateTime.isZoned(moment) && moment.zone._tag === "Offset") {
      return { $: "datetime", v: DateTime.formatIsoOffset(moment) }
    }
    const v = DateTime.formatIso(moment).replace("Z", "+00:00")
    return DateTime.isZoned(moment) && moment.zone._tag === "Named"
      ? { $: "datetime", v, zone: moment.zone.id }
      : { $: "datetime", v }
  }

  #duration(value: Duration.Duration): unknown {
    const nanos = Duration.toNanos(value)
    if (Option.isNone(nanos)) throw this.#errorFor(value, "It is infinite")
    if (nanos.value % 1000n !== 0n) throw this.#errorFor(value, "It is not a whole number of microseconds")
    const micros = nanos.value / 1000n
    if (micros > maxMicros || micros < -maxMicros) {
      throw this.#errorFor(value, "It is out of the range of timedelta")
    }
    return { $: "timedelta", v: `${micros}` }
  }

  #errorFor(value: unknown, detail: string): EncodeError {
    return new EncodeError({ valueType: Kind.nameOf(value), path: this.#where(), detail })
  }

  #where(): string {
    const steps = this.#path.map((step) =>
      typeof step === "number"
        ? `[${step}]`
        : /^[\p{XID_Start}_]\p{XID_Continue}*$/u.test(step)
        ? `.${step}`
        : `[${JSON.stringify(step)}]`
    )
    return `$${steps.join("")}`
  }
}

/** The range of `datetime`, less a day at both ends: in its own time zone a moment may be in another year. */
const firstMillis = DateTime.makeUnsafe("0001-01-02T00:00:00Z").epochMilliseconds
const endMillis = DateTime.makeUnsafe("9999-12-31T00:00:00Z").epochMilliseconds

/** Maximum of a `timedelta` in microseconds, rounded down to days. */
const maxMicros = 999_999_999n * 86_400_000_000n

function float(v: string): unknown {
  return { $: "float", v }
}
