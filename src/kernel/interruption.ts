/**
 * The interruption of one execution: one owner, one request at a time, and none that could reach the next execution.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Defect from "../defect.ts"

/** How long to wait for the code to begin before it is interrupted: earlier, an interrupt has no effect. */
const startGrace: Duration.Input = "500 millis"

/**
 * How long to wait after each interrupt, of which what is read of earlier output is no part. The sum bounds every
 * interruption and every timeout.
 */
const interruptWaits: ReadonlyArray<Duration.Input> = ["2 seconds", "3 seconds"]

/** How long a server may take to pass an interrupt on before the kernel counts as interrupted. */
const answerTimeout: Duration.Input = "2 seconds"

/** How long the turn waits for the answer to an interrupt after the code ended. */
const lateAnswerTimeout: Duration.Input = "6 seconds"

/** What an interruption needs of the execution. */
export interface InterruptionOptions {
  /** Sends the kernel an interrupt; succeeds or fails when the server has answered. */
  readonly send: Effect.Effect<void, unknown>
  /** Done when the kernel has begun with the code. */
  readonly started: Deferred.Deferred<void>
  /** Done when the kernel is done with the code. */
  readonly finished: Deferred.Deferred<void>
  /** Runs before the first interrupt. */
  readonly prepare: Effect.Effect<void>
  /** Asks the kernel whether it has more to say. */
  readonly look: Effect.Effect<void>
  /** Whether what arrives was put out before the kernel can have reacted, which has to have a bound. */
  readonly isBehind: () => boolean
  /** Runs if the code ignored the interrupts. */
  readonly onIgnored: Effect.Effect<void>
  /** Runs at the end, with whether a request is still under way, which could reach what runs next. */
  readonly onEnd: (isUnderWay: boolean) => Effect.Effect<void>
}

/** The interruption of one execution. */
export interface Interruption {
  /** Interrupts and waits until the kernel is done or known not to listen; who asks again waits for the same. */
  readonly run: Effect.Effect<void>
  /** Whether `run` was asked for. */
  readonly isOwned: () => boolean
  /** Whether the server has not answered a request yet. */
  readonly isUnderWay: () => boolean
}

/** Makes the interruption of an execution, which has not been asked for yet. */
export const make: (options: InterruptionOptions) => Effect.Effect<Interruption> = Effect.fnUntraced(
  function* ({ isBehind, look, onEnd, onIgnored, prepare, send, finished, started }) {
    // Nothing that ends the execution early may cut a request short: the server would pass it on all the same.
    const fork = Effect.runForkWith(yield* Effect.context<never>())
    let owner: Fiber.Fiber<void> | undefined
    let request: Fiber.Fiber<void> | undefined
    const isFinished = Deferred.isDone(finished)
    const isUnderWay = () => request !== undefined && request.pollUnsafe() === undefined
    const answered = (bound: Duration.Input) =>
      Effect.suspend(() =>
        request === undefined ? Effect.void : Effect.asVoid(Effect.timeoutOption(Fiber.await(request), bound))
      )
    const caughtUp = Effect.repeat(Effect.delay(Effect.sync(isBehind), "50 millis"), {
      while: (isBehind) => isBehind,
    })
    const attempts = Effect.gen(function* () {
      if (yield* isFinished) return
      yield* prepare
      yield* Effect.timeoutOption(Deferred.await(started), startGrace)
      for (const wait of interruptWaits) {
        if (yield* isFinished) return
        if (!isUnderWay()) request = fork(Defect.log(Effect.ignore(send)))
        yield* Effect.raceFirst(answered(answerTimeout), Deferred.await(finished))
        // An interrupt can hit the kernel on its last words, which then are lost.
        const isIdle = Effect.delay(look, "200 millis")
        const isTime = Effect.andThen(Effect.sleep(wait), caughtUp)
        yield* Effect.raceFirst(Effect.raceFirst(Deferred.await(finished), isIdle), isTime)
      }
    })
    const interrupt = Effect.gen(function* () {
      yield* attempts
      if (yield* isFinished) yield* answered(lateAnswerTimeout)
      else yield* onIgnored
      yield* onEnd(isUnderWay())
    })
    return {
      run: Effect.suspend(() => {
        owner ??= fork(Defect.log(interrupt))
        return Effect.asVoid(Fiber.await(owner))
      }),
      isOwned: () => owner !== undefined,
      isUnderWay,
    }
  },
)
