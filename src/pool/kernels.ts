/**
 * The kernels of a pool: spares, kernels in use, and those that are being deleted.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { ConnectionLost, ExecutionAborted } from "../execution.ts"
import type { GatewaySlot, KernelLifecycle } from "./source.ts"

/** A running kernel and the scope that deletes it. */
export interface PooledKernel<K> {
  readonly kernel: K
  readonly scope: Scope.Closeable
  readonly slot: GatewaySlot<K>
  /** Removes the listener for the end of a spare. */
  stopListening: () => void
  isRemoved: boolean
}

/** The kernels of a pool. */
export interface Kernels<K> {
  readonly counts: () => { readonly warm: number; readonly busy: number; readonly stopping: number }
  /** Adds a spare, which is removed when it ends. */
  readonly add: (kernel: K, scope: Scope.Closeable, slot: GatewaySlot<K>) => void
  /** Returns the oldest spare, which is in use then. */
  readonly take: () => PooledKernel<K> | undefined
  /** Removes a kernel that was in use, and returns the effect that deletes it after a pause. */
  readonly giveBack: (pooled: PooledKernel<K>, pause: Duration.Input) => Effect.Effect<void>
  /** Deletes the oldest spare. Returns false if there is none. */
  readonly retire: () => boolean
  /** Marks a kernel that is not in the pool as stopping, and returns the effect that deletes it. */
  readonly close: (
    scope: Scope.Closeable,
    slot: GatewaySlot<K>,
    exit: Exit.Exit<unknown, unknown>,
  ) => Effect.Effect<void>
  /** Ends the kernels on a gateway that has ended. */
  readonly endOn: (slot: GatewaySlot<K>, detail: string) => void
  /** Ends all kernels. */
  readonly endAll: (detail: string) => void
}

/** Makes a pool's kernels; `onChange` is called when one was removed. */
export function make<K extends KernelLifecycle>({ fork, onChange }: {
  readonly fork: (effect: Effect.Effect<void>) => void
  readonly onChange: () => void
}): Kernels<K> {
  const all = new Set<PooledKernel<K>>()
  const spares: Array<PooledKernel<K>> = []
  let busy = 0
  let stopping = 0

  const close: Kernels<K>["close"] = (scope, slot, exit) => {
    stopping++
    return Scope.close(scope, exit).pipe(
      Effect.ensuring(Effect.sync(() => {
        stopping--
        slot.kernels--
        onChange()
      })),
      Effect.uninterruptible,
    )
  }
  const remove = (pooled: PooledKernel<K>, pause: Duration.Input = 0): Effect.Effect<void> => {
    if (pooled.isRemoved) return Effect.void
    pooled.isRemoved = true
    all.delete(pooled)
    const closing = close(pooled.scope, pooled.slot, Exit.void)
    // The end of the pool interrupts the pause, but not the deletion.
    return Effect.sleep(pause).pipe(Effect.interruptible, Effect.ensuring(closing), Effect.uninterruptible)
  }
  const takeSpare = (): PooledKernel<K> | undefined => {
    const spare = spares.shift()
    spare?.stopListening()
    return spare
  }
  return {
    counts: () => ({ warm: spares.length, busy, stopping }),
    add: (kernel, scope, slot) => {
      const pooled: PooledKernel<K> = { kernel, scope, slot, stopListening: () => {}, isRemoved: false }
      all.add(pooled)
      spares.push(pooled)
      pooled.stopListening = kernel.onEnded(() => {
        const index = spares.indexOf(pooled)
        // The spare was assigned meanwhile: a removed listener may still be called once.
        if (index < 0) return
        spares.splice(index, 1)
        fork(remove(pooled))
        onChange()
      })
    },
    take: () => {
      const spare = takeSpare()
      if (spare !== undefined) busy++
      return spare
    },
    giveBack: (pooled, pause) => {
      busy--
      return remove(pooled, pause)
    },
    retire: () => {
      const spare = takeSpare()
      if (spare !== undefined) fork(remove(spare))
      return spare !== undefined
    },
    close,
    endOn: (slot, detail) => {
      for (const { kernel, slot: owner } of [...all]) {
        if (owner === slot) kernel.end(new ConnectionLost({ kernelId: kernel.id, detail }))
      }
    },
    endAll: (detail) => {
      for (const spare of spares.splice(0)) spare.stopListening()
      for (const { kernel } of all) kernel.end(new ExecutionAborted({ kernelId: kernel.id, detail }))
    },
  }
}
