/**
 * The last lines of a terminal, which can still be overwritten after `\r`, `\b`, tabs, and codes that move the cursor
 * (CUU, CUD, CUF, CUB, CNL, CPL, CHA) or erase (EL, ED below the cursor). Other codes have no effect; those in lines
 * in which nothing is overwritten stay part of the text.
 *
 * It differs from a terminal in its size: the cursor moves to existing rows only, at most {@link height} above the last
 * one, and lines are not wrapped at a right margin but after {@link width} characters. Erased cells have no color.
 *
 * @module
 */
import * as Line from "./line.ts"
import * as Sgr from "./sgr.ts"

/** A line between writes. */
export interface Row {
  /** The text as it arrived, or the text of its cells if it is folded. */
  readonly text: string
  /** The length of the text, without codes if it is folded. */
  readonly length: number
  readonly start: Sgr.Sgr
  /** The attributes behind the text. */
  readonly end: Sgr.Sgr
  /** True if the cursor moved back in it. */
  readonly isFolded: boolean
  readonly ending: "\n" | "\r\n" | ""
}

/** The lines, and the position of the cursor. */
export interface Screen {
  readonly rows: ReadonlyArray<Row>
  readonly row: number
  /** `undefined` at the end of the last row. */
  readonly column: number | undefined
  readonly sgr: Sgr.Sgr
  /** True if the last character was a carriage return, which may be part of a line end. */
  readonly isReturned: boolean
  /** The number of characters and cells processed so far, which tests bound. */
  readonly steps: number
}

/** The number of lines that can be overwritten. */
export const height = 100

/** Maximum number of characters of a line, and of all other lines together. */
export const width = 1024 * 1024

/** Characters of final text that are passed to `onDone` together. */
const pieceLength = 1024 * 1024

/** Characters and codes that move the cursor back or erase. */
const fold = new RegExp("[\r\b]|\x1b\\[(?:[\\d;]{0,64}[A-GK]|0?J)")

/** The same, at the place where it is looked for. */
const foldHere = new RegExp(fold.source, "y")

/** Maximum length of a match of {@link fold}. */
const maxFoldLength = 67

/** Control characters other than tab. */
const control = new RegExp("[\x00-\x08\x0a-\x1f]")

/** Returns an empty screen. */
export function empty(sgr: Sgr.Sgr, steps: number = 0): Screen {
  return { rows: [newRow(sgr)], row: 0, column: undefined, sgr, isReturned: false, steps }
}

/** Tells whether nothing in a text moves the cursor back or erases. */
export function isPlain(text: string): boolean {
  return !text.includes("\r") && !text.includes("\b") && !(text.includes("\x1b") && fold.test(text))
}

/** Tells whether a screen has more state than its text. */
export function isFolded({ column, isReturned, rows }: Screen): boolean {
  return column !== undefined || isReturned || rows.some((row) => row.isFolded)
}

/** Returns the length of all lines. */
export function lengthOf({ rows }: Screen): number {
  return rows.reduce((sum, { text }) => sum + text.length, 0)
}

/** Returns the text on the screen, without a carriage return that may be part of a line end. */
export function toText({ sgr, rows }: Screen): string {
  return rows.map((row, index) => finish(row, rows[index + 1]?.start ?? sgr)).join("")
}

/** Returns a carriage return behind the text, if there is one. */
export function ending({ isReturned, row, rows }: Screen): "\r" | "" {
  return isReturned && row === rows.length - 1 ? "\r" : ""
}

/**
 * Writes text; returns the lines that cannot be overwritten any more, and the screen. If these lines are long,
 * `onDone` gets them in pieces before, as they may not fit into one string.
 */
export function write(
  screen: Screen,
  text: string,
  onDone?: (text: string) => void,
): readonly [string, Screen] {
  const writer = new Writer(screen, onDone)
  const lines = text.split("\n")
  for (const [index, line] of lines.entries()) {
    if (index > 0) writer.feed()
    if (line !== "") writer.write(line)
  }
  return writer.close()
}

function newRow(start: Sgr.Sgr): Row {
  return { text: "", length: 0, start, end: start, isFolded: false, ending: "" }
}

/** Returns the text of a row, followed by the codes for the attributes behind it. */
function finish({ end, ending, isFolded, text }: Row, sgr: Sgr.Sgr): string {
  let length = text.length
  // Blanks at the end of a folded line were erased, which a terminal does not show.
  while (isFolded && end === Sgr.initial && text[length - 1] === " ") length--
  return text.slice(0, length) + Sgr.change(end, sgr) + ending
}

