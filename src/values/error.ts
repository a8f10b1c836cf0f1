/**
 * The ways in which an exchange of values fails.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import { type ExecutionFailure, ExecutionResult } from "../execution.ts"

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
