/**
 * Values of Python as they come in: from JSON with tags, and buffers, to {@link Neutral neutral} ones.
 *
 * @module
 */
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { WireError } from "../jupyter/message.ts"
import * as Neutral from "./neutral.ts"
import { NdArray, type NumberArray } from "../values.ts"

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/**
 * Whether bytes are most of the message that they came in. Others are copied, so that they do not keep it; so
 * the memory of each value is its own, and no other value changes with it.
 */
function isMost({ buffer, byteLength }: Uint8Array): boolean {
  return byteLength * 2 > buffer.byteLength
}

/** Decodes a value; the first buffer is its JSON, the others are what the JSON refers to. */
export function decode([text, ...buffers]: ReadonlyArray<Uint8Array>): Result.Result<unknown, WireError> {
  return Result.try({
    try: () => revive(JSON.parse(decoder.decode(text)), buffers),
    catch: (cause) => new WireError({ detail: String(cause) }),
  })
}

/** Puts values in the place of tags, in what `JSON.parse` has just made. */
function revive(value: unknown, buffers: ReadonlyArray<Uint8Array>): unknown {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const item: unknown = value[index]
      if (typeof item === "object" && item !== null) value[index] = revive(item, buffers)
    }
    return value
  }
  if (Object.hasOwn(value, "$")) return untag(value, buffers)
  for (const [key, item] of Object.entries(value)) {
    if (typeof item !== "object" || item === null) continue
    const revived = revive(item, buffers)
    if (revived !== item) Object.defineProperty(value, key, { ...property, value: revived })
  }
  return value
}

const property = { configurable: true, enumerable: true, writable: true }

function untag(tagged: object, buffers: ReadonlyArray<Uint8Array>): unknown {
  const field = (name: string): unknown => Reflect.get(tagged, name)
  const kind = field("$")
  const v = field("v")
  switch (kind) {
    case "int":
      return integer(String(v))
    case "float":
      return Number(String(v).replace("inf", "Infinity"))
    case "bytes":
      return own(buffer(buffers, v))
    case "array":
      return array(String(field("dtype")), list(field("shape")).map(Number), buffer(buffers, v))
    case "datetime": {
      const zone = field("zone")
      return new Neutral.Moment(String(v), typeof zone === "string" ? zone : undefined)
    }
    case "date":
      return new Neutral.Day(String(v))
    case "timedelta":
      return new Neutral.Span(BigInt(String(v)))
    case "decimal":
      return new Neutral.Decimal(String(v))
    case "record":
      return Object.fromEntries(pairs(v, buffers).map(([key, item]) => [String(key), item]))
    case "map":
      return whole(new Map(pairs(v, buffers)), v)
    case "set":
      return whole(new Set(list(revive(v, buffers))), v)
    case "frame":
      return new Neutral.Table(
        list(field("columns")).map(String),
        Number(field("rows")),
        list(revive(v, buffers)),
      )
    default:
      throw new Error(`Its tag "${String(kind)}" is unknown`)
  }
}

function integer(hex: string): bigint {
  return hex.startsWith("-") ? -BigInt(`0x${hex.slice(1)}`) : BigInt(`0x${hex}`)
}

function list(value: unknown): ReadonlyArray<unknown> {
  if (Array.isArray(value)) return value
  throw new Error("It has a tag without a list")
}

/** Nothing may collapse on the way. */
function whole<A extends { readonly size: number }>(collection: A, given: unknown): A {
  if (collection.size === list(given).length) return collection
  throw new Error("Two of its elements or keys are the same in JavaScript")
}

function pairs(
  value: unknown,
  buffers: ReadonlyArray<Uint8Array>,
): ReadonlyArray<readonly [unknown, unknown]> {
  return list(revive(value, buffers)).map((pair) => {
    const [key, item] = list(pair)
    return [key, item] as const
  })
}

/** Buffers are counted from 1. */
function buffer(buffers: ReadonlyArray<Uint8Array>, index: unknown): Uint8Array {
  return Option.getOrThrowWith(
    Option.fromNullishOr(buffers[Number(index) - 1]),
    () => new Error(`It lacks the buffer ${String(index)}`),
  )
}

function own(bytes: Uint8Array): Uint8Array {
  return isMost(bytes) ? bytes : bytes.slice()
}

function array(dtype: string, shape: ReadonlyArray<number>, bytes: Uint8Array): unknown {
  if (dtype === "b1") return Neutral.nested(Array.from(bytes, (byte) => byte !== 0), shape)
  return new NdArray(numbers(dtype, bytes), shape)
}

function numbers(dtype: string, bytes: Uint8Array): NumberArray {
  const size = Number(dtype.slice(1))
  // Typed arrays begin at multiples of their size.
  const { buffer, byteOffset } = bytes.byteOffset % size === 0 && isMost(bytes) ? bytes : bytes.slice()
  const length = bytes.byteLength / size
  switch (dtype) {
    case "i1":
      return new Int8Array(buffer, byteOffset, length)
    case "i2":
      return new Int16Array(buffer, byteOffset, length)
    case "i4":
      return new Int32Array(buffer, byteOffset, length)
    case "i8":
      return new BigInt64Array(buffer, byteOffset, length)
    case "u1":
      return new Uint8Array(buffer, byteOffset, length)
    case "u2":
      return new Uint16Array(buffer, byteOffset, length)
    case "u4":
      return new Uint32Array(buffer, byteOffset, length)
    case "u8":
      return new BigUint64Array(buffer, byteOffset, length)
    case "f4":
      return new Float32Array(buffer, byteOffset, length)
    case "f8":
      return new Float64Array(buffer, byteOffset, length)
    default:
      throw new Error(`Its numbers are of the unknown type "${dtype}"`)
  }
}
