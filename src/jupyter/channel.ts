/**
 * The channels of one kernel over one WebSocket: messages go out in order, and one reader hands every
 * message that comes in to whoever asked for the replies to its request.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import * as Defect from "../defect.ts"
import * as Conversation from "./conversation.ts"
import { type Link, type LinkOptions, open } from "./link.ts"
import { type Message, parentId, request, type WireError } from "./message.ts"
import * as Sequence from "./sequence.ts"
import { ChannelError, type Frame } from "./socket.ts"

/**
 * Where and how to connect, and what to tell of it.
 *
 * @category options
 * @since 0.1.0
 */
export interface ChannelOptions extends LinkOptions {
  /** How long to try to get a lost connection back; 10 seconds by default. */
  readonly reconnectTimeout?: Duration.Input | undefined
  /** Takes the messages that nobody listens for, the kernel's own ones among them. */
  readonly onUnclaimed: (message: Message, bytes: number) => void
  /** Takes note of a frame that is no message. */
  readonly onMalformed: (error: WireError) => void
  /** Takes note of a connection that was lost and is back. */
  readonly onReconnected?: (() => void) | undefined
}

/**
 * An open connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface Channel {
  /** The format that the server agreed to. */
  readonly protocol: "v1" | "legacy"
  /** Listens for what answers a request, which `send` of the conversation sends; ends with the scope. */
  readonly request: Conversation.Open
  /** Whether the connection is not being restored. */
  readonly isConnected: () => boolean
  /** Fails when the connection is gone for good; never succeeds. */
  readonly lost: Effect.Effect<never, ChannelError>
}

/** At least so many message ids are remembered to recognise a message that comes again after a reconnection. */
const remembered = 8192

/** How long a restored connection may take to become quiet before new requests go out all the same. */
const settling: Duration.Input = "2 seconds"

