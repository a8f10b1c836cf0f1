/**
 * Removes control codes from texts of kernels and servers that become part of errors and logs: those that move the
 * cursor of a terminal, change its colors or title, or request an answer. Marks of the writing direction stay.
 *
 * @module
 */

/** The controls of C0 and C1, except tabs and line feeds. */
const control = new RegExp("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

const escape = 0x1b
const bell = 0x07

/**
 * Returns the text without escape sequences and control characters other than tabs and line feeds. The time is
 * linear in the length of the text.
 *
 * @example
 * ```ts
 * import { plain } from "effect-jupyter/jupyter/control_codes"
 *
 * console.log(plain("\x1b[31mred\x1b[0m\x07")) // => "red"
 * ```
 *
 * @category utils
 * @since 0.1.0
 */
export function plain(text: string): string {
  const first = text.search(control)
  if (first < 0) return text
  const parts = [text.slice(0, first)]
  let start = first
  for (let index = first; index < text.length;) {
    if (!isControl(text.charCodeAt(index))) {
      index++
      continue
    }
    if (index > start) parts.push(text.slice(start, index))
    index = start = endOf(text, index)
  }
  parts.push(text.slice(start))
  return parts.join("")
}

/**
 * Returns the first `length` characters of a text without control codes, for an error message.
 *
 * @category utils
 * @since 0.1.0
 */
export function excerpt(text: string, length = 200): string {
  return text.length <= length ? plain(text) : `${plain(text.slice(0, length))}…`
}

function isControl(code: number): boolean {
  return code < 0x20 ? code !== 0x09 && code !== 0x0a : code >= 0x7f && code <= 0x9f
}

/** Returns the end of the control character or escape sequence at an index; of an unterminated one, its first character. */
function endOf(text: string, index: number): number {
  const code = text.charCodeAt(index)
  const isEscape = code === escape
  const next = index + (isEscape ? 2 : 1)
  // A control of C1 is equivalent to an escape and a character.
  switch (isEscape ? text.charCodeAt(index + 1) : code - 0x40) {
    case 0x5b: // CSI
      return endOfCode(text, next) ?? index + 1
    case 0x50: // DCS
    case 0x58: // SOS
    case 0x5d: // OSC
    case 0x5e: // PM
    case 0x5f: // APC
      return endOfString(text, next) ?? index + 1
    default:
      return isEscape ? endOfEscape(text, index + 1) : index + 1
  }
}

/** Returns the end of the parameters and the final character of a code. */
function endOfCode(text: string, start: number): number | undefined {
  let index = start
  while (isWithin(text, index, 0x30, 0x3f)) index++
  while (isWithin(text, index, 0x20, 0x2f)) index++
  return isWithin(text, index, 0x40, 0x7e) ? index + 1 : undefined
}

/** Returns the end of a string with its terminator. It has no control characters, so that the scan stays linear. */
function endOfString(text: string, start: number): number | undefined {
  let index = start
  while (index < text.length && !isControl(text.charCodeAt(index)) && text[index] !== "\n") index++
  const code = text.charCodeAt(index)
  if (code === bell || code === 0x9c) return index + 1
  return code === escape && text[index + 1] === "\\" ? index + 2 : undefined
}

/** Returns the end of another escape sequence; an escape that begins none is a single character. */
function endOfEscape(text: string, start: number): number {
  let index = start
  while (isWithin(text, index, 0x20, 0x2f)) index++
  return isWithin(text, index, 0x30, 0x7e) ? index + 1 : start
}

function isWithin(text: string, index: number, low: number, high: number): boolean {
  const code = text.charCodeAt(index)
  return code >= low && code <= high
}
