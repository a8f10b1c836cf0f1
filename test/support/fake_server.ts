/**
 * A server of the kernels REST API and of the channels WebSocket that misbehaves on demand. Without a script
 * it is a server with well-behaved kernels, which print the code they are given.
 */
import { Effect, Layer, Result, type Scope } from "effect"
import { Buffer } from "node:buffer"
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http"
import { createServer as createSecureServer } from "node:https"
import type { Socket } from "node:net"
import type { TlsOptions } from "node:tls"
import { setTimeout as wait } from "node:timers/promises"
import { type WebSocket, WebSocketServer } from "ws"
import type { JsonObject, Message } from "../../src/jupyter/message.ts"
import * as WireLegacy from "../../src/jupyter/wire_legacy.ts"
import * as WireV1 from "../../src/jupyter/wire_v1.ts"
import { KernelClient, KernelGateway } from "../../src/mod.ts"

/** The answer to an HTTP request. */
export interface Answer {
  readonly status: number
  readonly body?: string
  /** Repeats the body for as long as it is read. */
  readonly isEndless?: boolean
  readonly headers?: Record<string, string>
  /** Milliseconds until it comes. */
  readonly after?: number
}

/** The reaction to a request: an answer, none, or that of a correct server. */
export type Reaction = Answer | "silence" | undefined

/** The fake kernel's side of a request. */
export interface Conversation {
  /** The request that is to be answered. */
  readonly request: Message
  /** A message that answers the request; whatever is given replaces what would be usual. */
  readonly message: (
    type: string,
    content: JsonObject,
    unusual?: Partial<Message> & { readonly id?: string },
  ) => Message
  /** Sends a message in the format of the connection. */
  readonly send: (...messages: ReadonlyArray<Message>) => void
  /** Sends whatever it is given as one frame. */
  readonly raw: (frame: string | Uint8Array) => void
  /** Closes the connection. */
  readonly close: (code: number, reason: string) => void
  /** Answers as a good kernel does. */
  readonly good: () => void
  /** The messages of a kernel that ran the code and printed these texts. */
  readonly run: (...texts: ReadonlyArray<string>) => ReadonlyArray<Message>
}

/** The differences from a correct server. */
export interface Script {
  /** `"v1"` by default. */
  readonly format?: "v1" | "legacy"
  /** Called for each HTTP request; the name is for instance `"POST /api/kernels"`, ids are `:id`. */
  readonly rest?: (name: string, headers: IncomingHttpHeaders, body: string) => Reaction
  /** Called for each WebSocket handshake. */
  readonly handshake?: (count: number, headers: IncomingHttpHeaders) => Reaction
  /** Headers of the answer to a handshake that is accepted. */
  readonly accepted?: ReadonlyArray<string>
  /** Listens with TLS. */
  readonly tls?: TlsOptions
  /** Called for each ping; whether it is answered. All are by default. */
  readonly ping?: (count: number) => boolean
  /** Called for each `execute_request`, in place of what a good kernel does. */
  readonly execute?: (conversation: Conversation) => void
  /** Called for each `kernel_info_request`, in place of what a good kernel does. */
  readonly info?: (conversation: Conversation) => void
}

/** A server that listens. */
export interface FakeServer {
  readonly url: string
  /** The names of all requests so far, handshakes among them. */
  readonly requests: ReadonlyArray<string>
  /** Types of the messages that clients sent. */
  readonly received: ReadonlyArray<string>
  /** The number of pongs that clients sent. */
  readonly pongs: () => number
  /** Sends to all connections a message that answers nothing. */
  readonly broadcast: (type: string, content: JsonObject) => void
}

