/**
 * A line of a terminal as its cells, which can be written over one by one.
 *
 * @module
 */
import * as Sgr from "./sgr.ts"

/** A line that is being written to. */
export interface Line {
  /** What each column shows, with the marks on it; empty where the character before it reaches. */
  readonly cells: Array<string>
  /** With what it was written. */
  readonly pens: Array<Sgr.Sgr>
  /** How long the cells are together. */
  length: number
  /** How many columns at the beginning are known to be blank: to blank them again costs nothing. */
  blanks: number
  /** How many cells were touched. */
  steps: number
}

const tabStop = 8

/** How far the cursor can be moved beyond the end of a line. */
export const margin = 1000

/** Parts of a text: codes for colours, other codes, single controls, and what is to be seen. */
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

/** The cells of a text of one line, in which nothing is written over. */
export function parse(text: string, start: Sgr.Sgr): Line {
  const line: Line = { cells: [], pens: [], length: 0, blanks: 0, steps: 0 }
  let pen = start
  let column = 0
  for (const [whole, parameters, final] of text.matchAll(part)) {
    if (final === "m") pen = Sgr.set(pen, parameters ?? "")
    else if (whole >= " " || whole.startsWith("\t")) {
      for (const character of whole) column = put(line, column, { character, pen })
    }
  }
  return line
}

/** Writes a character, unless it takes no place of its own; gives the column behind it. */
export function put(
  line: Line,
  column: number,
  { character, pen }: { readonly character: string; readonly pen: Sgr.Sgr },
): number {
  const { cells, pens } = line
  if (character === "\t") return tab(line, column, pen)
  line.steps++
  if (cells.length < column) pad(line, column)
  line.blanks = Math.min(line.blanks, column)
  if (isMark(character)) {
    let base = column - 1
    while (cells[base] === "") base--
    // A tab is blanks if something is on one of them.
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
  // As almost always.
  if (isNarrow && column === cells.length) {
    cells.push(character)
    pens.push(pen)
    line.length += character.length
    return column + 1
  }
  const end = column + (isNarrow ? 1 : 2)
  split(line, column)
  split(line, end)
  for (let place = column; place < end; place++) {
    line.length -= cells[place]?.length ?? 0
    cells[place] = ""
    pens[place] = pen
  }
  cells[column] = character
  line.length += character.length
  return end
}

/** A tab writes over nothing, and beyond the end of the line it goes no further than other moves. */
function tab(line: Line, column: number, pen: Sgr.Sgr): number {
  const { cells, pens } = line
  const end = (Math.floor(column / tabStop) + 1) * tabStop
  if (column < cells.length) return end
  if (column > cells.length) return Math.max(column, Math.min(end, margin))
  for (let place = column; place < end; place++) {
    cells[place] = place === column ? "\t" : ""
    pens[place] = pen
  }
  line.length++
  return end
}

/** Blanks the columns before `end`, as far as there are any. */
export function erase(line: Line, end: number): void {
  const last = Math.min(end, line.cells.length)
  split(line, last)
  line.steps += Math.max(0, last - line.blanks)
  for (let column = line.blanks; column < last; column++) blank(line, column)
  line.blanks = Math.max(line.blanks, last)
}

/** Ends the line before a column. */
export function truncate(line: Line, column: number): void {
  const { cells, pens } = line
  split(line, column)
  line.steps += Math.max(0, cells.length - Math.max(column, line.blanks))
  const from = Math.max(column, Math.min(line.blanks, cells.length))
  line.length -= Math.max(0, from - column)
  line.blanks = Math.min(line.blanks, column)
  for (let place = from; place < cells.length; place++) line.length -= cells[place]?.length ?? 0
  cells.length = Math.min(cells.length, column)
  pens.length = cells.length
}

/** The line as text where one pen is in use, and the one that is after it. */
export function toText(line: Line, start: Sgr.Sgr): readonly [string, Sgr.Sgr] {
  const { cells, pens } = line
  const parts: Array<string> = []
  let pen = start
  let from = 0
  line.steps += cells.length
  for (let column = 0; column < cells.length; column++) {
    const next = pens[column] ?? Sgr.initial
    if (next === pen || cells[column] === "") continue
    parts.push(cells.slice(from, column).join(""), Sgr.change(pen, next))
    from = column
    pen = next
  }
  parts.push(cells.slice(from).join(""))
  return [parts.join(""), pen]
}

/** Makes a line as long as it has to be for something in a column. */
function pad(line: Line, column: number): void {
  const { cells, pens } = line
  const { length } = cells
  line.steps += column - length
  line.length += column - length
  if (line.blanks === length) line.blanks = column
  cells.length = pens.length = column
  cells.fill(" ", length)
  pens.fill(Sgr.initial, length)
}

function blank(line: Line, column: number): void {
  line.length += 1 - (line.cells[column]?.length ?? 0)
  line.cells[column] = " "
  line.pens[column] = Sgr.initial
}

/** Makes sure that a character begins in a column: half of one is blank. */
function split(line: Line, column: number): void {
  const { cells, pens } = line
  if (cells[column] !== "") return
  let start = column
  let end = column
  while (cells[start] === "") start--
  while (cells[end] === "") end++
  const pen = pens[start] ?? Sgr.initial
  const before = cells[start] ?? ""
  for (let place = start; place < end; place++) {
    blank(line, place)
    pens[place] = pen
  }
  // The marks behind a tab are on the last of its blanks.
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

/** Tells whether a character takes no place of its own. */
function isMark(character: string): boolean {
  return character >= "\u0300" && !isDrawing(character) && mark.test(character)
}

/** Tells whether a character takes two columns. */
function isWide(character: string): boolean {
  return character >= "\u1100" && !isDrawing(character) && wide.test(character)
}

/** What progress bars are made of. */
function isDrawing(character: string): boolean {
  return character >= "\u2500" && character < "\u25a0"
}
