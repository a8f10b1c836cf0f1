/**
 * The reasons of `KernelError` for a request that is refused: by the server, which does not start the kernel, or because
 * the kernel does not support the operation.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/**
 * The server does not start another kernel, because it has reached a limit.
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
  /** True: the same request succeeds when the server has room again. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const when = this.retryAfter === undefined ? "later" : `in ${Duration.format(this.retryAfter)}`
    return `The server starts no more kernels: ${this.detail}; ` +
      `close kernels that are not used, or try again ${when}`
  }
}

/**
 * The server does not allow this user to start the kernel.
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
  /** False: the same request is refused again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `The server refuses to start the kernel: ${this.detail}; check the token and its permissions, ` +
      `and the option "user" or "KERNEL_USERNAME" in "env" if it is an Enterprise Gateway; a retry does not help`
  }
}

/** Maximum number of kernelspecs that a message names. */
const maxShown = 20

/**
 * The server has no kernelspec of this name.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const program = KernelClient.make({ kernelName: "julia" }).pipe(
 *   Effect.catchReason("KernelError", "NoSuchKernelspec", (reason) => Effect.logError(`There are only ${reason.known}`))
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
      /** The requested name, or the name of the server's default. */
      kernelName: Schema.String,
      /** The names of the kernelspecs on the server. */
      known: Schema.Array(Schema.String),
    },
  ) {
  /** False: the same request is refused again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const shown = this.known.slice(0, maxShown).map((name) => `"${name.slice(0, 100)}"`).join(", ")
    const others = this.known.length > maxShown ? ` and ${this.known.length - maxShown} others` : ""
    const known = shown === "" ? "no kernelspec at all" : `${shown}${others}`
    return `There is no kernelspec "${this.kernelName}" on the server, which knows ${known}; ` +
      `install it there, or give another "kernelName"`
  }
}

/**
 * The operation needs a Python kernel with IPython, and this is another kernel; or it cannot be requested from another
 * process. Nothing was sent to the kernel.
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
    /** The reason, if it is not the language. */
    detail: Schema.optionalKey(Schema.String),
  }) {
  /** False: the same request is refused again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return this.detail !== undefined
      ? `The operation "${this.operation}" is not available: ${this.detail}`
      : `The operation "${this.operation}" needs a Python kernel with IPython, ` +
        `and this is a kernel of "${this.language}"; use "execute" instead`
  }
}
