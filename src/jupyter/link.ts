/**
 * One WebSocket to the channels of a kernel: it uses the wire format that the server agrees to, and detects
 * when the peer is gone. The channel restores it when it is cut.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { WebSocket } from "ws"
import * as Defect from "../defect.ts"
import type { Message, WireError } from "./message.ts"
import * as Socket from "./socket.ts"
import * as WireLegacy from "./wire_legacy.ts"
import * as WireV1 from "./wire_v1.ts"

/**
 * The server and the kernel to connect to, and the limits of the connection.
 *
 * @category options
 * @since 0.1.0
 */
export interface LinkOptions {
  /** Base URL of the server, `http:` or `https:`. */
  readonly url: string
  /** Sent with the handshake. */
  readonly headers: Readonly<Record<string, string>>
  /** Opens the WebSocket in place of the default, which sends {@link LinkOptions.headers}. */
  readonly openSocket?: Socket.Open | undefined
  readonly kernelId: string
  /** Identifies the client to the server; the server keeps messages that a client with this id missed. */
  readonly session: string
  /** Time between pings. A peer counts as lost if no pong comes within this time, or 1.5 seconds if that is longer. */
  readonly pingInterval: Duration.Input
  /** Maximum bytes of an incoming message, past which the connection is cut; 512 MiB by default. */
  readonly maxMessageSize?: number | undefined
  /** Tells whether to send a pong now, which carries the acknowledgement of received frames; never by default. */
  readonly shouldAckNow?: Effect.Effect<boolean> | undefined
  /** Maximum time of the handshake, which servers delay until the kernel answers; 30 seconds by default. */
  readonly openTimeout?: Duration.Input | undefined
  /** Subprotocols to offer; v1 by default, none for the legacy format. */
  readonly protocols?: ReadonlyArray<string> | undefined
}

/**
 * One open WebSocket.
 *
 * @category models
 * @since 0.1.0
 */
export interface Link {
  /** The format that the server agreed to. */
  readonly protocol: "v1" | "legacy"
  /** Waits for the next frames. Fails when the connection is gone. */
  readonly pull: Effect.Effect<ReadonlyArray<Socket.Frame>, Socket.ChannelError>
  /** Acknowledges frames at once if that makes the server send the next ones sooner. */
  readonly acknowledge: (frames: ReadonlyArray<Socket.Frame>) => Effect.Effect<void>
  readonly decode: (frame: Socket.Frame) => Result.Result<Message, WireError>
  /** Tells whether messages can be sent: a WebSocket that is closing drops them. */
  readonly isOpen: () => boolean
  readonly transmit: (message: Message) => Effect.Effect<void, Socket.ChannelError>
}

/** Bytes received at once that the operating system acknowledges without delay, on any network. */
const autoAckBytes = 128 * 1024

/** Bytes received at once after which more are likely to follow, so that one acknowledgement per millisecond is enough. */
const burstBytes = 8 * 1024

/** Continues after the event loop has polled its sockets once: the second task, scheduled by the first, follows the poll. */
const afterNextPoll = Effect.andThen(Effect.yieldNow, Effect.yieldNow)

/** Minimum time to wait for a pong, so that a busy server keeps its connection even with a short ping interval. */
const minPongTimeout = Duration.millis(1500)

/**
 * Opens a WebSocket, which closes with the scope. `wasPaused` tells whether reading was paused since its last call.
 *
 * @category constructors
 * @since 0.1.0
 */
