/**
 * The last lines of what a process wrote: the evidence that goes into errors.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

/** Enough for a traceback. */
const kept = 50

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
