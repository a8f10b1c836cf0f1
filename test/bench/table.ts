/** Measures contenders in turns, and prints ratios of one run, never times alone. */
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

/** The rows whose contender took part: one that is not installed has no numbers. */
export function present(rows: ReadonlyArray<Row>): ReadonlyArray<Row> {
  return rows.filter(({ theirs }) => !Number.isNaN(theirs))
}

/** The middle of the values. */
export function median(values: ReadonlyArray<number>): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? NaN
}

/** Returns the duration of an effect. */
export const milliseconds = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.map(Effect.timed(effect), ([time]) => Duration.toMillis(time))

/** Options of the turns. */
export interface Turns {
  /** Runs before each turn, and is not measured: waits for background work of earlier turns. */
  readonly before?: Effect.Effect<unknown>
}

/**
 * The median of each contender, who take turns, after one round that does not count. Each round begins with
 * another one, so that none always follows the same.
 */
export const inTurns = <R>(
  rounds: number,
  contenders: ReadonlyArray<Effect.Effect<number, unknown, R>>,
  { before = Effect.void }: Turns = {},
): Effect.Effect<ReadonlyArray<number>, unknown, R> =>
  Effect.gen(function* () {
    const values = contenders.map((): Array<number> => [])
    for (let round = 0; round <= rounds; round++) {
      for (let turn = 0; turn < contenders.length; turn++) {
        const index = (round + turn) % contenders.length
        const contender = contenders[index]
        if (contender === undefined) continue
        yield* before
        const value = yield* contender
        if (round > 0) values[index]?.push(value)
      }
    }
    return values.map(median)
  })

/** A row for programs: with its ratio, and whether that is what is to be reached. */
export function json(rows: ReadonlyArray<Row>): string {
  return JSON.stringify(
    rows.map((row) => ({ ...row, ratio: ratio(row), ...(hasGoal(row) ? { reached: isReached(row) } : {}) })),
    undefined,
    2,
  )
}

function ratio({ ours, theirs }: Row): number {
  return ours / theirs
}

function hasGoal({ atLeast, atMost }: Row): boolean {
  return atMost !== undefined || atLeast !== undefined
}

function isReached(row: Row): boolean {
  return ratio(row) <= (row.atMost ?? Infinity) && ratio(row) >= (row.atLeast ?? 0)
}

/** The rows as a table for people. */
export function table(rows: ReadonlyArray<Row>): string {
  const cells = rows.map((row) => [
    row.what,
    `${shown(row.ours)} ${row.unit}`.trim(),
    `${shown(row.theirs)} ${row.unit}`.trim(),
    ratio(row).toFixed(3),
    goal(row),
  ])
  const all = [["what", "ours", "against", "ratio", "goal"], ...cells]
  const widths = all[0]?.map((_, column) => Math.max(...all.map((line) => line[column]?.length ?? 0))) ?? []
  return all.map((line) => line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd())
    .join("\n")
}

/** Counts as they are, measured values with as many digits as they have. */
function shown(value: number): string {
  return Number.isInteger(value) ? `${value}` : value.toFixed(value < 100 ? 2 : 0)
}

function goal(row: Row): string {
  if (!hasGoal(row)) return ""
  const bound = row.atMost === undefined ? `≥ ${row.atLeast?.toFixed(2)}` : `≤ ${row.atMost.toFixed(2)}`
  return `${bound}${isReached(row) ? "" : "  missed"}`
}