/** A mutable screen during one write, so that each row is parsed at most once. */
class Writer {
  readonly rows: Array<Row>
  /** The cells of the rows that were parsed. */
  readonly lines: Array<Line.Line | undefined>
  done: Array<string> = []
  doneLength = 0
  steps: number
  readonly onDone: ((text: string) => void) | undefined
  /** The length of all rows but that of the cursor. */
  others: number
  row: number
  column: number | undefined
  sgr: Sgr.Sgr
  isReturned: boolean

  constructor({ column, isReturned, sgr, row, rows, steps }: Screen, onDone?: (text: string) => void) {
    this.onDone = onDone
    this.steps = steps
    this.rows = [...rows]
    this.lines = rows.map(() => undefined)
    this.others = rows.reduce((sum, { length }, index) => index === row ? sum : sum + length, 0)
    this.row = row
    this.column = column
    this.sgr = sgr
    this.isReturned = isReturned
  }

  get last(): number {
    return this.rows.length - 1
  }

  rowAt(index: number): Row {
    return this.rows[index] ?? newRow(this.sgr)
  }

  lengthAt(index: number): number {
    return this.lines[index]?.length ?? this.rowAt(index).length
  }

  /** Returns the cells of the cursor's row. */
  open(): Line.Line {
    const { row } = this
    const line = this.lines[row] ??= this.parse(this.rowAt(row))
    // The bound of the distance beyond the end keeps the time per character constant.
    const farthest = Math.max(Line.margin, line.cells.length)
    this.column = Math.min(this.column ?? line.cells.length, farthest)
    return line
  }

  parse({ start, text }: Row): Line.Line {
    this.steps += text.length
    return Line.parse(text, start)
  }

  /** Returns a row with the text of its cells. */
  shut(index: number): Row {
    const row = this.rowAt(index)
    const line = this.lines[index]
    this.steps++
    if (line === undefined) return row
    const [text, end] = Line.toText(line, row.start)
    this.steps += line.steps
    line.steps = 0
    return { ...row, text, end, length: line.length, isFolded: true }
  }

  close(): readonly [string, Screen] {
    const { isReturned, sgr, row } = this
    const isAtEnd = row === this.last && this.lines[row]?.cells.length === this.column
    const rows = this.rows.map((_, index) => this.shut(index))
    const column = isAtEnd ? undefined : this.column
    return [this.done.join(""), { rows, row, column, sgr, isReturned, steps: this.steps }]
  }

  /** Removes the first rows, which cannot be overwritten any more. */
  retire(count: number): void {
    for (let index = 0; index < count; index++) {
      this.others -= this.lengthAt(index)
      const text = finish(this.shut(index), this.rows[index + 1]?.start ?? this.sgr)
      this.done.push(text)
      this.doneLength += text.length
    }
    if (this.onDone !== undefined && this.doneLength > pieceLength) {
      this.onDone(this.done.join(""))
      this.done = []
      this.doneLength = 0
    }
    this.rows.splice(0, count)
    this.lines.splice(0, count)
    this.row -= count
  }

  /** Processes a line feed. */
  feed(): void {
    const { last } = this
    if (this.row < last) return this.moveTo(this.row + 1, 0)
    this.rows[last] = { ...this.rowAt(last), ending: this.isReturned ? "\r\n" : "\n" }
    this.add()
    while (this.rows.length > height || this.others > width) this.retire(1)
  }

  /** Adds a row at the end. */
  add(): void {
    this.others += this.lengthAt(this.last)
    this.rows.push(newRow(this.sgr))
    this.lines.push(undefined)
    this.row = this.last
    this.column = undefined
    this.isReturned = false
  }

  /** Writes text without line feeds. */
  write(text: string): void {
    let rest = text
    while (rest !== "") rest = this.canAppend(rest) ? this.append(rest) : this.apply(rest)
  }

  /** Tells whether text can be appended to the last row without parsing it. */
  canAppend(text: string): boolean {
    if (this.isReturned || this.column !== undefined) return false
    const { end, isFolded } = this.rowAt(this.last)
    // A combining mark behind another code would lose its base character.
    if (isFolded) return end === this.sgr && !control.test(this.within(text))
    foldHere.lastIndex = 0
    return !foldHere.test(text)
  }