/** Starts a server, which ends with the scope. */
export const make = (script: Script = {}): Effect.Effect<FakeServer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const requests: Array<string> = []
    const received: Array<string> = []
    const tcp = new Set<Socket>()
    const peers = new Set<WebSocket>()
    const format = script.format ?? "v1"
    let kernels = 0
    let sent = 0
    let handshakes = 0
    let pongs = 0
    let pings = 0

    const nameOf = ({ method, url = "" }: IncomingMessage): string =>
      `${method} ${url.replace(/\?.*/, "").replace(/(\/api\/kernels\/)[^/]+/, "$1:id")}`
    const write = (message: Message): string | Uint8Array =>
      format === "v1" ? WireV1.encode(message) : WireLegacy.encode(message)
    const compose = (type: string, content: JsonObject, parentHeader: JsonObject): Message => ({
      channel: type.endsWith("_reply") ? "shell" : "iopub",
      // Numbered as ipykernel does it.
      header: { msg_id: `fake_1_${++sent}`, msg_type: type, session: "fake" },
      parentHeader,
      metadata: {},
      content,
      buffers: [],
    })

    const answer = (name: string): Answer => {
      const model = JSON.stringify({ id: `kernel-${kernels}`, name: "fake", execution_state: "idle" })
      switch (name) {
        case "GET /api/kernelspecs":
          return { status: 200, body: JSON.stringify({ default: "fake", kernelspecs: { fake: {} } }) }
        case "POST /api/kernels":
          return { status: 201, body: JSON.stringify({ id: `kernel-${++kernels}`, name: "fake" }) }
        case "GET /api/kernels":
          return { status: 200, body: kernels === 0 ? "[]" : `[${model}]` }
        case "GET /api/kernels/:id":
          return { status: 200, body: model }
        case "DELETE /api/kernels/:id":
        case "POST /api/kernels/:id/interrupt":
          return { status: 204 }
        default:
          return { status: 404, body: "no such page" }
      }
    }
    const onHttp = (request: IncomingMessage, response: ServerResponse): void => {
      const name = nameOf(request)
      requests.push(name)
      const respond = (reaction: Answer) => {
        response.writeHead(reaction.status, reaction.headers)
        if (reaction.isEndless === true) repeat(response, reaction.body ?? "")
        else response.end(reaction.body)
      }
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => {
        const body = Buffer.concat(chunks).toString()
        const reaction = script.rest?.(name, request.headers, body) ?? answer(name)
        if (reaction === "silence") return
        if (reaction.after === undefined) respond(reaction)
        else void wait(reaction.after).then(() => respond(reaction))
      })
    }

    const converse = (peer: WebSocket, request: Message): Conversation => {
      const send: Conversation["send"] = (...messages) =>
        messages.forEach((message) => peer.send(write(message)))
      const message: Conversation["message"] = (type, content, { id, ...unusual } = {}) => {
        const usual = compose(type, content, request.header)
        return {
          ...usual,
          header: { ...usual.header, ...(id === undefined ? {} : { msg_id: id }) },
          ...unusual,
        }
      }
      const run: Conversation["run"] = (...texts) => [
        message("status", { execution_state: "busy" }),
        message("execute_input", { code: request.content.code, execution_count: 1 }),
        ...texts.map((text) => message("stream", { name: "stdout", text })),
        message("execute_reply", { status: "ok", execution_count: 1 }),
        message("status", { execution_state: "idle" }),
      ]
      const isInfo = request.header.msg_type === "kernel_info_request"
      const info = () => [
        message("status", { execution_state: "busy" }),
        message("kernel_info_reply", { status: "ok", language_info: { name: "fake" } }),
        message("status", { execution_state: "idle" }),
      ]
      return {
        request,
        message,
        send,
        run,
        good: () => send(...isInfo ? info() : run(String(request.content.code))),
        raw: (frame) => peer.send(frame),
        close: (code, reason) => peer.close(code, reason),
      }
    }
    const onMessage = (peer: WebSocket, request: Message): void => {
      received.push(request.header.msg_type)
      const conversation = converse(peer, request)
      const isExecution = request.header.msg_type === "execute_request"
      const react = isExecution ? script.execute : script.info
      if (react === undefined) conversation.good()
      else react(conversation)
    }

    const websockets = new WebSocketServer({
      noServer: true,
      autoPong: false,
      handleProtocols: (offered) =>
        format === "v1" && offered.has(WireV1.subprotocol) ? WireV1.subprotocol : false,
    })
    websockets.on("headers", (headers) => headers.push(...script.accepted ?? []))
    const server = yield* listen(
      script.tls === undefined ? createServer(onHttp) : createSecureServer(script.tls, onHttp),
      tcp,
    )
    server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
      requests.push(nameOf(request))
      const reaction = script.handshake?.(++handshakes, request.headers)
      if (reaction === "silence") return
      if (reaction !== undefined) return refuse(socket, reaction)
      websockets.handleUpgrade(request, socket, head, (peer) => {
        peers.add(peer)
        peer.on("close", () => peers.delete(peer))
        peer.on("pong", () => pongs++)
        peer.on("ping", (data) => {
          if (script.ping?.(++pings) ?? true) peer.pong(data)
        })
        peer.on("message", (data: Buffer, isBinary: boolean) => {
          const decoded = format === "v1"
            ? WireV1.decode(data)
            : WireLegacy.decode(isBinary ? data : `${data}`)
          onMessage(peer, Result.getOrThrow(decoded))
        })
      })
    })
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    return {
      url: `${script.tls === undefined ? "http" : "https"}://127.0.0.1:${port}`,
      requests,
      received,
      pongs: () => pongs,
      broadcast: (type, content) => peers.forEach((peer) => peer.send(write(compose(type, content, {})))),
    }
  })

/** A client of a server that follows a script. */
export const client = Effect.fnUntraced(function* (
  script: Script = {},
  options: KernelClient.ClientOptions = {},
) {
  const server = yield* make(script)
  const gateway = yield* Layer.build(KernelGateway.layerRemote({ url: server.url, token: "secret" }))
  const kernel = yield* Effect.provideContext(KernelClient.make(options), gateway)
  return { server, kernel }
})

const listen = (server: Server, tcp: Set<Socket>): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Server>((resume) => {
      server.on("connection", (socket) => {
        tcp.add(socket)
        socket.on("close", () => tcp.delete(socket))
        // A client that is gone is no fault of the server.
        socket.on("error", () => {})
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        tcp.forEach((socket) => socket.destroy())
      }),
  )

function repeat(response: ServerResponse, body: string): void {
  while (!response.destroyed) {
    if (!response.write(body)) return void response.once("drain", () => repeat(response, body))
  }
}

function refuse(socket: Socket, { body = "", headers = {}, status }: Answer): void {
  const lines = Object.entries({ ...headers, "content-length": `${Buffer.byteLength(body)}` })
    .map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`HTTP/1.1 ${status} Whatever\r\nconnection: close\r\n${lines.join("")}\r\n${body}`)
}
