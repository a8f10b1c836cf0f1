/**
 * The binary subprotocol `v1.kernel.websocket.jupyter.org`: every message is one binary frame of an
 * offset table and the parts it points to, so that a server relays messages without parsing them.
 *
 * Follows {@link https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html Jupyter Server's WebSocket protocols}.
 *
 * @module
 */
import * as Result from "effect/Result"
import { fromParts, malformed, type Message, WireError } from "./message.ts"

/** The name to offer and to look for in the WebSocket handshake. */
export const subprotocol = "v1.kernel.websocket.jupyter.org"

const wordBytes = 8
/** Channel, header, parent header, metadata and content. */
const fixedParts = 5

const encoder = new TextEncoder()
// A byte order mark belongs to the text; dropping it would change what the kernel printed.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/**
 * The frame of a message.
 *
 * @example
 * ```ts
 * import { request } from "effect-jupyter/jupyter/message"
 * import * as WireV1 from "effect-jupyter/jupyter/wire_v1"
 * import { Result } from "effect"
 *
 * const message = request("kernel_info_request", { id: "1", session: "s", content: {} })
 * console.log(Result.getOrThrow(WireV1.decode(WireV1.encode(message))).header.msg_id) // => "1"
 * ```
 */
export function encode(message: Message): Uint8Array<ArrayBuffer> {
  const parts = [
    encoder.encode(message.channel),
    encoder.encode(JSON.stringify(message.header)),
    encoder.encode(JSON.stringify(message.parentHeader)),
    encoder.encode(JSON.stringify(message.metadata)),
    encoder.encode(JSON.stringify(message.content)),
    ...message.buffers,
  ]
  // The table holds the start of every part and, last, the end of the frame.
  const tableBytes = wordBytes * (parts.length + 2)
  const frame = new Uint8Array(parts.reduce((total, part) => total + part.byteLength, tableBytes))
  const view = new DataView(frame.buffer)
  view.setBigUint64(0, BigInt(parts.length + 1), true)
  let offset = tableBytes
  parts.forEach((part, index) => {
    view.setBigUint64(wordBytes * (index + 1), BigInt(offset), true)
    frame.set(part, offset)
    offset += part.byteLength
  })
  view.setBigUint64(wordBytes * (parts.length + 1), BigInt(offset), true)
  return frame
}

/** The message in a frame. Its buffers are views of the frame, not copies. */
export function decode(frame: Uint8Array): Result.Result<Message, WireError> {
  return Result.flatMap(readOffsets(frame), (offsets) => {
    const part = (index: number): Uint8Array => frame.subarray(offsets[index], offsets[index + 1])
    const parsed = Result.try({
      try: () => ({
        channel: decoder.decode(part(0)),
        header: parse(part(1)),
        parentHeader: parse(part(2)),
        metadata: parse(part(3)),
        content: parse(part(4)),
        buffers: offsets.slice(fixedParts, -1).map((_, index) => part(fixedParts + index)),
      }),
      catch: (cause) => new WireError({ detail: String(cause) }),
    })
    return Result.flatMap(parsed, fromParts)
  })
}

function parse(part: Uint8Array): unknown {
  return JSON.parse(decoder.decode(part))
}

function readOffsets(frame: Uint8Array): Result.Result<ReadonlyArray<number>, WireError> {
  if (frame.byteLength < wordBytes) return malformed(`It has ${frame.byteLength} bytes`)
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  const count = Number(view.getBigUint64(0, true))
  if (count < fixedParts + 1 || wordBytes * (count + 1) > frame.byteLength) {
    return malformed(`Its table of ${count} offsets does not fit into ${frame.byteLength} bytes`)
  }
  const offsets: Array<number> = []
  let previous = wordBytes * (count + 1)
  for (let index = 1; index <= count; index++) {
    const offset = Number(view.getBigUint64(wordBytes * index, true))
    if (offset < previous || offset > frame.byteLength) {
      return malformed(`Its offset ${offset} lies outside of ${previous} to ${frame.byteLength}`)
    }
    offsets.push(offset)
    previous = offset
  }
  // A frame cut short ends before its last offset and was refused above; one with a tail is no frame either.
  if (previous !== frame.byteLength) {
    return malformed(`It ends at ${previous} but has ${frame.byteLength} bytes`)
  }
  return Result.succeed(offsets)
}
