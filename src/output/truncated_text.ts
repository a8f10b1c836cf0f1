/**
 * Text with a limit: the beginning and the end are kept, and how much is missing between them is known.
 *
 * @module
 */
import { Buffer } from "node:buffer"
import { plain } from "../jupyter/control_codes.ts"

/** What is kept of a text. */
export interface TruncatedText {
  /** How many bytes of UTF-8 may be kept. */
  readonly limit: number
  readonly head: string
  readonly headBytes: number
  /** What came after the head; longer than it may be by as much as makes cutting it rare. */
  readonly tail: string
  readonly tailBytes: number
  /** How many bytes between head and tail are gone. */
  readonly lost: number
  /** The last characters: to look at the end of the head or the tail itself would take longer the longer it is. */
  readonly end: string
}

/** The limit if none is given: about the longest string that V8 can hold. */
export const defaultLimit = 500_000_000

/** Characters at the end in which a line begins that shows nothing: colors alone. */
const lastCharacters = 256

/** No text yet. A limit beyond the default cannot be kept and counts as the default. */
export function empty(limit: number = defaultLimit): TruncatedText {
  const whole = Math.max(0, Math.min(Math.floor(limit), defaultLimit))
  return { limit: whole, head: "", headBytes: 0, tail: "", tailBytes: 0, lost: 0, end: "" }
}

/** The text with more at its end. */
export function append(before: TruncatedText, text: string): TruncatedText {
  const end = (text.length < lastCharacters ? before.end + text : text).slice(-lastCharacters)
  const kept = { ...before, end }
  if (kept.tailBytes > 0 || kept.lost > 0) return extendTail(kept, text)
  // Up to the limit everything is head; beyond, half of it becomes tail.
  const headBytes = kept.headBytes + Buffer.byteLength(text)
  if (headBytes <= kept.limit) return { ...kept, head: kept.head + text, headBytes }
  const half = Math.ceil(kept.limit / 2)
  if (kept.headBytes <= half) {
    const [more, rest] = split(text, half - kept.headBytes)
    return extendTail(
      { ...kept, head: kept.head + more, headBytes: kept.headBytes + Buffer.byteLength(more) },
      rest,
    )
  }
  const [head, tail] = split(kept.head, half)
  return extendTail({
    ...kept,
    head,
    headBytes: Buffer.byteLength(head),
    tail,
    tailBytes: Buffer.byteLength(tail),
  }, text)
}

/** The text, with a line in place of what is missing. */
export function toText(kept: TruncatedText): string {
  const { head, lost, tail } = cut(kept)
  return lost === 0 ? head + tail : `${head}\n[effect-jupyter] ${lost} bytes left out\n${tail}`
}

/** Whether nothing is shown in the last line. */
export function isLineStart({ end, headBytes }: TruncatedText): boolean {
  const start = end.lastIndexOf("\n") + 1
  const isWhole = start > 0 || (end.length < lastCharacters && headBytes < lastCharacters * 3)
  return isWhole && plain(end.slice(start)) === ""
}

function extendTail(kept: TruncatedText, text: string): TruncatedText {
  const bytes = Buffer.byteLength(text)
  if (kept.tailBytes + bytes <= kept.limit) {
    return { ...kept, tail: kept.tail + text, tailBytes: kept.tailBytes + bytes }
  }
  // Cut before they are joined: both together may be longer than a string can be.
  const { lost, tail, tailBytes } = cut(kept)
  return cut(
    bytes < kept.limit - kept.headBytes
      ? { ...kept, lost, tail: tail + text, tailBytes: tailBytes + bytes }
      : { ...kept, lost: lost + tailBytes, tail: text, tailBytes: bytes },
  )
}

/** The text with a tail no longer than it may be. */
function cut(kept: TruncatedText): TruncatedText {
  const allowed = kept.limit - kept.headBytes
  if (kept.tailBytes <= allowed) return kept
  const bytes = Buffer.from(kept.tail)
  const tail = bytes.subarray(boundary(bytes, bytes.byteLength - allowed, 1))
  return {
    ...kept,
    tail: tail.toString(),
    tailBytes: tail.byteLength,
    lost: kept.lost + bytes.byteLength - tail.byteLength,
  }
}

/** The text in two, the first of them at most `bytes` long. */
function split(text: string, bytes: number): readonly [string, string] {
  const whole = Buffer.from(text)
  const place = boundary(whole, bytes)
  return [whole.toString("utf8", 0, place), whole.toString("utf8", place)]
}

/** The nearest place before (or after) `index` that lies between two characters. */
function boundary(bytes: Uint8Array, index: number, direction: 1 | -1 = -1): number {
  let place = Math.max(0, index)
  while (place > 0 && place < bytes.byteLength && ((bytes[place] ?? 0) & 0xc0) === 0x80) place += direction
  return place
}
