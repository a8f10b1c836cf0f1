/**
 * Requests of code for input, which a function of the user answers; without it the code is stopped.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Defect from "../defect.ts"
import { InputRequested, ProtocolViolation } from "../execution.ts"
import { excerpt } from "../jupyter/control_codes.ts"
import { decode, type Message } from "../jupyter/message.ts"
import type { Conversation } from "./connection.ts"
import * as Handlers from "./handlers.ts"

/**
 * A request for input, as of `input()` or `getpass()`.
 *
 * @category models
 * @since 0.1.0
 */
export interface InputRequest {
  readonly prompt: string
  /** True if the answer must not be shown, as for `getpass()`. */
  readonly password: boolean
}

/** Maximum number of unanswered requests: there may be several, because interrupted code may ask again. */
const maxUnanswered = 16

/** Makes a function that handles the requests for input of one execution. */
export function make({ fork, kernelId, onInput, reply, stop }: {
  readonly kernelId: string
  /** Sends an answer to the kernel. */
  readonly reply: Conversation["reply"]
  readonly onInput: ((request: InputRequest) => Effect.Effect<string>) | undefined
  /** Forks an effect that is interrupted when the execution ends. */
  readonly fork: (effect: Effect.Effect<void>) => void
  /** Stops the code. */
  readonly stop: (reason: InputRequested | ProtocolViolation) => void
}): (message: Message) => void {
  let unanswered = 0
  return (message) => {
    const input = decode.inputRequest(message.content)
    const { password = false, prompt } = Exit.isSuccess(input) ? input.value : { prompt: "" }
    const refuse = () => stop(new InputRequested({ kernelId, prompt: excerpt(prompt, 1000) }))
    if (onInput === undefined) return refuse()
    if (unanswered >= maxUnanswered) {
      const detail = `It asks for input ${unanswered} times at once`
      return stop(new ProtocolViolation({ kernelId, detail }))
    }
    unanswered++
    fork(
      // A handler that throws must not end the fiber that reads from the connection.
      Handlers.disconnect(Effect.suspend(() => onInput({ prompt, password }))).pipe(
        Defect.log,
        Effect.flatMap((value) =>
          reply({
            type: "input_reply",
            channel: "stdin",
            parentHeader: message.header,
            content: { status: "ok", value },
          })
        ),
        Effect.catchCause((cause) =>
          Effect.andThen(Effect.logDebug("No answer to input()", cause), Effect.sync(refuse))
        ),
        Effect.ensuring(Effect.sync(() => unanswered--)),
      ),
    )
  }
}
