/**
 * The channels of one kernel over one WebSocket. Messages are sent in order, and every message that is received is passed
 * to the listener of the request that it answers.
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
import * as Defect from "../defect.ts"
import * as Arrivals from "./arrivals.ts"
import * as Conversation from "./conversation.ts"
import { type Link, type LinkOptions, open } from "./link.ts"
import { type Message, parentId, type WireError } from "./message.ts"
import { ChannelError, type Frame } from "./socket.ts"

/**
 * The server and the kernel to connect to, and functions that are called for other events than answers.
 *
 * @category options
 * @since 0.1.0
 */
export interface ChannelOptions extends LinkOptions {
  /** Maximum time to restore a connection that was cut; 10 seconds by default. */
  readonly reconnectTimeout?: Duration.Input | undefined
  /** Called for a message without a listener, such as one that answers no request. */
  readonly onUnclaimed: (message: Message, bytes: number) => void
  /** Called for a frame that is not a message. */
  readonly onMalformed: (error: WireError) => void
  /** Called when a connection that was cut is restored. */
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
  /** Opens a conversation: its `send` sends the request, and its listener gets the answers until it is closed. */
  readonly request: Conversation.Open
  /** Tells whether the connection is open. It is not while it is being restored. */
  readonly isConnected: () => boolean
  /** Fails when the connection cannot be restored; never succeeds. */
  readonly lost: Effect.Effect<never, ChannelError>
}

/** Maximum time to wait for a restored connection to become quiet before it sends new requests. */
const quietTimeout: Duration.Input = "2 seconds"

