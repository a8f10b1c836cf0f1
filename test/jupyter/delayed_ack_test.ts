import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as DelayedAck from "../../src/jupyter/delayed_ack.ts"

/** Receives something on each connection in order, and returns the decision for each. */
const receive = (connections: ReadonlyArray<Effect.Effect<boolean>>) => Effect.all(connections)

const connect = (count: number) => {
  const { register } = DelayedAck.make()
  return Effect.all(Array.from({ length: count }, () => register))
}

describe("AckPolicy", () => {
  it.effect("acknowledges at once on up to 16 busy connections, at any message rate", () =>
    Effect.gen(function* () {
      const connections = yield* connect(16)
      const decisions = yield* Effect.all(Array.from({ length: 100 }, () => receive(connections)))
      assert.isTrue(decisions.flat().every((ackNow) => ackNow))
    }))

  it.effect("acknowledges late on the 17th busy connection, and at once again when others are idle", () =>
    Effect.gen(function* () {
      const connections = yield* connect(17)
      const [first] = connections
      if (first === undefined) return assert.fail("no connection")
      assert.deepStrictEqual(yield* receive(connections), [...Array.from({ length: 16 }, () => true), false])
      yield* TestClock.adjust(60)
      // The others may be about to receive something too.
      assert.isFalse(yield* first)
      yield* TestClock.adjust(60)
      assert.isTrue(yield* first)
      assert.isFalse((yield* receive(connections)).every((ackNow) => ackNow))
      yield* TestClock.adjust(1000)
      assert.isTrue(yield* first)
    }))

  it.effect("does not count connections that received nothing", () =>
    Effect.gen(function* () {
      const [first] = yield* connect(64)
      if (first === undefined) return assert.fail("no connection")
      assert.isTrue(yield* first)
    }))
})
