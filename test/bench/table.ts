/** How the benchmark prints what it measured: ratios of one run, never times alone. */

/** One comparison. */
export interface Row {
  readonly what: string
  readonly ours: number
  readonly theirs: number
  readonly unit: string
  /** The ratio that is to be reached, if there is one. */
  readonly atMost?: number
}

/** The middle of the values. */
export function median(values: ReadonlyArray<number>): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? NaN
}

/** The rows as a table for people. */
export function table(rows: ReadonlyArray<Row>): string {
  const cells = rows.map(({ atMost, ours, theirs, unit, what }) => [
    what,
    `${ours.toFixed(1)} ${unit}`,
    `${theirs.toFixed(1)} ${unit}`,
    (ours / theirs).toFixed(2),
    atMost === undefined ? "" : `${atMost.toFixed(2)}${ours / theirs <= atMost ? "" : "  MISSED"}`,
  ])
  const all = [["what", "ours", "against", "ratio", "at most"], ...cells]
  const widths = all[0]?.map((_, column) => Math.max(...all.map((line) => line[column]?.length ?? 0))) ?? []
  return all.map((line) => line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd())
    .join("\n")
}
