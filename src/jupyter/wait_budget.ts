/**
 * A time limit for several waits together, sequential or concurrent.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Defect from "../defect.ts"

/**
 * Waits for the end of an effect for the rest of the budget; the effect continues after that.
 *
 * @category models
 * @since 0.1.0
 */
export type WaitBudget = (effect: Effect.Effect<void>) => Effect.Effect<void>

/**
 * Makes a budget of waiting. It regenerates while nothing waits, at the rate at which it is spent.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as WaitBudget from "effect-jupyter/jupyter/wait_budget"
 *
 * const wait = WaitBudget.make("2 seconds")
 *
 * // Two seconds in all.
 * export const program = Effect.forEach([1, 2, 3], () => wait(Effect.sleep("5 seconds")), { discard: true })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function make(limit: Duration.Input): WaitBudget {
  const limitMillis = Duration.toMillis(Duration.fromInputUnsafe(limit))
  let spent = 0
  let updatedAt = 0
  let waiting = 0
  const advance = (now: number): void => {
    spent = waiting > 0 ? spent + now - updatedAt : Math.max(0, spent - (now - updatedAt))
    updatedAt = now
  }
  return Effect.fnUntraced(function* (effect: Effect.Effect<void>) {
    const fiber = yield* Effect.forkDetach(Defect.log(effect), { startImmediately: true })
    if (fiber.pollUnsafe() !== undefined) return
    const clock = yield* Clock.Clock
    advance(clock.currentTimeMillisUnsafe())
    waiting++
    yield* Effect.timeoutOption(Fiber.await(fiber), Math.max(0, limitMillis - spent)).pipe(
      Effect.ensuring(Effect.sync(() => {
        advance(clock.currentTimeMillisUnsafe())
        waiting--
      })),
    )
  })
}
