/**
 * References to kernels that outlive a program and to executions in them, and the reasons of `KernelError` that come with
 * them.
 *
 * @module
 */
import * as Schema from "effect/Schema"

/** A part of the header of a message. */
const Id = Schema.String.check(Schema.isMaxLength(255))
/** The number of a message. */
const Position = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/**
 * A reference to a kernel, by which another program attaches to it. It has no secrets: the gateway has the token.
 *
 * @example
 * ```ts
 * import { Effect, FileSystem, Schema } from "effect"
 * import { Execution, KernelClient } from "effect-jupyter"
 *
 * const encode = Schema.encodeEffect(Schema.fromJsonString(Execution.KernelRef))
 *
 * export const store = Effect.fn("store")(function*(kernel: KernelClient.Kernel, path: string) {
 *   const fs = yield* FileSystem.FileSystem
 *   yield* fs.writeFileString(path, yield* encode(yield* kernel.detach))
 * })
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class KernelRef extends Schema.Class<KernelRef>("effect-jupyter/Execution/KernelRef")({
  /** The id of a shared gateway, or the URL of another server. */
  server: Schema.String,
  kernelId: Schema.String.check(Schema.isPattern(/^[\w-]{1,255}$/)),
  /** The id in the headers of the messages that programs send to the kernel. */
  session: Id,
}) {}

/**
 * A reference to code that was started in a kernel, and to a position in its output.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Execution, KernelClient } from "effect-jupyter"
 *
 * const decode = Schema.decodeEffect(Schema.fromJsonString(Execution.ExecutionRef))
 *
 * export const resume = Effect.fn("resume")(function*(stored: string) {
 *   const ref = yield* decode(stored)
 *   const kernel = yield* KernelClient.attach(ref.kernel)
 *   return kernel.resume(ref)
 * })
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class ExecutionRef extends Schema.Class<ExecutionRef>("effect-jupyter/Execution/ExecutionRef")({
  kernel: KernelRef,
  /** The id of the request. */
  id: Id,
  /** The number of messages of the kernel before the request. */
  start: Position,
  /** The number of messages of the kernel up to the last output that was taken. */
  position: Position,
}) {}

const kernelId = Schema.String

/**
 * Another program has attached to the kernel, which this one cannot use any more. Its code and its state are not
 * affected.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(execution: Effect.Effect<A, Execution.ExecutionFailure>) =>
 *   execution.pipe(
 *     Effect.catchReason("KernelError", "SessionTaken", (reason) => Effect.logInfo(`Moved: ${reason.kernelId}`))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class SessionTaken
  extends Schema.TaggedError<SessionTaken>("effect-jupyter/Execution/SessionTaken")("SessionTaken", {
    kernelId,
  }) {
  override get message(): string {
    return `Another program has attached to the kernel "${this.kernelId}"; ` +
      `use it there, or attach again to take it back`
  }
}

/**
 * Output of the execution is gone: while no program took it, the kernel put out more than the gateway keeps.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import type { Execution } from "effect-jupyter"
 *
 * export const handled = <A>(execution: Effect.Effect<A, Execution.ExecutionFailure>) =>
 *   execution.pipe(
 *     Effect.catchReason("KernelError", "OutputGone", (reason, error) =>
 *       Effect.as(Effect.logWarning(`${reason.missing} messages are gone`), error.partial))
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class OutputGone
  extends Schema.TaggedError<OutputGone>("effect-jupyter/Execution/OutputGone")("OutputGone", {
    kernelId,
    /** The number of messages of the kernel that are gone, with those of other executions meanwhile. */
    missing: Schema.Int,
  }) {
  override get message(): string {
    return `The kernel "${this.kernelId}" put out more than the gateway keeps while no program took it, and ` +
      `${this.missing} messages are gone; give the gateway a larger "outputRetention", or resume earlier`
  }
}

/**
 * The reference is of a kernel on another server: that of this name or address has ended, and the kernel with it.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Execution, KernelClient } from "effect-jupyter"
 *
 * export const attached = (ref: Execution.KernelRef) =>
 *   KernelClient.attach(ref).pipe(
 *     Effect.catchReasons("KernelError", {
 *       ServerReplaced: () => KernelClient.make(),
 *       KernelNotFound: () => KernelClient.make()
 *     })
 *   )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ServerReplaced
  extends Schema.TaggedError<ServerReplaced>("effect-jupyter/Execution/ServerReplaced")("ServerReplaced", {
    kernelId,
    /** The server of the reference. */
    server: Schema.String,
  }) {
  override get message(): string {
    return `The kernel "${this.kernelId}" is of the server "${this.server}", and this is another one; ` +
      `attach with its gateway, or start a new kernel`
  }
}
