/**
 * The state of a pool: it balances kernels, starts and requests that wait, each of which has its own module.
 *
 * Kernels are assigned in synchronous functions, so that an interruption cannot lose one.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as Defect from "../defect.ts"
import type { KernelError } from "../execution.ts"
import * as Metrics from "../kernel/metrics.ts"
import * as Kernels from "./kernels.ts"
import * as Plan from "./plan.ts"
import { type KernelLifecycle, makeSlot, type Source, startFailed } from "./source.ts"
import * as Starts from "./starts.ts"
import * as Waiters from "./waiters.ts"

/** The options of {@link make}. */
export interface PoolStateOptions<K> {
  readonly limits: Plan.Limits
  readonly sources: ReadonlyArray<Source<K>>
  /** Checks a kernel before it is handed out; must end within a bounded time. */
  readonly isAlive: (kernel: K) => Effect.Effect<boolean>
  /** The time without a request after which the pool shrinks to `min` kernels. */
  readonly idleTimeToLive: Duration.Input
  /** The maximum time that a request waits. */
  readonly acquireTimeout: Duration.Input
  /** The maximum number of requests that wait. */
  readonly maxWaiting: number
  /**
   * The time between handing out a kernel and the start of its replacement, and between the return of a kernel and its
   * deletion, if no request waits: both would slow down the execution that runs meanwhile.
   */
  readonly replacementDelay: Duration.Input
}

/** The numbers of kernels and requests. */
export interface Inventory extends Omit<Plan.Counts, "probing"> {
  readonly sources: ReadonlyArray<
    { readonly name: string; readonly kernels: number; readonly isGone: boolean }
  >
}

/** A pool of kernels, whatever a kernel is. */
export interface KernelPoolState<K> {
  /**
   * Returns a kernel that was not used before; it is deleted after the scope closes. A request that replaces a kernel
   * (`isReset`) is served before others, and `maxWaiting` does not apply to it.
   */
  readonly acquire: (options: { readonly isReset: boolean }) => Effect.Effect<K, KernelError, Scope.Scope>
  readonly inventory: () => Inventory
}

