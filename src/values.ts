/**
 * Typed values between Effect and Python: what `evaluate`, `set`, `call`, `iterate` and `feed` of a kernel carry,
 * and what can be wrong with it.
 *
 * A value keeps its type on the way. What comes from Python is decoded by a schema, which also chooses among the
 * forms that a value has in JavaScript: the most natural schema works.
 *
 * | Python                                       | schema, and what decodes it                                       |
 * | -------------------------------------------- | ----------------------------------------------------------------- |
 * | `None`                                       | `Schema.Null`, `NullOr`, `OptionFromNullOr`, `Option`, `Void`     |
 * | `bool`                                       | `Schema.Boolean`                                                  |
 * | `int`                                        | `Schema.Int` or `Number` up to 2⁵³ - 1, `Schema.BigInt` any, and whole floats |
 * | `float`                                      | `Schema.Number`, `Finite` without `inf` and `nan`                 |
 * | `str`                                        | `Schema.String`, and all that decodes from strings                |
 * | `bytes`, `bytearray`, `memoryview`           | `Schema.Uint8Array`                                               |
 * | `list`, `tuple`, `range`, `deque`            | `Schema.Array`, `Tuple`, `Chunk`, `ReadonlySet`                   |
 * | `set`, `frozenset`                           | `Schema.ReadonlySet`, `HashSet`, `Array`                          |
 * | `dict` with keys of type `str`               | `Schema.Struct`, `Record`, `ReadonlyMap`, `HashMap`               |
 * | other `dict`                                 | `Schema.ReadonlyMap`, `HashMap`                                   |
 * | dataclass, named tuple, pydantic model       | `Schema.Struct`, `Schema.Class`                                   |
 * | `datetime`                                   | `Schema.DateTimeUtc`, `DateTimeZoned`, `Date` (milliseconds, naive ones taken for UTC); `String` in full |
 * | `date`                                       | `Schema.Date`, `DateTimeUtc` at midnight; `String`                |
 * | `time`, `UUID`, `Path`                       | `Schema.String`                                                   |
 * | `timedelta`                                  | `Schema.Duration`; `String` in ISO form                           |
 * | `Decimal`                                    | `Schema.BigDecimal`; `String`                                     |
 * | `Enum`                                       | its value: `Schema.Literals`, `Enum`                              |
 * | NumPy scalar, `array.array`                  | as its counterpart in Python, as an array                         |
 * | NumPy array of numbers                       | `Schema.Array(Schema.Number)`, nested by shape; `Schema.instanceOf(Float64Array)` and the like; `Schema.instanceOf(Values.NdArray)` |
 * | pandas `Series`, `Index`                     | `Schema.Array`; what is missing is `null`, in columns of floats `NaN`; the index of a `Series` is left out |
 * | pandas `DataFrame`                           | `Schema.Array(Schema.Struct(...))` row by row, `Schema.Struct` of arrays by column, `Schema.Uint8Array` with `tables: "arrow"`; the index is left out, names of columns become text |
 *
 * To Python go, by the same table backwards: `null` and `undefined`, booleans, numbers (`int` if it is a safe
 * integer and not -0, else `float`), bigints, strings, `Uint8Array` and `ArrayBuffer` (`bytes`), other typed arrays and
 * {@link NdArray} (`numpy.ndarray` where NumPy is imported, else `array.array`, which has one dimension), arrays, plain objects without what is
 * `undefined` in them, `Map`, `Set`, `HashMap`, `HashSet`, `Chunk`, `Option` (`None` or the value), `Date` and
 * `DateTime`, `Duration`, `BigDecimal`, `URL` (`str`). Everything else is encoded by a schema first.
 *
 * No library is imported because of a value; JSON carries what is small, buffers of the messages what is binary.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import { type ExecutionFailure, ExecutionResult } from "./execution.ts"

export type { CallOptions, FeedOptions, IterateOptions, SetOptions, ValueOptions } from "./values/options.ts"

/** What holds the numbers of an array. */
export type NumberArray =
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Float32Array
  | Float64Array

/**
 * An array of numbers of any number of dimensions, in the order of C: the last index runs fastest. It is a NumPy
 * array in the kernel, where NumPy is imported.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { type KernelClient, Values } from "effect-jupyter"
 *
 * export const square = Effect.fn("square")(function*(kernel: KernelClient.Kernel) {
 *   yield* kernel.execute("import numpy as np")
 *   yield* kernel.set("m", new Values.NdArray(Float64Array.of(1, 2, 3, 4), [2, 2]))
 *   return yield* kernel.evaluate("m @ m", Schema.instanceOf(Values.NdArray))
 * })
 * ```
 */
export class NdArray {
  readonly data: NumberArray
  readonly shape: ReadonlyArray<number>
  constructor(data: NumberArray, shape: ReadonlyArray<number> = [data.length]) {
    this.data = data
    this.shape = shape
  }
}

/**
 * A value that cannot travel between Effect and Python: it has no encoding, contains itself, or is nested too
 * deep. On its way to Python nothing was sent; on its way from Python the code has run.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   return yield* kernel.evaluate("{'rows': [{'handle': object()}]}", Schema.Unknown)
 * }).pipe(
 *   Effect.catchTag("UnsupportedValue", ({ path, valueType }) => Effect.log(path, valueType)) // $.rows[0].handle object
 * )
 * ```
 */
export class UnsupportedValue
  extends Schema.TaggedError<UnsupportedValue>("effect-jupyter/Values/UnsupportedValue")("UnsupportedValue", {
    /** The name of its type, with the module if it is a type of Python that needs one. */
    valueType: Schema.String,
    /** Where it is: `$` is the whole value. */
    path: Schema.String,
    /** What is the matter. */
    detail: Schema.String,
    /** What was put out before, if code ran. */
    partial: Schema.optionalKey(ExecutionResult),
  }) {
  override get message(): string {
    return `The value of type "${this.valueType}" at "${this.path}" cannot be carried between Effect and Python: ` +
      this.detail
  }
}

/**
 * A name that Python does not take for one: nothing was sent.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   yield* kernel.set("not a name", 1)
 * }).pipe(Effect.catchTag("InvalidName", (error) => Effect.log(error.given)))
 * ```
 */
export class InvalidName
  extends Schema.TaggedError<InvalidName>("effect-jupyter/Values/InvalidName")("InvalidName", {
    /** What was given as a name. */
    given: Schema.String,
    /** What it should have been. */
    expected: Schema.String,
  }) {
  override get message(): string {
    return `"${this.given}" is no ${this.expected}`
  }
}

/** All the ways in which an exchange of values can fail, but for what the schema refuses. */
export type ValueFailure = ExecutionFailure | UnsupportedValue
