/**
 * The reasons of `KernelError`.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { InvalidOption } from "../options/check.ts"
import { orAbsent } from "./json.ts"

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
 * The kernel did not react to interrupts. Its state is as it was; it may come back when the code ends.
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
    return `${ofKernel(this.kernelId)} did not become idle although it was interrupted twice; ` +
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
 * The connection to the kernel, or the server behind it, is gone.
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
      /** The cause of the end. */
      detail: Schema.String,
    },
  ) {
  override get message(): string {
    return `The execution in ${this.kernelId === undefined ? "the kernel" : `kernel "${this.kernelId}"`} ` +
      `was aborted: ${this.detail}`
  }
}

/**
 * The code asked for input, and there is no `onInput` to answer.
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
    /** The text with which the code asked. */
    prompt: Schema.String,
  }) {
  override get message(): string {
    return `The code asked for input with the prompt "${this.prompt}", which nobody answers; ` +
      `pass values to the code instead`
  }
}

/**
 * The kernel sent what no program has a use for: a message past a bound, or an answer that contradicts itself. Its
 * state is as it was, and it can be used further.
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
    return `${ofKernel(this.kernelId)} sent what cannot be taken: ${this.detail}; ` +
      `it keeps its state, have the code send less or use "reset" if it is not trusted any more`
  }
}

/**
 * The server starts no more kernels, for this user or at all.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const retried = KernelClient.make().pipe(
 *   Effect.catchReason("KernelError", "ResourceLimit", ({ retryAfter }) =>
 *     Effect.delay(KernelClient.make(), retryAfter ?? "10 seconds"))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ResourceLimit
  extends Schema.TaggedError<ResourceLimit>("effect-jupyter/Execution/ResourceLimit")("ResourceLimit", {
    /** The message of the server. */
    detail: Schema.String,
    /** The time until the next attempt that the server suggests. */
    retryAfter: Schema.optionalKey(Schema.DurationFromString),
  }) {
  override get message(): string {
    const when = this.retryAfter === undefined ? "later" : `in ${Duration.format(this.retryAfter)}`
    return `The server starts no more kernels: ${this.detail}; ` +
      `close kernels that are not used, or try again ${when}`
  }
}

/**
 * The server does not let this user start the kernel.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(kernel: Effect.Effect<A, Execution.KernelError>) =>
 *   kernel.pipe(
 *     Effect.catchReason("KernelError", "Forbidden", (reason) => Effect.logError(reason.detail))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class Forbidden
  extends Schema.TaggedError<Forbidden>("effect-jupyter/Execution/Forbidden")("Forbidden", {
    /** The message of the server. */
    detail: Schema.String,
  }) {
  override get message(): string {
    return `The server refuses to start the kernel: ${this.detail}; check the token and its permissions, ` +
      `and the variable "KERNEL_USERNAME" in "env" if it is an Enterprise Gateway`
  }
}

/**
 * The server has no kernelspec of this name.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const program = KernelClient.make({ kernelName: "julia" }).pipe(
 *   Effect.tapErrorTag("KernelError", ({ reason }) =>
 *     reason._tag === "NoSuchKernelspec" ? Effect.logError(`There are only ${reason.known}`) : Effect.void)
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class NoSuchKernelspec
  extends Schema.TaggedError<NoSuchKernelspec>("effect-jupyter/Execution/NoSuchKernelspec")(
    "NoSuchKernelspec",
    {
      /** The name that was asked for, or the server's own default. */
      kernelName: Schema.String,
      /** The names that the server knows. */
      known: Schema.Array(Schema.String),
    },
  ) {
  override get message(): string {
    const known = this.known.length === 0
      ? "no kernelspec at all"
      : this.known.map((name) => `"${name}"`).join(", ")
    return `There is no kernelspec "${this.kernelName}" on the server, which knows ${known}; ` +
      `install it there, or give another "kernelName"`
  }
}

/**
 * The operation needs a kernel of IPython, and this one is not. Nothing was sent to it.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const bash = yield* KernelClient.make({ kernelName: "bash" })
 *   return yield* bash.evaluate("x", Schema.Int)
 * }).pipe(
 *   Effect.catchReason("KernelError", "Unsupported", ({ language, operation }) =>
 *     Effect.logError(`${language} has no ${operation}`))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class Unsupported
  extends Schema.TaggedError<Unsupported>("effect-jupyter/Execution/Unsupported")("Unsupported", {
    /** The kernel's name for its language, for instance `"bash"`. */
    language: Schema.String,
    /** The method or option, for instance `"evaluate"`. */
    operation: Schema.String,
  }) {
  override get message(): string {
    return `The operation "${this.operation}" needs a Python kernel with IPython, ` +
      `and this one of "${this.language}" is none; use "execute" instead`
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
])

/**
 * A reason of a `KernelError`.
 *
 * @category errors
 * @since 0.1.0
 */
export type KernelErrorReason = typeof KernelErrorReason.Type
