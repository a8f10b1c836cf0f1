/**
 * Values of JavaScript on their way to Python: JSON with tags for what JSON does not have, and buffers.
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
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { isRecord } from "./neutral.ts"
import { NdArray, type NumberArray } from "../values.ts"

/** A value as it travels: JSON, and what the JSON refers to. */
export interface Encoded {
  readonly text: string
  readonly buffers: ReadonlyArray<Uint8Array>
}

/** Why a value cannot travel, and where it is. */
export class Refusal extends Schema.TaggedError<Refusal>("effect-jupyter/values/Refusal")("Refusal", {
  valueType: Schema.String,
  path: Schema.String,
  detail: Schema.String,
}) {}

/** How deep values may be nested; the same as in the kernel. */
export const maxDepth = 200

/** Encodes a value. */
export function encode(value: unknown): Result.Result<Encoded, Refusal> {
  return Result.try({
    try: () => {
      const encoder = new Encoder()
      return { text: JSON.stringify(encoder.encode(value)), buffers: encoder.buffers }
    },
    catch: (cause) =>
      cause instanceof Refusal
        ? cause
        : new Refusal({ valueType: nameOf(value), path: "$", detail: String(cause) }),
  })
}

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
        throw this.#refuse(value, "It has no encoding")
    }
  }

  #object(value: object): unknown {
    if (Array.isArray(value)) return this.#nested(value, () => this.#items(value))
    if (isRecord(value) || Object.getPrototypeOf(value) === null) {
      return this.#nested(value, () => this.#record(Object.entries(value)))
    }
    if (value instanceof Uint8Array) return this.#bytes(value)
    if (value instanceof ArrayBuffer) return this.#bytes(new Uint8Array(value))
    if (value instanceof NdArray) return this.#array(value, value.data, value.shape)
    if (ArrayBuffer.isView(value)) return this.#array(value, value, undefined)
    if (value instanceof Date) return this.#date(value, Option.getOrUndefined(DateTime.make(value)))
    if (DateTime.isDateTime(value)) return this.#date(value, value)
    if (Duration.isDuration(value)) return this.#duration(value)
    if (BigDecimal.isBigDecimal(value)) return { $: "decimal", v: `${value.value}E${-value.scale}` }
    if (Option.isOption(value)) return Option.isSome(value) ? this.encode(value.value) : null
    if (value instanceof Map || HashMap.isHashMap(value)) {
      return this.#nested(value, () => ({ $: "map", v: this.#pairs(value) }))
    }
    if (value instanceof Set || HashSet.isHashSet(value)) {
      return this.#nested(value, () => {
        const items = [...value]
        const v = this.#items(items)
        items.forEach((item, index) => this.#hashable(index, item))
        return { $: "set", v }
      })
    }
    if (Chunk.isChunk(value)) return this.#nested(value, () => this.#items(Chunk.toReadonlyArray(value)))
    if (value instanceof URL) return value.href
    throw this.#refuse(value, 'It is no plain value; encode it first, for instance by the option "schema"')
  }

  #nested(value: object, encode: () => unknown): unknown {
    if (this.#within.has(value)) throw this.#refuse(value, "It contains itself")
    if (this.#within.size >= maxDepth) {
      throw this.#refuse(value, `It is nested deeper than ${maxDepth} levels`)
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

  #record(entries: ReadonlyArray<readonly [string, unknown]>): unknown {
    const given = entries.filter(([, value]) => value !== undefined)
    const encoded = given.map(([key, value]) => [key, this.#at(key, value)] as const)
    return given.some(([key]) => key === "$") ? { $: "record", v: encoded } : Object.fromEntries(encoded)
  }

  #pairs(pairs: Iterable<readonly [unknown, unknown]>): ReadonlyArray<unknown> {
    return Array.from(pairs, ([key, value]) => {
      const step = typeof key === "number" ? key : String(key)
      const encoded = this.#at(step, key)
      this.#hashable(step, key)
      return [encoded, this.#at(step, value)]
    })
  }

  /** Refuses what Python takes for no element of a `set` and no key of a `dict`. */
  #hashable(step: string | number, value: unknown): void {
    const inner = Array.isArray(value)
      ? value
      : Chunk.isChunk(value)
      ? Chunk.toReadonlyArray(value)
      : undefined
    this.#path.push(step)
    if (inner !== undefined) inner.forEach((item, index) => this.#hashable(index, item))
    else if (Option.isOption(value) && Option.isSome(value)) this.#hashable(0, value.value)
    else if (isUnhashable(value)) {
      throw this.#refuse(value, "Python has no hash for it: it can be in no set, and no key")
    }
    this.#path.pop()
  }

  #bytes(value: Uint8Array): unknown {
    return { $: "bytes", v: this.buffers.push(value) }
  }

  #array(value: object, data: ArrayBufferView, shape: ReadonlyArray<number> | undefined): unknown {
    const dtype = dtypeOf(data)
    if (dtype === undefined || !isNumberArray(data)) throw this.#refuse(value, "It has no encoding")
    const { length } = data
    const isShape = shape === undefined ||
      shape.every((size) => Number.isSafeInteger(size) && size >= 0) &&
        shape.reduce((product, size) => product * size, 1) === length
    if (!isShape) {
      throw this.#refuse(value, `Its ${length} numbers do not have the shape [${shape.join(", ")}]`)
    }
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    return { $: "array", dtype, shape: shape ?? [length], v: this.buffers.push(bytes) }
  }

  #date(value: object, moment: DateTime.DateTime | undefined): unknown {
    const millis = moment?.epochMilliseconds ?? NaN
    if (moment === undefined || !(millis >= firstMillis && millis < endMillis)) {
      throw this.#refuse(value, "It is out of the range of datetime, the years from 1 to 9999")
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
    if (Option.isNone(nanos)) throw this.#refuse(value, "It is infinite")
    if (nanos.value % 1000n !== 0n) throw this.#refuse(value, "It is no whole number of microseconds")
    const micros = nanos.value / 1000n
    if (micros > maxMicros || micros < -maxMicros) {
      throw this.#refuse(value, "It is out of the range of timedelta")
    }
    return { $: "timedelta", v: `${micros}` }
  }

  #refuse(value: unknown, detail: string): Refusal {
    const steps = this.#path.map((step) =>
      typeof step === "number"
        ? `[${step}]`
        : /^[\p{XID_Start}_]\p{XID_Continue}*$/u.test(step)
        ? `.${step}`
        : `[${JSON.stringify(step)}]`
    )
    return new Refusal({ valueType: nameOf(value), path: `$${steps.join("")}`, detail })
  }
}

