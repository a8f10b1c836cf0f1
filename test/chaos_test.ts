/** A short chaos run of each kind; `npm run chaos` has the long one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { modes } from "./chaos/kind.ts"
import { operations, run } from "./chaos/run.ts"

const labels = (seed: number) => {
  const drawn = operations(seed, "proxy")
  return Array.from({ length: 200 }, () => drawn.next().value.label)
}

describe("npm run chaos", () => {
  it("draws its operations from the seed alone", () => {
    assert.deepStrictEqual(labels(7), labels(7))
    assert.notDeepEqual(labels(7), labels(8))
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
