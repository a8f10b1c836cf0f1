/**
 * Requests of the library that are sent as executions, with data in the metadata and buffers of the message.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { ExecutionTimeout, type KernelError } from "../execution.ts"
import type { JsonObject, Message } from "../jupyter/message.ts"
import type { Connection } from "./connection.ts"
import * as Transcript from "../output/transcript.ts"

/** The metadata and the buffers of the message that has the code. */
interface Attachment {
  readonly metadata: JsonObject
  readonly buffers: ReadonlyArray<Uint8Array>
}

/** A request of the library that is sent as an execution, without becoming part of the history. */
export interface InternalRequest {
  /** Returns the attachment. It runs after the time in the queue, before the request is sent. */
  readonly prepare: (connection: Connection) => Effect.Effect<Attachment, KernelError>
  /** Tells whether a message answers the request; such a message is not output. */
  readonly isAnswer: (message: Message) => boolean
  readonly take: (message: Message) => void
}

/** Prepares a request within its timeout. */
export const prepare = (
  internalRequest: InternalRequest,
  connection: Connection,
  { outputLimit, timeout }: {
    readonly outputLimit?: number | undefined
    readonly timeout?: Duration.Input | undefined
  },
): Effect.Effect<Attachment, KernelError | ExecutionTimeout> =>
  timeout === undefined
    ? internalRequest.prepare(connection)
    : Effect.timeoutOrElse(internalRequest.prepare(connection), {
      duration: timeout,
      orElse: () =>
        new ExecutionTimeout({
          timeout: Duration.fromInputUnsafe(timeout),
          partial: Transcript.toResult(Transcript.empty(outputLimit), undefined),
        }),
    })
