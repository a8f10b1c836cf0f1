/**
 * Typed values between Effect and Python: what `evaluate`, `set`, `call`, `iterate` and `feed` of a kernel carry,
 * and what can be wrong with it.
 *
 * A value keeps its type on the way. What comes from Python is decoded by a schema, which also chooses among the
 * forms that a value has in JavaScript: a `datetime` is a `Date` for `Schema.Date`, a `DateTime` for
 * `Schema.DateTimeUtc` and text for `Schema.String`. What goes to Python goes as what it is, or as its schema
 * encodes it. `examples/README.md` has the tables of all types, in the section "Typed values".
 *
 * Nothing is dropped or altered in silence: what does not travel is an {@link UnsupportedValue} that says
 * what and where. No library is imported because of a value; JSON carries what is small, buffers of the
 * messages what is binary.
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
 * array in the kernel, where NumPy is imported; where it is not, one of several dimensions is an
 * {@link UnsupportedValue}. Without a shape it has one dimension.
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
 * A value that cannot travel between Effect and Python: it has no encoding, contains itself, is nested too
 * deep, or would be another one on the other side. On its way to Python no code has run; on its way from
 * Python it has.
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
    return `The name "${this.given}" is no ${this.expected}`
  }
}

/** All the ways in which an exchange of values can fail, but for what the schema refuses. */
export type ValueFailure = ExecutionFailure | UnsupportedValue
