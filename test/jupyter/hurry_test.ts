import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Hurry from "../../src/jupyter/hurry.ts"

/** Connections that get something one after the other, and what each is told. */
const arrive = (connections: ReadonlyArray<Effect.Effect<boolean>>) => Effect.all(connections)

const connect = (count: number) => {
  const { join } = Hurry.make()
  return Effect.all(Array.from({ length: count }, () => join))
}

describe("hurry", () => {
  it.effect("is for few connections, however often each gets something", () =>
    Effect.gen(function* () {
      const connections = yield* connect(16)
      const told = yield* Effect.all(Array.from({ length: 100 }, () => arrive(connections)))
      assert.isTrue(told.flat().every((hurry) => hurry))
    }))

  it.effect("is not for many that are busy together, and again once they are idle", () =>
    Effect.gen(function* () {
      const connections = yield* connect(17)
      const [first] = connections
      if (first === undefined) return assert.fail("no connection")
      assert.deepStrictEqual(yield* arrive(connections), [...Array.from({ length: 16 }, () => true), false])
      yield* TestClock.adjust(60)
      // The others may be about to get something too.
      assert.isFalse(yield* first)
      yield* TestClock.adjust(60)
      assert.isTrue(yield* first)
      assert.isFalse((yield* arrive(connections)).every((hurry) => hurry))
      yield* TestClock.adjust(1000)
      assert.isTrue(yield* first)
    }))

  it.effect("does not count connections that are there and silent", () =>
    Effect.gen(function* () {
      const [first] = yield* connect(64)
      if (first === undefined) return assert.fail("no connection")
      assert.isTrue(yield* first)
    }))
})
