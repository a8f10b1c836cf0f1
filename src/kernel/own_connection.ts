/**
 * A kernel of a gateway of this library that serves its client itself: its connection, its end and its interrupts.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { ConnectionLost, KernelDied, type KernelErrorReason, KernelNotFound } from "../execution.ts"
import type * as Gateway from "../gateway/connection.ts"
import * as DirectChannel from "../jupyter/direct_channel.ts"
import * as Joined from "../jupyter/joined.ts"
import type { KernelModel } from "../jupyter/rest.ts"
import { type ChannelError, defaultMaxMessageSize } from "../jupyter/socket.ts"
import { ask, type KernelConnection } from "./connection.ts"

/** The variable that requests such a kernel, which the gateway removes: the maximum bytes of a message. */
export const requested = (maxMessageSize: number = defaultMaxMessageSize) => ({
  EFFECT_JUPYTER_OWN_CONNECTION: String(maxMessageSize),
})

/** The way to such a kernel. */
export interface OwnConnection extends Pick<DirectChannel.DirectChannelOptions, "open" | "watch"> {
  /** Tells whether an error says that the kernel does not serve its client itself, so that its gateway has to. */
  readonly isRefusal: (error: ChannelError) => boolean
}

/** Returns the way to a kernel; `undefined` if the gateway serves its client. */
export function of(
  { openSocket, ownConnection, rest, url }: Gateway.Connection,
  { connection, id: kernelId, joins }: typeof KernelModel.Type,
  interval: Duration.Input,
): OwnConnection | undefined {
  if (ownConnection === "direct" && connection !== undefined) {
    return { open: DirectChannel.unixSocket(connection), isRefusal: () => true }
  }
  if (ownConnection !== "joined" || joins === undefined) return undefined
  const counts = (name: DirectChannel.Name) =>
    Effect.flatMap(rest.get(kernelId), ({ joins }) => Effect.fromNullishOr(joins?.[name]))
  return {
    open: Joined.open({ openSocket, url, kernelId }),
    watch: Joined.watch({ counts, interval }),
    isRefusal: ({ code }) => code === 409,
  }
}

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

/** The words of `gateway/join.py` for a kernel that was deleted because its client was cut off. */
const cutWords = "The connection to its client was cut"

/** Returns the reason of the end of a kernel whose connection ended. */
export const endReason = (
  { ownConnection, rest }: Gateway.Connection,
  kernelId: string,
  detail: string,
): Effect.Effect<KernelErrorReason> => {
  const isJoined = ownConnection === "joined"
  const died = new KernelDied({ kernelId })
  const notFound = new KernelNotFound({ kernelId })
  const lost = new ConnectionLost({ kernelId, detail })
  return Effect.matchEffect(
    Effect.timeoutOption(rest.get(kernelId), isJoined ? "5 seconds" : reasonTimeout),
    {
      onSuccess: (model): Effect.Effect<KernelErrorReason> =>
        Effect.succeed(
          // Between two machines a connection may end while the kernel is alive.
          isJoined && Option.getOrUndefined(model)?.joins?.ended !== "kernel"
            ? lost
            : Option.isSome(model) && model.value.ending === true
            ? notFound
            : died,
        ),
      onFailure: (error): Effect.Effect<KernelErrorReason> =>
        error.kind === "NotFound"
          ? Effect.succeed(
            error.detail.includes("does not exist") ? notFound : error.detail === cutWords ? lost : died,
          )
          // The gateway has ended too, and how it did is usually known before this.
          : Effect.delay(Effect.succeed(lost), reasonTimeout),
    },
  )
}
