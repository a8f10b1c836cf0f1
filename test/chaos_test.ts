/** A short chaos run of each kind; `npm run chaos` has the long one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { modes } from "./chaos/kind.ts"
import { operations, run } from "./chaos/run.ts"
import { Stops } from "./chaos/stops.ts"

const labels = (seed: number) => {
  const drawn = operations(seed, "proxy")
  return Array.from({ length: 200 }, () => drawn.next().value.label)
}

describe("npm run chaos", () => {
  it("draws its operations from the seed alone", () => {
    assert.deepStrictEqual(labels(7), labels(7))
    assert.notDeepEqual(labels(7), labels(8))
  })

  it("takes short stops for a long one only where the polls of a kernel may", () => {
    const isLong = (
      pollInterval: number,
      now: number,
      ...spans: ReadonlyArray<readonly [number, number]>
    ) => {
      const stops = new Stops(pollInterval)
      for (const [from, until] of spans) stops.begin(from)(until)
      return stops.canCountAsOne(now)
    }
    assert.isTrue(isLong(1000, 3050, [0, 1500], [1550, 3050]))
    assert.isTrue(isLong(1000, 2050, [0, 1], [1000, 1001], [2000, 2001]))
    assert.isFalse(isLong(1000, 1500, [0, 1500]))
    assert.isFalse(isLong(1000, 9000, [0, 1500], [1550, 3050]))
    assert.isFalse(isLong(1000, 8000, [0, 1500], [6500, 8000]))
    assert.isFalse(isLong(10_000, 3050, [0, 1500], [1550, 3050]))
  })

  const random = Math.floor(Math.random() * 2 ** 32)
  const runs = [...modes.map((mode, index) => ({ mode, seed: index + 1 })), { mode: modes[0], seed: random }]
  for (const { mode, seed } of runs) {
    const name = seed === random ? "a random seed" : `seed ${seed}`
    it.live(`${mode}, ${name}: nothing that the model does not allow`, () =>
      Effect.gen(function* () {
        const report = yield* run({ mode, seed, duration: "5 seconds" })
        yield* Effect.logInfo(`Seed ${seed}, ${mode}: ${report.operations} operations`)
        assert.deepStrictEqual(report.violations, [], `npm run chaos -- --seed ${seed} --mode ${mode}`)
        assert.isAbove(report.operations, 0)
      }), 180_000)
  }
})
