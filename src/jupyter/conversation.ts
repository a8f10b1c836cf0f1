/**
 * A request to a kernel and the messages that answer it.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import { randomUUID } from "node:crypto"
import { type Message, request, type WireError } from "./message.ts"
import type { ChannelError } from "./socket.ts"

/**
 * Receives the messages of a conversation as they arrive.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener {
  /** Called for each message; `bytes` is the length of its frame. */
  readonly onMessage: (message: Message, bytes: number) => void
  /**
   * Called after a reconnection, when the kernel has answered all earlier requests on the shell channel: messages that
   * have not arrived by then are lost.
   */
  readonly onFenced?: (() => void) | undefined
  /** Called for a message that is past a limit and may belong to the conversation. */
  readonly onTooLarge?: ((error: WireError) => void) | undefined
}

/**
 * A request whose answers are received.
 *
 * @category models
 * @since 0.1.0
 */
export interface Conversation {
  readonly id: string
  /** Sends the request; waits for the connection if it is being restored. */
  readonly send: Effect.Effect<void, ChannelError>
  /** Tells whether the request was sent, which it is not while the connection is being restored. */
  readonly isSent: () => boolean
  /** Sends the reply to a request of the kernel, as for input. */
  readonly reply: (message: Message) => Effect.Effect<void, ChannelError>
  /** Waits until the kernel has answered all earlier requests on the shell channel. */
  readonly fence: Effect.Effect<void, ChannelError | Unanswered>
  /** Stops reading from the connection until {@link resume}: messages wait in the server. */
  readonly pause: () => void
  readonly resume: () => void
  /** Removes the listener, and resumes reading. */
  readonly close: () => void
  /**
   * Tells whether all messages of the kernel arrived since the latest conversation that tracks losses began. For a
   * kernel that does not number its messages, tells whether the connection was never cut since then.
   */
  readonly hasReceivedAll: () => boolean
  /** Tells whether messages before the latest one of the kernel may be lost, once for each gap. */
  readonly takeGap: () => boolean
  /**
   * Tells whether the kernel numbers its messages, as ipykernel does, and sends them in order. Others may send output of
   * a request after its `idle`.
   */
  readonly isOrdered: () => boolean
  /** Returns the error that cut the connection since then. */
  readonly disconnectError: () => ChannelError | undefined
}

/**
 * Opens a conversation, which lasts until {@link Conversation.close}.
 *
 * @category models
 * @since 0.1.0
 */
export type Open = (
  message: Message,
  listener: Listener,
  options?: {
    /** Begins to count messages for {@link Conversation.hasReceivedAll}; false by default. */
    readonly tracksLosses?: boolean | undefined
  },
) => Effect.Effect<Conversation>

/**
 * The request was sent, and its answer will not arrive.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unanswered extends Schema.TaggedError<Unanswered>("effect-jupyter/jupyter/Unanswered")(
  "Unanswered",
  { detail: Schema.String },
) {
  override get message(): string {
    return this.detail
  }
}

/**
 * Sends a request and returns the first value other than `undefined` that `pick` returns for the messages that answer
 * it. Fails with {@link Unanswered} if the answer was lost or is past a limit, or if none arrives within `replyTimeout`
 * after `idle`.
 *
 * @category utils
 * @since 0.1.0
 */
export const ask = <A>(
  open: Open,
  message: Message,
  pick: (message: Message, bytes: number) => A | undefined,
  { replyTimeout }: { readonly replyTimeout?: Duration.Input | undefined } = {},
): Effect.Effect<A, ChannelError | Unanswered> =>
  converse(
    ({ onFailure, ...listener }) =>
      open(message, { ...listener, onTooLarge: ({ detail }) => onFailure(detail) }),
    pick,
    // A fence is answered by the main shell, not by subshells.
    { isFenced: message.channel === "shell" && message.header["subshell_id"] === undefined, replyTimeout },
  )

/**
 * Listens and sends as {@link ask} does, over whatever `open` listens on.
 *
 * @category utils
 * @since 0.1.0
 */
