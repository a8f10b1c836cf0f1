/**
 * The binary subprotocol `v1.kernel.websocket.jupyter.org`: every message is one binary frame of an
 * offset table and the parts it points to, so that a server relays messages without parsing them.
 *
 * Follows {@link https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html Jupyter Server's WebSocket protocols}.
 *
 * @module
 */
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import { fromParts, malformed, type Message, WireError } from "./message.ts"

/** The name to offer and to look for in the WebSocket handshake. */
export const subprotocol = "v1.kernel.websocket.jupyter.org"

const wordBytes = 8
/** Channel, header, parent header, metadata and content. */
const fixedParts = 5

const encoder = new TextEncoder()

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

/** What makes messages of frames. Their buffers are views of the frame, not copies. */
export type Decoder = (frame: Uint8Array) => Result.Result<Message, WireError>

/**
 * A decoder for the frames of one connection. Almost all that come in a row have the same request for a parent, and
 * no metadata: both are parsed once.
 */
export function makeDecoder(): Decoder {
  let last: { readonly bytes: Buffer; readonly parentHeader: unknown; readonly metadata: unknown } | undefined
  let lastLength = 0
  return (frame) => {
    // A buffer makes strings of its parts, byte order marks included, faster than a `TextDecoder`.
    const bytes = Buffer.isBuffer(frame)
      ? frame
      : Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength)
    const offsets = readOffsets(bytes)
    if (Result.isFailure(offsets)) return Result.fail(offsets.failure)
    const [channel = 0, header = 0, parentHeader = 0, metadata = 0, content = 0, ...buffers] = offsets.success
    const parse = (start: number, end = 0): unknown => JSON.parse(bytes.toString("utf8", start, end))
    const parsed = Result.try({
      try: () => {
        if (
          last === undefined || lastLength !== metadata - parentHeader ||
          bytes.compare(last.bytes, 0, last.bytes.length, parentHeader, content) !== 0
        ) {
          last = {
            parentHeader: parse(parentHeader, metadata),
            metadata: parse(metadata, content),
            // A copy: the frame is a piece of memory that holds many.
            bytes: Buffer.from(bytes.subarray(parentHeader, content)),
          }
          lastLength = metadata - parentHeader
        }
        return {
          channel: bytes.toString("utf8", channel, header),
          header: parseHeader(bytes.toString("utf8", header, parentHeader)),
          parentHeader: last.parentHeader,
          metadata: last.metadata,
          content: parse(content, buffers[0]),
          buffers: buffers.slice(0, -1).map((start, index) => frame.subarray(start, buffers[index + 1])),
        }
      },
      catch: (cause) => new WireError({ detail: String(cause) }),
    })
    return Result.flatMap(parsed, fromParts)
  }
}

const text = String.raw`"([^"\\\x00-\x1f]*)"`
const usual = new RegExp(
  `^\\{"msg_id": ?${text}, ?"msg_type": ?${text}, ?"username": ?${text}, ?"session": ?${text}, ?"date": ?${text}, ?"version": ?${text}\\}$`,
)

/** Takes apart what ipykernel writes; parses the headers of others. */
function parseHeader(json: string): unknown {
  const found = usual.exec(json)
  if (found === null) return JSON.parse(json)
  const [, msg_id, msg_type, username, session, date, version] = found
  return { msg_id, msg_type, username, session, date, version }
}

/** The message in a frame that stands alone. */
export function decode(frame: Uint8Array): Result.Result<Message, WireError> {
  return makeDecoder()(frame)
}

function readOffsets(frame: Buffer): Result.Result<ReadonlyArray<number>, WireError> {
  if (frame.byteLength < wordBytes) return malformed(`It has ${frame.byteLength} bytes`)
  const count = readWord(frame, 0)
  if (count < fixedParts + 1 || wordBytes * (count + 1) > frame.byteLength) {
    return malformed(`Its table of ${count} offsets does not fit into ${frame.byteLength} bytes`)
  }
  const offsets: Array<number> = []
  let previous = wordBytes * (count + 1)
  for (let index = 1; index <= count; index++) {
    const offset = readWord(frame, index)
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

/** The number in a word of the table; one that no number can hold exactly lies outside of every frame. */
function readWord(frame: Buffer, index: number): number {
  return frame.readUInt32LE(wordBytes * index + 4) * 2 ** 32 + frame.readUInt32LE(wordBytes * index)
}
