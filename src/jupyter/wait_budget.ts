/**
 * A bound of what several waits take together, one after the other or at once.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Defect from "../defect.ts"

/** Waits for the end of an effect for as long as the budget lasts; the effect goes on after that. */
export type WaitBudget = (effect: Effect.Effect<void>) => Effect.Effect<void>

/**
 * Makes a budget of waiting. What was spent comes back as time passes in which nothing waits.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as WaitBudget from "effect-jupyter/jupyter/wait_budget"
 *
 * const wait = WaitBudget.make("2 seconds")
 *
 * // Two seconds in all.
 * export const program = Effect.forEach([1, 2, 3], () => wait(Effect.sleep("1 minute")), { discard: true })
 * ```
 */
export function make(limit: Duration.Input): WaitBudget {
  const most = Duration.toMillis(Duration.fromInputUnsafe(limit))
  let spent = 0
  let at = 0
  let waiting = 0
  const advance = (now: number): void => {
    spent = waiting > 0 ? spent + now - at : Math.max(0, spent - (now - at))
    at = now
  }
  return Effect.fnUntraced(function* (effect: Effect.Effect<void>) {
    const fiber = yield* Effect.forkDetach(Defect.log(effect), { startImmediately: true })
    if (fiber.pollUnsafe() !== undefined) return
    const clock = yield* Clock.Clock
    advance(clock.currentTimeMillisUnsafe())
    waiting++
    yield* Effect.timeoutOption(Fiber.await(fiber), Math.max(0, most - spent)).pipe(
      Effect.ensuring(Effect.sync(() => {
        advance(clock.currentTimeMillisUnsafe())
        waiting--
      })),
    )
  })
}
