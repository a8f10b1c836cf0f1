/**
 * The outcome of an execution: its result, or the reason of its failure.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import {
  ExecutionAborted,
  ExecutionError,
  type ExecutionFailure,
  type ExecutionResult,
  ExecutionTimeout,
  KernelError,
  type KernelErrorReason,
} from "../execution.ts"
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

/** Returns the reason of an execution without a reply. */
export function withoutReply(kernelId: string): ExecutionAborted {
  return new ExecutionAborted({ kernelId, detail: "The kernel sent no reply" })
}
