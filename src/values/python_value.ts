/**
 * Values of Python before a schema decodes them: plain values of JavaScript, and classes for types of Python that
 * correspond to several types of JavaScript, or to none.
 *
 * @module
 */
import * as BigDecimal from "effect/BigDecimal"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import { NdArray, type NumberArray } from "./nd_array.ts"

/** A `datetime` in ISO form, with the offset if it has a time zone, and the name of that zone if it has one. */
export class Moment {
  readonly iso: string
  readonly zone: string | undefined
  constructor(iso: string, zone: string | undefined) {
    this.iso = iso
    this.zone = zone
  }
  /** Returns the instant. Without a time zone it is read as UTC, as pandas and NumPy do. */
  get utc(): Option.Option<DateTime.Utc> {
    const match = /[+-]\d\d:\d\d(:[\d.]+)?$/.exec(this.iso)
    if (match === null) return Option.map(DateTime.make(`${this.iso}Z`), DateTime.toUtc)
    if (match[1] === undefined) return Option.map(DateTime.make(this.iso), DateTime.toUtc)
    // Offsets of local mean time have seconds, which JavaScript does not parse.
    return Option.map(
      DateTime.make(`${this.iso.slice(0, match.index)}Z`),
      (clock) => DateTime.toUtc(DateTime.subtract(clock, { milliseconds: this.offset ?? 0 })),
    )
  }
  /** Returns the offset from UTC in milliseconds, if there is one. */
  get offset(): number | undefined {
    const [, sign, hours, minutes, seconds = 0] = /([+-])(\d\d):(\d\d)(?::([\d.]+))?$/.exec(this.iso) ?? []
    if (sign === undefined) return undefined
    return (sign === "-" ? -1000 : 1000) * (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds))
  }
  /** Returns the instant in its time zone; none without a time zone. */
  get zoned(): Option.Option<DateTime.Zoned> {
    const timeZone = this.zone ?? this.offset
    return timeZone === undefined
      ? Option.none()
      : Option.flatMap(this.utc, (utc) => DateTime.makeZoned(utc, { timeZone }))
  }
}

/** A `date` in ISO form. */
export class Day {
  readonly iso: string
  constructor(iso: string) {
    this.iso = iso
  }
}

/** A `timedelta` in microseconds. */
export class Span {
  readonly micros: bigint
  constructor(micros: bigint) {
    this.micros = micros
  }
  get duration(): Duration.Duration {
    return this.micros % 1000n === 0n
      ? Duration.millis(Number(this.micros / 1000n))
      : Duration.nanos(this.micros * 1000n)
  }
}

/** Maximum scale of a `BigDecimal`: far beyond the exponents of the decimal formats of IEEE 754, which end at 6144. */
const maxScale = 100_000

/** A `Decimal`, which may be infinite or `NaN`. */
export class Decimal {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
  /** Returns none for a scale that would make calculations exhaust the memory. */
  get bigDecimal(): Option.Option<BigDecimal.BigDecimal> {
    return Option.filter(BigDecimal.fromString(this.text), ({ scale }) => Math.abs(scale) <= maxScale)
  }
}

/** A table, stored by columns. */
export class Table {
  readonly columns: ReadonlyArray<string>
  readonly length: number
  /** A column is an array or an {@link NdArray}. */
  readonly data: ReadonlyArray<unknown>
  constructor(columns: ReadonlyArray<string>, length: number, data: ReadonlyArray<unknown>) {
    this.columns = columns
    this.length = length
    this.data = data
  }
  /** Returns the rows as records. */
  get rows(): ReadonlyArray<unknown> {
    const columns = this.data.map((column) => toArray(column) ?? [])
    return Array.from(
      { length: this.length },
      (_, row) => Object.fromEntries(this.columns.map((name, index) => [name, columns[index]?.[row]])),
    )
  }
  /** Returns the columns as one record. */
  get record(): { readonly [column: string]: unknown } {
    return Object.fromEntries(this.columns.map((name, index) => [name, this.data[index]]))
  }
}

/** Tells whether a value is an object as JSON defines it. */
export function isRecord(value: unknown): value is { readonly [key: string]: unknown } {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype
}

/** Returns the elements of an array, table or set; `undefined` for other values. */
export function toArray(value: unknown): ReadonlyArray<unknown> | undefined {
  if (Array.isArray(value)) return value
  if (value instanceof NdArray) return nested(value.data, value.shape)
  if (value instanceof Table) return value.rows
  if (value instanceof Set) return [...value]
  return undefined
}

/** Returns flat data as arrays of arrays. */
export function nested(
  data: NumberArray | ReadonlyArray<unknown>,
  shape: ReadonlyArray<number>,
): ReadonlyArray<unknown> {
  const flat: ReadonlyArray<unknown> = Array.isArray(data) ? data : Array.from<unknown>(data)
  const numbers = flat.map((item) => typeof item === "bigint" ? toSafeNumber(item) : item)
  const [, ...inner] = shape
  return inner.reduceRight<ReadonlyArray<unknown>>((items, length, index) => {
    const count = shape.slice(0, index + 1).reduce((product, size) => product * size, 1)
    return Array.from({ length: count }, (_, row) => items.slice(row * length, (row + 1) * length))
  }, numbers)
}

/** Returns an integer as a number if that is exact. */
function toSafeNumber(value: bigint): number | bigint {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
}

/** Returns the form of a value for schemas that accept any, such as `Schema.Unknown`. */
export function toDefaultForm(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map(toDefaultForm)
  if (isRecord(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, toDefaultForm(item)]))
  }
  if (value instanceof Moment) {
    const isUtc = value.zone === undefined && value.iso.endsWith("+00:00")
    return Option.getOrElse<DateTime.DateTime, string>(isUtc ? value.utc : value.zoned, () => value.iso)
  }
  if (value instanceof Day) return value.iso
  if (value instanceof Span) return value.duration
  if (value instanceof Decimal) return Option.getOrElse(value.bigDecimal, () => value.text)
  if (value instanceof NdArray) return value.shape.length === 1 ? value.data : value
  if (value instanceof Table) return value.rows.map(toDefaultForm)
  if (value instanceof Set) return new Set(Array.from(value, toDefaultForm))
  if (value instanceof Map) {
    return new Map(Array.from(value, ([key, item]) => [toDefaultForm(key), toDefaultForm(item)]))
  }
  return value
}

/** Returns the text of a value that has one canonical text; other values as they are. */
export function toText(value: unknown): unknown {
  if (value instanceof Moment || value instanceof Day) return value.iso
  if (value instanceof Decimal) return value.text
  return value instanceof Span ? isoDuration(value.micros) : value
}

function isoDuration(micros: bigint): string {
  const [sign, size] = micros < 0n ? ["-", -micros] : ["", micros]
  const fraction = `${size % 1_000_000n}`.padStart(6, "0").replace(/0+$/, "")
  return `${sign}PT${size / 1_000_000n}${fraction === "" ? "" : `.${fraction}`}S`
}
