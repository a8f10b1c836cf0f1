/**
 * The last lines of a terminal, which can still be written over: by `\r`, `\b` and tabs, and by the codes that move
 * the cursor (up, down, forward, back, to a column) and erase (the line, or all from the cursor).
 *
 * @module
 */
import * as Line from "./line.ts"
import * as Sgr from "./sgr.ts"

/** A line, the way it is kept between writes. */
export interface Row {
  /** As it came, or as its cells if something was written over. */
  readonly text: string
  /** What its text is long without codes, once it is folded. */
  readonly length: number
  readonly start: Sgr.Sgr
  /** What its text leaves set. */
  readonly end: Sgr.Sgr
  /** Something was written over, or went back. */
  readonly isFolded: boolean
  readonly ending: "\n" | "\r\n" | ""
}

/** The lines and where the next character goes. */
export interface Screen {
  readonly rows: ReadonlyArray<Row>
  readonly row: number
  /** `undefined` at the end of the last row. */
  readonly column: number | undefined
  readonly pen: Sgr.Sgr
  /** A carriage return came last, which may be part of a line end. */
  readonly isReturned: boolean
  /** How many characters and cells were touched to get here: about as many as were written. */
  readonly steps: number
}

/** How many lines can be written over. */
export const height = 100

/** Characters of a line after which it continues as another: a terminal's are far shorter. All others together. */
export const width = 1024 * 1024

/** Characters that cannot be written over any more and are let go of together. */
const pieceLength = 1024 * 1024

/** What makes more of a line than its characters one after the other. */
const fold = new RegExp("[\r\b]|\x1b\\[(?:[\\d;]{0,64}[A-GK]|0?J)")

/** The same, at the place where it is looked for. */
const foldHere = new RegExp(fold.source, "y")

/** How long it can be. */
const longestFold = 67

/** What is no text to be seen. */
const control = new RegExp("[\x00-\x08\x0a-\x1f]")

/** A screen with nothing on it. */
export function empty(pen: Sgr.Sgr, steps: number = 0): Screen {
  return { rows: [newRow(pen)], row: 0, column: undefined, pen, isReturned: false, steps }
}

/** Tells whether text leaves a screen without {@link isFolded} rows without them. */
export function isPlain(text: string): boolean {
  return !text.includes("\r") && !text.includes("\b") && !(text.includes("\x1b") && fold.test(text))
}

/** Tells whether there is more to a screen than its text. */
export function isFolded({ column, isReturned, rows }: Screen): boolean {
  return column !== undefined || isReturned || rows.some((row) => row.isFolded)
}

/** How long the texts are together. */
export function lengthOf({ rows }: Screen): number {
  return rows.reduce((sum, { text }) => sum + text.length, 0)
}

/** All that is on the screen as text, up to a carriage return that may be half of a line end. */
export function toText({ pen, rows }: Screen): string {
  return rows.map((row, index) => finish(row, rows[index + 1]?.start ?? pen)).join("")
}

/** What is behind the text. */
export function ending({ isReturned, row, rows }: Screen): "\r" | "" {
  return isReturned && row === rows.length - 1 ? "\r" : ""
}

/**
 * The screen after more was written, and before it what cannot be written over any more; `onDone` gets all but the
 * last of that in pieces, as it may be more than a string can hold.
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

/** A row as text, for a place where another pen is expected. */
function finish({ end, ending, isFolded, text }: Row, pen: Sgr.Sgr): string {
  let length = text.length
  // What is at the end of a line that was written over has been blanked, which a terminal does not show.
  while (isFolded && end === Sgr.initial && text[length - 1] === " ") length--
  return text.slice(0, length) + Sgr.change(end, pen) + ending
}

/** A screen for the time of one write, so that each of its rows is taken apart no more than once. */
class Writer {
  readonly rows: Array<Row>
  /** The rows that were taken apart. */
  readonly lines: Array<Line.Line | undefined>
  done: Array<string> = []
  doneLength = 0
  steps: number
  readonly onDone: ((text: string) => void) | undefined
  /** How long all rows are together but for the one of the cursor. */
  others: number
  row: number
  column: number | undefined
  pen: Sgr.Sgr
  isReturned: boolean

  constructor({ column, isReturned, pen, row, rows, steps }: Screen, onDone?: (text: string) => void) {
    this.onDone = onDone
    this.steps = steps
    this.rows = [...rows]
    this.lines = rows.map(() => undefined)
    this.others = rows.reduce((sum, { length }, index) => index === row ? sum : sum + length, 0)
    this.row = row
    this.column = column
    this.pen = pen
    this.isReturned = isReturned
  }

