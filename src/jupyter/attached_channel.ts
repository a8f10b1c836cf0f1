/**
 * The channels of a kernel whose client is the gateway: two WebSockets to the gateway, which passes the frames on, and a
 * third one for earlier output. The messages of the first are numbered; the gateway keeps the last ones.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Channel } from "./channel.ts"
import * as Conversation from "./conversation.ts"
import * as DirectChannel from "./direct_channel.ts"
import { type Message, request } from "./message.ts"
import * as Socket from "./socket.ts"
import * as WireV1 from "./wire_v1.ts"

/**
 * The address of a kernel, and the receivers of its messages.
 *
 * @category options
 * @since 0.1.0
 */
export interface AttachedChannelOptions extends Omit<DirectChannel.DirectChannelOptions, "open"> {
  /** The URL of the kernel on the gateway, as in `"http://127.0.0.1:8888/api/kernels/ID"`. */
  readonly url: string
  readonly openSocket: Socket.Open
  /** Identifies the client; the gateway ends the connections of others. */
  readonly holder: string
}

/**
 * The request of an earlier client, and a position in the messages of the kernel.
 *
 * @category models
 * @since 0.1.0
 */
export interface EarlierRequest {
  readonly id: string
  /** The number of messages of the kernel before the request. */
  readonly start: number
  /** The number of messages of the kernel up to the last one that was taken. */
  readonly position: number
}

/**
 * The answers to a request of an earlier client.
 *
 * @category models
 * @since 0.1.0
 */
export interface ResumedConversation extends Conversation.Conversation {
  /** Returns the number of the latest message of the kernel that was received. */
  readonly position: () => number
  /** Returns the number of messages that the gateway did not keep. */
  readonly missing: () => number
  /** Succeeds when the messages are received that came before the conversation. Fails if the gateway does not send them. */
  readonly repeated: Effect.Effect<void, Socket.ChannelError>
  /** Succeeds when the last message of a kernel that has ended was received. Fails if the gateway does not send it. */
  readonly received: Effect.Effect<void, Socket.ChannelError>
}

/**
 * The channels of a kernel, and the messages that it sent before.
 *
 * @category models
 * @since 0.1.0
 */
export interface AttachedChannel extends Channel {
  /** Returns the number of the latest message of the kernel. */
  readonly position: () => number
  /** Receives the answers to an earlier request, which `send` of the conversation has repeated from the first one on. */
  readonly resume: (
    request: EarlierRequest,
    listener: Conversation.Listener,
  ) => Effect.Effect<ResumedConversation>
}

/**
 * The close code of a WebSocket that ended because another client has attached to the kernel.
 *
 * @category constants
 * @since 0.1.0
 */
export const takenCode = 4001

/**
 * Tells whether a WebSocket was refused or has ended because another client has attached to the kernel.
 *
 * @category guards
 * @since 0.1.0
 */
export const isTaken = ({ code }: Socket.ChannelError): boolean => code === 409 || code === takenCode

/**
 * The type of the message by which a kernel says that `input()` waits no more.
 *
 * @category constants
 * @since 0.1.0
 */
export const answeredType = "effect_jupyter_input_answered"

const decodeOpening = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Struct({ position: Schema.Int })),
)
/** The numbers of the first message that is repeated, and of the last one if the request did not name it. */
const decodeReplay = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Struct({ first: Schema.Int, last: Schema.optionalKey(Schema.Int) })),
)

