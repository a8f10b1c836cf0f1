/**
 * The reasons of `KernelError`.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import { InvalidOption } from "../options/check.ts"
import { OutputGone, ServerReplaced, SessionTaken } from "./durable.ts"
import { orAbsent } from "./json.ts"
import { Forbidden, NoSuchKernelspec, ResourceLimit, Unsupported } from "./refusal.ts"

const kernelId = orAbsent(Schema.String)
const ofKernel = (id: string | undefined): string => id === undefined ? "The kernel" : `The kernel "${id}"`

/**
 * The kernel's process ended by itself or was killed.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   yield* kernel.execute("import os; os._exit(1)").pipe(
 *     Effect.catchReason("KernelError", "KernelDied", () => kernel.reset)
 *   )
 * })
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class KernelDied
  extends Schema.TaggedError<KernelDied>("effect-jupyter/Execution/KernelDied")("KernelDied", {
    kernelId,
  }) {
  override get message(): string {
    return `${ofKernel(this.kernelId)} died; its state is lost, use "reset" for a new one`
  }
}

/**
 * The kernel did not react to interrupts, or its process is stopped. Its state is not affected, and it becomes usable when
 * the code ends.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(execution: Effect.Effect<A, Execution.ExecutionFailure>) =>
 *   execution.pipe(
 *     Effect.catchReason("KernelError", "KernelUnresponsive", (reason) => Effect.logWarning(`Busy: ${reason.kernelId}`))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class KernelUnresponsive
  extends Schema.TaggedError<KernelUnresponsive>("effect-jupyter/Execution/KernelUnresponsive")(
    "KernelUnresponsive",
    { kernelId },
  ) {
  override get message(): string {
    return `${
      ofKernel(this.kernelId)
    } did not become idle although it was interrupted twice, or it is stopped; ` +
      `wait for its code to end, or use "reset" for a new kernel`
  }
}

/**
 * The kernel could not be started or did not become ready in time.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(execution: Effect.Effect<A, Execution.ExecutionFailure>) =>
 *   execution.pipe(
 *     Effect.catchReason("KernelError", "KernelStartFailed", (reason) => Effect.logError(reason.detail))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class KernelStartFailed
  extends Schema.TaggedError<KernelStartFailed>("effect-jupyter/Execution/KernelStartFailed")(
    "KernelStartFailed",
    {
      kernelId,
      /** A description of the failure. */
      detail: Schema.String,
    },
  ) {
  override get message(): string {
    return `${ofKernel(this.kernelId)} could not be started: ${this.detail}`
  }
}

/**
 * The server does not know the kernel: it was deleted, or the server culled it.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(execution: Effect.Effect<A, Execution.ExecutionFailure>) =>
 *   execution.pipe(
 *     Effect.catchReason("KernelError", "KernelNotFound", (reason) => Effect.logWarning(`Culled: ${reason.kernelId}`))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class KernelNotFound
  extends Schema.TaggedError<KernelNotFound>("effect-jupyter/Execution/KernelNotFound")("KernelNotFound", {
    kernelId,
  }) {
  override get message(): string {
    return `${ofKernel(this.kernelId)} is not known to the server any more; use "reset" for a new one`
  }
}

/**
 * The connection to the kernel was lost, or the server has ended.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(execution: Effect.Effect<A, Execution.ExecutionFailure>) =>
 *   execution.pipe(
 *     Effect.catchReason("KernelError", "ConnectionLost", (reason) => Effect.logError(reason.detail))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionLost
  extends Schema.TaggedError<ConnectionLost>("effect-jupyter/Execution/ConnectionLost")("ConnectionLost", {
    kernelId,
    /** The message of the network or the server. */
    detail: Schema.String,
  }) {
  override get message(): string {
    return `The connection to ${this.kernelId === undefined ? "the kernel" : `kernel "${this.kernelId}"`} ` +
      `is lost: ${this.detail}; use "reset" to connect to a new kernel`
  }
}

/**
 * The execution was ended early because the kernel was reset or the client closed.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(execution: Effect.Effect<A, Execution.ExecutionFailure>) =>
 *   execution.pipe(
 *     Effect.catchReason("KernelError", "ExecutionAborted", (reason) => Effect.logInfo(reason.detail))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ExecutionAborted
  extends Schema.TaggedError<ExecutionAborted>("effect-jupyter/Execution/ExecutionAborted")(
    "ExecutionAborted",
    {
      kernelId,
      /** The cause, for instance a reset. */
      detail: Schema.String,
    },
  ) {
  override get message(): string {
    return `The execution in ${this.kernelId === undefined ? "the kernel" : `kernel "${this.kernelId}"`} ` +
      `was aborted: ${this.detail}`
  }
}

/**
 * The code asked for input, and `onInput` was not given or failed.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(execution: Effect.Effect<A, Execution.ExecutionFailure>) =>
 *   execution.pipe(
 *     Effect.catchReason("KernelError", "InputRequested", (reason) => Effect.logError(`Unanswered: ${reason.prompt}`))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class InputRequested
  extends Schema.TaggedError<InputRequested>("effect-jupyter/Execution/InputRequested")("InputRequested", {
    kernelId,
    /** The prompt of the code. */
    prompt: Schema.String,
  }) {
  override get message(): string {
    return `The code asked for input with the prompt "${this.prompt}" and got no answer; ` +
      `give the option "onInput", or pass values to the code instead`
  }
}

/**
 * The kernel sent a message that is past a limit or not valid. Its state is not affected, and it stays usable.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(execution: Effect.Effect<A, Execution.ExecutionFailure>) =>
 *   execution.pipe(
 *     Effect.catchReason("KernelError", "ProtocolViolation", (reason) => Effect.logError(reason.detail))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ProtocolViolation
  extends Schema.TaggedError<ProtocolViolation>("effect-jupyter/Execution/ProtocolViolation")(
    "ProtocolViolation",
    {
      kernelId,
      /** A description of the violation. */
      detail: Schema.String,
    },
  ) {
  override get message(): string {
    return `${ofKernel(this.kernelId)} sent a message that is not accepted: ${this.detail}; ` +
      `its state is not affected, have the code send less, or use "reset" if it is not trusted`
  }
}

/**
 * The schema of {@link KernelErrorReason}.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Execution } from "effect-jupyter"
 *
 * const isReason = Schema.is(Execution.KernelErrorReason)
 * console.log(isReason(new Execution.KernelDied({ kernelId: undefined }))) // => true
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export const KernelErrorReason = Schema.Union([
  KernelDied,
  KernelUnresponsive,
  KernelStartFailed,
  KernelNotFound,
  ConnectionLost,
  ExecutionAborted,
  InputRequested,
  ProtocolViolation,
  InvalidOption,
  ResourceLimit,
  Forbidden,
  NoSuchKernelspec,
  Unsupported,
  SessionTaken,
  OutputGone,
  ServerReplaced,
])

/**
 * A reason of a `KernelError`.
 *
 * @category errors
 * @since 0.1.0
 */
export type KernelErrorReason = typeof KernelErrorReason.Type