  /** Returns the text that fits into the last row, and a code: searching all of it each time would be quadratic. */
  within(text: string): string {
    return text.slice(0, width - this.rowAt(this.last).length + maxFoldLength)
  }

  /** Appends text up to the first {@link fold} or the end of the row; returns the rest. */
  append(text: string): string {
    const { last } = this
    const row = this.rowAt(last)
    const head = this.within(text)
    const folds = row.isFolded ? -1 : head.search(fold)
    const plain = folds < 0 ? head : head.slice(0, folds)
    const room = width - row.length
    const isFull = plain.length >= room
    const end = isFull ? room + ((plain.codePointAt(room - 1) ?? 0) > 0xffff ? 1 : 0) : plain.length
    const added = plain.slice(0, end)
    if (!row.isFolded) this.sgr = Sgr.after(this.sgr, added)
    this.steps += added.length
    this.rows[last] = { ...row, text: row.text + added, length: row.length + added.length, end: this.sgr }
    if (isFull) this.wrap()
    return text.slice(end)
  }

  /** Writes text and applies codes up to the end of the row; returns the rest. */
  apply(text: string): string {
    for (const { 0: whole, 1: parameters = "", 2: final, index } of text.matchAll(Line.part)) {
      if (whole === "\r") {
        this.isReturned = true
        continue
      }
      const line = this.open()
      this.steps++
      if (this.isReturned) this.column = 0
      this.isReturned = false
      const column = this.column ?? 0
      if (whole === "\b") this.column = Math.max(0, column - 1)
      else if (whole >= " " || whole.startsWith("\t")) {
        const written = this.put(whole)
        if (this.column === undefined) return text.slice(index + written)
      } else if (final === "m") this.sgr = Sgr.set(this.sgr, parameters)
      else if (final !== undefined && /^[\d;]*$/.test(parameters)) {
        const number = Number.parseInt(parameters, 10) || 0
        if (final === "K") this.eraseLine(line, number)
        else if (final === "J" && number === 0) this.eraseBelow(line)
        else this.move(final, Math.max(1, number))
      }
    }
    return ""
  }

  /** Writes characters until a new row begins; returns the length written. */
  put(text: string): number {
    let written = 0
    for (const character of text) {
      const line = this.open()
      const column = Line.put(line, this.column ?? 0, { character, sgr: this.sgr })
      this.column = column
      written += character.length
      if (line.length < width || (column !== line.cells.length && line.length < 4 * width)) continue
      // The line wraps, as at the right margin of a terminal.
      if (this.row < this.last) this.moveTo(this.row + 1, 0)
      else {
        this.wrap()
        break
      }
    }
    return written
  }

  /** Begins a new row; the rows before it become final. */
  wrap(): void {
    this.add()
    this.retire(this.last)
  }

  eraseLine(line: Line.Line, mode: number): void {
    const column = this.column ?? 0
    if (mode === 0) Line.truncate(line, column)
    else if (mode === 1) Line.erase(line, column + 1)
    else if (mode === 2) Line.truncate(line, 0)
  }

  eraseBelow(line: Line.Line): void {
    Line.truncate(line, this.column ?? 0)
    for (let below = this.row + 1; below <= this.last; below++) {
      this.others -= this.lengthAt(below)
      this.steps += this.lines[below]?.steps ?? 0
    }
    this.rows.length = this.row + 1
    this.lines.length = this.row + 1
    this.rows[this.row] = { ...this.rowAt(this.row), ending: "" }
  }

  move(final: string, by: number): void {
    const column = this.column ?? 0
    if (final === "A") this.moveTo(this.row - by, column)
    else if (final === "B") this.moveTo(this.row + by, column)
    else if (final === "C") this.column = Math.max(column, Math.min(column + by, Line.margin))
    else if (final === "D") this.column = Math.max(0, column - by)
    else if (final === "E") this.moveTo(this.row + by, 0)
    else if (final === "F") this.moveTo(this.row - by, 0)
    else if (final === "G") this.column = Math.min(by - 1, Math.max(column, Line.margin))
  }

  moveTo(row: number, column: number): void {
    this.others += this.lengthAt(this.row)
    this.row = Math.min(Math.max(0, row), this.last)
    this.others -= this.lengthAt(this.row)
    this.column = column
    this.isReturned = false
    this.open()
  }
}