  get last(): number {
    return this.rows.length - 1
  }

  rowAt(index: number): Row {
    return this.rows[index] ?? newRow(this.pen)
  }

  lengthAt(index: number): number {
    return this.lines[index]?.length ?? this.rowAt(index).length
  }

  /** The line of the cursor, taken apart. */
  open(): Line.Line {
    const { row } = this
    const line = this.lines[row] ??= this.parse(this.rowAt(row))
    // What is not there cannot be far: to write there would take as many blanks, again and again.
    const farthest = Math.max(Line.margin, line.cells.length)
    this.column = Math.min(this.column ?? line.cells.length, farthest)
    return line
  }

  parse({ start, text }: Row): Line.Line {
    this.steps += text.length
    return Line.parse(text, start)
  }

  /** Puts a row together. */
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
    const { isReturned, pen, row } = this
    const isAtEnd = row === this.last && this.lines[row]?.cells.length === this.column
    const rows = this.rows.map((_, index) => this.shut(index))
    const column = isAtEnd ? undefined : this.column
    return [this.done.join(""), { rows, row, column, pen, isReturned, steps: this.steps }]
  }

  /** Lets go of the first rows. */
  retire(count: number): void {
    for (let index = 0; index < count; index++) {
      this.others -= this.lengthAt(index)
      const text = finish(this.shut(index), this.rows[index + 1]?.start ?? this.pen)
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

  /** A line feed. */
  feed(): void {
    const { last } = this
    if (this.row < last) return this.moveTo(this.row + 1, 0)
    this.rows[last] = { ...this.rowAt(last), ending: this.isReturned ? "\r\n" : "\n" }
    this.add()
    while (this.rows.length > height || this.others > width) this.retire(1)
  }

  /** Begins a row below all others. */
  add(): void {
    this.others += this.lengthAt(this.last)
    this.rows.push(newRow(this.pen))
    this.lines.push(undefined)
    this.row = this.last
    this.column = undefined
    this.isReturned = false
  }

  /** Writes a part of a line. */
  write(text: string): void {
    let rest = text
    while (rest !== "") rest = this.canAppend(rest) ? this.append(rest) : this.apply(rest)
  }

  /** Whether what comes next is just added to the last row. */
  canAppend(text: string): boolean {
    if (this.isReturned || this.column !== undefined) return false
    const { end, isFolded } = this.rowAt(this.last)
    // Behind another pen's code, a mark would be on nothing.
    if (isFolded) return end === this.pen && !control.test(this.within(text))
    foldHere.lastIndex = 0
    return !foldHere.test(text)
  }

  /** As much of the text as the last row may take, and a code: to look further each time would take too long. */
  within(text: string): string {
    return text.slice(0, width - this.rowAt(this.last).length + longestFold)
  }

  /** Adds text as it is up to what folds it or to the end of the row; gives the rest. */
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
    if (!row.isFolded) this.pen = Sgr.after(this.pen, added)
    this.steps += added.length
    this.rows[last] = { ...row, text: row.text + added, length: row.length + added.length, end: this.pen }
    if (isFull) this.wrap()
    return text.slice(end)
  }

  /** Writes text and does what codes say up to the end of the row; gives the rest. */
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
      } else if (final === "m") this.pen = Sgr.set(this.pen, parameters)
      else if (final !== undefined && /^[\d;]*$/.test(parameters)) {
        const number = Number.parseInt(parameters, 10) || 0
        if (final === "K") this.eraseLine(line, number)
        else if (final === "J" && number === 0) this.eraseBelow(line)
        else this.move(final, Math.max(1, number))
      }
    }
    return ""
  }

  /** Writes characters until a new row begins; gives how much that was. */
  put(text: string): number {
    let written = 0
    for (const character of text) {
      const line = this.open()
      const column = Line.put(line, this.column ?? 0, { character, pen: this.pen })
      this.column = column
      written += character.length
      if (line.length < width || (column !== line.cells.length && line.length < 4 * width)) continue
      // As at the right margin of a terminal.
      if (this.row < this.last) this.moveTo(this.row + 1, 0)
      else {
        this.wrap()
        break
      }
    }
    return written
  }

  /** Goes on in a new row, from which nothing leads back. */
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
