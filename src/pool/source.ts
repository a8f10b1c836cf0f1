/**
 * The gateways that a pool starts kernels on, and the failures of these starts.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { KernelError, KernelStartFailed } from "../execution.ts"
import type { Instance } from "../kernel/instance.ts"

/** The part of a kernel's connection that a pool needs: its id, and its end. */
export type KernelLifecycle = Pick<Instance, "id" | "endReason" | "end" | "onEnded">

/** A gateway that starts kernels. */
export interface Source<K> {
  readonly name: string
  /** Starts a kernel that is ready to be handed out; the scope deletes it. */
  readonly start: Effect.Effect<K, KernelError, Scope.Scope>
  /** Waits until the gateway has ended for good, and returns why. */
  readonly gone: Effect.Effect<string>
}

/** Consecutive failures after which a gateway counts as broken; if all do, requests fail. */
export const maxFailures = 3

/** A gateway and the pool's record of it. */
export interface GatewaySlot<K> {
  readonly source: Source<K>
  readonly gone: Deferred.Deferred<string>
  /** The number of the pool's kernels on it, including those that start or stop. */
  kernels: number
  /** Starts that failed since the last one that succeeded. */
  failures: number
  isPaused: boolean
  isProbed: boolean
  isGone: boolean
}

/** Makes the record of a gateway without kernels. */
export function makeSlot<K>(source: Source<K>): GatewaySlot<K> {
  return {
    source,
    gone: Deferred.makeUnsafe(),
    kernels: 0,
    failures: 0,
    isPaused: false,
    isProbed: false,
    isGone: false,
  }
}

/** Makes the error of a request for which there is no kernel. */
export function startFailed(detail: string): KernelError {
  return new KernelError({ reason: new KernelStartFailed({ kernelId: undefined, detail }) })
}

/** Returns the error of a start that gave no usable kernel. */
export function failureOf(exit: Exit.Exit<KernelLifecycle, KernelError>): KernelError {
  if (Exit.isFailure(exit)) {
    return Option.getOrElse(Cause.findErrorOption(exit.cause), () => startFailed(Cause.pretty(exit.cause)))
  }
  const reason = exit.value.endReason()
  return reason === undefined ? startFailed("It was not needed any more") : new KernelError({ reason })
}
