/**
 * What code asks for with `input()`: a function of the user answers, or the code is stopped.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
// Draws random bytes for many ids at once.
import { randomUUID } from "node:crypto"
import * as Defect from "../defect.ts"
import { InputRequested, ProtocolViolation } from "../execution.ts"
import { excerpt } from "../jupyter/control_codes.ts"
import type { Conversation } from "../jupyter/conversation.ts"
import { decode, type Message, request } from "../jupyter/message.ts"
import type { Connection } from "./connection.ts"
import * as Handlers from "./handlers.ts"

/**
 * What code that calls `input()` asks for.
 *
 * @category models
 * @since 0.1.0
 */
export interface InputRequest {
  readonly prompt: string
  /** The answer is not to be shown. */
  readonly password: boolean
}

/** How often a kernel may ask for input before the first answer: code that was interrupted may ask again. */
const mostUnanswered = 16

/** Makes what takes the requests for input of one execution. */
export function make({ connection, fork, onInput, reply, stop }: {
  readonly connection: Connection
  /** Sends the kernel an answer. */
  readonly reply: Conversation["reply"]
  readonly onInput: ((request: InputRequest) => Effect.Effect<string>) | undefined
  /** Starts what ends with the execution. */
  readonly fork: (effect: Effect.Effect<void>) => void
  /** Stops the code. */
  readonly stop: (reason: InputRequested | ProtocolViolation) => void
}): (message: Message) => void {
  const { id: kernelId, session } = connection
  let unanswered = 0
  return (message) => {
    const input = decode.inputRequest(message.content)
    const { password = false, prompt } = Exit.isSuccess(input) ? input.value : { prompt: "" }
    const refuse = () => stop(new InputRequested({ kernelId, prompt: excerpt(prompt, 1000) }))
    if (onInput === undefined) return refuse()
    if (unanswered >= mostUnanswered) {
      const detail = `It asks for input ${unanswered} times at once`
      return stop(new ProtocolViolation({ kernelId, detail }))
    }
    unanswered++
    fork(
      // A handler that throws must not take the reader of the connection with it.
      Handlers.disconnect(Effect.suspend(() => onInput({ prompt, password }))).pipe(
        Defect.log,
        Effect.flatMap((value) =>
          reply(request("input_reply", {
            id: randomUUID(),
            session,
            channel: "stdin",
            parentHeader: message.header,
            content: { status: "ok", value },
          }))
        ),
        Effect.catchCause((cause) =>
          Effect.andThen(Effect.logDebug("No answer to input()", cause), Effect.sync(refuse))
        ),
        Effect.ensuring(Effect.sync(() => unanswered--)),
      ),
    )
  }
}
