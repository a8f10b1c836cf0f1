/**
 * Text as a terminal would show it in the end: what `\r` and `\b` led back to and was written over is gone. Works
 * on text that comes in pieces, in linear time, and keeps what `kept_text.ts` keeps.
 *
 * @module
 */
import * as KeptText from "./kept_text.ts"

/** What is kept of a text, and the line that may still change. */
export interface FoldedText {
  /** All that nothing can write over any more. */
  readonly kept: KeptText.KeptText
  /** The current line so far. */
  readonly row: Row
  /** What came since and is not written to the line yet: folding it bit by bit would take too long. */
  readonly raw: string
}

/** A line that is being written. */
interface Row {
  readonly text: string
  /** Where the next character goes; `undefined` at the end. */
  readonly column: number | undefined
  /** A carriage return came last, which may be part of a line end. */
  readonly isReturned: boolean
  /** Something was written over, or went back. */
  readonly isFolded: boolean
}

/** Characters of a line after which it continues as another: a terminal's are far shorter. */
const width = 1024 * 1024

/** Unwritten characters that are not worth the work. */
const negligible = 1024

const newRow: Row = { text: "", column: undefined, isReturned: false, isFolded: false }

/** No text yet; `limit` are the bytes to keep. */
export function empty(limit?: number): FoldedText {
  return { kept: KeptText.empty(limit), row: newRow, raw: "" }
}

/** The text after more was written. */
export function append(folded: FoldedText, text: string): FoldedText {
  if (text === "") return folded
  return isPlain(folded.row) && folded.raw === "" && !hasControls(text)
    ? appendPlain(folded, text)
    : appendLines(folded, text)
}

/** The text with something at its end that is not written but shown: nothing writes over it. */
export function show(folded: FoldedText, text: string): FoldedText {
  if (text === "") return folded
  const [done, row] = write(folded.row, folded.raw)
  return { kept: keep(folded.kept, done + finish(row) + text), row: newRow, raw: "" }
}

/** The text as it is now, with a line in place of what is missing. */
export function toText({ kept, raw, row }: FoldedText): string {
  const [done, last] = write(row, raw)
  return KeptText.toText(KeptText.append(kept, done + finish(last) + (last.isReturned ? "\r" : "")))
}

/** The whole text as a terminal would show it. */
export function fold(text: string): string {
  return hasControls(text) ? toText(append(empty(), text)) : text
}

function hasControls(text: string): boolean {
  return text.includes("\r") || text.includes("\b")
}

function isPlain(row: Row): boolean {
  return row.column === undefined && !row.isReturned
}

/** What is at the end of a line that was written over has been blanked, which a terminal does not show. */
function finish(row: Row): string {
  let end = row.text.length
  while (row.isFolded && row.text[end - 1] === " ") end--
  return row.text.slice(0, end)
}

/** Nothing to fold, as almost always: the lines go on as they are. */
function appendPlain({ kept, row }: FoldedText, text: string): FoldedText {
  const last = text.lastIndexOf("\n") + 1
  if (last === 0) {
    const [done, open] = wrap(row.text + text)
    return { kept: keep(kept, done), row: { ...row, text: open }, raw: "" }
  }
  // What was folded before ends with its line.
  const first = row.isFolded ? text.indexOf("\n") : 0
  const [done, begun] = write(row, text.slice(0, first))
  const [wrapped, open] = wrap(text.slice(last))
  return {
    kept: keep(kept, done + finish(begun) + text.slice(first, last) + wrapped),
    row: { ...newRow, text: open },
    raw: "",
  }
}

function appendLines(folded: FoldedText, text: string): FoldedText {
  const lines = text.split("\n")
  const done: Array<string> = []
  let { raw, row } = folded
  for (const [index, line] of lines.entries()) {
    const isLast = index === lines.length - 1
    const isFolding = raw !== "" || !isPlain(row) || hasControls(line)
    raw += line
    if (isLast && isFolding && raw.length < Math.max(negligible, row.text.length)) break
    const [wrapped, written] = write(row, raw)
    done.push(wrapped)
    raw = ""
    row = written
    if (isLast) break
    done.push(finish(row), row.isReturned ? "\r\n" : "\n")
    row = newRow
  }
  return { kept: keep(folded.kept, done.join("")), row, raw }
}

function keep(kept: KeptText.KeptText, text: string): KeptText.KeptText {
  return text === "" ? kept : KeptText.append(kept, text)
}

/** What is done of the line, because it is too long, and the line after more was written: no line ends. */
function write(row: Row, raw: string): readonly [string, Row] {
  if (raw === "") return ["", row]
  if (isPlain(row) && !hasControls(raw)) {
    const [done, text] = wrap(row.text + raw)
    return [done, { ...row, text }]
  }
  let done = ""
  let cells = toCells(row.text)
  let length = row.text.length
  let column = row.column ?? cells.length
  let { isFolded, isReturned } = row
  for (const character of raw) {
    if (character === "\r") {
      isReturned = true
      continue
    }
    if (isReturned) {
      column = 0
      isReturned = false
      isFolded = true
    }
    const before = cells[column - 1]
    if (character === "\b") {
      column = Math.max(0, column - 1)
      isFolded = true
    } else if (before !== undefined && isMark(character)) {
      cells[column - 1] = before + character
      length += character.length
    } else {
      length += character.length - (cells[column]?.length ?? 0)
      cells[column++] = character
    }
    if (length >= width && column === cells.length) {
      done += cells.join("")
      cells = []
      length = 0
      column = 0
    }
  }
  const isAtEnd = column === cells.length
  return [done, { text: cells.join(""), column: isAtEnd ? undefined : column, isReturned, isFolded }]
}

/** A line that is too long in two: what is done of it, and what can still be written over. */
function wrap(text: string): readonly [string, string] {
  let start = 0
  while (text.length - start >= width) {
    const end = start + width
    start = (text.codePointAt(end - 1) ?? 0) > 0xffff ? end + 1 : end
  }
  return [text.slice(0, start), text.slice(start)]
}

/** The characters of a line, each with the marks on it. */
function toCells(text: string): Array<string> {
  const cells: Array<string> = []
  for (const character of text) {
    const before = cells[cells.length - 1]
    if (before !== undefined && isMark(character)) cells[cells.length - 1] = before + character
    else cells.push(character)
  }
  return cells
}

/** Tells whether a character takes no place of its own. */
function isMark(character: string): boolean {
  return character > "\u02ff" && /^\p{M}$/u.test(character)
}
