/**
 * A line of a terminal as an array of cells, each of which can be overwritten.
 *
 * @module
 */
import * as Sgr from "./sgr.ts"

/** A mutable line. */
export interface Line {
  /** The character of each column with its combining marks; empty in the second column of a wide one, or of a tab. */
  readonly cells: Array<string>
  /** The attributes of each column. */
  readonly sgrs: Array<Sgr.Sgr>
  /** The length of all cells as text. */
  length: number
  /** The number of columns at the beginning that are known to be blank, and need not be erased again. */
  blanks: number
  /** The number of cells processed so far. */
  steps: number
}

const tabStop = 8

/** The maximum column of the cursor beyond the end of a line. */
export const margin = 1000

/** The parts of a text: CSI codes, OSC codes, other codes, control characters, and printable text. */
export const part = new RegExp(
  [
    "\x1b\\[([0-?]{0,64})[ -/]{0,4}([@-~])",
    "\x1b\\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\\\)",
    "\x1b[ -/]{0,4}[0-Z\\\\^-~]",
    "[\x00-\x08\x0a-\x1f]",
    "[^\x00-\x08\x0a-\x1f]+",
  ].join("|"),
  "g",
)

/** Returns the cells of the text of a line. */
export function parse(text: string, start: Sgr.Sgr): Line {
  const line: Line = { cells: [], sgrs: [], length: 0, blanks: 0, steps: 0 }
  let sgr = start
  let column = 0
  for (const [whole, parameters, final] of text.matchAll(part)) {
    if (final === "m") sgr = Sgr.set(sgr, parameters ?? "")
    else if (whole >= " " || whole.startsWith("\t")) {
      for (const character of whole) column = put(line, column, { character, sgr })
    }
  }
  return line
}

/** Writes a character; returns the column behind it. A combining mark joins the character before it. */
export function put(
  line: Line,
  column: number,
  { character, sgr }: { readonly character: string; readonly sgr: Sgr.Sgr },
): number {
  const { cells, sgrs } = line
  if (character === "\t") return tab(line, column, sgr)
  line.steps++
  if (cells.length < column) pad(line, column)
  line.blanks = Math.min(line.blanks, column)
  if (isMark(character)) {
    let base = column - 1
    while (cells[base] === "") base--
    // A mark joins a column of a tab, which becomes blanks.
    if (cells[column] === "" && cells[base]?.startsWith("\t")) {
      split(line, column)
      base = column - 1
    }
    const before = cells[base]
    if (before !== undefined) {
      line.blanks = Math.min(line.blanks, base)
      cells[base] = before + character
      line.length += character.length
      return column
    }
  }
  const isNarrow = !isWide(character)
  // The hot path.
  if (isNarrow && column === cells.length) {
    cells.push(character)
    sgrs.push(sgr)
    line.length += character.length
    return column + 1
  }
  const end = column + (isNarrow ? 1 : 2)
  split(line, column)
  split(line, end)
  for (let place = column; place < end; place++) {
    line.length -= cells[place]?.length ?? 0
    cells[place] = ""
    sgrs[place] = sgr
  }
  cells[column] = character
  line.length += character.length
  return end
}

/** Moves to the next tab stop, overwriting nothing; a tab at the end of the line becomes part of it. */
function tab(line: Line, column: number, sgr: Sgr.Sgr): number {
  const { cells, sgrs } = line
  const end = (Math.floor(column / tabStop) + 1) * tabStop
  if (column < cells.length) return end
  if (column > cells.length) return Math.max(column, Math.min(end, margin))
  for (let place = column; place < end; place++) {
    cells[place] = place === column ? "\t" : ""
    sgrs[place] = sgr
  }
  line.length++
  return end
}

/** Blanks the existing columns before `end`. */
export function erase(line: Line, end: number): void {
  const last = Math.min(end, line.cells.length)
  split(line, last)
  line.steps += Math.max(0, last - line.blanks)
  for (let column = line.blanks; column < last; column++) blank(line, column)
  line.blanks = Math.max(line.blanks, last)
}

