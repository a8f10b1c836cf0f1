/**
 * The channels of one kernel over one WebSocket: messages go out in order, and one reader hands every
 * message that comes in to whoever asked for the replies to its request.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import { WebSocket } from "ws"
import { type Message, parentId, type WireError } from "./message.ts"
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
  /** Takes the messages that nobody listens for, the kernel's own ones among them. */
  readonly onUnclaimed: (message: Message) => void
  /** Takes note of a frame that is no message. */
  readonly onMalformed: (error: WireError) => void
  /** Subprotocols to offer; v1 by default, none for the legacy format. */
  readonly protocols?: ReadonlyArray<string>
}

/** An open connection. */
export interface Channel {
  /** The format that the server agreed to. */
  readonly protocol: "v1" | "legacy"
  readonly send: (message: Message) => Effect.Effect<void, ChannelError>
  /** From now on `listener` gets the messages whose parent is the request `id`. */
  readonly listen: (id: string, listener: (message: Message) => void) => void
  readonly forget: (id: string) => void
  /** Fails when the connection is gone; never succeeds. */
  readonly lost: Effect.Effect<never, ChannelError>
}

/** Larger messages cannot become a JavaScript string. */
const maxPayload = 512 * 1024 * 1024

/**
 * Connects to the channels of a kernel; the connection closes with the scope.
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
 *   channel.listen("1", (message) => console.log(message.header.msg_type))
 *   yield* channel.send(request("kernel_info_request", { id: "1", session: "one", content: {} }))
 *   return yield* channel.lost
 * }).pipe(Effect.scoped)
 * ```
 */
export const make: (options: ChannelOptions) => Effect.Effect<Channel, ChannelError, Scope.Scope> = Effect
  .fnUntraced(function* (options: ChannelOptions) {
    const address = `${options.url.replace(/^http/, "ws").replace(/\/+$/, "")}/api/kernels/${
      encodeURIComponent(options.kernelId)
    }/channels?session_id=${encodeURIComponent(options.session)}`
    const open = Effect.fnUntraced(function* (protocols: ReadonlyArray<string>) {
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
      const socket = yield* Socket.fromWebSocket(Effect.succeed(websocket), { openTimeout: "30 seconds" })
      const { pull } = yield* Effect.mapError(socket.reader, toChannelError)
      return { websocket, socket, pull }
    })
    const { pull, socket, websocket } = yield* open(options.protocols ?? [WireV1.subprotocol]).pipe(
      // A server that knows no subprotocol accepts the connection, but `ws` does not.
      Effect.catchIf((error) => error.detail.includes("Server sent no subprotocol"), () => open([])),
    )
    const writer = yield* socket.writer
    const protocol = websocket.protocol === WireV1.subprotocol ? "v1" : "legacy"

    const listeners = new Map<string, (message: Message) => void>()
    const lost = yield* Deferred.make<never, ChannelError>()

    const receive = (frame: string | Uint8Array): void => {
      const decoded = protocol === "v1" && typeof frame !== "string"
        ? WireV1.decode(frame)
        : WireLegacy.decode(frame)
      if (Result.isFailure(decoded)) return options.onMalformed(decoded.failure)
      const message = decoded.success
      const listener = listeners.get(parentId(message) ?? "") ?? options.onUnclaimed
      listener(message)
    }
    yield* pull.pipe(
      Effect.map((frames) => frames.forEach(receive)),
      Effect.forever({ disableYield: true }),
      Effect.mapError(toChannelError),
      Effect.catch((error) => Deferred.fail(lost, error)),
      Effect.forkScoped,
    )
    yield* Effect.forkScoped(keepAlive(websocket, options.pingInterval))

    return {
      protocol,
      send: (message) =>
        Effect.suspend(() =>
          websocket.readyState === websocket.OPEN
            ? writer.write(protocol === "v1" ? WireV1.encode(message) : WireLegacy.encode(message)).pipe(
              Effect.mapError(toChannelError),
            )
            // The WebSocket itself would swallow the message.
            : Deferred.await(lost)
        ),
      listen: (id, listener) => {
        listeners.set(id, listener)
      },
      forget: (id) => {
        listeners.delete(id)
      },
      lost: Deferred.await(lost),
    }
  })

/** Pings, and cuts the connection when the pong to the last ping is still missing at the next. */
const keepAlive = (websocket: WebSocket, interval: Duration.Input) => {
  let answered = true
  const onPong = () => {
    answered = true
  }
  return Effect.sync(() => {
    if (websocket.readyState !== websocket.OPEN) return
    if (!answered) return websocket.terminate()
    answered = false
    websocket.ping()
  }).pipe(
    Effect.delay(interval),
    Effect.forever,
    Effect.onExit(() => Effect.sync(() => websocket.off("pong", onPong))),
    (loop) => Effect.andThen(Effect.sync(() => websocket.on("pong", onPong)), loop),
  )
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
    case "SocketWriteError":
      return new ChannelError({ detail: `${reason.message}: ${causeMessage(reason.cause)}` })
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
