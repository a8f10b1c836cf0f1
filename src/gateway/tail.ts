/**
 * Keeps the last lines of the output of a process, which become part of errors.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

/** Number of lines to keep: enough for a traceback. */
const maxLines = 50

/** Maximum characters of a line, after which it is split: kernels can write lines without end. */
const maxLineLength = 10_000

/** The last lines of one or more outputs. */
export interface Tail {
  /** Returns the lines, oldest first. */
  readonly lines: () => ReadonlyArray<string>
  /** Adds a line. */
  readonly push: (line: string) => void
  /** Reads an output to its end, keeps its last lines and passes each line to `onLine`. */
  readonly follow: <E, R>(
    output: Stream.Stream<Uint8Array, E>,
    onLine: (line: string) => Effect.Effect<void, never, R>,
  ) => Effect.Effect<void, never, R>
}

/** Makes an empty {@link Tail}. */
export function make(): Tail {
  const lines: Array<string> = []
  const push = (line: string): void => {
    if (lines.push(line) > maxLines) lines.shift()
  }
  return {
    lines: () => lines.slice(),
    push,
    follow: (output, onLine) =>
      output.pipe(
        Stream.decodeText(),
        Stream.mapAccum(() => 0, wrap),
        Stream.splitLines,
        Stream.runForEach((line) => {
          push(line)
          return onLine(line)
        }),
        // The output of a killed process ends in an error.
        Effect.ignore,
      ),
  }
}

const lineEnd = /[\r\n]/g

/** Splits lines that are too long; `length` is the length of the incomplete last line. */
function wrap(length: number, text: string): readonly [number, ReadonlyArray<string>] {
  const parts: Array<string> = []
  let column = length
  let start = 0
  while (start < text.length) {
    lineEnd.lastIndex = start
    const end = lineEnd.exec(text)?.index ?? text.length
    for (; start + maxLineLength - column < end; column = 0) {
      parts.push(text.slice(start, start + maxLineLength - column), "\n")
      start += maxLineLength - column
    }
    parts.push(text.slice(start, end + 1))
    column = end < text.length ? 0 : column + end - start
    start = end + 1
  }
  return [column, [parts.join("")]]
}
