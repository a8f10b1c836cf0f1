/**
 * Text with a limit of bytes: of longer text the beginning and the end are kept, and the number of bytes between.
 *
 * @module
 */
import { Buffer } from "node:buffer"
import { plain } from "../jupyter/control_codes.ts"

/** A text, truncated in the middle if it exceeds its limit. */
export interface TruncatedText {
  /** The maximum number of bytes of UTF-8 to keep. */
  readonly limit: number
  readonly head: string
  readonly headBytes: number
  /** The text after the head. It may exceed its share, so that it is rarely cut. */
  readonly tail: string
  readonly tailBytes: number
  /** The number of bytes removed between head and tail. */
  readonly lost: number
  /** The last characters. Reading them from head or tail would flatten a long string. */
  readonly end: string
}

/** The default limit, about the maximum length of a string in V8. */
export const defaultLimit = 500_000_000

/** The length of {@link TruncatedText.end}: a last line of color codes only is shorter. */
const lastCharacters = 256

/** Returns an empty text. A limit above the default is reduced to it. */
export function empty(limit: number = defaultLimit): TruncatedText {
  const whole = Math.max(0, Math.min(Math.floor(limit), defaultLimit))
  return { limit: whole, head: "", headBytes: 0, tail: "", tailBytes: 0, lost: 0, end: "" }
}

/** Appends text. */
export function append(before: TruncatedText, text: string): TruncatedText {
  const end = (text.length < lastCharacters ? before.end + text : text).slice(-lastCharacters)
  const kept = { ...before, end }
  if (kept.tailBytes > 0 || kept.lost > 0) return extendTail(kept, text)
  // Up to the limit all of it is head; beyond, half of it becomes tail.
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

/** Returns the text with a note in place of what was removed. */
export function toText(kept: TruncatedText): string {
  const { head, lost, tail } = cut(kept)
  return lost === 0 ? head + tail : `${head}\n[effect-jupyter] ${lost} bytes left out\n${tail}`
}

/** Tells whether the last line has no visible characters. */
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
  if (bytes >= kept.limit - kept.headBytes) {
    return cut({ ...kept, lost: kept.lost + kept.tailBytes, tail: text, tailBytes: bytes })
  }
  // The tail is cut first: together they may exceed the maximum length of a string.
  const { lost, tail, tailBytes } = cut(kept)
  return cut({ ...kept, lost, tail: tail + text, tailBytes: tailBytes + bytes })
}

/** Cuts the tail to its share. */
function cut(kept: TruncatedText): TruncatedText {
  const allowed = kept.limit - kept.headBytes
  if (kept.tailBytes <= allowed) return kept
  // So many bytes have no more characters. Half of a character at the beginning is within what is cut.
  const bytes = Buffer.from(kept.tail.slice(Math.max(0, kept.tail.length - allowed)))
  const tail = bytes.subarray(boundary(bytes, bytes.byteLength - allowed, 1))
  return {
    ...kept,
    tail: tail.toString(),
    tailBytes: tail.byteLength,
    lost: kept.lost + kept.tailBytes - tail.byteLength,
  }
}

/** Splits a text after at most `bytes` bytes. */
function split(text: string, bytes: number): readonly [string, string] {
  const whole = Buffer.from(text)
  const place = boundary(whole, bytes)
  return [whole.toString("utf8", 0, place), whole.toString("utf8", place)]
}

/** Returns the nearest index before or after `index` that is the start of a character. */
function boundary(bytes: Uint8Array, index: number, direction: 1 | -1 = -1): number {
  let place = Math.max(0, index)
  while (place > 0 && place < bytes.byteLength && ((bytes[place] ?? 0) & 0xc0) === 0x80) place += direction
  return place
}
