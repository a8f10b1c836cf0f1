/**
 * One WebSocket, whose frames are pulled in batches: frames received together are handled together.
 *
 * @module
 */
import type * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as HttpClient from "effect/http/HttpClient"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Buffer } from "node:buffer"
import type { ClientRequest } from "node:http"
import { createConnection } from "node:net"
import { type Duplex, PassThrough } from "node:stream"
import { WebSocket } from "ws"
import * as BatchQueue from "../batch_queue.ts"
import { excerpt } from "./control_codes.ts"
import { parseRetryAfter } from "./rest_error.ts"
import * as Upgrade from "./upgrade.ts"

/**
 * The WebSocket could not be opened, or was closed.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChannelError extends Schema.TaggedError<ChannelError>("effect-jupyter/jupyter/ChannelError")(
  "ChannelError",
  {
    /** The close code, or the status with which the server refused the handshake. */
    code: Schema.optionalKey(Schema.Int),
    detail: Schema.String,
    /** True if an incoming message was larger than the limit. */
    isTooLarge: Schema.optionalKey(Schema.Boolean),
    /** The delay after which the server wants the next handshake, from its header `retry-after`. */
    retryAfter: Schema.optionalKey(Schema.Duration),
  },
) {
  override get message(): string {
    return `The connection to the kernel is lost: ${this.detail}`
  }
}

/**
 * The payload of a WebSocket message: text, or bytes.
 *
 * @category models
 * @since 0.1.0
 */
export type Frame = string | Uint8Array

/**
 * An open WebSocket.
 *
 * @category models
 * @since 0.1.0
 */
export interface Socket {
  readonly websocket: WebSocket
  /** Waits for the frames received since the last call. Fails when the connection has ended. */
  readonly pull: Effect.Effect<Arr.NonEmptyReadonlyArray<Frame>, ChannelError>
  /** Returns the number of bytes received so far. */
  readonly bytesRead: () => number
}

/**
 * The default maximum size of a message: larger ones cannot become a JavaScript string.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultMaxMessageSize = 512 * 1024 * 1024

/** Bytes waiting to be pulled at which reading pauses, so that the operating system and the server buffer the rest. */
const highWaterMark = 64 * 1024

/**
 * The handshake of a WebSocket and its limits.
 *
 * @category options
 * @since 0.1.0
 */
export interface OpenOptions {
  readonly protocols: ReadonlyArray<string>
  /** Maximum time of the handshake, which servers delay until the kernel answers. */
  readonly openTimeout: Duration.Input
  /** Maximum bytes of a message, past which the connection is closed with code 1009; {@link defaultMaxMessageSize} by default. */
  readonly maxMessageSize?: number | undefined
}

/**
 * Opens a WebSocket, which closes with the scope.
 *
 * @category models
 * @since 0.1.0
 */
export type Open = (address: string, options: OpenOptions) => Effect.Effect<Socket, ChannelError, Scope.Scope>

