/**
 * The outcome of an execution: its result, or the reason of its failure.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import {
  ConnectionLost,
  ExecutionAborted,
  ExecutionError,
  type ExecutionFailure,
  type ExecutionResult,
  ExecutionTimeout,
  KernelError,
  type KernelErrorReason,
  ProtocolViolation,
} from "../execution.ts"
import type { ChannelError } from "../jupyter/socket.ts"
import type { Connection } from "./connection.ts"
import { lastFrames, type Progress } from "./reducer.ts"

/** The reason for which the library ends an execution before the kernel does. */
export type EndReason = { readonly _tag: "Timeout" } | KernelErrorReason

/** Returns the result of an execution that the kernel ended. Fails with the exception of the code, or `KernelError`. */
export function toResult(
  progress: Progress,
  { kernelId, partial }: { readonly kernelId: string; readonly partial: ExecutionResult },
): Effect.Effect<ExecutionResult, ExecutionFailure> {
  if (progress.reply === "ok") return Effect.succeed(partial)
  if (progress.reply === "error" && progress.raised !== undefined) {
    return Effect.fail(new ExecutionError({ ...progress.raised, partial }))
  }
  const detail = progress.started
    ? "It was interrupted while the code ran"
    : "The kernel did not run the code"
  return Effect.fail(new KernelError({ reason: new ExecutionAborted({ kernelId, detail }), partial }))
}

/** Returns the failure of an execution that the library ended. */
export function failure(
  endReason: EndReason,
  progress: Progress,
  { partial, timeout = Duration.infinity }: {
    readonly partial: ExecutionResult
    readonly timeout: Duration.Input | undefined
  },
): ExecutionFailure {
  return endReason._tag === "Timeout"
    ? new ExecutionTimeout({
      timeout: Duration.fromInputUnsafe(timeout),
      traceback: lastFrames(progress),
      partial,
    })
    : new KernelError({ reason: endReason, partial })
}

/** The default maximum of the bytes of a message that Jupyter servers accept. */
const defaultServerMaximum = 10_000_000

/**
 * Returns the reason of an execution whose output may be incomplete. `unread` is the length of the code if the kernel
 * did not begin to run it: servers close the connection on a message that is too large, often without a reason.
 */
export function gap(
  { id, maxMessageSize }: Connection,
  disconnectError: ChannelError | undefined,
  unread: number,
): ConnectionLost | ProtocolViolation {
  if (disconnectError?.isTooLarge === true) {
    const detail = `A message has more than the ${maxMessageSize} bytes of the option "maxMessageSize"`
    return new ProtocolViolation({ kernelId: id, detail })
  }
  const loss = unread < defaultServerMaximum
    ? "not all messages of the kernel could be recovered"
    : `the code of ${(unread / 1e6).toFixed(1)} MB did not arrive, and many servers refuse more than 10 MB`
  return new ConnectionLost({ kernelId: id, detail: `${disconnectError?.detail ?? "It was cut"}; ${loss}` })
}

/** Returns the reason of an execution without a reply. */
export function withoutReply(kernelId: string): ExecutionAborted {
  return new ExecutionAborted({ kernelId, detail: "The kernel sent no reply" })
}