/**
 * Attaches to a kernel. The connection closes with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options: AttachedChannelOptions,
) => Effect.Effect<AttachedChannel, Socket.ChannelError, Scope.Scope> = Effect.fnUntraced(
  function* (options: AttachedChannelOptions) {
    const address = `${options.url.replace(/^http/, "ws")}/attachment`
    const open = (name: string, limits: Socket.OpenOptions, query = "") =>
      options.openSocket(`${address}/${name}?holder=${encodeURIComponent(options.holder)}${query}`, limits)
    let before = 0
    const channel = yield* DirectChannel.make({
      ...options,
      open: (name, limits) =>
        name === "control"
          ? open(name, limits)
          : Effect.flatMap(open(name, limits), (socket) =>
            Effect.map(first(socket), ({ position, pull }) => {
              before = position
              return { ...socket, pull }
            })),
    })
    const replays = yield* Semaphore.make(1)
    const live = () => before + channel.count()
    const { maxMessageSize, openTimeout } = options
    const limits: Socket.OpenOptions = { protocols: [WireV1.subprotocol], maxMessageSize, openTimeout }

    const resume: AttachedChannel["resume"] = Effect.fnUntraced(function* (earlier, listener) {
      const reading = Latch.makeUnsafe(true)
      const replay = { position: earlier.start, end: Infinity, missing: 0, isGapUntold: false }
      const repeated = Deferred.makeUnsafe<void, Socket.ChannelError>()
      let phase: "waiting" | "replaying" | "live" = "waiting"
      let isClosed = false
      /** The request for input that is not answered, as far as the messages say. */
      let question: readonly [Message, number] | undefined
      const repeatedListener: Conversation.Listener = {
        ...listener,
        onMessage: (message, bytes) => {
          const { msg_type: type } = message.header
          if (type === answeredType) question = undefined
          else if (type === "input_request") question = [message, bytes]
          else listener.onMessage(message, bytes)
        },
      }
      const conversation = yield* channel.request(
        request("execute_request", { id: earlier.id, session: options.session, content: {} }),
        {
          ...listener,
          onMessage: (message, bytes) => {
            // Before that, it is among those that are repeated.
            if (phase === "live") listener.onMessage(message, bytes)
          },
        },
      )
      const take = (frame: Socket.Frame): void => {
        if (typeof frame !== "string") {
          replay.position++
          return channel.receiveFor(earlier.id, frame, repeatedListener)
        }
        const opening = decodeReplay(frame)
        if (Option.isNone(opening)) return
        const before = opening.value.first - 1
        // Those that were taken before are not missed.
        const missing = before - Math.max(replay.position, earlier.position)
        if (missing > 0) {
          replay.missing += missing
          replay.isGapUntold = true
        }
        replay.position = before
        replay.end = opening.value.last ?? replay.end
      }
      /** Receives the messages from the position on, up to `end` or the latest one. */
      const receive = (end?: number) =>
        Effect.gen(function* () {
          const to = end === undefined ? "" : `&to=${end}`
          const socket = yield* open("replay", limits, `&from=${replay.position}${to}`)
          replay.end = end ?? Infinity
          while (replay.position < replay.end && !isClosed) {
            for (const frame of yield* socket.pull) {
              if (!reading.isOpen()) yield* reading.await
              take(frame)
            }
          }
        }).pipe(Effect.scoped)
      const repeat = Effect.gen(function* () {
        yield* Semaphore.takeScoped(replays, 1)
        // The messages that come wait until the earlier ones are received.
        yield* channel.hold
        const end = live()
        phase = "replaying"
        if (earlier.start < end) yield* receive(end)
        phase = "live"
        if (question !== undefined) listener.onMessage(...question)
      }).pipe(Effect.scoped, Effect.onExit((exit) => Deferred.done(repeated, exit)))
      /** The connection may have ended before its last message, which the gateway keeps. */
      const received = Effect.gen(function* () {
        yield* Deferred.await(repeated)
        yield* channel.ended
        replay.position = live()
        phase = "replaying"
        yield* receive()
      })
      /** Messages that have not arrived by its end never will: the kernel may have ended the request long ago. */
      const fence = conversation.fence.pipe(
        Effect.tap(() => Effect.sync(() => listener.onFenced?.())),
        Effect.catchTag("Unanswered", () => Effect.void),
      )
      /** A connection that ends as the kernel does is no failure of the request: the end has a reason of its own. */
      const unlessLost = (error: Socket.ChannelError) =>
        Effect.flatMap(
          Effect.timeoutOption(Effect.flip(channel.lost), "1 second"),
          (lost) => Option.isSome(lost) ? Effect.never : error,
        )
      return {
        ...conversation,
        send: Effect.catchTag(
          Effect.andThen(repeat, Effect.suspend(() => isClosed ? Effect.void : fence)),
          "ChannelError",
          unlessLost,
        ),
        isSent: () => true,
        pause: () => {
          reading.closeUnsafe()
          conversation.pause()
        },
        resume: () => {
          reading.openUnsafe()
          conversation.resume()
        },
        close: () => {
          isClosed = true
          conversation.close()
        },
        hasReceivedAll: () => replay.missing === 0,
        takeGap: () => {
          const isGap = replay.isGapUntold
          replay.isGapUntold = false
          return isGap
        },
        position: () => phase === "live" ? live() : replay.position,
        missing: () => replay.missing,
        repeated: Deferred.await(repeated),
        received,
      }
    })
    return { ...channel, position: live, resume }
  },
)

/** Receives the number of messages before the first one, which the gateway says before that. */
const first = Effect.fnUntraced(function* ({ pull }: Socket.Socket) {
  const [head, ...others] = yield* pull
  const opening = decodeOpening(head)
  if (Option.isNone(opening)) {
    return yield* new Socket.ChannelError({ detail: "The gateway did not say which message comes first" })
  }
  // Frames may have arrived together with it.
  let early: ReadonlyArray<Socket.Frame> = others
  return {
    position: opening.value.position,
    pull: Effect.suspend((): Socket.Socket["pull"] => {
      const [next, ...rest] = early
      early = []
      return next === undefined ? pull : Effect.succeed([next, ...rest])
    }),
  }
})
