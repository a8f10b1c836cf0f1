/**
 * Logs defects of effects that run in the background, whose exit no caller observes.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/** Logs a defect of an effect with its cause at level Error; failures are not logged. */
export const log = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.tapDefect(
    self,
    (defect) => Effect.logError("A callback or a task in the background died", Cause.die(defect)),
  )
