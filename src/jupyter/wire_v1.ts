/**
 * The binary subprotocol `v1.kernel.websocket.jupyter.org`: every message is one binary frame of an
 * offset table and the parts that it refers to, so that a server relays messages without parsing them.
 *
 * Follows {@link https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html Jupyter Server's WebSocket protocols}.
 *
 * @module
 */
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import {
  fromParts,
  malformed,
  maxHeaderBytes,
  maxParts,
  type Message,
  parentIdOf,
  parsePart,
  tooLarge,
  WireError,
} from "./message.ts"

/**
 * The name of the subprotocol in the WebSocket handshake.
 *
 * @category constants
 * @since 0.1.0
 */
export const subprotocol = "v1.kernel.websocket.jupyter.org"

const wordBytes = 8
/** Channel, header, parent header, metadata and content. */
const fixedParts = 5
const noBuffers: ReadonlyArray<Uint8Array> = []

/**
 * Encodes a message as a frame.
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
 *
 * @category encoding
 * @since 0.1.0
 */
export function encode(message: Message): Uint8Array<ArrayBuffer> {
  const texts = [
    message.channel,
    JSON.stringify(message.header),
    JSON.stringify(message.parentHeader),
    JSON.stringify(message.metadata),
    JSON.stringify(message.content),
  ]
  const { buffers } = message
  const count = texts.length + buffers.length
  // The table holds the start of every part and, last, the end of the frame.
  const tableBytes = wordBytes * (count + 2)
  const offsets = [tableBytes]
  let end = tableBytes
  for (const text of texts) offsets.push(end += Buffer.byteLength(text))
  for (const { byteLength } of buffers) offsets.push(end += byteLength)
  const frame = Buffer.allocUnsafe(end)
  writeWord(frame, 0, count + 1)
  for (const [index, offset] of offsets.entries()) writeWord(frame, index + 1, offset)
  frame.write(texts.join(""), tableBytes)
  for (const [index, buffer] of buffers.entries()) frame.set(buffer, offsets[texts.length + index])
  // Without the methods of a Buffer, whose `slice` does not copy.
  return new Uint8Array(frame.buffer, frame.byteOffset, end)
}

function writeWord(frame: Buffer, index: number, value: number): void {
  frame.writeUInt32LE(value >>> 0, wordBytes * index)
  frame.writeUInt32LE(Math.floor(value / 2 ** 32), wordBytes * index + 4)
}

/**
 * Decodes the message in a frame. Its buffers are views of the frame, not copies.
 *
 * @category models
 * @since 0.1.0
 */
export type Decoder = (frame: Uint8Array) => Result.Result<Message, WireError>

/** The parent header and the metadata of the last message, as bytes and parsed. */
interface Context {
  readonly bytes: Buffer
  /** The number of bytes of the header. */
  readonly headerBytes: number
  readonly parentHeader: unknown
  readonly metadata: unknown
}

/**
 * Makes a decoder for the frames of one connection. Most consecutive messages have the same parent header and no
 * metadata: both are parsed once.
 *
 * @category constructors
 * @since 0.1.0
 */