/**
 * Connects to the channels of a kernel; the connection closes with the scope. A connection that is cut is
 * restored under the same session, so that the server replays what was missed.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Channel from "effect-jupyter/jupyter/channel"
 * import { request } from "effect-jupyter/jupyter/message"
 *
 * export const program = Effect.gen(function*() {
 *   const channel = yield* Channel.make({
 *     url: "http://127.0.0.1:8888",
 *     headers: { authorization: "token secret" },
 *     kernelId: "0b8b1d3e",
 *     session: "one",
 *     pingInterval: "10 seconds",
 *     onUnclaimed: () => {},
 *     onMalformed: () => {}
 *   })
 *   const asked = request("kernel_info_request", { id: "1", session: "one", content: {} })
 *   const conversation = yield* channel.request(asked, {
 *     onMessage: (message) => console.log(message.header.msg_type)
 *   })
 *   yield* conversation.send
 *   return yield* channel.lost
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options: ChannelOptions) => Effect.Effect<Channel, ChannelError, Scope.Scope> = Effect
  .fnUntraced(function* (options: ChannelOptions) {
    const outer = yield* Effect.scope
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    const listeners = new Map<string, Conversation.Listener>()
    /** The requests among the listeners' that went out. */
    const sent = new Set<string>()
    /** Numbers of the kernel's messages, and whole ids of others. */
    let seen = new Set<string | number>()
    let seenBefore = new Set<string | number>()
    const gate = yield* Latch.make(true)
    const connected = yield* Latch.make(true)
    const lost = yield* Deferred.make<never, ChannelError>()
    let sequence = Sequence.unknown
    let cut: ChannelError | undefined
    /** The latest reply on the channel `stdin`, and the connection that it went out on. */
    let lastReply: { readonly message: Message; readonly link: Link } | undefined
    let held = false
    let wasHeld = false

    /** Tells all who wait that there is no reader any more, and why. */
    const end = (cause: Cause.Cause<ChannelError>): Effect.Effect<unknown> =>
      Effect.suspend(() => {
        const defect = cause.reasons.find(Cause.isDieReason)
        const [first] = defect === undefined ? [] : Cause.pretty(Cause.fromReasons([defect])).split("\n")
        const detail = `Reading it failed${first === undefined ? "" : `: ${first}`}`
        return Deferred.fail(
          lost,
          Option.getOrElse(Cause.findErrorOption(cause), () => new ChannelError({ detail })),
        )
      })

    const receive = (frame: Frame): void => {
      const decoded = current.link.decode(frame)
      if (Result.isFailure(decoded)) return refuse(decoded.failure)
      const message = decoded.success
      const number = Sequence.numberOf(sequence, message.header.msg_id)
      if (isRepeated(number ?? message.header.msg_id)) return repeatReply(message)
      sequence = Sequence.observe(sequence, message, { number, session: options.session })
      const listener = listeners.get(parentId(message) ?? "")
      if (listener === undefined) options.onUnclaimed(message, frame.length)
      else listener.onMessage(message, frame.length)
    }
    /** The kernel still waits for a reply that a cut lost: a server sends the request again only until it has one. */
    const repeatReply = ({ header }: Message): void => {
      if (lastReply === undefined || lastReply.link === current.link) return
      if (lastReply.message.parentHeader.msg_id === header.msg_id) {
        runFork(Effect.ignore(transmit(lastReply.message)))
      }
    }
    const refuse = (error: WireError): void => {
      options.onMalformed(error)
      if (!error.isTooLarge) return
      // One whose request nobody can read may be for any of them.
      const { parentId } = error
      const concerned = parentId === undefined ? [...listeners.values()] : [listeners.get(parentId)]
      for (const listener of concerned) listener?.onTooLarge?.(error)
    }
    const isRepeated = (id: string | number): boolean => {
      if (seen.has(id) || seenBefore.has(id)) return true
      if (seen.size === remembered) {
        seenBefore = seen
        seen = new Set()
      }
      seen.add(id)
      return false
    }

    /** Reads until the connection is cut. */
    const read = ({ acknowledge, pull }: Link): Effect.Effect<never, ChannelError> =>
      pull.pipe(
        Effect.flatMap((frames) => {
          const isExpected = listeners.size > 0
          for (const frame of frames) receive(frame)
          if (held) return gate.await
          return isExpected ? acknowledge(frames) : Effect.void
        }),
        Effect.forever({ disableYield: true }),
      )

    /** Whether reading was put off since this was asked last. */
    const takeHeld = (): boolean => {
      const was = wasHeld
      wasHeld = held
      return was
    }

    const connect = Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const scope = yield* Scope.fork(outer)
        const link = yield* restore(Scope.provide(open(options, takeHeld), scope)).pipe(
          Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
        )
        return { link, scope }
      })
    )
    let current = yield* connect

    const send = (message: Message): Effect.Effect<void, ChannelError> =>
      Effect.suspend(() =>
        connected.isOpen()
          ? transmit(message)
          : Effect.andThen(Effect.raceFirst(connected.await, Deferred.await(lost)), transmit(message))
      )
    const transmit = (message: Message): Effect.Effect<void, ChannelError> =>
      Effect.suspend(() => {
        // The reader is about to notice that it is cut, and to reconnect.
        if (!current.link.isOpen()) return Effect.delay(send(message), "10 millis")
        const { msg_id: id } = message.header
        if (listeners.has(id)) sent.add(id)
        if (message.channel === "stdin") lastReply = { message, link: current.link }
        return current.link.transmit(message)
      })

    /** The kernel's answer to a later request: behind everything that it sent before, on two channels. */
    const fence = (listen: Conversation.Open) =>
      Effect.suspend(() => {
        const asked = request("kernel_info_request", {
          id: randomUUID(),
          session: options.session,
          content: {},
        })
        let answers = 0
        return Effect.raceFirst(
          Conversation.ask(listen, asked, (message) => {
            if (message.header.msg_type === "kernel_info_reply" || Conversation.isIdle(message)) answers++
            return answers === 2 ? true : undefined
          }),
          Deferred.await(lost),
        )
      })
    const listenBy = (sendBy: typeof send): Conversation.Open => (message, listener, { tracksLosses } = {}) =>
      Effect.acquireRelease(
        Effect.sync((): Conversation.Conversation => {
          const id = message.header.msg_id
          let hasPaused = false
          const resume = (): void => {
            if (!hasPaused) return
            hasPaused = false
            held = false
            gate.openUnsafe()
          }
          if (tracksLosses === true) mark()
          listeners.set(id, listener)
          return {
            id,
            send: sendBy(message),
            reply: sendBy,
            fence: Effect.asVoid(fence(listenBy(sendBy))),
            pause: () => {
              hasPaused = true
              held = true
              wasHeld = true
              gate.closeUnsafe()
            },
            resume,
            close: () => {
              listeners.delete(id)
              sent.delete(id)
              resume()
            },
            hasReceivedAll: () => cut === undefined || Sequence.missing(sequence) === 0,
            isOrdered: () => sequence.origin !== undefined,
            disconnectError: () => cut,
          }
        }),
        ({ close }) => Effect.sync(close),
      )

    const mark = (): void => {
      cut = undefined
      sequence = Sequence.begin(sequence)
    }

    const reconnect = connect.pipe(
      Effect.retry({
        schedule: Schedule.exponential("50 millis").pipe(
          (backoff) => Schedule.min([backoff, Schedule.spaced("1 second")]),
          Schedule.upTo({ duration: options.reconnectTimeout ?? "10 seconds" }),
        ),
        // A server that refuses knows why; one that is overloaded may change its mind.
        while: (error) => error.code === undefined || error.code >= 500,
      }),
      Effect.timeoutOrElse({
        duration: options.reconnectTimeout ?? "10 seconds",
        orElse: () => new ChannelError({ detail: "The server cannot be reached any more" }),
      }),
    )

    yield* Effect.gen(function* () {
      while (true) {
        const error = yield* Effect.flip(read(current.link))
        connected.closeUnsafe()
        cut = error
        yield* Scope.close(current.scope, Exit.fail(error))
        const waiting = [...listeners].flatMap(([id, { onFenced }]) =>
          sent.has(id) && onFenced !== undefined ? [onFenced] : []
        )
        current = yield* Effect.mapError(reconnect, (final) =>
          new ChannelError({
            ...(final.code === undefined ? {} : { code: final.code }),
            detail: `${error.detail}; reconnecting failed: ${final.detail}`,
          }))
        options.onReconnected?.()
        const quiet = Effect.ignore(fence(listenBy(transmit)))
        const settle = waiting.length > 0
          ? Effect.andThen(quiet, Effect.sync(() => waiting.forEach((onFenced) => onFenced())))
          // To open a connection the server talks to the kernel, which is nothing to count in what is asked next.
          : Effect.andThen(
            Effect.timeoutOption(Effect.andThen(quiet, Effect.sync(mark)), settling),
            connected.open,
          )
        if (waiting.length > 0) connected.openUnsafe()
        yield* settle.pipe(
          Defect.log,
          Effect.tapDefect((defect) => end(Cause.die(defect))),
          Effect.forkIn(current.scope),
        )
      }
    }).pipe(
      // First: what waits for the reader may close its scope.
      Defect.log,
      // Nobody may wait for a reader that is gone, for whatever reason.
      Effect.onError(end),
      Effect.ignoreCause,
      Effect.forkScoped,
    )

    return {
      get protocol() {
        return current.link.protocol
      },
      request: listenBy(send),
      isConnected: () => connected.isOpen(),
      lost: Deferred.await(lost),
    }
  })