export const open: (
  options: LinkOptions,
  wasPaused: () => boolean,
) => Effect.Effect<Link, Socket.ChannelError, Scope.Scope> = Effect.fnUntraced(
  function* (options, wasPaused) {
    const server = options.url.replace(/^http/, "ws").replace(/\/+$/, "")
    const address = `${server}/api/kernels/${encodeURIComponent(options.kernelId)}/channels?session_id=${
      encodeURIComponent(options.session)
    }`
    const openSocket: Socket.Open = options.openSocket ??
      ((address, limits) => Socket.open(address, { headers: options.headers, ...limits }))
    const connect = (protocols: ReadonlyArray<string>) =>
      openSocket(address, {
        protocols,
        maxMessageSize: options.maxMessageSize,
        openTimeout: options.openTimeout ?? "30 seconds",
      })
    const { bytesRead, pull, websocket } = yield* connect(options.protocols ?? [WireV1.subprotocol])
      .pipe(
        // A server without subprotocols accepts the connection, but `ws` refuses its answer.
        Effect.catchIf((error) => error.detail.includes("Server sent no subprotocol"), () => connect([])),
      )
    let isSilent = false
    yield* Effect.forkScoped(Defect.log(keepAlive(websocket, {
      interval: options.pingInterval,
      bytesRead,
      wasPaused,
      onSilence: () => {
        isSilent = true
      },
    })))
    const { shouldAckNow = Effect.succeed(false) } = options
    const scope = yield* Effect.scope
    /** Set while received frames are not acknowledged; whatever is sent acknowledges them. */
    let isAckDue = false
    let isAckScheduled = false
    let batches = 0
    const pong = Effect.sync(() => {
      isAckScheduled = false
      if (isAckDue && websocket.readyState === websocket.OPEN) websocket.pong()
    })
    /** Usually the next frames have arrived after a poll, and acknowledging those is enough. */
    const pongWhenQuiet: Effect.Effect<void> = Effect.suspend(() => {
      const before = batches
      return Effect.andThen(afterNextPoll, Effect.suspend(() => batches === before ? pong : pongWhenQuiet))
    })
    const acknowledge = (frames: ReadonlyArray<Socket.Frame>): Effect.Effect<void> => {
      const bytes = frames.reduce((sum, { length }) => sum + length, 0)
      isAckDue = bytes < autoAckBytes
      batches++
      if (isAckScheduled || !isAckDue) return Effect.void
      return Effect.flatMap(shouldAckNow, (ackNow) => {
        if (!ackNow) return Effect.void
        isAckScheduled = true
        const delayed = bytes < burstBytes ? pongWhenQuiet : Effect.delay(pong, "1 millis")
        return Effect.asVoid(Effect.forkIn(delayed, scope))
      })
    }
    const decodeV1 = WireV1.makeDecoder()
    const protocol = websocket.protocol === WireV1.subprotocol ? "v1" : "legacy"
    const pongTimeout = Duration.format(
      Duration.max(Duration.fromInputUnsafe(options.pingInterval), minPongTimeout),
    )
    return {
      protocol,
      pull: Effect.mapError(
        pull,
        (error) =>
          isSilent
            ? new Socket.ChannelError({ detail: `The server did not answer a ping within ${pongTimeout}` })
            : error,
      ),
      acknowledge,
      decode: (frame) =>
        protocol === "v1" && typeof frame !== "string" ? decodeV1(frame) : WireLegacy.decode(frame),
      isOpen: () => websocket.readyState === websocket.OPEN,
      transmit: (message) =>
        Effect.try({
          try: () => {
            websocket.send(protocol === "v1" ? WireV1.encode(message) : WireLegacy.encode(message))
            isAckDue = false
          },
          catch: (cause) =>
            new Socket.ChannelError({ detail: cause instanceof Error ? cause.message : String(cause) }),
        }),
    }
  },
)

/**
 * Sends pings, and cuts the connection when the pong is still missing after the interval and {@link minPongTimeout},
 * unless other bytes were received: the pong is queued behind all output that the server has ready.
 */
const keepAlive = (
  websocket: WebSocket,
  { bytesRead, interval, onSilence, wasPaused }: {
    readonly onSilence: () => void
    readonly interval: Duration.Input
    readonly bytesRead: () => number
    readonly wasPaused: () => boolean
  },
) => {
  const maxMissed = Math.max(
    1,
    Math.ceil(Duration.toMillis(minPongTimeout) / Duration.toMillis(Duration.fromInputUnsafe(interval))),
  )
  let answered = true
  let missed = 0
  let bytesBefore = 0
  const onPong = () => {
    answered = true
  }
  return Effect.acquireUseRelease(
    Effect.sync(() => websocket.on("pong", onPong)),
    () =>
      Effect.sync(() => {
        if (websocket.readyState !== websocket.OPEN) return
        const now = bytesRead()
        // While reading is paused no pong is received.
        missed = [answered, now > bytesBefore, wasPaused()].includes(true) ? 0 : missed + 1
        if (missed >= maxMissed) {
          onSilence()
          return websocket.terminate()
        }
        answered = false
        bytesBefore = now
        websocket.ping()
      }).pipe(
        // Frames received while this process was busy are read first.
        Effect.delay(0),
        Effect.delay(interval),
        Effect.forever,
      ),
    () => Effect.sync(() => websocket.off("pong", onPong)),
  )
}
