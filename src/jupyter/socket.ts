/**
 * One WebSocket, whose frames are pulled in batches: all that came in at once is handled at once.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Buffer } from "node:buffer"
import { WebSocket } from "ws"
import { excerpt } from "./control_codes.ts"

/** The WebSocket could not be opened, or is no more. */
export class ChannelError extends Schema.TaggedError<ChannelError>("effect-jupyter/jupyter/ChannelError")(
  "ChannelError",
  {
    /** The close code, or the status with which the server refused the handshake. */
    code: Schema.optionalKey(Schema.Int),
    detail: Schema.String,
    /** A message that came in was larger than it may be. */
    isTooLarge: Schema.optionalKey(Schema.Boolean),
  },
) {
  override get message(): string {
    return `The connection to the kernel is lost: ${this.detail}`
  }
}

/** What a WebSocket carries: text, or bytes. */
export type Frame = string | Uint8Array

/** An open WebSocket. */
export interface Socket {
  readonly websocket: WebSocket
  /** The frames that came in since the last time, as soon as there are any; fails when no more will come. */
  readonly pull: Effect.Effect<Arr.NonEmptyReadonlyArray<Frame>, ChannelError>
  /** Whether there are frames to pull. */
  readonly hasMore: () => boolean
  /** How many bytes came in so far. */
  readonly bytesRead: () => number
}

/** The largest message unless it is said otherwise: larger ones cannot become a JavaScript string. */
export const defaultMaxMessageSize = 512 * 1024 * 1024

/** Bytes that wait to be pulled before the operating system, and then the server, has to keep them. */
const highWaterMark = 64 * 1024

/** Opens a WebSocket, which closes with the scope. */
export const open: (
  address: string,
  options: {
    readonly headers: Readonly<Record<string, string>>
    readonly protocols: ReadonlyArray<string>
    /** Bound of the handshake, which servers put off until the kernel answers. */
    readonly openTimeout: Duration.Input
    /** Bytes of a message, past which the connection is closed with code 1009; {@link defaultMaxMessageSize} by default. */
    readonly maxMessageSize?: number | undefined
  },
) => Effect.Effect<Socket, ChannelError, Scope.Scope> = Effect.fnUntraced(function* (address, options) {
  const { bytesRead, hasMore, pull, websocket } = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const websocket = new WebSocket(address, [...options.protocols], {
        headers: options.headers,
        maxPayload: options.maxMessageSize ?? defaultMaxMessageSize,
        perMessageDeflate: false,
      })
      let bytesRead = () => 0
      websocket.once("upgrade", ({ socket }) => {
        bytesRead = () => socket.bytesRead
      })
      // At once: an error that nobody listens for ends the process.
      return { websocket, ...receive(websocket), bytesRead: () => bytesRead() }
    }),
    // No closing handshake: a peer that does not answer must not keep the socket open.
    ({ websocket }) => Effect.sync(() => websocket.terminate()),
  )
  yield* Effect.callback<void, ChannelError>((resume) => {
    websocket.once("open", () => resume(Effect.void))
    // Why is what there is to pull.
    websocket.once("close", () => resume(Effect.asVoid(pull)))
  }).pipe(
    Effect.timeoutOrElse({
      duration: options.openTimeout,
      orElse: () => {
        const bound = Duration.format(Duration.fromInputUnsafe(options.openTimeout))
        return new ChannelError({ detail: `It was not opened within ${bound}` })
      },
    }),
  )
  return { websocket, pull, hasMore, bytesRead }
})

/** Collects what comes in from now on. */
function receive(websocket: WebSocket): Pick<Socket, "pull" | "hasMore"> {
  let frames: Array<Frame> = []
  let bytes = 0
  let end: ChannelError | undefined
  let waiter: ((next: Socket["pull"]) => void) | undefined

  const next = (): Socket["pull"] | undefined => {
    const batch = frames
    if (!Arr.isReadonlyArrayNonEmpty(batch)) return end === undefined ? undefined : Effect.fail(end)
    frames = []
    bytes = 0
    if (websocket.isPaused) websocket.resume()
    return Effect.succeed(batch)
  }
  const wake = (): void => {
    const resume = waiter
    const awaited = resume === undefined ? undefined : next()
    if (resume === undefined || awaited === undefined) return
    waiter = undefined
    resume(awaited)
  }
  const finish = (error: ChannelError): void => {
    end ??= error
    wake()
  }
  websocket.on("message", (data: Buffer, isBinary: boolean) => {
    // After everything that the same read of the socket brings.
    if (frames.length === 0) queueMicrotask(wake)
    // Not as a Buffer, whose `slice` is no copy.
    frames.push(isBinary ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : data.toString())
    bytes += data.byteLength
    if (bytes >= highWaterMark) websocket.pause()
  })
  websocket.on("error", (error) => {
    const { message } = error
    const [, status] = /Unexpected server response: (\d+)/.exec(message) ?? []
    const isTooLarge = "code" in error && error.code === "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH"
    finish(
      new ChannelError({
        ...(isTooLarge ? { isTooLarge } : {}),
        ...(status === undefined ? {} : { code: Number(status) }),
        detail: `It failed with "${message}"`,
      }),
    )
  })
  websocket.on("close", (code, reason) => {
    const said = reason.length === 0 ? "" : `: ${excerpt(reason.toString())}`
    const hint = code === 1009 ? ", a message was too large" : ""
    finish(new ChannelError({ code, detail: `It was closed with code ${code}${said}${hint}` }))
  })
  return {
    hasMore: () => frames.length > 0,
    pull: Effect.callback((resume) => {
      const awaited = next()
      if (awaited !== undefined) return resume(awaited)
      waiter = resume
      return Effect.sync(() => {
        waiter = undefined
      })
    }),
  }
}
