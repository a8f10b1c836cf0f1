/**
 * Requests of the library in the turn of executions, with data in the buffers of the message: of a type of their own, or
 * as executions.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { ExecutionTimeout, type KernelError, ProtocolViolation } from "../execution.ts"
import type { JsonObject, Message } from "../jupyter/message.ts"
import type { Instance } from "./instance.ts"
import * as Transcript from "../output/transcript.ts"

/** The type of a request for values, which has output and can be interrupted as an execution. */
export const requestType = "effect_jupyter_value_request"

/** The type of its reply. */
export const replyType = "effect_jupyter_value_reply"

/** The parts of the message in place of those of an execution. */
export interface Attachment {
  readonly metadata?: JsonObject | undefined
  readonly buffers: ReadonlyArray<Uint8Array>
  /** The value that the buffers encode. */
  readonly value?: unknown
}

/** A request of the library in the turn of executions, which is no part of the history. */
export interface InternalRequest {
  /** Returns the attachment. It runs after the time in the queue, before the request is sent. */
  readonly prepare: (instance: Instance) => Effect.Effect<Attachment, KernelError>
  /** Tells whether a message has answers to the request; such a message is not output. */
  readonly isAnswer: (message: Message) => boolean
  readonly take: (message: Message) => void
  /** Maximum bytes of all answers together. */
  readonly maxBytes: number
}

/** Prepares a request within its timeout. */
export const prepare = (
  internalRequest: InternalRequest,
  instance: Instance,
  { outputLimit, timeout }: {
    readonly outputLimit?: number | undefined
    readonly timeout?: Duration.Input | undefined
  },
): Effect.Effect<Attachment, KernelError | ExecutionTimeout> =>
  timeout === undefined
    ? internalRequest.prepare(instance)
    : Effect.timeoutOrElse(internalRequest.prepare(instance), {
      duration: timeout,
      orElse: () =>
        new ExecutionTimeout({
          timeout: Duration.fromInputUnsafe(timeout),
          partial: Transcript.toResult(Transcript.empty(outputLimit), undefined),
        }),
    })

/** Makes what takes the answers to a request, and tells of a message whether it is nothing else; they are kept to the end. */
export function taker(
  { isAnswer, maxBytes, take }: InternalRequest,
  kernelId: string,
  stop: (reason: ProtocolViolation) => void,
): (message: Message, bytes: number) => boolean {
  let size = 0
  return (message, bytes) => {
    if (!isAnswer(message)) return false
    size += bytes + 256 * message.buffers.length // About what a buffer takes besides its bytes.
    if (size > maxBytes) {
      stop(new ProtocolViolation({ kernelId, detail: `Its answers have more than ${maxBytes} bytes` }))
    } else take(message)
    return message.header.msg_type !== replyType
  }
}
