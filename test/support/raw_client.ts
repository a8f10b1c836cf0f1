/** A client of a kernel's own connection that need not keep to any protocol. */
import { Effect, type Scope } from "effect"
import { randomBytes } from "node:crypto"
import { connect, type Socket } from "node:net"
import type { Message } from "../../src/jupyter/message.ts"
import * as WireV1 from "../../src/jupyter/wire_v1.ts"

/** What is sent, and what comes. */
export interface RawClient {
  readonly send: (data: Uint8Array | string) => Effect.Effect<void>
  /** Half of a connection: what was sent is all there is. */
  readonly end: Effect.Effect<void>
  /** The status of the answer to a handshake; `undefined` if the connection was closed without one. */
  readonly status: Effect.Effect<number | undefined>
  /** The next frame of the kernel; `undefined` at the end. */
  readonly frame: Effect.Effect<Frame | undefined>
}

interface Frame {
  readonly opcode: number
  readonly data: Buffer
}

/** A request for a WebSocket. */
export const handshake = (
  path: string,
  token: string,
  fields: Readonly<Record<string, string>> = {},
): string => {
  const all = {
    Host: "localhost",
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
    "Sec-WebSocket-Protocol": WireV1.subprotocol,
    Authorization: `token ${token}`,
    ...fields,
  }
  return [`GET ${path} HTTP/1.1`, ...Object.entries(all).map(([name, value]) => `${name}: ${value}`), "", ""]
    .join("\r\n")
}

/** A frame with these first two bytes, for a payload of any length that it names. */
export function frame(
  payload: Uint8Array,
  { first = 0x82, length = payload.length, mask = randomBytes(4) }: {
    readonly first?: number
    readonly length?: number
    /** Empty for a frame that is not masked. */
    readonly mask?: Uint8Array
  } = {},
): Buffer {
  const masked = mask.length === 0 ? 0 : 0x80
  const isShort = length < 126
  const head = Buffer.alloc(isShort ? 2 : 10)
  head[0] = first
  head[1] = masked | (isShort ? length : 127)
  if (!isShort) head.writeBigUInt64BE(BigInt(length), 2)
  return Buffer.concat([
    head,
    mask,
    mask.length === 0 ? payload : payload.map((byte, index) => byte ^ (mask[index % 4] ?? 0)),
  ])
}

/** The message as a payload. */
export const payload = (message: Message): Uint8Array => WireV1.encode(message)

/** Connects to a Unix socket. */
export const connectTo = (path: string): Effect.Effect<RawClient, Error, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<Socket, Error>((resume) => {
        const socket = connect(path)
        socket.once("error", (error) => resume(Effect.fail(error)))
        socket.once("connect", () => resume(Effect.succeed(socket)))
      }),
      (socket) => Effect.sync(() => socket.destroy()),
    ),
    (socket) => {
      let received = Buffer.alloc(0)
      let isOver = false
      let wake = (): void => {}
      socket.on("data", (data) => {
        received = Buffer.concat([received, typeof data === "string" ? Buffer.from(data) : data])
        wake()
      })
      const finish = () => {
        isOver = true
        wake()
      }
      socket.on("close", finish).on("error", finish)
      /** What `take` makes of what has come, as soon as that is something. */
      const when = <A>(take: () => A | undefined) =>
        Effect.callback<A | undefined>((resume) => {
          const attempt = () => {
            const taken = take()
            if (taken !== undefined || isOver) resume(Effect.succeed(taken))
          }
          wake = attempt
          attempt()
        })
      return {
        send: (data) => Effect.sync(() => void socket.write(data)),
        end: Effect.sync(() => void socket.end()),
        status: when(() => {
          const end = received.indexOf("\r\n\r\n")
          if (end < 0) return undefined
          const [, status] = /^HTTP\/1.1 (\d+)/.exec(received.toString("latin1")) ?? []
          received = received.subarray(end + 4)
          return Number(status)
        }),
        frame: when(() => {
          const [opcode = 0, short = 0] = received
          if (received.length < 2) return undefined
          const extended = short < 126 ? 0 : short === 126 ? 2 : 8
          if (received.length < 2 + extended) return undefined
          const length = short < 126
            ? short
            : short === 126
            ? received.readUInt16BE(2)
            : Number(received.readBigUInt64BE(2))
          if (received.length < 2 + extended + length) return undefined
          const data = received.subarray(2 + extended, 2 + extended + length)
          received = received.subarray(2 + extended + length)
          return { opcode: opcode & 0x0f, data }
        }),
      }
    },
  )
