/**
 * What a process said before it ended, for people who have to do something about it.
 *
 * @module
 */

/** The line that says why: the last that looks like an exception of Python, else the last one. */
export function headline(lines: ReadonlyArray<string>): string | undefined {
  const said = lines.filter((line) => line.trim() !== "")
  return said.findLast((line) => /^(?:Fatal Python error|[A-Za-z_][\w.]*): \S/.test(line)) ?? said.at(-1)
}

/**
 * Puts the reason in front, then what to do, then all that was said.
 */
export function explain(lines: ReadonlyArray<string>, advice: string): string {
  const reason = headline(lines)
  if (reason === undefined) return advice
  const rest = lines.length > 1 ? `\n${lines.join("\n")}` : ""
  return `${reason.trim()} (${advice})${rest}`
}
