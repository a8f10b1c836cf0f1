/**
 * Turns the last output of a process into an error message.
 *
 * @module
 */

/** Returns the line with the reason: the last one with an exception of Python, else the last line that is not blank. */
export function reasonLine(lines: ReadonlyArray<string>): string | undefined {
  const written = lines.filter((line) => line.trim() !== "")
  return written.findLast((line) => /^(?:Fatal Python error|[A-Za-z_][\w.]*): \S/.test(line)) ??
    written.at(-1)
}

/** Returns the reason, then the advice, then all lines. */
export function explain(lines: ReadonlyArray<string>, advice: string): string {
  const reason = reasonLine(lines)
  if (reason === undefined) return advice
  const rest = lines.length > 1 ? `\n${lines.join("\n")}` : ""
  return `${reason.trim()} (${advice})${rest}`
}