/**
 * Connects to the channels of a kernel. The connection closes with the scope. If it is cut, it is restored with the same
 * session, for which the server replays the missed messages. Fails if the first connection cannot be opened.
 *
 * @example
 * ```ts
 * import { Deferred, Effect, Redacted } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 * import * as Channel from "effect-jupyter/jupyter/channel"
 * import { type Message, request } from "effect-jupyter/jupyter/message"
 *
 * export const kernelInfo = (kernelId: string) => Effect.gen(function*() {
 *   const { token = Redacted.make(""), url } = yield* KernelGateway.KernelGateway
 *   const channel = yield* Channel.make({
 *     url,
 *     headers: { authorization: `token ${Redacted.value(token)}` },
 *     kernelId,
 *     session: "one",
 *     pingInterval: "10 seconds",
 *     onUnclaimed: () => {},
 *     onMalformed: () => {}
 *   })
 *   const answered = yield* Deferred.make<Message>()
 *   const asked = request("kernel_info_request", { id: "1", session: "one", content: {} })
 *   const conversation = yield* channel.request(asked, {
 *     onMessage: (message) => Deferred.doneUnsafe(answered, Effect.succeed(message))
 *   })
 *   yield* conversation.send
 *   return yield* Effect.raceFirst(Deferred.await(answered), channel.lost)
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options: ChannelOptions) => Effect.Effect<Channel, ChannelError, Scope.Scope> = Effect
  .fnUntraced(function* (options: ChannelOptions) {
    const { session } = options
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    const { arrivals, listeners, receive } = makeInbox(options)
    /** The ids of the requests with a listener that were sent. */
    const sent = new Set<string>()
    const reading = makeReading()
    const connected = yield* Latch.make(true)
    const lost = yield* Deferred.make<never, ChannelError>()
    /** The latest reply on the channel `stdin`, and the connection that it was sent on. */
    let lastReply: { readonly message: Message; readonly link: Link } | undefined
    const connect = connectIn(yield* Effect.scope, options, reading.wasPaused)
    let current = yield* connect

    const send = (message: Message): Effect.Effect<void, ChannelError> =>
      Effect.suspend(() =>
        connected.isOpen()
          ? transmit(message)
          : Effect.andThen(Effect.raceFirst(connected.await, Deferred.await(lost)), transmit(message))
      )
    const transmit = (message: Message): Effect.Effect<void, ChannelError> =>
      Effect.suspend(() => {
        if (!current.link.isOpen()) {
          // It was cut, which the reader notices when it next reads.
          connected.closeUnsafe()
          return send(message)
        }
        const { msg_id: id } = message.header
        if (listeners.has(id)) sent.add(id)
        if (message.channel === "stdin") lastReply = { message, link: current.link }
        return current.link.transmit(message)
      })

    /** Sends the reply to a repeated request again: the server repeats it if the first reply was lost. */
    const repeatReply = ({ header }: Message): void => {
      if (lastReply === undefined || lastReply.link === current.link) return
      if (lastReply.message.parentHeader.msg_id === header.msg_id) {
        runFork(Effect.ignore(transmit(lastReply.message)))
      }
    }
    const fence = (open: Conversation.Open) =>
      Effect.raceFirst(Conversation.fence(open, session), Deferred.await(lost))
    const openBy = (sendBy: typeof send): Conversation.Open => (message, listener, { tracksLosses } = {}) =>
      Effect.sync((): Conversation.Conversation => {
        const id = message.header.msg_id
        let hasPaused = false
        const resume = (): void => {
          if (hasPaused) reading.resume()
          hasPaused = false
        }
        if (tracksLosses === true) arrivals.begin()
        listeners.set(id, listener)
        return {
          id,
          send: sendBy(message),
          isSent: () => sent.has(id),
          reply: sendBy,
          fence: Effect.asVoid(fence(openBy(sendBy))),
          pause: () => {
            hasPaused = true
            reading.pause()
          },
          resume,
          close: () => {
            listeners.delete(id)
            sent.delete(id)
            resume()
          },
          hasReceivedAll: arrivals.isComplete,
          takeGap: arrivals.takeGap,
          isOrdered: arrivals.isNumbered,
          disconnectError: arrivals.disconnectError,
        }
      })

    /** Reads until the connection is cut. */
    const read = ({ acknowledge, decode, pull }: Link): Effect.Effect<never, ChannelError> =>
      pull.pipe(
        Effect.flatMap((frames) => {
          const isExpected = listeners.size > 0
          for (const frame of frames) {
            const repeated = receive(frame, decode)
            if (repeated !== undefined) repeatReply(repeated)
          }
          if (reading.isPaused()) return reading.untilResumed
          return isExpected ? acknowledge(frames) : Effect.void
        }),
        Effect.forever({ disableYield: true }),
      )
    const fail = (cause: Cause.Cause<ChannelError>) => Deferred.fail(lost, errorOf(cause))
    /** Waits until the kernel has answered earlier requests, and then admits new ones and reports lost answers. */
    const settle = (waiting: ReadonlyArray<() => void>): Effect.Effect<unknown> => {
      const quiet = Effect.ignore(fence(openBy(transmit)))
      if (waiting.length === 0) {
        // The server exchanges messages with the kernel when it opens a connection; none of them counts later.
        const begin = Effect.andThen(quiet, Effect.sync(arrivals.begin))
        return Effect.andThen(Effect.timeoutOption(begin, quietTimeout), connected.open)
      }
      connected.openUnsafe()
      return Effect.andThen(quiet, Effect.sync(() => waiting.forEach((onFenced) => onFenced())))
    }
    yield* Effect.gen(function* () {
      while (true) {
        const error = yield* Effect.flip(read(current.link))
        connected.closeUnsafe()
        arrivals.cut(error)
        yield* Scope.close(current.scope, Exit.fail(error))
        const waiting = [...listeners].flatMap(([id, { onFenced }]) =>
          sent.has(id) && onFenced !== undefined ? [onFenced] : []
        )
        current = yield* retrying(connect, {
          after: error,
          timeout: options.reconnectTimeout ?? "10 seconds",
        })
        options.onReconnected?.()
        yield* settle(waiting).pipe(
          Defect.log,
          Effect.tapDefect((defect) => fail(Cause.die(defect))),
          Effect.forkIn(current.scope),
        )
      }
    }).pipe(
      // Logged first: a caller that waits for `lost` may close the scope.
      Defect.log,
      // No caller may wait for a reader that has ended, even with a defect.
      Effect.onError(fail),
      Effect.ignoreCause,
      Effect.forkScoped,
    )

    return {
      get protocol() {
        return current.link.protocol
      },
      request: openBy(send),
      isConnected: () => connected.isOpen(),
      lost: Deferred.await(lost),
    }
  })

