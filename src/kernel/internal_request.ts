/**
 * Requests of ours that travel as executions: their arguments go with the code, and their answers are no output.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { ExecutionTimeout, type KernelError } from "../execution.ts"
import type { JsonObject, Message } from "../jupyter/message.ts"
import type { Connection } from "./connection.ts"
import * as Transcript from "../output/transcript.ts"

/** What goes with the code of a request. */
interface Attachment {
  readonly metadata: JsonObject
  readonly buffers: ReadonlyArray<Uint8Array>
}

/** A request of ours that travels as an execution, which no history counts. */
export interface InternalRequest {
  /** Runs when its turn has come, before it is sent; gives what goes with the code. */
  readonly prepare: (connection: Connection) => Effect.Effect<Attachment, KernelError>
  /** Tells whether a message answers the request, which then is no output. */
  readonly isAnswer: (message: Message) => boolean
  readonly take: (message: Message) => void
}

/** Prepares a request, which counts for the timeout too. */
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
