/**
 * The pool's arithmetic, pure: how many kernels to start or to let go, and where.
 *
 * @module
 */
import * as Duration from "effect/Duration"

/** How many kernels a pool may and shall have. */
export interface Limits {
  /** Kernels, in use or ready, that are there even if nobody asks. */
  readonly min: number
  /** Kernels at one time, those that are being started or deleted included. */
  readonly max: number
  /** Kernels kept ready beside those in use. */
  readonly warm: number
  /** Kernels being started at one time. */
  readonly startConcurrency: number
}

/** What a pool has now. */
export interface Counts {
  readonly warm: number
  readonly starting: number
  /** Those of them on gateways that failed: nobody counts on them. */
  readonly probing: number
  readonly busy: number
  readonly stopping: number
  readonly waiting: number
}

const whole = (value: number, least: number): number => Math.max(least, Math.floor(value) || 0)

/** Makes sense of the options: each has a default, and none asks for more than `max`. */
export function limits(
  options: { readonly size?: number | undefined } & { readonly [K in keyof Limits]?: number | undefined },
): Limits {
  const min = whole(options.min ?? options.size ?? 1, 0)
  const warm = whole(options.warm ?? 1, 0)
  const max = whole(options.max ?? options.size ?? Math.max(8, min, warm), 1)
  return {
    min: Math.min(min, max),
    max,
    warm: Math.min(warm, max),
    startConcurrency: whole(options.startConcurrency ?? 2, 1),
  }
}

/** Whether somebody asked for a kernel lately: otherwise `min` is enough. */
type IsActive = boolean

/** How many kernels should be ready, or on their way: one for each who waits, and the spares. */
function goal(limits: Limits, { busy, waiting }: Counts, isActive: IsActive): number {
  return waiting + Math.max(limits.min - busy - waiting, isActive ? limits.warm : 0, 0)
}

/** How many kernels to start now. */
export function toStart(limits: Limits, counts: Counts, isActive: IsActive): number {
  const { busy, probing, starting, stopping, warm } = counts
  const expected = starting - probing
  const missing = goal(limits, counts, isActive) - warm - expected
  const room = limits.max - warm - starting - busy - stopping
  return Math.max(0, Math.min(missing, room, limits.startConcurrency - expected))
}

/** How many spares to let go now: those that `min` does not ask for, when nobody asked for long. */
export function toRetire(limits: Limits, counts: Counts, isActive: IsActive): number {
  if (isActive) return 0
  const { probing, starting, warm } = counts
  return Math.max(0, Math.min(warm, warm + starting - probing - goal(limits, counts, isActive)))
}

/** What counts when a gateway is chosen. */
export interface Load {
  readonly kernels: number
  readonly isGone: boolean
  /** Starts that failed, since the last one that did not. */
  readonly failures: number
  /** It failed a moment ago. */
  readonly isPaused: boolean
  /** A start is under way that shows whether it works again. */
  readonly isProbed: boolean
}

/**
 * Which gateway gets the next kernel; none if none can. One that failed is tried again, by one start at a time, when
 * nobody waits or when there is no other; else it is the one with the fewest kernels, the first of several.
 */
export function place<G extends Load>(
  gateways: ReadonlyArray<G>,
  { waiting }: { readonly waiting: number },
): G | undefined {
  const usable = gateways.filter(({ isGone, isPaused, isProbed }) => !isGone && !isPaused && !isProbed)
  const doubtful = usable.find(({ failures }) => failures > 0)
  if (doubtful !== undefined && waiting === 0) return doubtful
  return usable.filter(({ failures }) => failures === 0).reduce<G | undefined>(
    (best, each) => best === undefined || each.kernels < best.kernels ? each : best,
    undefined,
  ) ?? doubtful
}

/** How long to leave a gateway alone after so many failures in a row: from 100 ms to 10 seconds. */
export function pause(failures: number): Duration.Duration {
  return Duration.min(Duration.millis(100 * 2 ** (failures - 1)), Duration.seconds(10))
}
