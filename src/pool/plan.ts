/**
 * Pure functions that decide how many kernels a pool starts or deletes, and on which gateway.
 *
 * @module
 */
import * as Duration from "effect/Duration"

/** The bounds of a pool. */
export interface Limits {
  /** Kernels, in use or ready, that exist even without requests. */
  readonly min: number
  /** The maximum number of kernels, including those that start or stop. */
  readonly max: number
  /** Spare kernels beside those in use. */
  readonly warm: number
  /** The maximum number of kernels that start at the same time. */
  readonly startConcurrency: number
}

/** The current numbers of a pool. */
export interface Counts {
  readonly warm: number
  readonly starting: number
  /** The part of `starting` on gateways that failed before, which does not count as expected. */
  readonly probing: number
  readonly busy: number
  readonly stopping: number
  readonly waiting: number
}

const whole = (value: number, least: number): number => Math.max(least, Math.floor(value) || 0)

/** Returns the bounds that options stand for: with defaults, and none above `max`. */
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

/** True if there was a request within `idleTimeToLive`; otherwise `min` kernels are enough. */
type IsActive = boolean

/** Returns the desired number of kernels that are ready or start: one for each request that waits, and the spares. */
function goal(limits: Limits, { busy, waiting }: Counts, isActive: IsActive): number {
  return waiting + Math.max(limits.min - busy - waiting, isActive ? limits.warm : 0, 0)
}

/** Returns how many kernels to start now. */
export function toStart(limits: Limits, counts: Counts, isActive: IsActive): number {
  const { busy, probing, starting, stopping, warm } = counts
  const expected = starting - probing
  const missing = goal(limits, counts, isActive) - warm - expected
  const room = limits.max - warm - starting - busy - stopping
  return Math.max(0, Math.min(missing, room, limits.startConcurrency - expected))
}

/** Returns how many spares to delete now: none while active, otherwise those beyond `min`. */
export function toRetire(limits: Limits, counts: Counts, isActive: IsActive): number {
  if (isActive) return 0
  const { probing, starting, warm } = counts
  return Math.max(0, Math.min(warm, warm + starting - probing - goal(limits, counts, isActive)))
}

/** The properties of a gateway that its choice depends on. */
export interface Load {
  readonly kernels: number
  readonly isGone: boolean
  /** Starts that failed since the last one that succeeded. */
  readonly failures: number
  /** True during the pause after a failure. */
  readonly isPaused: boolean
  /** True while a start is under way that tests the gateway after a failure. */
  readonly isProbed: boolean
}

/**
 * Returns the gateway for the next kernel, or `undefined` if none is usable. A gateway that failed is tried again, by one
 * start at a time, if no request waits or there is no other; otherwise the one with the fewest kernels is chosen.
 */
export function chooseGateway<G extends Load>(
  gateways: ReadonlyArray<G>,
  { waiting }: { readonly waiting: number },
): G | undefined {
  const usable = gateways.filter(({ isGone, isPaused, isProbed }) => !isGone && !isPaused && !isProbed)
  const failing = usable.find(({ failures }) => failures > 0)
  if (failing !== undefined && waiting === 0) return failing
  return usable.filter(({ failures }) => failures === 0).reduce<G | undefined>(
    (best, each) => best === undefined || each.kernels < best.kernels ? each : best,
    undefined,
  ) ?? failing
}

/** Returns the pause after so many consecutive failures: from 100 ms to 10 seconds. */
export function retryDelay(failures: number): Duration.Duration {
  return Duration.min(Duration.millis(100 * 2 ** (failures - 1)), Duration.seconds(10))
}
