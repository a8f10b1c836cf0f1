/**
 * Where the kernels of a pool come from, and what to think of it.
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
import type { Connection } from "../kernel/connection.ts"

/** What the pool has to know of a kernel: whether it lives. */
export type Life = Pick<Connection, "id" | "ended" | "end" | "onEnded">

/** Where kernels come from. */
export interface Source<K> {
  readonly name: string
  /** Starts a kernel that is ready to be handed out; with the scope it is deleted. */
  readonly start: Effect.Effect<K, KernelError, Scope.Scope>
  /** Says what happened when the source is gone for good; may never end. */
  readonly gone: Effect.Effect<string>
}

/** Failures in a row after which a source counts as broken, and those who wait hear of it. */
export const patience = 3

/** A source, and how it goes there. */
export interface Place<K> {
  readonly source: Source<K>
  readonly gone: Deferred.Deferred<string>
  /** Kernels there, the ones that are being started or deleted included. */
  kernels: number
  /** Failures in a row. */
  failures: number
  isPaused: boolean
  isProbed: boolean
  isGone: boolean
}

/** A source of which nothing is known. */
export function placeOf<K>(source: Source<K>): Place<K> {
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

/** Why there is no kernel. */
export function failed(detail: string): KernelError {
  return new KernelError({ reason: new KernelStartFailed({ kernelId: undefined, detail }) })
}

/** Why a start gave no kernel that can be used. */
export function failureOf(exit: Exit.Exit<Life, KernelError>): KernelError {
  if (Exit.isFailure(exit)) {
    return Option.getOrElse(Cause.findErrorOption(exit.cause), () => failed(Cause.pretty(exit.cause)))
  }
  const reason = exit.value.ended()
  return reason === undefined ? failed("It was not needed any more") : new KernelError({ reason })
}
