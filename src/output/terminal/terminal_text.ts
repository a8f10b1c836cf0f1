/**
 * Text as a terminal shows it in the end, without what was overwritten after `\r`, `\b` and codes that move the cursor.
 * Text may arrive in pieces; the time is linear in its length. Long text is truncated by `truncated_text.ts`.
 *
 * @module
 */
import * as TruncatedText from "../truncated_text.ts"
import * as Sgr from "./sgr.ts"
import * as Screen from "./screen.ts"

/** A text, and the lines of it that can still be overwritten. */
export interface TerminalText {
  /** The text that cannot be overwritten any more. */
  readonly kept: TruncatedText.TruncatedText
  readonly screen: Screen.Screen
  /** Text that is not written to the screen yet: writing in small pieces would take quadratic time. */
  readonly raw: string
  /** The length of `raw` at which it is written to the screen. */
  readonly flushAt: number
}

/** The minimum of {@link TerminalText.flushAt}. */
const minFlush = 64 * 1024

/** Maximum number of characters to append at once: longer text is split. */
const maxAppend = 64 * 1024 * 1024

/** Maximum length of an escape sequence. */
const maxCodeLength = 4200

/** An incomplete escape sequence at the end of a text. */
const incompleteCode = new RegExp(
  "\x1b(?:\\[[0-?]{0,64}[ -/]{0,4}|\\][^\x07\x1b]{0,4096}\x1b?|[ -/]{0,4})$",
)

/** Returns an empty text; `limit` is the number of bytes to keep. */
export function empty(limit?: number): TerminalText {
  return restart(TruncatedText.empty(limit))
}

/** Appends text. */
export function append(before: TerminalText, text: string): TerminalText {
  if (text.length > maxAppend) return split(text).reduce(append, before)
  if (before.raw.length + text.length < before.flushAt) return { ...before, raw: before.raw + text }
  return appendFinal(before, text) ?? flush({ ...before, raw: before.raw + text })
}

/**
 * Appends text with all lines that can still be overwritten, unless something is. Neither it nor the text before is
 * copied, as `raw` is with each long text.
 */
function appendFinal(before: TerminalText, text: string): TerminalText | undefined {
  const { kept, raw, screen } = before
  const start = screenStart(text)
  const isFinal = start > 0 && text.length - start <= Screen.width && isBlank(screen) &&
    Screen.isPlain(text) &&
    Screen.isPlain(raw) && completeLength(raw) === raw.length
  if (!isFinal) return undefined
  const done = text.slice(0, start)
  const steps = screen.steps + raw.length + done.length
  const sgr = Sgr.after(Sgr.after(screen.sgr, raw), done)
  return withRaw(keep(keep(kept, raw), done), Screen.empty(sgr, steps), text.slice(start))
}

/** Splits a text, so that a piece and the unwritten text fit into a string. */
function split(text: string): ReadonlyArray<string> {
  const all: Array<string> = []
  for (let start = 0; start < text.length;) {
    const isSplit = (text.codePointAt(start + maxAppend - 1) ?? 0) > 0xffff
    const end = start + maxAppend - (isSplit ? 1 : 0)
    all.push(text.slice(start, end))
    start = end
  }
  return all
}

/** Begins a new line, unless one begins already; nothing before it is overwritten any more. */
export function breakLine(before: TerminalText): TerminalText {
  const { kept, rest, visible, screen } = render(before)
  const all = keep(kept, visible + rest)
  return restart(TruncatedText.isLineStart(all) ? all : TruncatedText.append(all, "\n"), screen)
}

/** Appends text on lines of its own that is not interpreted and cannot be overwritten. */
export function appendBlock(before: TerminalText, text: string): TerminalText {
  const { kept, screen } = breakLine(before)
  return restart(keep(kept, text), screen)
}

/** Returns the text so far, with a note in place of what was truncated. */
export function toText(before: TerminalText): string {
  const { kept, rest, visible, screen } = render(before)
  return TruncatedText.toText(keep(kept, visible + Screen.ending(screen) + rest))
}

/** Returns a complete text as a terminal shows it. */
export function fold(text: string): string {
  return Screen.isPlain(text) ? text : toText(append(empty(), text))
}

function restart(kept: TruncatedText.TruncatedText, screen?: Screen.Screen): TerminalText {
  return { kept, screen: Screen.empty(screen?.sgr ?? Sgr.initial, screen?.steps), raw: "", flushAt: minFlush }
}

function keep(kept: TruncatedText.TruncatedText, text: string): TruncatedText.TruncatedText {
  return text === "" ? kept : TruncatedText.append(kept, text)
}

/** The state after `raw` was written, but for an incomplete escape sequence at its end, `rest`. */
interface Written {
  readonly kept: TruncatedText.TruncatedText
  readonly screen: Screen.Screen
  readonly rest: string
}

function write({ kept, raw, screen }: TerminalText): Written {
  const end = completeLength(raw)
  let all = kept
  const onDone = (text: string): void => {
    all = keep(all, text)
  }
  const [done, written] = Screen.write(screen, raw.slice(0, end), onDone)
  return { kept: keep(all, done), screen: written, rest: raw.slice(end) }
}

/** Writes `raw` to the screen, and returns the text on the screen too. */
function render(before: TerminalText): Written & { readonly visible: string } {
  const written = write(before)
  return { ...written, visible: Screen.toText(written.screen) }
}

/** Returns the length of a text without an incomplete escape sequence at its end. */
function completeLength(raw: string): number {
  const last = raw.slice(-maxCodeLength)
  const found = last.includes("\x1b") ? last.search(incompleteCode) : -1
  return found < 0 ? raw.length : raw.length - last.length + found
}

/** Writes `raw` to the screen. Lines without anything overwritten become `raw` again. */
function flush(before: TerminalText): TerminalText {
  const { kept, raw, screen } = before
  if (isBlank(screen) && Screen.isPlain(raw)) {
    // The hot path: nothing is overwritten, so that no screen is needed.
    const start = screenStart(raw)
    if (raw.length - start <= Screen.width) {
      const done = raw.slice(0, start)
      const steps = screen.steps + done.length
      return withRaw(keep(kept, done), Screen.empty(Sgr.after(screen.sgr, done), steps), raw.slice(start))
    }
  }
  const written = write(before)
  return Screen.isFolded(written.screen) ? withRaw(written.kept, written.screen, written.rest) : withRaw(
    written.kept,
    Screen.empty(written.screen.rows[0]?.start ?? written.screen.sgr, written.screen.steps),
    Screen.toText(written.screen) + written.rest,
  )
}

function isBlank(screen: Screen.Screen): boolean {
  return screen.rows.length === 1 && screen.rows[0]?.text === "" && !Screen.isFolded(screen)
}

function withRaw(kept: TruncatedText.TruncatedText, screen: Screen.Screen, raw: string): TerminalText {
  return { kept, screen, raw, flushAt: raw.length + Math.max(minFlush, raw.length, Screen.lengthOf(screen)) }
}

/** Returns where the lines begin that can still be overwritten. */
function screenStart(text: string): number {
  let place = text.length
  for (let count = 0; count < Screen.height; count++) {
    const end = text.lastIndexOf("\n", place - 1)
    if (end < 0 || place === 0) return 0
    place = end
  }
  return place + 1
}
