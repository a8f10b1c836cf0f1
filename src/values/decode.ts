/**
 * Decodes values of Python from JSON with tags, and buffers, to {@link PythonValue}s.
 *
 * @module
 */
import * as Result from "effect/Result"
import { excerpt } from "../jupyter/control_codes.ts"
import * as Json from "../jupyter/json.ts"
import { WireError } from "../jupyter/message.ts"
import * as PythonValue from "./python_value.ts"
import { NdArray, type NumberArray } from "./nd_array.ts"

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/**
 * Tells whether bytes are most of their message. Others are copied, so that they do not keep the message in memory. No
 * two values share memory.
 */
function isMost({ buffer, byteLength }: Uint8Array): boolean {
  return byteLength * 2 > buffer.byteLength
}

/** Maximum depth of values: somewhat more than the encoder in the kernel allows. */
const maxDepth = 256

/** Maximum depth of their JSON: a tag takes up to four levels. */
const maxJsonDepth = 4 * maxDepth

/** Maximum characters of a number or of the name of a column. */
const maxDigits = 2 ** 20

/**
 * Maximum cost of reading numbers as decimal ones, or of writing them for a message: about the sum of the squares of
 * their digits, so that one number may have about 185,000.
 */
const maxConversion = 2 ** 35

/** Maximum number of elements without bytes that an answer declares: empty arrays, and rows of a table without columns. */
const maxEmpty = 1_000_000

/** Maximum ratio of bytes that are used to bytes of the buffers. */
const maxUses = 4

/** The buffers that the tags of an answer refer to, and the remaining limits. */
interface Source {
  readonly buffers: ReadonlyArray<Uint8Array>
  /** Remaining bytes to use: a buffer that many tags refer to would become a large value. */
  bytes: number
  /** Remaining number of elements without bytes. */
  empty: number
  /** Remaining cost of converting numbers. */
  conversion: number
}

/** Decodes a value; the first buffer is its JSON, the others are what the JSON refers to. */
export function decode([text, ...buffers]: ReadonlyArray<Uint8Array>): Result.Result<unknown, WireError> {
  const parsed = Result.flatMap(
    Result.try({
      try: () => decoder.decode(text),
      catch: (cause) => new WireError({ detail: String(cause) }),
    }),
    (json) =>
      Result.mapError(
        Json.parse(json, maxJsonDepth),
        ({ detail }) => new WireError({ detail: `Its answer is not JSON: ${excerpt(detail)}` }),
      ),
  )
  return Result.flatMap(parsed, (value) =>
    Result.try({
      try: () => revive(value, start(buffers), 0),
      catch: (cause) =>
        new WireError({ detail: excerpt(cause instanceof Error ? cause.message : String(cause)) }),
    }))
}

function start(buffers: ReadonlyArray<Uint8Array>): Source {
  const total = buffers.reduce((sum, { byteLength }) => sum + byteLength, 0)
  return { buffers, bytes: maxUses * total, empty: maxEmpty, conversion: maxConversion }
}

/** Replaces tags by values, in place. */
function revive(value: unknown, source: Source, depth: number): unknown {
  if (typeof value !== "object" || value === null) return value
  if (depth > maxDepth) throw new Error(`The value is nested deeper than ${maxDepth} levels`)
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const item: unknown = value[index]
      if (typeof item === "object" && item !== null) value[index] = revive(item, source, depth + 1)
    }
    return value
  }
  if (Object.hasOwn(value, "$")) return untag(value, source, depth)
  for (const [key, item] of Object.entries(value)) {
    if (typeof item !== "object" || item === null) continue
    const revived = revive(item, source, depth + 1)
    if (revived !== item) Object.defineProperty(value, key, { ...property, value: revived })
  }
  return value
}

const property = { configurable: true, enumerable: true, writable: true }

function untag(tagged: object, source: Source, depth: number): unknown {
  const field = (name: string): unknown => Reflect.get(tagged, name)
  const kind = field("$")
  const v = field("v")
  switch (kind) {
    case "int":
      return integer(digits(source, v))
    case "float":
      return Number(word(v).replace("inf", "Infinity"))
    case "bytes":
      return withOwnMemory(buffer(source, v))
    case "array":
      return array(word(field("dtype")), list(field("shape")), buffer(source, v), source)
    case "datetime": {
      const zone = field("zone")
      return new PythonValue.Moment(word(v), typeof zone === "string" ? word(zone) : undefined)
    }
    case "date":
      return new PythonValue.Day(word(v))
    case "timedelta":
      return new PythonValue.Span(BigInt(word(v)))
    case "decimal":
      return new PythonValue.Decimal(digits(source, v))
    case "record":
      return Object.fromEntries(pairs(v, source, depth).map(([key, item]) => [String(key), item]))
    case "map":
      return withoutLoss(new Map(pairs(v, source, depth)), v)
    case "set":
      return withoutLoss(new Set(list(revive(v, source, depth))), v)
    case "frame":
      return table(list(field("columns")).map((name) => word(name, maxDigits)), field("rows"), {
        columns: list(revive(v, source, depth)),
        source,
      })
    default:
      throw new Error(`The tag "${excerpt(String(kind))}" is unknown`)
  }
}

/** Returns the text of a tag. Throws if it is longer than its type allows. */
function word(value: unknown, maxLength = 256): string {
  if (typeof value === "string" && value.length <= maxLength) return value
  throw new Error(`A tag is without a text of at most ${maxLength} characters`)
}

