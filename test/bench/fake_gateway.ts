/**
 * A gateway of fake kernels in a process of its own, so that what it costs is not the client's. It answers at once
 * with what ipykernel would say, and prints the port that it listens on.
 *
 * Code is run in its sleep: `replay N` puts out N chunks, anything else the value 2.
 */
import { Result } from "effect"
import { Buffer } from "node:buffer"
import { createServer } from "node:http"
import type { Socket } from "node:net"
import process from "node:process"
import { WebSocketServer } from "ws"
import type { JsonObject, Message } from "../../src/jupyter/message.ts"
import * as WireLegacy from "../../src/jupyter/wire_legacy.ts"
import * as WireV1 from "../../src/jupyter/wire_v1.ts"

const origin = "6f6b2c1e-6d0d9b7e3f6a4c5d8e7f9a0b_4711"
const date = "2026-11-23T12:34:56.789012Z"
const info = {
  status: "ok",
  protocol_version: "5.3",
  implementation: "fake",
  implementation_version: "1",
  banner: "",
  help_links: [],
  language_info: { name: "fake", version: "1", mimetype: "", file_extension: "" },
}
/** With it a chunk in the binary format has 636 bytes. */
const line = `${"A line of output, as long as lines of logs are. ".repeat(2)}${"x".repeat(44)}\n`

/** All numbers have as many digits as these. */
let sent = 1_000_000

/** The messages that answer a request. */
function answers({ content, header }: Message): ReadonlyArray<Message> {
  const parentHeader = { ...header, date }
  const message = (type: string, content: JsonObject): Message => ({
    channel: type.endsWith("_reply") ? "shell" : "iopub",
    header: {
      msg_id: `${origin}_${++sent}`,
      msg_type: type,
      username: "user",
      session: "6f6b2c1e-6d0d9b7e3f6a4c5d8e7f9a0b",
      date,
      version: "5.4",
    },
    parentHeader,
    metadata: {},
    content,
    buffers: [],
  })
  const busy = message("status", { execution_state: "busy" })
  const idle = () => message("status", { execution_state: "idle" })
  if (header.msg_type === "kernel_info_request") return [busy, message("kernel_info_reply", info), idle()]
  const chunks = /^replay (\d+)$/.exec(String(content.code))?.[1]
  return [
    busy,
    message("execute_input", { code: content.code, execution_count: 1 }),
    ...chunks === undefined
      ? [message("execute_result", { data: { "text/plain": "2" }, metadata: {}, execution_count: 1 })]
      : Array.from({ length: Number(chunks) }, () => message("stream", { name: "stdout", text: line })),
    message("execute_reply", { status: "ok", execution_count: 1, user_expressions: {}, payload: [] }),
    idle(),
  ]
}

/** A message as a whole WebSocket frame, which a server sends unmasked. */
function frame(payload: string | Uint8Array): Buffer {
  const body = Buffer.from(payload)
  const type = typeof payload === "string" ? 0x81 : 0x82
  return Buffer.concat([
    body.length < 126
      ? Buffer.of(type, body.length)
      : Buffer.of(type, 126, body.length >> 8, body.length & 0xff),
    body,
  ])
}

/** The answer to a request; to play it again only the ids in it have to change. */
interface Recording {
  readonly bytes: Buffer
  /** The ends of frames. */
  readonly ends: ReadonlyArray<number>
  /** The positions of the request's id. */
  readonly parents: ReadonlyArray<number>
  /** The positions of the message numbers in each frame. */
  readonly numbers: ReadonlyArray<ReadonlyArray<number>>
}

function record(request: Message, encode: (message: Message) => string | Uint8Array): Recording {
  const messages = answers(request)
  const frames = messages.map((message) => frame(encode(message)))
  const ends: Array<number> = []
  for (const { length } of frames) ends.push((ends.at(-1) ?? 0) + length)
  const starts = [0, ...ends]
  const places = (text: string, index: number, offset = 0): ReadonlyArray<number> => {
    const place = frames[index]?.indexOf(text, offset) ?? -1
    return place < 0 ? [] : [(starts[index] ?? 0) + place, ...places(text, index, place + 1)]
  }
  return {
    bytes: Buffer.concat(frames),
    ends,
    parents: frames.flatMap((_, index) => places(request.header.msg_id, index)),
    numbers: messages.map(({ header }, index) =>
      places(header.msg_id, index).map((place) => place + origin.length + 1)
    ),
  }
}

function play({ bytes, ends, numbers, parents }: Recording, id: string, socket: Socket): void {
  const answer = Buffer.from(bytes)
  for (const place of parents) answer.write(id, place, "latin1")
  for (const places of numbers) {
    const number = `${++sent}`
    for (const place of places) answer.write(number, place, "latin1")
  }
  // Many are written at once, so that they arrive faster than any client reads.
  if (ends.length > 10) return void socket.write(answer)
  ends.forEach((end, index) => socket.write(answer.subarray(ends[index - 1] ?? 0, end)))
}

const websockets = new WebSocketServer({
  noServer: true,
  handleProtocols: (offered) => offered.has(WireV1.subprotocol) ? WireV1.subprotocol : false,
})
const kernel = JSON.stringify({ id: "fake", name: "fake", execution_state: "idle" })
const server = createServer(({ method, url = "" }, response) => {
  if (method === "DELETE" || url.endsWith("/interrupt")) response.writeHead(204).end()
  else if (url.startsWith("/api/kernelspecs")) response.end(`{"default":"fake","kernelspecs":{}}`)
  else response.writeHead(method === "POST" ? 201 : 200).end(kernel)
})
server.on("upgrade", (request, socket: Socket, head) => {
  socket.setNoDelay(true)
  websockets.handleUpgrade(request, socket, head, (peer) => {
    const isV1 = peer.protocol === WireV1.subprotocol
    const recordings = new Map<string, Recording>()
    peer.on("message", (data: Buffer) => {
      const request = Result.getOrThrow(isV1 ? WireV1.decode(data) : WireLegacy.decode(`${data}`))
      const key = `${request.header.msg_type} ${request.content.code}`
      const recording = recordings.get(key) ?? record(request, isV1 ? WireV1.encode : WireLegacy.encode)
      recordings.set(key, recording)
      play(recording, request.header.msg_id, socket)
    })
  })
})
server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  process.stdout.write(`${typeof address === "object" ? address?.port : ""}\n`)
})
