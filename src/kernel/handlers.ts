/**
 * Functions of the user that an execution waits for: none of them keeps it from ending.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"

/** How long handlers may take when the execution has ended early, or its time was over before they began. */
export const handlerGrace: Duration.Input = "5 seconds"

/** How long an interrupted handler is waited for. */
const interruptGrace: Duration.Input = "250 millis"

/** The handlers of one execution. */
export interface Handlers {
  /** Runs a handler; gives nothing if the time of handlers is over before it ends, and from then on. */
  readonly run: <A, E, R>(handler: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E, R>
  /** The handler that runs is waited for no longer, nor are later ones for more than {@link handlerGrace}. */
  readonly expire: () => void
  /** Whether a handler was given up. */
  readonly gaveUp: () => boolean
}

/** Makes the handlers of an execution, which have as long as they like. */
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

/** Runs an effect in a fiber of its own: an interruption does not wait for what cannot be interrupted. */
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
