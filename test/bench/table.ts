/** How the benchmark measures, in turns, and prints what it measured: ratios of one run, never times alone. */
import { Duration, Effect } from "effect"

/** One comparison. */
export interface Row {
  readonly what: string
  readonly ours: number
  readonly theirs: number
  readonly unit: string
  /** The ratio that is to be reached, if there is one. */
  readonly atMost?: number
  readonly atLeast?: number
}

/** The middle of the values. */
export function median(values: ReadonlyArray<number>): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? NaN
}

/** How long an effect takes. */
export const milliseconds = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.map(Effect.timed(effect), ([time]) => Duration.toMillis(time))

/** The median of each contender, who take turns. */
export const inTurns = <R>(
  rounds: number,
  contenders: ReadonlyArray<Effect.Effect<number, unknown, R>>,
): Effect.Effect<ReadonlyArray<number>, unknown, R> =>
  Effect.map(
    Effect.all(Array.from({ length: rounds }, () => Effect.all(contenders))),
    (times) => contenders.map((_, index) => median(times.map((round) => round[index] ?? NaN))),
  )

/** The rows as a table for people. */
export function table(rows: ReadonlyArray<Row>): string {
  const cells = rows.map((row) => [
    row.what,
    `${row.ours.toFixed(1)} ${row.unit}`,
    `${row.theirs.toFixed(1)} ${row.unit}`,
    (row.ours / row.theirs).toFixed(2),
    goal(row),
  ])
  const all = [["what", "ours", "against", "ratio", "goal"], ...cells]
  const widths = all[0]?.map((_, column) => Math.max(...all.map((line) => line[column]?.length ?? 0))) ?? []
  return all.map((line) => line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd())
    .join("\n")
}

function goal({ atLeast, atMost, ours, theirs }: Row): string {
  const ratio = ours / theirs
  if (atMost !== undefined) return `≤ ${atMost.toFixed(2)}${ratio <= atMost ? "" : "  missed"}`
  if (atLeast !== undefined) return `≥ ${atLeast.toFixed(2)}${ratio >= atLeast ? "" : "  missed"}`
  return ""
}