interface Inbox {
  /** The listeners by the ids of their requests. */
  readonly listeners: Map<string, Conversation.Listener>
  readonly arrivals: Arrivals.Arrivals
  /** Passes a message to its listener. Returns a message that was received before instead. */
  readonly receive: (frame: Frame, decode: Link["decode"]) => Message | undefined
}

/** Makes an inbox without listeners. */
function makeInbox({ onMalformed, onUnclaimed, session }: ChannelOptions): Inbox {
  const listeners = new Map<string, Conversation.Listener>()
  const arrivals = Arrivals.make(session)
  const refuse = (error: WireError): void => {
    onMalformed(error)
    if (!error.isTooLarge) return
    // Without a readable parent header the message may answer any of the requests.
    const { parentId } = error
    const concerned = parentId === undefined ? [...listeners.values()] : [listeners.get(parentId)]
    for (const listener of concerned) listener?.onTooLarge?.(error)
  }
  return {
    listeners,
    arrivals,
    receive: (frame, decode) => {
      const decoded = decode(frame)
      if (Result.isFailure(decoded)) {
        refuse(decoded.failure)
        return undefined
      }
      const message = decoded.success
      if (!arrivals.record(message)) return message
      const listener = listeners.get(parentId(message) ?? "")
      if (listener === undefined) onUnclaimed(message, frame.length)
      else listener.onMessage(message, frame.length)
      return undefined
    },
  }
}

interface Reading {
  readonly pause: () => void
  readonly resume: () => void
  readonly isPaused: () => boolean
  /** Tells whether reading was paused at any time since the last call. */
  readonly wasPaused: () => boolean
  readonly untilResumed: Effect.Effect<void>
}

/** Makes the state of reading, which is not paused. */
function makeReading(): Reading {
  const gate = Latch.makeUnsafe(true)
  let wasPaused = false
  return {
    pause: () => {
      wasPaused = true
      gate.closeUnsafe()
    },
    resume: () => gate.openUnsafe(),
    isPaused: () => !gate.isOpen(),
    wasPaused: () => {
      const was = wasPaused
      wasPaused = !gate.isOpen()
      return was
    },
    untilResumed: gate.await,
  }
}

interface Connected {
  readonly link: Link
  readonly scope: Scope.Closeable
}

/** Opens a connection in a child of the scope, which closes it alone. */
const connectIn = (
  outer: Scope.Scope,
  options: LinkOptions,
  wasPaused: () => boolean,
): Effect.Effect<Connected, ChannelError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const scope = yield* Scope.fork(outer)
      const link = yield* restore(Scope.provide(open(options, wasPaused), scope)).pipe(
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
      )
      return { link, scope }
    })
  )

/** Repeats attempts to connect, unless the server refuses. */
const retrying = (
  connect: Effect.Effect<Connected, ChannelError>,
  { after, timeout }: { readonly after: ChannelError; readonly timeout: Duration.Input },
): Effect.Effect<Connected, ChannelError> =>
  connect.pipe(
    Effect.retry({
      schedule: Schedule.exponential("50 millis").pipe(
        (backoff) => Schedule.min([backoff, Schedule.spaced("1 second")]),
        Schedule.upTo({ duration: timeout }),
      ),
      // A refusal is final, but not the error of a server that is overloaded.
      while: (error) => error.code === undefined || error.code >= 500,
    }),
    Effect.timeoutOrElse({
      duration: timeout,
      orElse: () => new ChannelError({ detail: "The server cannot be reached any more" }),
    }),
    Effect.mapError(({ code, detail }) =>
      new ChannelError({
        ...(code === undefined ? {} : { code }),
        detail: `${after.detail}; reconnecting failed: ${detail}`,
      })
    ),
  )

/** Returns the error of a reader that ended, by a failure or a defect. */
function errorOf(cause: Cause.Cause<ChannelError>): ChannelError {
  return Option.getOrElse(Cause.findErrorOption(cause), () => {
    const defect = cause.reasons.find(Cause.isDieReason)
    const [first] = defect === undefined ? [] : Cause.pretty(Cause.fromReasons([defect])).split("\n")
    return new ChannelError({ detail: `Reading it failed${first === undefined ? "" : `: ${first}`}` })
  })
}