/** Ends the line before a column. */
export function truncate(line: Line, column: number): void {
  const { cells, sgrs } = line
  split(line, column)
  line.steps += Math.max(0, cells.length - Math.max(column, line.blanks))
  const from = Math.max(column, Math.min(line.blanks, cells.length))
  line.length -= Math.max(0, from - column)
  line.blanks = Math.min(line.blanks, column)
  for (let place = from; place < cells.length; place++) line.length -= cells[place]?.length ?? 0
  cells.length = Math.min(cells.length, column)
  sgrs.length = cells.length
}

/** Returns the line as text behind which `start` is set, and the attributes after it. */
export function toText(line: Line, start: Sgr.Sgr): readonly [string, Sgr.Sgr] {
  const { cells, sgrs } = line
  const parts: Array<string> = []
  let sgr = start
  let from = 0
  line.steps += cells.length
  for (let column = 0; column < cells.length; column++) {
    const next = sgrs[column] ?? Sgr.initial
    if (next === sgr || cells[column] === "") continue
    parts.push(cells.slice(from, column).join(""), Sgr.change(sgr, next))
    from = column
    sgr = next
  }
  parts.push(cells.slice(from).join(""))
  return [parts.join(""), sgr]
}

/** Extends the line with blanks up to a column. */
function pad(line: Line, column: number): void {
  const { cells, sgrs } = line
  const { length } = cells
  line.steps += column - length
  line.length += column - length
  if (line.blanks === length) line.blanks = column
  cells.length = sgrs.length = column
  cells.fill(" ", length)
  sgrs.fill(Sgr.initial, length)
}

function blank(line: Line, column: number): void {
  line.length += 1 - (line.cells[column]?.length ?? 0)
  line.cells[column] = " "
  line.sgrs[column] = Sgr.initial
}

/** Makes a column the start of a cell: what is left of a wide character or a tab becomes blanks. */
function split(line: Line, column: number): void {
  const { cells, sgrs } = line
  if (cells[column] !== "") return
  let start = column
  let end = column
  while (cells[start] === "") start--
  while (cells[end] === "") end++
  const sgr = sgrs[start] ?? Sgr.initial
  const before = cells[start] ?? ""
  for (let place = start; place < end; place++) {
    blank(line, place)
    sgrs[place] = sgr
  }
  // Marks behind a tab join the last of its blanks.
  const marks = before.startsWith("\t") ? before.slice(1) : ""
  cells[end - 1] = ` ${marks}`
  line.length += marks.length
}

const mark = /^[\p{M}\p{Cf}\u1160-\u11ff]$/u
const wide = new RegExp(
  "^(?:\\p{Emoji_Presentation}|[\\u1100-\\u115f\\u2329\\u232a\\u2e80-\\u303e" +
    "\\u3041-\\u3247\\u3250-\\u4dbf\\u4e00-\\ua4cf\\ua960-\\ua97c\\uac00-\\ud7a3\\uf900-\\ufaff" +
    "\\ufe10-\\ufe19\\ufe30-\\ufe6b\\uff01-\\uff60\\uffe0-\\uffe6\\u{16fe0}-\\u{18dff}\\u{1aff0}-\\u{1b2fb}" +
    "\\u{1f200}-\\u{1f265}\\u{20000}-\\u{3fffd}])$",
  "u",
)

/** Tells whether a character is a combining mark, which has no width. */
function isMark(character: string): boolean {
  return character >= "\u0300" && !isDrawing(character) && mark.test(character)
}

/** Tells whether a character takes two columns. */
function isWide(character: string): boolean {
  return character >= "\u1100" && !isDrawing(character) && wide.test(character)
}

/** Tells whether a character is a box drawing or block element, as progress bars have: they are narrow. */
function isDrawing(character: string): boolean {
  return character >= "\u2500" && character < "\u25a0"
}
