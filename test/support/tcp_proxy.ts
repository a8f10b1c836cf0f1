/** A TCP proxy in front of a gateway that does to WebSockets what networks do. HTTP requests pass unharmed. */
import { Effect, type Scope } from "effect"
import { Buffer } from "node:buffer"
import { createServer, Socket } from "node:net"

/** The end of a connection: a TCP reset, a TCP end (1006 for the client), or a close frame. */
export type Cut = "reset" | "end" | 1000 | 1001 | 1009 | 1011

/** The proxy and what can be done to the WebSockets through it. */
export interface TcpProxy {
  readonly url: string
  /** The number of WebSockets that were opened. */
  readonly opened: () => number
  /** The number of connections that were refused. */
  readonly refused: () => number
  /** Bytes that WebSockets of now and before carried to the client. */
  readonly delivered: () => number
  /** Ends all WebSockets, on the gateway's side too. */
  readonly cut: (how: Cut) => void
  /** Stops forwarding on existing connections, in both directions, without closing them. */
  readonly freeze: () => void
  /** Resets each new connection as soon as it is made, until {@link heal}. */
  readonly refuse: () => void
  readonly heal: () => void
}

interface Link {
  readonly cut: (how: Cut) => void
  readonly freeze: () => void
}

/** Starts a proxy for a server; it ends with the scope. */
export const make = (target: string): Effect.Effect<TcpProxy, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { hostname, port } = new URL(target)
    const sockets = new Set<Socket>()
    const links = new Set<Link>()
    let opened = 0
    let refused = 0
    let delivered = 0
    let refusing = false

    const track = (socket: Socket): Socket => {
      sockets.add(socket)
      // A reset is what is tested, and no error here.
      return socket.setNoDelay().on("error", () => {}).on("close", () => sockets.delete(socket))
    }
    const accept = (client: Socket): void => {
      track(client)
      if (refusing) {
        refused++
        return void client.resetAndDestroy()
      }
      const server = track(new Socket().connect(Number(port), hostname))
      client.once("data", (request: Buffer) => {
        server.write(request)
        if (/\/(channels|shell|control)\?/.test(request.toString("latin1"))) {
          opened++
          links.add(forward(client, server, (bytes) => {
            delivered += bytes
          }))
        } else {
          client.pipe(server)
          server.pipe(client)
        }
      })
    }

    const listener = yield* Effect.acquireRelease(
      Effect.callback<ReturnType<typeof createServer>>((resume) => {
        const listener = createServer(accept).listen(0, "127.0.0.1", () => resume(Effect.succeed(listener)))
      }),
      (listener) =>
        Effect.sync(() => {
          listener.close()
          for (const socket of sockets) socket.destroy()
        }),
    )
    const address = listener.address()
    return {
      url: `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`,
      opened: () => opened,
      refused: () => refused,
      delivered: () => delivered,
      cut: (how) => {
        for (const link of links) link.cut(how)
        links.clear()
      },
      freeze: () => {
        for (const link of links) link.freeze()
        links.clear()
      },
      refuse: () => {
        refusing = true
      },
      heal: () => {
        refusing = false
      },
    }
  })

/** Forwards a WebSocket until it is cut. */
function forward(client: Socket, server: Socket, onDelivered: (bytes: number) => void): Link {
  const frames = makeFrames()
  let code: number | undefined
  client.pipe(server)
  client.on("close", () => server.destroy())
  server.on("close", () => client.destroy())

  const closeWith = (code: number): void => {
    server.removeAllListeners("close").destroy()
    client.unpipe(server).resume()
    client.end(Buffer.from([0x88, 2, code >> 8, code & 0xff]))
  }
  server.on("data", (data: Buffer) => {
    // A close frame may stand between frames only.
    const rest = frames.take(data)
    const part = code === undefined ? data : data.subarray(0, rest)
    onDelivered(part.byteLength)
    if (!client.write(part)) {
      server.pause()
      client.once("drain", () => server.resume())
    }
    if (code !== undefined && rest !== undefined) closeWith(code)
  })

  return {
    cut: (how) => {
      if (how === "reset") {
        client.resetAndDestroy()
        server.resetAndDestroy()
      } else if (how === "end") {
        server.removeAllListeners("close").destroy()
        client.unpipe(server).resume().end()
      } else if (frames.isBetween()) {
        closeWith(how)
      } else {
        code = how
      }
    },
    freeze: () => {
      client.unpipe(server).removeAllListeners("close").pause()
      server.removeAllListeners("close").removeAllListeners("data").pause()
    },
  }
}

/** Follows the frames that a server sends, behind the head of its HTTP response. */
function makeFrames(): {
  readonly isBetween: () => boolean
  /** Takes bytes; gives how many of them end the first frame that ends in them, if one does. */
  readonly take: (data: Buffer) => number | undefined
} {
  const end = "\r\n\r\n"
  let matched = 0
  let header: Array<number> = []
  let payload = 0

  const take = (data: Buffer): number | undefined => {
    let boundary: number | undefined
    let index = 0
    while (index < data.byteLength) {
      if (payload > 0) {
        const step = Math.min(payload, data.byteLength - index)
        payload -= step
        index += step
      } else if (matched < end.length) {
        const character = String.fromCharCode(data[index++] ?? 0)
        matched = character === end[matched] ? matched + 1 : character === "\r" ? 1 : 0
        if (matched < end.length) continue
      } else {
        header.push(data[index++] ?? 0)
        const short = (header[1] ?? 0) & 0x7f
        const size = short === 127 ? 10 : short === 126 ? 4 : 2
        if (header.length < size) continue
        payload = size === 2 ? short : header.slice(2).reduce((length, byte) => length * 256 + byte, 0)
        header = []
      }
      if (payload === 0) boundary ??= index
    }
    return boundary
  }
  return { take, isBetween: () => matched === end.length && payload === 0 && header.length === 0 }
}
