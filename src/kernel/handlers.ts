/**
 * Runs functions of the user that an execution waits for, so that none of them delays its end without a bound.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"

/** Maximum time of a handler that starts after the execution ended early or timed out. */
export const handlerGrace: Duration.Input = "5 seconds"

/** Maximum time to wait for the finalizers of an interrupted handler. */
const interruptGrace: Duration.Input = "250 millis"

/** The handlers of one execution. */
export interface Handlers {
  /** Runs a handler. Returns none if handlers expire before it ends, and for every handler after that. */
  readonly run: <A, E, R>(handler: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E, R>
  /** Ends the wait for the handler that runs, and limits that for later ones to {@link handlerGrace}. */
  readonly expire: () => void
  /** Tells whether a handler was abandoned. */
  readonly gaveUp: () => boolean
}

/** Makes the handlers of an execution, without a limit of time until they expire. */
export function make(): Handlers {
  const expired = Deferred.makeUnsafe<void>()
  let gaveUp = false
  return {
    run: (handler) =>
      Effect.suspend(() => {
        if (gaveUp) return Effect.succeedNone
        const late = Effect.map(
          Deferred.isDoneUnsafe(expired) ? Effect.sleep(handlerGrace) : Deferred.await(expired),
          () => {
            gaveUp = true
            return Option.none()
          },
        )
        return Effect.raceFirst(disconnect(Effect.asSome(handler)), late)
      }),
    expire: () => void Deferred.doneUnsafe(expired, Exit.void),
    gaveUp: () => gaveUp,
  }
}

/** Runs an effect in another fiber, so that an interruption does not wait for uninterruptible parts of it. */
export const disconnect = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.forkDetach(Effect.interruptible(self), { startImmediately: true }),
      (fiber) =>
        restore(Fiber.join(fiber)).pipe(
          Effect.onInterrupt(() => {
            fiber.interruptUnsafe()
            return Effect.timeoutOption(Fiber.await(fiber), interruptGrace)
          }),
        ),
    )
  )
