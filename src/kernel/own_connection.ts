/**
 * A kernel of a gateway of this library that serves its client itself: its end and its interrupts.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { ConnectionLost, KernelDied, type KernelErrorReason, KernelNotFound } from "../execution.ts"
import type * as Gateway from "../gateway/connection.ts"
import { defaultMaxMessageSize } from "../jupyter/socket.ts"
import { ask, type KernelConnection } from "./connection.ts"

/** The variable that requests such a kernel, which the gateway removes: the maximum bytes of a message. */
export const requested = (maxMessageSize: number = defaultMaxMessageSize) => ({
  EFFECT_JUPYTER_OWN_CONNECTION: String(maxMessageSize),
})

/** Maximum time for the kernel to answer an interrupt, after which the gateway sends a signal. */
const answerTimeout: Duration.Input = "500 millis"

/**
 * Interrupts the latest execution on the channel that does not wait behind output; `fallback` if the kernel does not
 * answer.
 */
export const interrupt = (
  connection: Pick<KernelConnection, "request" | "ended">,
  latest: () => string | undefined,
  fallback: KernelConnection["interrupt"],
): KernelConnection["interrupt"] =>
  Effect.suspend(() =>
    ask(
      connection,
      { type: "interrupt_request", channel: "control", content: { msg_id: latest() } },
      ({ header }) => header.msg_type === "interrupt_reply" ? true : undefined,
    )
  ).pipe(
    Effect.asVoid,
    Effect.timeoutOrElse({ duration: answerTimeout, orElse: () => fallback }),
    Effect.catchTag("Unanswered", () => fallback),
  )

/** Maximum time for the gateway to say why a kernel ended. */
const reasonTimeout: Duration.Input = "1 second"

/** Returns the reason of the end of a kernel whose connection ended. */
export const endReason = (
  { rest }: Gateway.Connection,
  kernelId: string,
  detail: string,
): Effect.Effect<KernelErrorReason> => {
  const died = new KernelDied({ kernelId })
  const notFound = new KernelNotFound({ kernelId })
  return Effect.matchEffect(Effect.timeoutOption(rest.get(kernelId), reasonTimeout), {
    onSuccess: (model) =>
      Effect.succeed(Option.isSome(model) && model.value.ending === true ? notFound : died),
    onFailure: (error): Effect.Effect<KernelErrorReason> =>
      error.kind === "NotFound"
        ? Effect.succeed(error.detail.includes("does not exist") ? notFound : died)
        // The gateway has ended too, and how it did is usually known before this.
        : Effect.delay(Effect.succeed(new ConnectionLost({ kernelId, detail })), reasonTimeout),
  })
}
