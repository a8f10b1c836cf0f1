/**
 * The starts of a pool's kernels: those under way, and the failures of its gateways.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { KernelError } from "../execution.ts"
import type { Kernels } from "./kernels.ts"
import * as Plan from "./plan.ts"
import { failureOf, type GatewaySlot, type KernelLifecycle, maxFailures, startFailed } from "./source.ts"

/** The parts of a pool that starts depend on. */
export interface StartsOptions<K> {
  readonly slots: ReadonlyArray<GatewaySlot<K>>
  readonly kernels: Kernels<K>
  /** The scope of the kernels. */
  readonly scope: Scope.Scope
  readonly fork: (effect: Effect.Effect<void>) => void
  /** Waits until a request waits: delayed starts begin at once then. */
  readonly untilWaiting: Effect.Effect<void>
  readonly isClosed: () => boolean
  /** Called when the number of kernels or starts has changed. */
  readonly onChange: () => void
  /** Called when no kernel can be expected, with the reason. */
  readonly onUnavailable: (error: KernelError) => void
}

/** The starts of a pool's kernels. */
export interface Starts<K> {
  readonly counts: () => { readonly starting: number; readonly probing: number }
  /** Starts a kernel after the pause, or as soon as a request waits. */
  readonly begin: (slot: GatewaySlot<K>, pause: Duration.Input) => void
  /** Ends the kernels on a gateway that has ended, and the starts on it. */
  readonly onGatewayGone: (slot: GatewaySlot<K>, detail: string) => void
  /** Returns why no kernel can be expected, or `undefined` if one can. */
  readonly unavailableReason: () => KernelError | undefined
  /** Returns the error of the last start that failed. */
  readonly lastFailure: () => KernelError | undefined
}

/** Makes the starts of a pool. */
export function make<K extends KernelLifecycle>(options: StartsOptions<K>): Starts<K> {
  const { fork, isClosed, kernels, onChange, onUnavailable, scope, slots, untilWaiting } = options
  let starting = 0
  let probing = 0
  let lastFailure: KernelError | undefined

  const start = (slot: GatewaySlot<K>, pause: Duration.Input): Effect.Effect<void> =>
    Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
      const { failures, isProbed } = slot
      const own = yield* Scope.fork(scope)
      const exit = yield* Effect.timeoutOption(untilWaiting, pause).pipe(
        Effect.andThen(Scope.provide(slot.source.start, own)),
        Effect.raceFirst(Effect.flatMap(Deferred.await(slot.gone), (detail) => startFailed(detail))),
        restore,
        Effect.exit,
      )
      starting--
      if (isProbed) {
        probing--
        slot.isProbed = false
      }
      if (Exit.isSuccess(exit) && exit.value.endReason() === undefined && !isClosed()) {
        slot.failures = 0
        slot.isPaused = false
        kernels.add(exit.value, own, slot)
        return onChange()
      }
      const closing = kernels.close(own, slot, exit)
      if (!isClosed()) yield* onFailed(slot, { exit, failures })
      onChange()
      yield* closing
    }))

  const onFailed = (
    slot: GatewaySlot<K>,
    { exit, failures: before }: { readonly exit: Exit.Exit<K, KernelError>; readonly failures: number },
  ): Effect.Effect<void> =>
    Effect.suspend(() => {
      const error = failureOf(exit)
      lastFailure = error
      const log = Effect.annotateLogs(Effect.logWarning(error.message), { gateway: slot.source.name })
      // Another start that was under way at the same time failed first: it counts as one failure.
      if (slot.failures !== before) return log
      const failures = ++slot.failures
      slot.isPaused = true
      fork(Effect.delay(
        Effect.sync(() => {
          // Another start has failed since, and its pause is longer.
          if (slot.failures !== failures) return
          slot.isPaused = false
          onChange()
        }),
        Plan.retryDelay(failures),
      ))
      if (slots.every((each) => each.isGone || each.failures >= maxFailures)) onUnavailable(error)
      return log
    })

  const unavailableReason = (): KernelError | undefined => {
    if (isClosed()) return startFailed("The pool is closed")
    const cause = lastFailure === undefined ? "" : `: ${lastFailure.message}`
    if (slots.every(({ isGone }) => isGone)) return startFailed(`No gateway of the pool is left${cause}`)
    const isBroken = starting + kernels.counts().warm === 0 &&
      slots.every(({ failures, isGone, isPaused }) => isGone || (isPaused && failures >= maxFailures))
    return isBroken ? lastFailure : undefined
  }

  const onGatewayGone = (slot: GatewaySlot<K>, detail: string): void => {
    slot.isGone = true
    lastFailure = startFailed(detail)
    // Without this, the connections would try to reconnect for seconds.
    kernels.endOn(slot, detail)
    Deferred.doneUnsafe(slot.gone, Exit.succeed(detail))
    const reason = unavailableReason()
    if (reason !== undefined) onUnavailable(reason)
    onChange()
  }

  return {
    counts: () => ({ starting, probing }),
    begin: (slot, pause) => {
      starting++
      slot.kernels++
      slot.isProbed = slot.failures > 0
      if (slot.isProbed) probing++
      fork(start(slot, pause))
    },
    onGatewayGone,
    unavailableReason,
    lastFailure: () => lastFailure,
  }
}
