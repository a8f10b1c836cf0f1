import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scheduler } from "effect"
import * as BatchQueue from "../src/batch_queue.ts"
import { YieldsBefore } from "./support/yields_before.ts"

const make = () => {
  let taken = 0
  const queue = BatchQueue.make<number, string>(() => taken++)
  return { queue, taken: () => taken }
}

/** Ends with the microtasks that are scheduled now. */
const endOfTask = Effect.promise(() => Promise.resolve())

describe("takeAll", () => {
  it.effect("waits, and returns all that one task offers at its end, before the next turn of the event loop", () =>
    Effect.gen(function* () {
      const { queue, taken } = make()
      const taking = yield* Effect.forkChild(queue.takeAll, { startImmediately: true })
      queue.offer(1)
      queue.offer(2)
      assert.isUndefined(taking.pollUnsafe(), "not while they are offered")
      assert.strictEqual(taken(), 0)
      yield* endOfTask
      assert.deepStrictEqual(taking.pollUnsafe(), Exit.succeed([1, 2]))
      assert.strictEqual(taken(), 1)
    }))

  it.effect("returns elements before the first end, and then fails with it", () =>
    Effect.gen(function* () {
      const { queue } = make()
      queue.offer(1)
      queue.fail("first")
      queue.fail("second")
      assert.deepStrictEqual(yield* queue.takeAll, [1])
      assert.strictEqual(yield* Effect.flip(queue.takeAll), "first")
    }))

  it.effect("fails when the queue ends while it waits, and waits on when elements are dropped", () =>
    Effect.gen(function* () {
      const { queue } = make()
      const taking = yield* Effect.forkChild(queue.takeAll, { startImmediately: true })
      queue.offer(1)
      queue.clear()
      yield* endOfTask
      assert.isUndefined(taking.pollUnsafe())
      queue.fail("ended")
      assert.deepStrictEqual(yield* Fiber.await(taking), Exit.fail("ended"))
    }))

  it.effect("misses nothing that is offered while its fiber yields", () =>
    Effect.gen(function* () {
      for (let operation = 1; operation <= 10; operation++) {
        const { queue } = make()
        const taking = yield* queue.takeAll.pipe(
          Effect.provideService(Scheduler.Scheduler, new YieldsBefore(operation)),
          Effect.forkChild({ startImmediately: true }),
        )
        queue.offer(1)
        assert.deepStrictEqual(yield* Fiber.join(taking), [1])
      }
    }))

  it.effect("that is interrupted leaves all elements to the next one", () =>
    Effect.gen(function* () {
      const { queue } = make()
      const taking = yield* Effect.forkChild(queue.takeAll, { startImmediately: true })
      queue.offer(1)
      yield* Fiber.interrupt(taking)
      assert.deepStrictEqual(yield* queue.takeAll, [1])
    }))
})
