/** A seeded generator of random numbers: what is drawn depends on the seed alone. */

/** Draws from one sequence. */
export interface Dice {
  /** A number from 0 up, below 1. */
  readonly next: () => number
  /** A whole number, both ends included. */
  readonly int: (least: number, most: number) => number
  readonly chance: (probability: number) => boolean
  readonly pick: <const A>(among: readonly [A, ...ReadonlyArray<A>]) => A
  /** One by its weight. */
  readonly weighted: <A extends { readonly weight: number }>(among: ReadonlyArray<A>) => A | undefined
}

/** The generator "mulberry32", which passes the usual tests of randomness with 32 bits of state. */
export function make(seed: number): Dice {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (least: number, most: number): number => least + Math.floor(next() * (most - least + 1))
  return {
    next,
    int,
    chance: (probability) => next() < probability,
    pick: (among) => among[int(0, among.length - 1)] ?? among[0],
    weighted: (among) => {
      let left = next() * among.reduce((sum, { weight }) => sum + weight, 0)
      return among.find(({ weight }) => (left -= weight) < 0)
    },
  }
}
