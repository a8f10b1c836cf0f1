/**
 * The channels of one kernel over one WebSocket: messages go out in order, and one reader hands every
 * message that comes in to whoever asked for the replies to its request.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import { WebSocket } from "ws"
import { type Message, parentId, request, type WireError } from "./message.ts"
import * as Sequence from "./sequence.ts"
import * as WireLegacy from "./wire_legacy.ts"
import * as WireV1 from "./wire_v1.ts"

/** The WebSocket could not be opened, or is no more. */
export class ChannelError extends Schema.TaggedError<ChannelError>("effect-jupyter/jupyter/ChannelError")(
  "ChannelError",
  {
    /** The close code, or the status with which the server refused the handshake. */
    code: Schema.optionalKey(Schema.Int),
    detail: Schema.String,
  },
) {
  override get message(): string {
    return `The connection to the kernel is lost: ${this.detail}`
  }
}

/** Where and how to connect. */
export interface ChannelOptions {
  /** Base URL of the server, `http:` or `https:`. */
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly kernelId: string
  /** Identifies the client to the server; the server keeps what a client of this id missed. */
  readonly session: string
  /** A peer that does not answer a ping before the next one is due counts as lost. */
  readonly pingInterval: Duration.Input
  /** How long to try to get a lost connection back; 10 seconds by default. */
  readonly reconnectTimeout?: Duration.Input
  /** Takes the messages that nobody listens for, the kernel's own ones among them. */
  readonly onUnclaimed: (message: Message) => void
  /** Takes note of a frame that is no message. */
  readonly onMalformed: (error: WireError) => void
  /** Takes note of a connection that was lost and is back. */
  readonly onReconnected?: () => void
  /** Subprotocols to offer; v1 by default, none for the legacy format. */
  readonly protocols?: ReadonlyArray<string>
}

/** Who waits for the messages that answer a request. */
export interface Listener {
  /** Takes a message; `bytes` is the length of its frame. */
  readonly onMessage: (message: Message, bytes: number) => void
  /**
   * The connection was cut and is back, and the kernel has since answered everything that was asked before:
   * what has not arrived by now never will.
   */
  readonly onFenced?: () => void
}

/** An open connection. */
export interface Channel {
  /** The format that the server agreed to. */
  readonly protocol: "v1" | "legacy"
  /** Sends a message once; waits for the connection if it is being restored. */
  readonly send: (message: Message) => Effect.Effect<void, ChannelError>
  /** From now on the listener gets the messages whose parent is the request `id`. */
  readonly listen: (id: string, listener: Listener) => void
  readonly forget: (id: string) => void
  /** Reads no further until {@link release}: the messages wait in the server. */
  readonly hold: () => void
  readonly release: () => void
  /** Succeeds when the kernel has answered everything it was asked on the shell channel before. */
  readonly fence: Effect.Effect<void, ChannelError>
  /** Begins to count messages for {@link isComplete}. */
  readonly mark: () => void
  /**
   * Whether all messages since {@link mark} arrived. For a kernel that does not number its messages: whether
   * the connection was never cut.
   */
  readonly isComplete: () => boolean
  /** What cut the connection since {@link mark}, if anything did. */
  readonly cutBy: () => ChannelError | undefined
  /** Fails when the connection is gone for good; never succeeds. */
  readonly lost: Effect.Effect<never, ChannelError>
}

/** Larger messages cannot become a JavaScript string. */
const maxPayload = 512 * 1024 * 1024

/** How many message ids are remembered to recognise a message that comes again after a reconnection. */
const remembered = 8192

/** How long a restored connection may take to become quiet before new requests go out all the same. */
const settling: Duration.Input = "2 seconds"