/** The text of a number of any length. */
function digits(source: Source, value: unknown): string {
  const text = word(value, maxDigits)
  source.conversion -= text.length ** 2
  if (source.conversion < 0) throw new Error("Its numbers have too many digits; give them as text")
  return text
}

function integer(hex: string): bigint {
  return hex.startsWith("-") ? -BigInt(`0x${hex.slice(1)}`) : BigInt(`0x${hex}`)
}

function list(value: unknown): ReadonlyArray<unknown> {
  if (Array.isArray(value)) return value
  throw new Error("It has a tag without a list")
}

/** Throws if elements or keys were equal in JavaScript. */
function withoutLoss<A extends { readonly size: number }>(collection: A, given: unknown): A {
  if (collection.size === list(given).length) return collection
  throw new Error("Two of its elements or keys are the same in JavaScript")
}

function pairs(
  value: unknown,
  source: Source,
  depth: number,
): ReadonlyArray<readonly [unknown, unknown]> {
  // The lists of the pairs are not a level of the value.
  return list(revive(value, source, depth - 1)).map((pair) => {
    const [key, item] = list(pair)
    return [key, item] as const
  })
}

/** Returns a buffer by its number, which starts at 1. */
function buffer(source: Source, index: unknown): Uint8Array {
  const found = source.buffers[Number(index) - 1]
  if (found === undefined) throw new Error(`It lacks the buffer ${excerpt(String(index))}`)
  source.bytes -= found.byteLength
  if (source.bytes < 0) throw new Error("Its tags refer to the same buffers again and again")
  return found
}

function withOwnMemory(bytes: Uint8Array): Uint8Array {
  return isMost(bytes) ? bytes : bytes.slice()
}

/** Counts elements without bytes. Throws if there are too many. */
function countEmpty(source: Source, count: number): void {
  source.empty -= count
  if (source.empty < 0) throw new Error(`It announces more than ${maxEmpty} elements that it does not have`)
}

/** Checks a number of elements. */
function size(value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value
  throw new Error(`"${excerpt(String(value))}" is not a number of elements`)
}

function table(
  names: ReadonlyArray<string>,
  declared: unknown,
  { columns, source }: { readonly columns: ReadonlyArray<unknown>; readonly source: Source },
): PythonValue.Table {
  const rows = size(declared)
  if (names.length !== columns.length) {
    throw new Error(`It has ${names.length} names of columns but ${columns.length} columns`)
  }
  if (columns.length === 0) countEmpty(source, rows)
  for (const column of columns) {
    const length = lengthOf(column)
    if (length !== rows) throw new Error(`It announces ${rows} rows but has a column of ${length}`)
  }
  return new PythonValue.Table(names, rows, columns)
}

function lengthOf(column: unknown): number | undefined {
  if (Array.isArray(column) || column instanceof PythonValue.Table) return column.length
  return column instanceof NdArray ? column.shape[0] : undefined
}

function array(
  dtype: string,
  declared: ReadonlyArray<unknown>,
  bytes: Uint8Array,
  source: Source,
): unknown {
  if (declared.length > maxDimensions) throw new Error(`It has more than ${maxDimensions} dimensions`)
  const shape = declared.map(size)
  const Type: NumberType | undefined = dtype === "b1" ? Uint8Array : types.get(dtype)
  if (Type === undefined) throw new Error(`Its numbers are of the unknown type "${excerpt(dtype)}"`)
  // There may be more nested lists than elements.
  let lists = 0
  let length = 1
  for (const count of shape) {
    lists += length
    length *= count
  }
  if (length * Type.BYTES_PER_ELEMENT !== bytes.byteLength) {
    throw new Error(`It announces ${length} elements of "${dtype}" but has ${bytes.byteLength} bytes`)
  }
  countEmpty(source, Math.max(0, lists - freeLists * length - 1))
  if (dtype === "b1") return PythonValue.nested(Array.from(bytes, (byte) => byte !== 0), shape)
  return new NdArray(numbers(Type, bytes), shape)
}

/** Number of nested lists for each element that are not counted as empty. */
const freeLists = 4

/** Maximum number of dimensions in NumPy. */
const maxDimensions = 64

/** The constructor of an array of numbers. */
interface NumberType {
  readonly BYTES_PER_ELEMENT: number
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): NumberArray
}

/** Array types by the names of their elements in NumPy. */
const types: ReadonlyMap<string, NumberType> = new Map<string, NumberType>([
  ["i1", Int8Array],
  ["i2", Int16Array],
  ["i4", Int32Array],
  ["i8", BigInt64Array],
  ["u1", Uint8Array],
  ["u2", Uint16Array],
  ["u4", Uint32Array],
  ["u8", BigUint64Array],
  ["f4", Float32Array],
  ["f8", Float64Array],
])

function numbers(Type: NumberType, bytes: Uint8Array): NumberArray {
  // Typed arrays start at multiples of their element size.
  const isAligned = bytes.byteOffset % Type.BYTES_PER_ELEMENT === 0
  const { buffer, byteLength, byteOffset } = isAligned && isMost(bytes) ? bytes : bytes.slice()
  return new Type(buffer, byteOffset, byteLength / Type.BYTES_PER_ELEMENT)
}