export function makeDecoder(): Decoder {
  let context: Context | undefined
  const parse = (frame: Uint8Array, offsets: ReadonlyArray<number>): Result.Result<Message, WireError> => {
    // A buffer decodes strings faster than a `TextDecoder`, and keeps byte order marks.
    const bytes = Buffer.isBuffer(frame)
      ? frame
      : Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength)
    const part = (index: number): string => bytes.toString("utf8", offsets[index], offsets[index + 1])
    const [channelStart = 0, headerStart = 0, start = 0, end = 0, contentStart = 0] = offsets
    const largest = Math.max(
      headerStart - channelStart,
      start - headerStart,
      end - start,
      contentStart - end,
    )
    if (largest > maxHeaderBytes) {
      return tooLarge(`One of its headers has ${largest} bytes, which are more than ${maxHeaderBytes}`)
    }
    if (
      context === undefined || context.headerBytes !== end - start ||
      bytes.compare(context.bytes, 0, context.bytes.length, start, contentStart) !== 0
    ) {
      const parentHeader = parsePart(part(2))
      if (Result.isFailure(parentHeader)) return Result.fail(parentHeader.failure)
      const metadata = parsePart(part(3))
      if (Result.isFailure(metadata)) return Result.fail(metadata.failure)
      context = {
        // A copy: the memory of the frame holds other frames as well.
        bytes: Buffer.from(bytes.subarray(start, contentStart)),
        headerBytes: end - start,
        parentHeader: parentHeader.success,
        metadata: metadata.success,
      }
    }
    const { metadata, parentHeader } = context
    const header = parseHeader(part(1))
    if (Result.isFailure(header)) return Result.fail(header.failure)
    const content = parsePart(part(4), parentIdOf(parentHeader))
    if (Result.isFailure(content)) return Result.fail(content.failure)
    // Most messages have none.
    const buffers = offsets.length === fixedParts + 1
      ? noBuffers
      : offsets.slice(fixedParts, -1).map((offset, index) =>
        frame.subarray(offset, offsets[fixedParts + index + 1])
      )
    return fromParts({
      channel: part(0),
      header: header.success,
      parentHeader,
      metadata,
      content: content.success,
      buffers,
    })
  }
  return (frame) => {
    const offsets = readOffsets(frame)
    if (Result.isFailure(offsets)) return Result.fail(offsets.failure)
    // A part may be longer than the longest string.
    const parsed = Result.try({
      try: () => parse(frame, offsets.success),
      catch: (cause) => new WireError({ detail: String(cause), isTooLarge: true }),
    })
    return Result.flatMap(parsed, (message) => message)
  }
}

const text = String.raw`"([^"\\\x00-\x1f]*)"`
const usual = new RegExp(
  `^\\{"msg_id": ?${text}, ?"msg_type": ?${text}, ?"username": ?${text}, ?"session": ?${text}, ?"date": ?${text}, ?"version": ?${text}\\}$`,
)

/** Parses a header; those of ipykernel by an expression, which is faster. */
function parseHeader(json: string): Result.Result<unknown, WireError> {
  const found = usual.exec(json)
  if (found === null) return parsePart(json)
  const [, msg_id, msg_type, username, session, date, version] = found
  return Result.succeed({ msg_id, msg_type, username, session, date, version })
}

/**
 * Decodes one frame without state of earlier ones.
 *
 * @category decoding
 * @since 0.1.0
 */
export function decode(frame: Uint8Array): Result.Result<Message, WireError> {
  return makeDecoder()(frame)
}

function readOffsets(frame: Uint8Array): Result.Result<ReadonlyArray<number>, WireError> {
  if (frame.byteLength < wordBytes) return malformed(`It has ${frame.byteLength} bytes`)
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  const count = readWord(view, 0)
  if (count < fixedParts + 1 || wordBytes * (count + 1) > frame.byteLength) {
    return malformed(`Its table of ${count} offsets does not fit into ${frame.byteLength} bytes`)
  }
  if (count > maxParts) return tooLarge(`It has ${count} parts, which are more than ${maxParts}`)
  const offsets: Array<number> = []
  let previous = wordBytes * (count + 1)
  for (let index = 1; index <= count; index++) {
    const offset = readWord(view, index)
    if (offset < previous || offset > frame.byteLength) {
      return malformed(`Its offset ${offset} lies outside of ${previous} to ${frame.byteLength}`)
    }
    offsets.push(offset)
    previous = offset
  }
  // A truncated frame ends before its last offset and was refused above; extra bytes are not allowed either.
  if (previous !== frame.byteLength) {
    return malformed(`It ends at ${previous} but has ${frame.byteLength} bytes`)
  }
  return Result.succeed(offsets)
}

/** Reads a word of the table. One past the safe integers is outside of every frame. */
function readWord(view: DataView, index: number): number {
  return view.getUint32(wordBytes * index + 4, true) * 2 ** 32 + view.getUint32(wordBytes * index, true)
}
