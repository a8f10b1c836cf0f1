/** The outcome of an effect as text that tests compare. */
import { Clock, Effect } from "effect"
import { Execution } from "../../src/mod.ts"

/** The value of an effect, and the milliseconds that it took. */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [A, number], E, R> =>
  Effect.gen(function* () {
    const before = yield* Clock.currentTimeMillis
    const value = yield* effect
    return [value, (yield* Clock.currentTimeMillis) - before] as const
  })

/** The tag of a failure, or of its reason if it has one. */
export const reasonOf = (error: { readonly _tag: string }): string =>
  Execution.isKernelError(error) ? error.reason._tag : error._tag
