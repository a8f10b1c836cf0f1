/**
 * Classifies values of JavaScript, and tells how Python would treat them.
 *
 * Types with brands are recognized by these, so that values of other realms, as in workers and tests, are recognized
 * and imitations are not.
 *
 * @module
 */
import * as BigDecimal from "effect/BigDecimal"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as Builtin from "./builtin.ts"
import { NdArray } from "./nd_array.ts"

/** Tells whether a value is an object that is not an instance of a class. */
export function isPlain(value: object): value is { readonly [key: string]: unknown } {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === Object.prototype || prototype === null) return true
  // `Object.prototype` of another realm.
  return typeof prototype === "object" && prototype !== null && Object.getPrototypeOf(prototype) === null &&
    Object.hasOwn(prototype, "isPrototypeOf")
}

/** The types of Effect without a named constructor. Those that are also an Effect come before it. */
const effectTypes: ReadonlyArray<readonly [name: string, is: (value: unknown) => boolean]> = [
  ["Option", Option.isOption],
  ["Result", Result.isResult],
  ["Exit", Exit.isExit],
  ["Cause", Cause.isCause],
  ["Redacted", Redacted.isRedacted],
  ["Duration", Duration.isDuration],
  ["DateTime", DateTime.isDateTime],
  ["BigDecimal", BigDecimal.isBigDecimal],
  ["Chunk", Chunk.isChunk],
  ["HashMap", HashMap.isHashMap],
  ["HashSet", HashSet.isHashSet],
  ["Stream", Stream.isStream],
]

/** Returns the name of a value's type. */
export function nameOf(value: unknown): string {
  if (typeof value !== "object" || value === null) return value === null ? "null" : typeof value
  const [effectType] = effectTypes.find(([, is]) => is(value)) ?? []
  if (effectType !== undefined) return effectType
  const prototype: unknown = Object.getPrototypeOf(value)
  const name: unknown = typeof prototype === "object" && prototype !== null && "constructor" in prototype
    ? Reflect.get(prototype.constructor ?? {}, "name")
    : undefined
  if (typeof name !== "string" || name === "") return "object"
  return name === "Object" && Effect.isEffect(value) ? "Effect" : name
}

/** Returns a text for a thrown value. */
export function describe(cause: unknown): string {
  return Result.getOrElse(Result.try(() => String(cause)), () => "A value that is not an error was thrown")
}

/** Returns the path segment for a key of a `Map`. */
export function stepTo(key: unknown): string | number {
  if (typeof key === "number") return key
  return typeof key === "object" && key !== null || typeof key === "function"
    ? `(${nameOf(key)})`
    : String(key)
}

/** Tells whether a value cannot be hashed in Python. */
export function isUnhashable(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false
  return isPlain(value) || Builtin.isMap(value) || HashMap.isHashMap(value) || value instanceof NdArray ||
    (ArrayBuffer.isView(value) && !Builtin.isUint8Array(value))
}

/** Returns a value that is equal for distinct values of JavaScript that Python considers equal. */
export function pythonIdentity(value: unknown): unknown {
  if (value === undefined || value === null || Option.isOption(value) && Option.isNone(value)) return null
  if (typeof value === "boolean") return Number(value)
  if (typeof value === "bigint") return BigInt(Number(value)) === value ? Number(value) : value
  return typeof value === "number" && !Number.isNaN(value) ? value : undefined
}

/** The element type, the length and the memory of an array of numbers. */
export interface ArrayKind {
  readonly dtype: string
  readonly length: number
  readonly bytes: Uint8Array
}

const dtypes = new Map<unknown, string>([
  ["Float64Array", "f8"],
  ["Float32Array", "f4"],
  ["Int8Array", "i1"],
  ["Int16Array", "i2"],
  ["Int32Array", "i4"],
  ["BigInt64Array", "i8"],
  ["Uint8Array", "u1"],
  ["Uint8ClampedArray", "u1"],
  ["Uint16Array", "u2"],
  ["Uint32Array", "u4"],
  ["BigUint64Array", "u8"],
])

const typedArray: object = Object.getPrototypeOf(Uint8Array.prototype)

/** Returns the parts of an array of numbers; `undefined` for other views. */
export function arrayKind(view: ArrayBufferView): ArrayKind | undefined {
  const name: unknown = Reflect.get(typedArray, Symbol.toStringTag, view)
  // Only NumPy has half-precision numbers.
  if (name === "Float16Array" && isIterableOfNumbers(view)) return arrayKind(Float32Array.from(view))
  const dtype = dtypes.get(name)
  if (dtype === undefined) return undefined
  return { dtype, length: view.byteLength / Number(dtype.slice(1)), bytes: bytesOf(view) }
}

function isIterableOfNumbers(view: object): view is Iterable<number> {
  return Symbol.iterator in view
}

/** Returns the bytes of a view or a buffer without a copy. */
export function bytesOf(data: ArrayBufferView | ArrayBufferLike): Uint8Array {
  return ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data)
}