/** Makes a pool and starts its kernels; all of them are deleted with the scope. */
export const make: <K extends KernelLifecycle>(
  options: PoolStateOptions<K>,
) => Effect.Effect<KernelPoolState<K>, never, Scope.Scope> = Effect.fnUntraced(
  function* <K extends KernelLifecycle>(options: PoolStateOptions<K>) {
    const { limits } = options
    const context = yield* Effect.context<never>()
    // Deleting a kernel may take seconds, so all are deleted at the same time.
    const scope = yield* Scope.fork(yield* Effect.scope, "parallel")
    const idle = yield* FiberHandle.make()
    const runFork = Effect.runForkWith(context)
    const fork = (effect: Effect.Effect<void>): void => void runFork(Effect.forkIn(Defect.log(effect), scope))

    const slots = options.sources.map(makeSlot)
    const waiters = Waiters.make<Kernels.PooledKernel<K>>()
    const hasWaiters = Latch.makeUnsafe(false)
    let isActive = true
    let isClosed = false
    let reported = { waiting: 0, warm: 0 }

    /**
     * Serves requests, and starts or deletes kernels until their number is the desired one. It is re-entrant: answering
     * a request resumes a fiber that may call it.
     */
    const balance = (): void => {
      if (isClosed) return
      while (waiters.size() > 0) {
        const spare = kernels.take()
        if (spare === undefined) break
        waiters.answer(spare)
      }
      if (waiters.size() > 0) hasWaiters.openUnsafe()
      else hasWaiters.closeUnsafe()
      while (Plan.toStart(limits, counts(), isActive) > 0) {
        const slot = Plan.chooseGateway(slots, counts())
        if (slot === undefined) break
        starts.begin(slot, counts().busy === 0 ? 0 : options.replacementDelay)
      }
      while (Plan.toRetire(limits, counts(), isActive) > 0 && kernels.retire()) continue
      updateMetrics()
    }
    const failAll = (error: KernelError): void => {
      waiters.failAll(error)
      updateMetrics()
    }
    const kernels = Kernels.make<K>({ fork, onChange: balance })
    const starts = Starts.make<K>({
      slots,
      kernels,
      scope,
      fork,
      untilWaiting: hasWaiters.await,
      isClosed: () => isClosed,
      onChange: balance,
      onUnavailable: failAll,
    })
    const counts = (): Plan.Counts => ({ ...kernels.counts(), ...starts.counts(), waiting: waiters.size() })
    /** Updates the metrics, which are sums over all pools of the process. */
    const updateMetrics = (): void => {
      const { waiting, warm } = counts()
      Metrics.poolWaiting.modifyUnsafe(waiting - reported.waiting, context)
      Metrics.poolWarm.modifyUnsafe(warm - reported.warm, context)
      reported = { waiting, warm }
    }

    /** Takes back a kernel that was handed out or assigned. It is deleted, as it may have been used. */
    const returnKernel = (pooled: Kernels.PooledKernel<K>): Effect.Effect<void> => {
      // The borrower may go on with another kernel, which the deletion would slow down.
      const pause = waiters.size() > 0 || isClosed ? 0 : options.replacementDelay
      const removal = kernels.giveBack(pooled, pause)
      balance()
      return removal
    }

    /** Adds a request to the waiters; it may be answered at once. */
    const enqueue = (
      hasPriority: boolean,
    ): Effect.Effect<Waiters.Request<Kernels.PooledKernel<K>>, KernelError> =>
      Effect.suspend(() => {
        const reason = starts.unavailableReason()
        if (reason !== undefined) return Effect.fail(reason)
        const { waiting, warm } = counts()
        if (!hasPriority && warm === 0 && waiting >= options.maxWaiting) {
          return Effect.fail(startFailed(
            `${waiting} requests wait for a kernel of the pool already, and more than its "maxWaiting" ` +
              `must not; ask for fewer at once, or raise "max" or "maxWaiting"`,
          ))
        }
        const request = waiters.add(hasPriority)
        balance()
        return Effect.succeed(request)
      })
    /** Removes a request that failed or was interrupted. */
    const cancel = (request: Waiters.Request<Kernels.PooledKernel<K>>): void => {
      waiters.remove(request)
      // The check of the kernel did not end, so that its state is unknown.
      if (request.assigned !== undefined) fork(returnKernel(request.assigned))
      balance()
    }

    const acquire = (
      { isReset }: { readonly isReset: boolean },
    ): Effect.Effect<K, KernelError, Scope.Scope> =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
        yield* restartIdleTimer
        let hasPriority = isReset
        let isHit = true
        while (true) {
          const request = yield* enqueue(hasPriority)
          isHit &&= request.assigned !== undefined
          const pooled = yield* Deferred.await(request.answer).pipe(
            Effect.flatMap((pooled) =>
              Effect.map(options.isAlive(pooled.kernel), (isAlive) => isAlive ? pooled : undefined)
            ),
            restore,
            Effect.onError(() => Effect.sync(() => cancel(request))),
          )
          if (pooled !== undefined && pooled.kernel.endReason() === undefined) {
            // The deletion runs in the scope of the pool: the borrower does not wait for it.
            yield* Effect.addFinalizer(() => Effect.sync(() => fork(returnKernel(pooled))))
            yield* Metric.update(isHit ? Metrics.poolHits : Metrics.poolMisses, 1)
            return pooled.kernel
          }
          // The assigned kernel was dead: the request is served again before others.
          hasPriority = true
          isHit = false
          if (request.assigned !== undefined) fork(returnKernel(request.assigned))
        }
      })).pipe(
        Effect.timeoutOrElse({ duration: options.acquireTimeout, orElse: () => Effect.fail(timeoutError()) }),
      )
    const timeoutError = (): KernelError => {
      const bound = Duration.format(Duration.fromInputUnsafe(options.acquireTimeout))
      const failure = starts.lastFailure()
      const cause = failure === undefined ? "" : `; the last start that failed: ${failure.message}`
      return startFailed(
        `No kernel of the pool was free within ${bound}, ${counts().busy} of at most ${limits.max} are in use${cause}`,
      )
    }

    const restartIdleTimer = Effect.suspend(() => {
      // The scope of the timer is closed.
      if (isClosed) return Effect.void
      isActive = true
      const shrink = Effect.sync(() => {
        isActive = false
        balance()
      })
      return FiberHandle.run(idle, Effect.delay(shrink, options.idleTimeToLive))
    })
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        isClosed = true
        failAll(startFailed("The pool is closed"))
        kernels.endAll("The pool is closed")
        updateMetrics()
      })
    )
    for (const slot of slots) {
      fork(Effect.map(slot.source.gone, (detail) => starts.onGatewayGone(slot, detail)))
    }
    yield* restartIdleTimer
    balance()

    return {
      acquire,
      inventory: () => {
        const { probing: _, ...others } = counts()
        return {
          ...others,
          sources: slots.map(({ isGone, kernels, source: { name } }) => ({ name, kernels, isGone })),
        }
      },
    }
  },
)
