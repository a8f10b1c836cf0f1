/**
 * One WebSocket to the channels of a kernel: it speaks the format that the server agrees to, and notices when
 * the peer is gone. The channel restores it when it is cut.
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

/** Where and how to connect. */
export interface LinkOptions {
  /** Base URL of the server, `http:` or `https:`. */
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly kernelId: string
  /** Identifies the client to the server; the server keeps what a client of this id missed. */
  readonly session: string
  /** A peer that does not answer a ping before the next one is due, and within a second and a half, counts as lost. */
  readonly pingInterval: Duration.Input
  /** Bytes of a message that comes in, past which the connection is cut; 512 MiB by default. */
  readonly maxMessageSize?: number | undefined
  /** Whether to answer what arrived with a pong, which carries its acknowledgement; never by default. */
  readonly hurries?: Effect.Effect<boolean> | undefined
  /** Bound of the handshake, which servers put off until the kernel answers; 30 seconds by default. */
  readonly openTimeout?: Duration.Input | undefined
  /** Subprotocols to offer; v1 by default, none for the legacy format. */
  readonly protocols?: ReadonlyArray<string> | undefined
}

/** One open WebSocket. */
export interface Link {
  /** The format that the server agreed to. */
  readonly protocol: "v1" | "legacy"
  /** The next frames; fails when the connection is gone. */
  readonly pull: Effect.Effect<ReadonlyArray<Socket.Frame>, Socket.ChannelError>
  /** Has the server told at once that frames arrived, if that makes it send the next ones sooner. */
  readonly acknowledge: (frames: ReadonlyArray<Socket.Frame>) => Effect.Effect<void>
  readonly decode: (frame: Socket.Frame) => Result.Result<Message, WireError>
  /** Whether messages can go out: a WebSocket that is closing swallows them. */
  readonly isOpen: () => boolean
  readonly transmit: (message: Message) => Effect.Effect<void, Socket.ChannelError>
}

/** Bytes that come in at once after which the operating system acknowledges at once, wherever the server is. */
const largeArrival = 128 * 1024

/** Bytes that come in at once after which more is likely to follow: once in a while is often enough. */
const flood = 8 * 1024

/** Goes on after the next look of the event loop at its sockets: the second task, scheduled by the first, follows it. */
const lookOnce = Effect.andThen(Effect.yieldNow, Effect.yieldNow)

/** A server that is only busy must not lose its connection, and the output on it, however often it is asked. */
const patience = Duration.millis(1500)

/** Opens a WebSocket, which closes with the scope. `takeHeld` tells whether reading was put off since it was asked last. */
export const open: (
  options: LinkOptions,
  takeHeld: () => boolean,
) => Effect.Effect<Link, Socket.ChannelError, Scope.Scope> = Effect.fnUntraced(function* (options, takeHeld) {
  const server = options.url.replace(/^http/, "ws").replace(/\/+$/, "")
  const address = `${server}/api/kernels/${encodeURIComponent(options.kernelId)}/channels?session_id=${
    encodeURIComponent(options.session)
  }`
  const dial = (protocols: ReadonlyArray<string>) =>
    Socket.open(address, {
      headers: options.headers,
      protocols,
      maxMessageSize: options.maxMessageSize,
      openTimeout: options.openTimeout ?? "30 seconds",
    })
  const { bytesRead, hasMore, pull, websocket } = yield* dial(options.protocols ?? [WireV1.subprotocol]).pipe(
    // A server that knows no subprotocol accepts the connection, but `ws` does not.
    Effect.catchIf((error) => error.detail.includes("Server sent no subprotocol"), () => dial([])),
  )
  let isSilent = false
  yield* Effect.forkScoped(Defect.log(keepAlive(websocket, {
    interval: options.pingInterval,
    bytesRead,
    takeHeld,
    onSilence: () => {
      isSilent = true
    },
  })))
  const { hurries = Effect.succeed(false) } = options
  const scope = yield* Effect.scope
  let isDue = false
  const pong = Effect.sync(() => {
    isDue = false
    if (!hasMore() && websocket.readyState === websocket.OPEN) websocket.pong()
  })
  const acknowledge = (frames: ReadonlyArray<Socket.Frame>): Effect.Effect<void> => {
    const bytes = frames.reduce((sum, { length }) => sum + length, 0)
    if (isDue || bytes >= largeArrival) return Effect.void
    return Effect.flatMap(hurries, (hurry) => {
      if (!hurry) return Effect.void
      // Most often the next frames are there by then, and acknowledging those is enough.
      if (bytes < flood) return Effect.andThen(lookOnce, pong)
      isDue = true
      return Effect.asVoid(Effect.forkIn(Effect.delay(pong, "1 millis"), scope))
    })
  }
  const decodeV1 = WireV1.makeDecoder()
  const protocol = websocket.protocol === WireV1.subprotocol ? "v1" : "legacy"
  const bound = Duration.format(Duration.max(Duration.fromInputUnsafe(options.pingInterval), patience))
  return {
    protocol,
    pull: Effect.mapError(
      pull,
      (error) =>
        isSilent
          ? new Socket.ChannelError({ detail: `The server did not answer a ping within ${bound}` })
          : error,
    ),
    acknowledge,
    decode: (frame) =>
      protocol === "v1" && typeof frame !== "string" ? decodeV1(frame) : WireLegacy.decode(frame),
    isOpen: () => websocket.readyState === websocket.OPEN,
    transmit: (message) =>
      Effect.try({
        try: () => websocket.send(protocol === "v1" ? WireV1.encode(message) : WireLegacy.encode(message)),
        catch: (cause) =>
          new Socket.ChannelError({ detail: cause instanceof Error ? cause.message : String(cause) }),
      }),
  }
})

/**
 * Pings, and cuts the connection when the pong to the last ping is still missing at the next, or at as many as take
 * a second and a half, unless something else came: the pong waits behind all output that the server has ready.
 */
const keepAlive = (
  websocket: WebSocket,
  { bytesRead, interval, onSilence, takeHeld }: {
    readonly onSilence: () => void
    readonly interval: Duration.Input
    readonly bytesRead: () => number
    readonly takeHeld: () => boolean
  },
) => {
  const tolerated = Math.max(
    1,
    Math.ceil(Duration.toMillis(patience) / Duration.toMillis(Duration.fromInputUnsafe(interval))),
  )
  let answered = true
  let missed = 0
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
        missed = [answered, now > before, takeHeld()].includes(true) ? 0 : missed + 1
        if (missed >= tolerated) {
          onSilence()
          return websocket.terminate()
        }
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