export const converse = <A, E>(
  open: (listener: {
    readonly onMessage: Listener["onMessage"]
    readonly onFenced: (() => void) | undefined
    /** The answer is lost. */
    readonly onFailure: (detail: string) => void
  }) => Effect.Effect<{ readonly send: Effect.Effect<void, E>; readonly close: () => void }>,
  pick: (message: Message, bytes: number) => A | undefined,
  options: {
    /** True if the answer comes before that to any later request on the main shell. */
    readonly isFenced: boolean
    readonly replyTimeout?: Duration.Input | undefined
  },
): Effect.Effect<A, E | Unanswered> =>
  Effect.suspend(() => {
    const { isFenced, replyTimeout } = options
    const answer = Deferred.makeUnsafe<A, Unanswered>()
    const idle = Latch.makeUnsafe()
    const fail = (detail: string): void => {
      Deferred.doneUnsafe(answer, Exit.fail(new Unanswered({ detail })))
    }
    const opening = open({
      onMessage: (message, bytes) => {
        const value = pick(message, bytes)
        if (value !== undefined) Deferred.doneUnsafe(answer, Exit.succeed(value))
        else if (isIdle(message)) idle.openUnsafe()
      },
      onFailure: fail,
      onFenced: isFenced ? () => fail("The connection was cut, and the answer is lost") : undefined,
    })
    const silence = replyTimeout === undefined ? Effect.never : idle.await.pipe(
      Effect.andThen(Effect.sleep(replyTimeout)),
      Effect.andThen(new Unanswered({ detail: "The kernel sent no answer" })),
    )
    return Effect.acquireUseRelease(
      opening,
      ({ send }) => Effect.raceFirst(Deferred.await(answer), Effect.andThen(send, silence)),
      ({ close }) => Effect.sync(close),
    )
  })

/** Time between a reply and the request that is sent again if no `idle` follows. */
const repeatDelay: Duration.Input = "500 millis"

/**
 * Sends a request until the kernel has answered one on both channels, and returns the first value other than `undefined`
 * that `pick` returns. A server may let a client in before it receives what the kernel sends to all clients, and the
 * `idle` of a first request is lost then. After so many `attempts` a reply suffices.
 *
 * @category utils
 * @since 0.1.0
 */
export const answered = <A, E>(
  ask: (pick: (message: Message) => A | undefined) => Effect.Effect<A, E>,
  pick: (message: Message) => A | undefined,
  { attempts = Infinity }: { readonly attempts?: number | undefined } = {},
): Effect.Effect<A, E> =>
  Effect.gen(function* () {
    let picked: A | undefined
    let idle = false
    for (let attempt = 1;; attempt++) {
      const replied = Latch.makeUnsafe()
      const asked = ask((message) => {
        const value = pick(message)
        if (value === undefined) idle ||= isIdle(message)
        else {
          picked = value
          replied.openUnsafe()
        }
        return idle ? picked : undefined
      })
      yield* Effect.raceFirst(asked, Effect.andThen(replied.await, Effect.sleep(repeatDelay)))
      if (picked !== undefined && (idle || attempt >= attempts)) return picked
    }
  })

/**
 * Sends a request, and waits until the kernel has answered it on two channels: all its earlier messages on these precede
 * the answers.
 *
 * @category utils
 * @since 0.1.0
 */
export const fence = (open: Open, session: string): Effect.Effect<void, ChannelError | Unanswered> =>
  answered<true, ChannelError | Unanswered>(
    (pick) =>
      Effect.suspend(() =>
        ask(open, request("kernel_info_request", { id: randomUUID(), session, content: {} }), pick)
      ),
    ({ header }) => header.msg_type === "kernel_info_reply" ? true : undefined,
  )

/**
 * Tells whether a message says that the kernel has finished its parent's request.
 *
 * @category guards
 * @since 0.1.0
 */
export function isIdle({ content, header }: Message): boolean {
  return header.msg_type === "status" && content.execution_state === "idle"
}