/** A day less at both ends: in its own time zone a moment may be in another year. */
const firstMillis = DateTime.makeUnsafe("0001-01-02T00:00:00Z").epochMilliseconds
const endMillis = DateTime.makeUnsafe("9999-12-31T00:00:00Z").epochMilliseconds

/** What a `timedelta` can hold: a billion days, less one second to be on the safe side. */
const maxMicros = 999_999_999n * 86_400_000_000n

function isUnhashable(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false
  return isRecord(value) || Object.getPrototypeOf(value) === null || value instanceof Map ||
    HashMap.isHashMap(value) || value instanceof NdArray ||
    (ArrayBuffer.isView(value) && !(value instanceof Uint8Array))
}

function float(v: string): unknown {
  return { $: "float", v }
}

function nameOf(value: unknown): string {
  if (typeof value !== "object" || value === null) return value === null ? "null" : typeof value
  const prototype: unknown = Object.getPrototypeOf(value)
  const name: unknown = typeof prototype === "object" && prototype !== null && "constructor" in prototype
    ? Reflect.get(prototype.constructor ?? {}, "name")
    : undefined
  return typeof name === "string" && name !== "" ? name : "object"
}

function isNumberArray(data: ArrayBufferView): data is NumberArray {
  return !(data instanceof DataView)
}

function dtypeOf(data: ArrayBufferView): string | undefined {
  if (data instanceof Float64Array) return "f8"
  if (data instanceof Float32Array) return "f4"
  if (data instanceof Int8Array) return "i1"
  if (data instanceof Int16Array) return "i2"
  if (data instanceof Int32Array) return "i4"
  if (data instanceof BigInt64Array) return "i8"
  if (data instanceof Uint8Array || data instanceof Uint8ClampedArray) return "u1"
  if (data instanceof Uint16Array) return "u2"
  if (data instanceof Uint32Array) return "u4"
  if (data instanceof BigUint64Array) return "u8"
  return undefined
}
