/**
 * Defects of effects that run in the background: no caller is there who would see them.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/**
 * Logs a defect of an effect with its cause, at level Error; expected failures stay quiet.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Defect from "effect-jupyter/defect"
 *
 * export const program = Effect.forkScoped(Defect.log(Effect.sync(() => JSON.parse("{"))))
 * ```
 */
export const log = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.tapDefect(
    self,
    (defect) => Effect.logError("A callback or a task in the background died", Cause.die(defect)),
  )
