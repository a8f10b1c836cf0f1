/**
 * Text as a terminal would show it in the end: what `\r`, `\b` and the codes that move a cursor led back to and was
 * written over is gone. Works on text that comes in pieces, in linear time, and keeps what `truncated_text.ts` keeps.
 *
 * @module
 */
import * as TruncatedText from "../truncated_text.ts"
import * as Sgr from "./sgr.ts"
import * as Screen from "./screen.ts"

/** What is kept of a text, and the lines that may still change. */
export interface TerminalText {
  /** All that nothing can write over any more. */
  readonly kept: TruncatedText.TruncatedText
  readonly screen: Screen.Screen
  /** What came since and is not written to the screen yet: folding it bit by bit would take too long. */
  readonly raw: string
  /** How long that may be. */
  readonly due: number
}

/** Unwritten characters that are not worth the work. */
const negligible = 64 * 1024

/** Characters of a piece of a text that is longer. */
const longestPiece = 64 * 1024 * 1024

/** How long a code can be. */
const longest = 4200

/** A code that has not come to its end. */
const unfinished = new RegExp(
  "\x1b(?:\\[[0-?]{0,64}[ -/]{0,4}|\\][^\x07\x1b]{0,4096}\x1b?|[ -/]{0,4})$",
)

/** No text yet; `limit` are the bytes to keep. */
export function empty(limit?: number): TerminalText {
  return begin(TruncatedText.empty(limit))
}

/** The text after more was written. */
export function append(folded: TerminalText, text: string): TerminalText {
  if (text.length > longestPiece) return pieces(text).reduce(append, folded)
  const raw = folded.raw + text
  return raw.length < folded.due ? { ...folded, raw } : settle({ ...folded, raw })
}

/** A text in pieces that are together with what is there no more than a string can hold. */
function pieces(text: string): ReadonlyArray<string> {
  const all: Array<string> = []
  for (let start = 0; start < text.length;) {
    const isSplit = (text.codePointAt(start + longestPiece - 1) ?? 0) > 0xffff
    const end = start + longestPiece - (isSplit ? 1 : 0)
    all.push(text.slice(start, end))
    start = end
  }
  return all
}

/** The text with a line of its own for what comes next, which writes over nothing before it. */
export function breakLine(folded: TerminalText): TerminalText {
  const { kept, rest, seen, screen } = whatIsSeen(folded)
  const all = keep(kept, seen + rest)
  return begin(TruncatedText.isLineStart(all) ? all : TruncatedText.append(all, "\n"), screen)
}

/** The text with something on lines of its own that is not written but shown: nothing writes over it. */
export function show(folded: TerminalText, text: string): TerminalText {
  const { kept, screen } = breakLine(folded)
  return begin(keep(kept, text), screen)
}

/** The text as it is now, with a line in place of what is missing. */
export function toText(folded: TerminalText): string {
  const { kept, rest, seen, screen } = whatIsSeen(folded)
  return TruncatedText.toText(keep(kept, seen + Screen.ending(screen) + rest))
}

/** The whole text as a terminal would show it. */
export function fold(text: string): string {
  return Screen.isPlain(text) ? text : toText(append(empty(), text))
}

function begin(kept: TruncatedText.TruncatedText, before?: Screen.Screen): TerminalText {
  return { kept, screen: Screen.empty(before?.pen ?? Sgr.initial, before?.steps), raw: "", due: negligible }
}

function keep(kept: TruncatedText.TruncatedText, text: string): TruncatedText.TruncatedText {
  return text === "" ? kept : TruncatedText.append(kept, text)
}

/** The text with all that is unwritten written, but for a code that has not come to its end. */
interface Written {
  readonly kept: TruncatedText.TruncatedText
  readonly screen: Screen.Screen
  readonly rest: string
}

function write({ kept, raw, screen }: TerminalText): Written {
  const end = endOf(raw)
  let all = kept
  const onDone = (text: string): void => {
    all = keep(all, text)
  }
  const [done, written] = Screen.write(screen, raw.slice(0, end), onDone)
  return { kept: keep(all, done), screen: written, rest: raw.slice(end) }
}

/** The same, and what is on the screen. */
function whatIsSeen(folded: TerminalText): Written & { readonly seen: string } {
  const written = write(folded)
  return { ...written, seen: Screen.toText(written.screen) }
}

/** Where a code begins that has not come to its end. */
function endOf(raw: string): number {
  const last = raw.slice(-longest)
  const found = last.includes("\x1b") ? last.search(unfinished) : -1
  return found < 0 ? raw.length : raw.length - last.length + found
}

/** The text with what is unwritten written, as far as it makes a difference. */
function settle(folded: TerminalText): TerminalText {
  const { kept, raw, screen } = folded
  const isBlank = screen.rows.length === 1 && screen.rows[0]?.text === "" && !Screen.isFolded(screen)
  if (isBlank && Screen.isPlain(raw)) {
    // Nothing to fold, as almost always: the lines go on as they are.
    const start = lastLines(raw)
    if (raw.length - start <= Screen.width) {
      const done = raw.slice(0, start)
      const steps = screen.steps + done.length
      return rest(keep(kept, done), Screen.empty(Sgr.after(screen.pen, done), steps), raw.slice(start))
    }
  }
  const written = write(folded)
  return Screen.isFolded(written.screen) ? rest(written.kept, written.screen, written.rest) : rest(
    written.kept,
    Screen.empty(written.screen.rows[0]?.start ?? written.screen.pen, written.screen.steps),
    Screen.toText(written.screen) + written.rest,
  )
}

function rest(kept: TruncatedText.TruncatedText, screen: Screen.Screen, raw: string): TerminalText {
  return { kept, screen, raw, due: raw.length + Math.max(negligible, raw.length, Screen.lengthOf(screen)) }
}

/** Where the lines begin that can still be written over. */
function lastLines(text: string): number {
  let place = text.length
  for (let count = 0; count < Screen.height; count++) {
    const end = text.lastIndexOf("\n", place - 1)
    if (end < 0 || place === 0) return 0
    place = end
  }
  return place + 1
}
