/**
 * The connection to one kernel, whatever it runs over: requests with the messages that answer them, interrupts, and the
 * end of the kernel.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { KernelError, KernelErrorReason } from "../execution.ts"
import * as Conversations from "../jupyter/conversation.ts"
import type { ChannelName, JsonObject, Message } from "../jupyter/message.ts"
import type { Durable } from "./durable.ts"

/** A kernel that runs and is connected. */
export interface KernelConnection {
  /** Identifies the kernel. */
  readonly id: string
  /**
   * Tells whether the kernel serves its client itself: it takes requests for values, which otherwise travel as executions,
   * and keeps an interrupt of a request that has not begun.
   */
  readonly isDirect: boolean
  /** Listens for the messages that answer a request, which `send` of the conversation sends, until that is closed. */
  readonly request: (
    request: Request,
    listener: Listener,
    options?: RequestOptions,
  ) => Effect.Effect<Conversation>
  /** Sets what takes output from now on that answers no request with a listener. */
  readonly onUnsolicited: (take: (message: Message, bytes: number) => void) => void
  /** Sends an interrupt, which the kernel may ignore. Succeeds when it has been passed on. */
  readonly interrupt: Effect.Effect<void, KernelError>
  /** Fails when the kernel is gone for good; never succeeds. */
  readonly ended: Effect.Effect<never, KernelError>
  /** The operations of a kernel that outlives its client. */
  readonly durable: Durable
}

/** A request to a kernel. */
export interface Request {
  readonly type: string
  readonly content: JsonObject
  /** A new id by default. */
  readonly id?: string | undefined
  /** `"shell"` by default. */
  readonly channel?: ChannelName | undefined
  readonly subshell?: string | undefined
  readonly metadata?: JsonObject | undefined
  readonly buffers?: ReadonlyArray<Uint8Array> | undefined
  /** The request for values that the buffers encode, for kernels that are not processes. */
  readonly value?: unknown
}

/** A message that answers one of the kernel. */
export interface Reply extends Pick<Request, "type" | "content" | "channel"> {
  /** The header of the message that it answers. */
  readonly parentHeader: JsonObject
}

/** The treatment of a request. */
export interface RequestOptions {
  /** Set to detect messages that are lost, see {@link Delivery}; false by default. */
  readonly tracksLosses?: boolean | undefined
  /** With `false` the request fails while the connection is being restored; true by default. */
  readonly waitsForConnection?: boolean | undefined
}

/** Takes the messages that answer a request, and what becomes of it. */
export interface Listener {
  /** Takes a message; `bytes` is the length of its frame. */
  readonly onMessage: (message: Message, bytes: number) => void
  /**
   * The connection was cut and restored, and the kernel has answered everything since that it was asked before: what has
   * not arrived by now never will.
   */
  readonly onFenced?: (() => void) | undefined
  /** The request cannot succeed any more, although the kernel goes on with it and has to be interrupted. */
  readonly onFailure?: ((reason: KernelErrorReason) => void) | undefined
}

/** The state of the messages that answer a request. A connection that is never restored loses none. */
export interface Delivery {
  /** Tells whether the kernel sends the messages of all channels in one order. */
  readonly isOrdered: () => boolean
  readonly hasReceivedAll: () => boolean
  /** Tells whether the connection was cut since the request. */
  readonly wasCut: () => boolean
  /** Returns the reason for which messages are missing; `isStarted` tells whether the kernel has begun with the request. */
  readonly lossReason: (isStarted: boolean) => KernelErrorReason
}

/** A request with a listener. */
export interface Conversation extends Delivery {
  /** Sends the request. */
  readonly send: Effect.Effect<void, KernelError>
  /** Tells whether the request was sent; until then the kernel knows nothing of it. */
  readonly isSent: () => boolean
  readonly reply: (reply: Reply) => Effect.Effect<void, KernelError>
  /** Succeeds when the kernel has answered everything that it was asked on the main shell before. */
  readonly fence: Effect.Effect<void, KernelError | Conversations.Unanswered>
  /** Reads no messages of the kernel's output until {@link resume}. */
  readonly pause: () => void
  readonly resume: () => void
  /** Tells whether messages before the latest one may be lost, once for each gap. */
  readonly takeGap: () => boolean
  /** Listens no more, and resumes. */
  readonly close: () => void
  /** Returns the number of the latest message, if the server keeps them. */
  readonly position?: (() => number) | undefined
  /** Waits, for a request of an earlier client, until the messages before this one are received, or will not be. */
  readonly repeated?: Effect.Effect<void> | undefined
  /**
   * Waits, for a request of an earlier client, until everything is received that the kernel put out before it ended for a
   * reason. Returns the reason, or that for which some of it is gone.
   */
  readonly received?: ((reason: KernelErrorReason) => Effect.Effect<KernelErrorReason>) | undefined
}

/**
 * Sends a request and returns what `pick` makes of the messages that answer it, as soon as that is something. Fails with
 * `Unanswered` if a cut or a bound took the answer, or if none came within `replyTimeout` after `idle`.
 */
export const ask = <A>(
  connection: Pick<KernelConnection, "request" | "ended">,
  request: Request,
  pick: (message: Message, bytes: number) => A | undefined,
  { replyTimeout, ...options }: RequestOptions & { readonly replyTimeout?: Duration.Input | undefined } = {},
): Effect.Effect<A, KernelError | Conversations.Unanswered> =>
  Effect.suspend(() => {
    const { channel = "shell", id = SecureRandom.uuidV4Unsafe(), subshell } = request
    const answer = Conversations.converse(
      ({ onFailure, ...listener }) =>
        connection.request({ ...request, id }, {
          ...listener,
          // One that is stopped may go on in time.
          onFailure: (reason) => reason._tag === "ProtocolViolation" && onFailure(reason.detail),
        }, options),
      pick,
      // A fence is answered by the main shell, not by subshells.
      { isFenced: channel === "shell" && subshell === undefined, replyTimeout },
    )
    return Effect.raceFirst(connection.ended, answer)
  })