/**
 * Opens a WebSocket, which closes with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const open: (
  address: string,
  options: OpenOptions & {
    readonly headers: Readonly<Record<string, string>>
    /** The Unix socket to connect to; host and port of the address by default. */
    readonly socketPath?: string | undefined
    /** Sends the handshake if it can upgrade connections; `ws` sends it by default. */
    readonly upgradeClient?: HttpClient.HttpClient | undefined
    /** Takes the cookies of the server's answer. */
    readonly onSetCookie?: ((lines: ReadonlyArray<string>) => void) | undefined
    /** Removes secrets from what the server says. */
    readonly redact?: ((text: string) => string) | undefined
  },
) => Effect.Effect<Socket, ChannelError, Scope.Scope> = Effect.fnUntraced(function* (address, options) {
  const { onSetCookie = () => {}, redact = (text) => text, socketPath, upgradeClient } = options
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const prepared = yield* Deferred.make<ClientRequest>()
  const opened = yield* Deferred.make<void, ChannelError>()
  const { bytesRead, pull, websocket } = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const websocket = new WebSocket(address, [...options.protocols], {
        headers: options.headers,
        maxPayload: options.maxMessageSize ?? defaultMaxMessageSize,
        perMessageDeflate: false,
        ...(socketPath === undefined ? {} : local(socketPath)),
        ...(upgradeClient === undefined ? {} : {
          // The request is not sent, so it needs no connection.
          createConnection: (): Duplex => new PassThrough(),
          finishRequest: (request) => void Deferred.doneUnsafe(prepared, Exit.succeed(request)),
        }),
      })
      let bytesRead = () => 0
      websocket.once("upgrade", ({ headers, socket }) => {
        bytesRead = () => socket.bytesRead
        onSetCookie(headers["set-cookie"] ?? [])
      })
      // Immediately: an error event without a listener ends the process, and a fiber may yield before the next step.
      const { pull } = receive(websocket, { now, onSetCookie, redact })
      websocket.once("open", () => Deferred.doneUnsafe(opened, Exit.void))
      // The error is what `pull` fails with.
      websocket.once("close", () => Deferred.doneUnsafe(opened, Effect.asVoid(pull)))
      return { websocket, pull, bytesRead: () => bytesRead() }
    }),
    // No closing handshake: a peer that does not answer must not keep the socket open.
    ({ websocket }) => Effect.sync(() => websocket.terminate()),
  )
  const handshake = upgradeClient === undefined
    ? Effect.void
    : Effect.flatMap(Deferred.await(prepared), (request) =>
      Upgrade.handshake(upgradeClient, address, request))
  const isOpen = yield* Effect.all([Deferred.await(opened), handshake], { concurrency: 2 }).pipe(
    Effect.as(true),
    Effect.catchTag("NoUpgrade", () => Effect.succeed(false)),
    Effect.timeoutOrElse({
      duration: options.openTimeout,
      orElse: () => {
        const timeout = Duration.format(Duration.fromInputUnsafe(options.openTimeout))
        return Effect.fail(new ChannelError({ detail: `It was not opened within ${timeout}` }))
      },
    }),
  )
  return isOpen
    ? { websocket, pull, bytesRead }
    : yield* open(address, { ...options, upgradeClient: undefined })
})

/** Options that connect to a Unix socket. No proxy reads the frames, so that they need no masking. */
const local = (path: string) => ({
  createConnection: () => createConnection({ path }),
  generateMask: (mask: Uint8Array) => {
    mask.fill(0)
  },
})

/** Collects the frames received from now on. */
function receive(
  websocket: WebSocket,
  { now, onSetCookie, redact }: {
    readonly now: () => number
    readonly onSetCookie: (lines: ReadonlyArray<string>) => void
    readonly redact: (text: string) => string
  },
): Pick<Socket, "pull"> {
  let bytes = 0
  const frames = BatchQueue.make<Frame, ChannelError>(() => {
    bytes = 0
    if (websocket.isPaused) websocket.resume()
  })
  websocket.on("message", (data: Buffer, isBinary: boolean) => {
    // A Uint8Array, because `slice` of a Buffer does not copy.
    frames.offer(isBinary ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : data.toString())
    bytes += data.byteLength
    if (bytes >= highWaterMark) websocket.pause()
  })
  websocket.on("error", (error) => {
    const isTooLarge = "code" in error && error.code === "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH"
    frames.fail(
      new ChannelError({
        ...(isTooLarge ? { isTooLarge } : {}),
        detail: `It failed with "${redact(error.message)}"`,
      }),
    )
  })
  websocket.on("unexpected-response", (_request, { headers, statusCode = 0 }) => {
    onSetCookie(headers["set-cookie"] ?? [])
    const retryAfter = parseRetryAfter(headers["retry-after"], now())
    frames.fail(
      new ChannelError({
        code: statusCode,
        detail: `It failed with "Unexpected server response: ${statusCode}"`,
        ...(retryAfter === undefined ? {} : { retryAfter }),
      }),
    )
    websocket.terminate()
  })
  websocket.on("close", (code, reason) => {
    const reasonText = reason.length === 0 ? "" : `: ${redact(excerpt(redact(reason.toString())))}`
    const hint = code === 1009 ? ", a message was too large" : ""
    frames.fail(new ChannelError({ code, detail: `It was closed with code ${code}${reasonText}${hint}` }))
  })
  return { pull: frames.takeAll }
}
