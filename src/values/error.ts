/**
 * Errors of typed values.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import { type ExecutionFailure, ExecutionResult } from "../execution.ts"

/**
 * A value cannot be exchanged between Effect and Python: it has no encoding, contains itself, is nested too deeply, or
 * would be a different value on the other side. For values sent to Python no code has run; for values received from
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
 *
 * @category errors
 * @since 0.1.0
 */
export class UnsupportedValue
  extends Schema.TaggedError<UnsupportedValue>("effect-jupyter/Values/UnsupportedValue")("UnsupportedValue", {
    /** The name of its type, with the module if it is a type of Python that needs one. */
    valueType: Schema.String,
    /** Its path in the whole value, which is `$`. */
    path: Schema.String,
    /** The reason. */
    detail: Schema.String,
    /** The output of the code, if it ran. */
    partial: Schema.optionalKey(ExecutionResult),
  }) {
  override get message(): string {
    return `The value of type "${this.valueType}" at "${this.path}" cannot be carried between Effect and Python: ` +
      this.detail
  }
}

/**
 * A name is not valid in Python. Nothing was sent.
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
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidName
  extends Schema.TaggedError<InvalidName>("effect-jupyter/Values/InvalidName")("InvalidName", {
    /** The given name. */
    given: Schema.String,
    /** The expected kind of name. */
    expected: Schema.String,
  }) {
  override get message(): string {
    return `The name "${this.given}" is not a valid ${this.expected}`
  }
}

/**
 * The errors of typed values other than a `SchemaError`.
 *
 * @category models
 * @since 0.1.0
 */
export type ValueFailure = ExecutionFailure | UnsupportedValue
