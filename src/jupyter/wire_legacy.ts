/**
 * The WebSocket format of servers without a subprotocol: a JSON text frame for each message, or a binary
 * frame with an offset table if a message has buffers.
 *
 * Follows {@link https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html Jupyter Server's WebSocket protocols}.
 *
 * @module
 */
import * as Result from "effect/Result"
import {
  fromParts,
  isJsonObject,
  malformed,
  maxParts,
  type Message,
  parsePart,
  tooLarge,
  WireError,
} from "./message.ts"

const wordBytes = 4

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/**
 * Encodes a message as a frame: text, or binary if it has buffers.
 *
 * @example
 * ```ts
 * import { request } from "effect-jupyter/jupyter/message"
 * import * as WireLegacy from "effect-jupyter/jupyter/wire_legacy"
 *
 * const message = request("kernel_info_request", { id: "1", session: "s", content: {} })
 * console.log(typeof WireLegacy.encode(message)) // => "string"
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export function encode(message: Message): string | Uint8Array<ArrayBuffer> {
  const json = JSON.stringify({
    channel: message.channel,
    header: message.header,
    msg_id: message.header.msg_id,
    msg_type: message.header.msg_type,
    parent_header: message.parentHeader,
    metadata: message.metadata,
    content: message.content,
    // The server requires this key in a text frame.
    buffers: [],
  })
  if (message.buffers.length === 0) return json
  const parts = [encoder.encode(json), ...message.buffers]
  const tableBytes = wordBytes * (parts.length + 1)
  const frame = new Uint8Array(parts.reduce((total, part) => total + part.byteLength, tableBytes))
  const view = new DataView(frame.buffer)
  view.setUint32(0, parts.length, false)
  let offset = tableBytes
  parts.forEach((part, index) => {
    view.setUint32(wordBytes * (index + 1), offset, false)
    frame.set(part, offset)
    offset += part.byteLength
  })
  return frame
}

/**
 * Decodes the message in a frame. Its buffers are views of the frame, not copies.
 *
 * @category decoding
 * @since 0.1.0
 */
export function decode(frame: string | Uint8Array): Result.Result<Message, WireError> {
  const parts = typeof frame === "string" ? Result.succeed({ json: frame, buffers: [] }) : split(frame)
  return Result.flatMap(parts, ({ buffers, json }) => {
    return Result.flatMap(parsePart(json), (value) => {
      if (!isJsonObject(value)) return malformed("It is not a JSON object")
      const { channel, content, header, metadata, parent_header: parentHeader } = value
      return fromParts({ channel, content, header, metadata, parentHeader, buffers })
    })
  })
}

function split(
  frame: Uint8Array,
): Result.Result<{ readonly json: string; readonly buffers: ReadonlyArray<Uint8Array> }, WireError> {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  const count = frame.byteLength < wordBytes ? 0 : view.getUint32(0, false)
  if (count < 1 || wordBytes * (count + 1) > frame.byteLength) {
    return malformed(`Its table of ${count} offsets does not fit into ${frame.byteLength} bytes`)
  }
  if (count > maxParts) return tooLarge(`It has ${count} parts, which are more than ${maxParts}`)
  const offsets: Array<number> = []
  let previous = wordBytes * (count + 1)
  for (let index = 1; index <= count; index++) {
    const offset = view.getUint32(wordBytes * index, false)
    if (offset < previous || offset > frame.byteLength) {
      return malformed(`Its offset ${offset} lies outside of ${previous} to ${frame.byteLength}`)
    }
    offsets.push(offset)
    previous = offset
  }
  const parts = offsets.map((offset, index) => frame.subarray(offset, offsets[index + 1]))
  return Result.map(
    Result.try({
      try: () => decoder.decode(parts[0]),
      catch: (cause) => new WireError({ detail: String(cause), isTooLarge: true }),
    }),
    (json) => ({ json, buffers: parts.slice(1) }),
  )
}