/** One WebSocket. */
interface Link {
  readonly scope: Scope.Closeable
  readonly websocket: WebSocket
  readonly pull: Socket.Reader["pull"]
  readonly protocol: "v1" | "legacy"
}

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
 *   channel.listen("1", { onMessage: (message) => console.log(message.header.msg_type) })
 *   yield* channel.send(request("kernel_info_request", { id: "1", session: "one", content: {} }))
 *   return yield* channel.lost
 * }).pipe(Effect.scoped)
 * ```
 */
export const make: (options: ChannelOptions) => Effect.Effect<Channel, ChannelError, Scope.Scope> = Effect
  .fnUntraced(function* (options: ChannelOptions) {
    const outer = yield* Effect.scope
    const listeners = new Map<string, Listener>()
    /** The requests among the listeners' that went out. */
    const sent = new Set<string>()
    const seen = new Set<string>()
    const gate = yield* Latch.make(true)
    const connected = yield* Latch.make(true)
    const lost = yield* Deferred.make<never, ChannelError>()
    let sequence = Sequence.unknown
    let cut: ChannelError | undefined
    let held = false
    let wasHeld = false

    const receive = (frame: string | Uint8Array, protocol: Link["protocol"]): void => {
      const decoded = protocol === "v1" && typeof frame !== "string"
        ? WireV1.decode(frame)
        : WireLegacy.decode(frame)
      if (Result.isFailure(decoded)) return options.onMalformed(decoded.failure)
      const message = decoded.success
      if (seen.has(message.header.msg_id)) return
      remember(message.header.msg_id)
      sequence = Sequence.observe(sequence, message, options.session)
      const listener = listeners.get(parentId(message) ?? "")
      if (listener === undefined) options.onUnclaimed(message)
      else listener.onMessage(message, frame.length)
    }
    const forget = (id: string): void => {
      listeners.delete(id)
      sent.delete(id)
    }
    const remember = (id: string): void => {
      seen.add(id)
      if (seen.size <= remembered) return
      for (const oldest of seen) return void seen.delete(oldest)
    }

    /** Reads until the connection is cut. */
    const read = ({ protocol, pull }: Link): Effect.Effect<never, ChannelError> =>
      pull.pipe(
        Effect.flatMap((frames) => {
          for (const frame of frames) receive(frame, protocol)
          return held ? gate.await : Effect.void
        }),
        Effect.forever({ disableYield: true }),
        Effect.mapError(toChannelError),
      )

    /** Whether reading was put off since this was asked last. */
    const takeHeld = (): boolean => {
      const was = wasHeld
      wasHeld = held
      return was
    }

    const link = Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const scope = yield* Scope.fork(outer)
        return yield* restore(Scope.provide(open(options, takeHeld, scope), scope)).pipe(
          Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
        )
      })
    )
    let current = yield* link

    const send = (message: Message): Effect.Effect<void, ChannelError> =>
      Effect.andThen(Effect.raceFirst(connected.await, Deferred.await(lost)), transmit(message))
    const transmit = (message: Message): Effect.Effect<void, ChannelError> =>
      Effect.suspend(() => {
        const { protocol, websocket } = current
        // A WebSocket that is closing swallows the message; the reader is about to notice and to reconnect.
        if (websocket.readyState !== websocket.OPEN) return Effect.delay(send(message), "10 millis")
        return Effect.try({
          try: () => {
            websocket.send(protocol === "v1" ? WireV1.encode(message) : WireLegacy.encode(message))
            if (listeners.has(message.header.msg_id)) sent.add(message.header.msg_id)
          },
          catch: (cause) => new ChannelError({ detail: causeMessage(cause) }),
        })
      })

    const makeFence = Effect.fnUntraced(function* (ask: typeof send) {
      const id = SecureRandom.uuidV4Unsafe()
      const passed = yield* Deferred.make<void>()
      let answers = 0
      yield* Effect.acquireRelease(
        Effect.sync(() =>
          listeners.set(id, {
            onMessage: (message) => {
              // Reply and idle, on two channels, each behind everything that was sent there before.
              if (message.header.msg_type === "kernel_info_reply" || isIdle(message)) answers++
              if (answers === 2) Deferred.doneUnsafe(passed, Exit.void)
            },
          })
        ),
        () => Effect.sync(() => forget(id)),
      )
      yield* ask(request("kernel_info_request", { id, session: options.session, content: {} }))
      yield* Effect.raceFirst(Deferred.await(passed), Deferred.await(lost))
    }, Effect.scoped)

    const mark = (): void => {
      cut = undefined
      sequence = Sequence.begin(sequence)
    }

    const reconnect = link.pipe(
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
        const error = yield* Effect.flip(read(current))
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
        const quiet = Effect.ignore(makeFence(transmit))
        const settle = waiting.length > 0
          ? Effect.andThen(quiet, Effect.sync(() => waiting.forEach((onFenced) => onFenced())))
          // To open a connection the server talks to the kernel, which is nothing to count in what is asked next.
          : Effect.andThen(
            Effect.timeoutOption(Effect.andThen(quiet, Effect.sync(mark)), settling),
            connected.open,
          )
        if (waiting.length > 0) connected.openUnsafe()
        yield* Effect.forkIn(settle, current.scope)
      }
    }).pipe(
      Effect.catch((error) => Deferred.fail(lost, error)),
      Effect.forkScoped,
    )

    return {
      get protocol() {
        return current.protocol
      },
      send,
      listen: (id, listener) => {
        listeners.set(id, listener)
      },
      forget,
      hold: () => {
        held = true
        wasHeld = true
        gate.closeUnsafe()
      },
      release: () => {
        held = false
        gate.openUnsafe()
      },
      fence: makeFence(send),
      mark,
      isComplete: () => cut === undefined || Sequence.missing(sequence) === 0,
      cutBy: () => cut,
      lost: Deferred.await(lost),
    }
  })

/** Opens one WebSocket in a scope. */
const open = Effect.fnUntraced(function* (
  options: ChannelOptions,
  takeHeld: () => boolean,
  scope: Scope.Closeable,
) {
  const server = options.url.replace(/^http/, "ws").replace(/\/+$/, "")
  const address = `${server}/api/kernels/${encodeURIComponent(options.kernelId)}/channels?session_id=${
    encodeURIComponent(options.session)
  }`
  const dial = Effect.fnUntraced(function* (protocols: ReadonlyArray<string>) {
    const websocket = yield* Effect.acquireRelease(
      Effect.sync(() =>
        new WebSocket(address, [...protocols], {
          headers: options.headers,
          maxPayload,
          perMessageDeflate: false,
        })
      ),
      // No closing handshake: a peer that does not answer must not keep the socket open.
      (websocket) => Effect.sync(() => websocket.terminate()),
    )
    let bytesRead = () => 0
    websocket.once("upgrade", ({ socket }) => {
      bytesRead = () => socket.bytesRead
    })
    const socket = yield* Socket.fromWebSocket(Effect.succeed(websocket), { openTimeout: "30 seconds" })
    const { pull } = yield* Effect.mapError(socket.reader, toChannelError)
    return { websocket, pull, bytesRead: () => bytesRead() }
  })
  const { bytesRead, pull, websocket } = yield* dial(options.protocols ?? [WireV1.subprotocol]).pipe(
    // A server that knows no subprotocol accepts the connection, but `ws` does not.
    Effect.catchIf((error) => error.detail.includes("Server sent no subprotocol"), () => dial([])),
  )
  yield* Effect.forkScoped(keepAlive(websocket, { interval: options.pingInterval, bytesRead, takeHeld }))
  const protocol = websocket.protocol === WireV1.subprotocol ? "v1" : "legacy"
  const link: Link = { scope, websocket, pull, protocol }
  return link
})

/**
 * Pings, and cuts the connection when the pong to the last ping is still missing at the next, unless something
 * else came: the pong waits behind all output that the server has ready.
 */
const keepAlive = (
  websocket: WebSocket,
  { bytesRead, interval, takeHeld }: {
    readonly interval: Duration.Input
    readonly bytesRead: () => number
    readonly takeHeld: () => boolean
  },
) => {
  let answered = true
  let before = 0
  const onPong = () => {
    answered = true
  }
  return Effect.acquireUseRelease(
    Effect.sync(() => websocket.on("pong", onPong)),
    () =>
      Effect.sync(() => {
        if (websocket.readyState !== websocket.OPEN) return
        const now = bytesRead()
        // While nothing is read no pong is seen.
        const isAlive = [answered, now > before, takeHeld()].includes(true)
        if (!isAlive) return websocket.terminate()
        answered = false
        before = now
        websocket.ping()
      }).pipe(
        // What came in while this process was busy is read first.
        Effect.delay(0),
        Effect.delay(interval),
        Effect.forever,
      ),
    () => Effect.sync(() => websocket.off("pong", onPong)),
  )
}

function isIdle(message: Message): boolean {
  return message.header.msg_type === "status" && message.content.execution_state === "idle"
}

function toChannelError({ reason }: Socket.SocketError): ChannelError {
  switch (reason._tag) {
    case "SocketCloseError":
      return new ChannelError({
        code: reason.code,
        detail: `It was closed with code ${reason.message}${
          reason.code === 1009 ? ", a message was too large" : ""
        }`,
      })
    case "SocketOpenError":
    case "SocketReadError":
    case "SocketWriteError": {
      const detail = causeMessage(reason.cause)
      const [, status] = /Unexpected server response: (\d+)/.exec(detail) ?? []
      return new ChannelError({
        ...(status === undefined ? {} : { code: Number(status) }),
        detail: `${reason.message}: ${detail}`,
      })
    }
    case "SocketUpgradeError":
      return new ChannelError({ detail: reason.message })
  }
}

/** The `ws` package reports failures as events that carry a message. */
function causeMessage(cause: unknown): string {
  return typeof cause === "object" && cause !== null && "message" in cause
    ? String(cause.message)
    : String(cause)
}
