/**
 * Chunks, results and errors of executions.
 *
 * All of them are Schema classes, so that they can be encoded and sent to other processes.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { ExecutionResult } from "./execution/output.ts"
import { KernelErrorReason } from "./execution/reason.ts"

export {
  Chunk,
  ClearOutput,
  DisplayChunk,
  ExecutionResult,
  Image,
  KernelOutput,
  type Payload,
  TextChunk,
} from "./execution/output.ts"
export {
  ConnectionLost,
  ExecutionAborted,
  InputRequested,
  KernelDied,
  KernelErrorReason,
  KernelNotFound,
  KernelStartFailed,
  KernelUnresponsive,
  ProtocolViolation,
} from "./execution/reason.ts"
export { ExecutionRef, KernelRef, OutputGone, ServerReplaced, SessionTaken } from "./execution/durable.ts"
export { Forbidden, NoSuchKernelspec, ResourceLimit, Unsupported } from "./execution/refusal.ts"
export { InvalidOption } from "./options/check.ts"
export { best, preference, type Representation } from "./execution/representation.ts"

/**
 * The code raised an exception.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   return yield* kernel.execute("1 / 0")
 * }).pipe(
 *   Effect.catchTag("ExecutionError", (error) => Effect.log(error.ename)) // ZeroDivisionError
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ExecutionError
  extends Schema.TaggedError<ExecutionError>("effect-jupyter/Execution/ExecutionError")("ExecutionError", {
    /** The name of the exception's class. */
    ename: Schema.String,
    /** The exception as text. */
    evalue: Schema.String,
    /** The frames, without color codes. */
    traceback: Schema.Array(Schema.String),
    /** The outputs up to the error. */
    partial: ExecutionResult,
  }) {
  override get message(): string {
    return `${this.ename}: ${this.evalue}\n${this.traceback.join("\n")}`
  }
}

/**
 * The execution took longer than its `timeout`. The kernel was interrupted and is idle again.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   return yield* kernel.execute("import time; time.sleep(60)", { timeout: "1 second" })
 * }).pipe(
 *   Effect.catchTag("ExecutionTimeout", (error) => Effect.succeed(error.partial))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ExecutionTimeout
  extends Schema.TaggedError<ExecutionTimeout>("effect-jupyter/Execution/ExecutionTimeout")(
    "ExecutionTimeout",
    {
      /** The timeout of the execution. */
      timeout: Schema.DurationFromString,
      /** The last frames of the interrupted code; empty if they are not known. */
      traceback: Schema.Array(Schema.String).pipe(
        Schema.withDecodingDefaultKey(Effect.succeed([])),
        Schema.withConstructorDefault(Effect.succeed([])),
      ),
      /** The outputs up to the error. */
      partial: ExecutionResult,
    },
  ) {
  override get message(): string {
    const where = this.traceback.length === 0 ? "" : `\n${this.traceback.join("\n")}`
    return `The execution was interrupted after its timeout of ${Duration.format(this.timeout)}; ` +
      `the kernel keeps its state, give a longer "timeout" if the code needs it${where}`
  }
}

const KernelErrorTypeId = "~effect-jupyter/Execution/KernelError"

/**
 * The kernel or the connection to it failed, not the code. `reason` has the details.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   return yield* kernel.execute("work()")
 * }).pipe(
 *   Effect.catchReasons("KernelError", {
 *     KernelDied: () => Effect.log("dead"),
 *     ConnectionLost: (reason) => Effect.log(reason.detail)
 *   })
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class KernelError
  extends Schema.TaggedError<KernelError>("effect-jupyter/Execution/KernelError")("KernelError", {
    reason: KernelErrorReason,
    /** The outputs up to the error, if it ended an execution. */
    partial: Schema.optionalKey(ExecutionResult),
  }) {
  readonly [KernelErrorTypeId] = KernelErrorTypeId
  override readonly cause = this.reason
  override get message(): string {
    return this.reason.message
  }
}

/**
 * Tells whether a value is a {@link KernelError}.
 *
 * @example
 * ```ts
 * import { Execution } from "effect-jupyter"
 *
 * console.log(Execution.isKernelError(new Error("no"))) // => false
 * ```
 *
 * @category guards
 * @since 0.1.0
 */
export function isKernelError(value: unknown): value is KernelError {
  return Predicate.hasProperty(value, KernelErrorTypeId)
}

/**
 * The schema of {@link ExecutionFailure}.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { HttpApiEndpoint } from "effect/http-api"
 * import { Execution } from "effect-jupyter"
 *
 * export const run = HttpApiEndpoint.post("run", "/run", {
 *   payload: Schema.Struct({ code: Schema.String }),
 *   success: Execution.ExecutionResult,
 *   error: Execution.ExecutionFailure
 * })
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export const ExecutionFailure = Schema.Union([ExecutionError, ExecutionTimeout, KernelError])

/**
 * The errors of executions.
 *
 * @category errors
 * @since 0.1.0
 */
export type ExecutionFailure = typeof ExecutionFailure.Type
