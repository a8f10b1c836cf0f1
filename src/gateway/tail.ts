/**
 * The last lines of what a process wrote: the evidence that goes into errors.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

/** Enough for a traceback. */
const kept = 50

/** Characters of a line, after which it continues as another: kernels write there too, and need not end it. */
const longest = 10_000

/** The last lines that were seen, oldest first. */
export interface Tail {
  readonly lines: () => ReadonlyArray<string>
  /** Reads an output to its end, keeping its last lines and giving each to `onLine`. */
  readonly follow: <E, R>(
    output: Stream.Stream<Uint8Array, E>,
    onLine: (line: string) => Effect.Effect<void, never, R>,
  ) => Effect.Effect<void, never, R>
}

/** An empty {@link Tail}. */
export function make(): Tail {
  const lines: Array<string> = []
  return {
    lines: () => lines.slice(),
    follow: (output, onLine) =>
      output.pipe(
        Stream.decodeText(),
        Stream.mapAccum(() => 0, wrap),
        Stream.splitLines,
        Stream.runForEach((line) => {
          if (lines.push(line) > kept) lines.shift()
          return onLine(line)
        }),
        // The output of a process ends in an error if the process is killed.
        Effect.ignore,
      ),
  }
}

const lineEnd = /[\r\n]/g

/** Ends lines that are too long; `length` is how long the last one was before. */
function wrap(length: number, text: string): readonly [number, ReadonlyArray<string>] {
  const parts: Array<string> = []
  let column = length
  let start = 0
  while (start < text.length) {
    lineEnd.lastIndex = start
    const end = lineEnd.exec(text)?.index ?? text.length
    for (; start + longest - column < end; column = 0) {
      parts.push(text.slice(start, start + longest - column), "\n")
      start += longest - column
    }
    parts.push(text.slice(start, end + 1))
    column = end < text.length ? 0 : column + end - start
    start = end + 1
  }
  return [column, [parts.join("")]]
}
