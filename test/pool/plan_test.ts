import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Duration, Schema } from "effect"
import * as Plan from "../../src/pool/plan.ts"

const upTo = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))
const Limits = Schema.Struct({
  min: upTo(6),
  max: upTo(8),
  warm: upTo(4),
  startConcurrency: upTo(3),
})
const limits = Arbitrary.schema(Limits).pipe(Arbitrary.map(Plan.limits))
const counts = Arbitrary.schema(
  Schema.Struct({
    warm: upTo(5),
    starting: upTo(3),
    probing: upTo(3),
    busy: upTo(5),
    stopping: upTo(3),
    waiting: upTo(9),
  }),
).pipe(Arbitrary.map((counts) => ({ ...counts, probing: Math.min(counts.probing, counts.starting) })))
const many = { arbitrary: { runs: 500 } }

const total = ({ busy, starting, stopping, warm }: Plan.Counts): number => busy + starting + stopping + warm

/** Starts and retires until nothing is to be done, each start and each deletion at once. */
function settle(limits: Plan.Limits, counts: Plan.Counts, isActive: boolean): Plan.Counts {
  const served = Math.min(counts.warm, counts.waiting)
  const now = {
    ...counts,
    warm: counts.warm - served + counts.starting,
    waiting: counts.waiting - served,
    busy: counts.busy + served,
    starting: 0,
    probing: 0,
    stopping: 0,
  }
  const change = Plan.toStart(limits, now, isActive) - Plan.toRetire(limits, now, isActive)
  if (change === 0 && (now.warm === 0 || now.waiting === 0)) return now
  return settle(limits, { ...now, warm: now.warm + change }, isActive)
}

describe("plan", () => {
  it.prop(
    "never starts more than max allows, nor more at once than it may",
    [limits, counts, Schema.Boolean],
    ([limits, counts, isActive]) => {
      const starts = Plan.toStart(limits, counts, isActive)
      assert.isAtLeast(starts, 0)
      if (starts === 0) return
      assert.isAtMost(total(counts) + starts, limits.max)
      assert.isAtMost(counts.starting - counts.probing + starts, limits.startConcurrency)
    },
    many,
  )

  it.prop(
    "never starts what it would retire, and retires spares only",
    [limits, counts, Schema.Boolean],
    ([limits, counts, isActive]) => {
      const retired = Plan.toRetire(limits, counts, isActive)
      assert.isAtLeast(retired, 0)
      assert.isAtMost(retired, counts.warm)
      if (retired > 0) assert.strictEqual(Plan.toStart(limits, counts, isActive), 0)
      if (isActive) assert.strictEqual(retired, 0)
    },
    many,
  )

  it.prop(
    "toStart and toRetire settle with all requests served or max in use, and the desired spares",
    [limits, counts, Schema.Boolean],
    ([limits, counts, isActive]) => {
      const rest = settle(limits, counts, isActive)
      if (rest.waiting > 0) assert.isAtLeast(rest.busy, limits.max)
      const room = Math.max(0, limits.max - rest.busy)
      const wanted = Math.min(room, Math.max(limits.min - rest.busy, isActive ? limits.warm : 0))
      assert.isAtLeast(rest.warm, wanted)
      if (!isActive) assert.strictEqual(rest.warm, Math.max(0, wanted))
    },
    many,
  )

  it.prop("limits agree with one another", [Limits, upTo(8)], ([options, size]) => {
    for (const { max, min, startConcurrency, warm } of [Plan.limits(options), Plan.limits({ warm: size })]) {
      assert.isAtMost(min, max)
      assert.isAtMost(warm, max)
      assert.isAtLeast(max, 1)
      assert.isAtLeast(startConcurrency, 1)
    }
    const fixed = Plan.limits({ size })
    assert.deepStrictEqual([fixed.min, fixed.max], [size, Math.max(1, size)])
  })

  it("limits that are no numbers are none", () => {
    assert.deepStrictEqual(Plan.limits({ min: NaN, max: NaN, warm: -3, startConcurrency: 0 }), {
      min: 0,
      max: 1,
      warm: 0,
      startConcurrency: 1,
    })
  })

  const Loads = Schema.Array(
    Schema.Struct({
      kernels: upTo(5),
      failures: upTo(1),
      isGone: Schema.Boolean,
      isPaused: Schema.Boolean,
      isProbed: Schema.Boolean,
    }),
  )
  it.prop(
    "places a kernel where the fewest are, once those that failed are being tried",
    [Loads, upTo(1)],
    ([loads, waiting]) => {
      const usable = loads.filter(({ isGone, isPaused, isProbed }) => !isGone && !isPaused && !isProbed)
      const place = Plan.chooseGateway(loads, { waiting })
      if (usable.length === 0) return assert.isUndefined(place)
      assert.isDefined(place)
      const doubtful = usable.find(({ failures }) => failures > 0)
      const reliable = usable.filter(({ failures }) => failures === 0)
      if (doubtful !== undefined && (waiting === 0 || reliable.length === 0)) {
        return assert.strictEqual(place, doubtful)
      }
      assert.strictEqual(
        reliable.find(({ kernels }) => kernels === place?.kernels),
        place,
        "the first of several",
      )
      assert.strictEqual(place?.kernels, Math.min(...reliable.map(({ kernels }) => kernels)))
    },
    many,
  )

  it("waits longer after each failure, and never longer than 10 seconds", () => {
    const pauses = Array.from({ length: 2000 }, (_, index) => Duration.toMillis(Plan.retryDelay(index + 1)))
    assert.deepStrictEqual(pauses.slice(0, 4), [100, 200, 400, 800])
    assert.isTrue(pauses.every((pause, index) => pause >= (pauses[index - 1] ?? 0)))
    assert.strictEqual(pauses.at(-1), 10_000)
  })
})
