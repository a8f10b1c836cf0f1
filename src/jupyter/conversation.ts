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
import type * as Scope from "effect/Scope"
import type { Message, WireError } from "./message.ts"
import type { ChannelError } from "./socket.ts"

/**
 * Takes the messages of a conversation, as they arrive.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener {
  /** Takes a message; `bytes` is the length of its frame. */
  readonly onMessage: (message: Message, bytes: number) => void
  /**
   * The connection was cut and is back, and the kernel has since answered everything that was asked on the shell
   * channel before: what has not arrived by now never will.
   */
  readonly onFenced?: (() => void) | undefined
  /** A message that may have been for the listener is past a bound. */
  readonly onTooLarge?: ((error: WireError) => void) | undefined
}

/**
 * A request that is listened to.
 *
 * @category models
 * @since 0.1.0
 */
export interface Conversation {
  readonly id: string
  /** Sends the request; waits for the connection if it is being restored. */
  readonly send: Effect.Effect<void, ChannelError>
  /** Sends a message that answers one of the kernel. */
  readonly reply: (message: Message) => Effect.Effect<void, ChannelError>
  /** Succeeds when the kernel has answered everything that it was asked on the shell channel before. */
  readonly fence: Effect.Effect<void, ChannelError | Unanswered>
  /** Reads no further until {@link resume}: the messages wait in the server. */
  readonly pause: () => void
  readonly resume: () => void
  /** Listens no more, and resumes. */
  readonly close: () => void
  /**
   * Whether all messages of the kernel arrived since the latest conversation with it began that tracks losses. For a
   * kernel that does not number its messages: whether the connection was never cut.
   */
  readonly hasReceivedAll: () => boolean
  /**
   * Whether the kernel numbers its messages as ipykernel does, which sends them in their order. Others may put out
   * what belongs to a request after its `idle`.
   */
  readonly isOrdered: () => boolean
  /** What cut the connection since then, if anything did. */
  readonly disconnectError: () => ChannelError | undefined
}

/**
 * Listens for what answers a request, until the scope closes.
 *
 * @category models
 * @since 0.1.0
 */
export type Open = (
  message: Message,
  listener: Listener,
  options?: {
    /** Begins to count messages, for {@link Conversation.hasReceivedAll}. */
    readonly tracksLosses?: boolean | undefined
  },
) => Effect.Effect<Conversation, never, Scope.Scope>

/**
 * The request went out, and no answer will come.
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
 * Sends a request and returns what `pick` makes of the messages that answer it, as soon as that is something. Fails
 * with {@link Unanswered} if a cut or a bound took the answer, or if none came within `replyTimeout` after `idle`.
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
  Effect.scoped(Effect.gen(function* () {
    const answer = Deferred.makeUnsafe<A, Unanswered>()
    const idle = Latch.makeUnsafe()
    const fail = (detail: string): void => {
      Deferred.doneUnsafe(answer, Exit.fail(new Unanswered({ detail })))
    }
    // A fence is on the main shell, and says nothing of the others.
    const isFenced = message.channel === "shell" && message.header["subshell_id"] === undefined
    const conversation = yield* open(message, {
      onMessage: (message, bytes) => {
        const value = pick(message, bytes)
        if (value !== undefined) Deferred.doneUnsafe(answer, Exit.succeed(value))
        else if (isIdle(message)) idle.openUnsafe()
      },
      onTooLarge: ({ detail }) => fail(detail),
      onFenced: isFenced ? () => fail("The connection was cut, and the answer is lost") : undefined,
    })
    const silence = replyTimeout === undefined ? Effect.never : idle.await.pipe(
      Effect.andThen(Effect.sleep(replyTimeout)),
      Effect.andThen(new Unanswered({ detail: "It said nothing" })),
    )
    return yield* Effect.raceFirst(Deferred.await(answer), Effect.andThen(conversation.send, silence))
  }))

/**
 * Whether the kernel has done what the message's parent asks for.
 *
 * @category guards
 * @since 0.1.0
 */
export function isIdle({ content, header }: Message): boolean {
  return header.msg_type === "status" && content.execution_state === "idle"
}
