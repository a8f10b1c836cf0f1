/**
 * The state of a pool: spare kernels, kernels in use, requests that wait, and starts under way.
 *
 * Kernels are assigned in synchronous functions, so that an interruption cannot lose one.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberHandle from "effect/FiberHandle"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as Defect from "../defect.ts"
import { ConnectionLost, ExecutionAborted, type KernelError } from "../execution.ts"
import * as Metrics from "../kernel/metrics.ts"
import * as Plan from "./plan.ts"
import {
  failureOf,
  type GatewaySlot,
  type KernelLifecycle,
  makeSlot,
  maxFailures,
  type Source,
  startFailed,
} from "./source.ts"

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

/** A running kernel and the scope that deletes it. */
interface PooledKernel<K> {
  readonly kernel: K
  readonly scope: Scope.Closeable
  readonly slot: GatewaySlot<K>
  /** Removes the listener for the end of a spare. */
  stopListening: () => void
  isRemoved: boolean
}

/** A request for a kernel. */
interface Request<K> {
  readonly hasPriority: boolean
  readonly answer: Deferred.Deferred<PooledKernel<K>, KernelError>
  /** The kernel that was assigned to it. */
  pooled: PooledKernel<K> | undefined
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
    const all = new Set<PooledKernel<K>>()
    const spares: Array<PooledKernel<K>> = []
    /** Open while a request waits: delayed starts begin at once then. */
    const hasWaiters = Latch.makeUnsafe(false)
    const waiters: Array<Request<K>> = []
    let busy = 0
    let starting = 0
    let probing = 0
    let stopping = 0
    let isActive = true
    let isClosed = false
    let lastFailure: KernelError | undefined
    let reported = { waiting: 0, warm: 0 }

    const counts = (): Plan.Counts => ({
      warm: spares.length,
      waiting: waiters.length,
      busy,
      starting,
      probing,
      stopping,
    })
    /** Updates the metrics, which are sums over all pools of the process. */
    const updateMetrics = (): void => {
      const { waiting, warm } = counts()
      Metrics.poolWaiting.modifyUnsafe(waiting - reported.waiting, context)
      Metrics.poolWarm.modifyUnsafe(warm - reported.warm, context)
      reported = { waiting, warm }
    }

    /**
     * Serves requests, and starts or deletes kernels until their number is the desired one. It is re-entrant: answering
     * a request resumes a fiber that may call it.
     */
    const balance = (): void => {
      if (isClosed) return
      while (waiters.length > 0 && spares.length > 0) {
        const request = waiters.shift()
        const spare = spares.shift()
        if (request === undefined || spare === undefined) break
        spare.stopListening()
        busy++
        request.pooled = spare
        Deferred.doneUnsafe(request.answer, Exit.succeed(spare))
      }
      if (waiters.length > 0) hasWaiters.openUnsafe()
      else hasWaiters.closeUnsafe()
      while (Plan.toStart(limits, counts(), isActive) > 0) {
        const slot = Plan.chooseGateway(slots, counts())
        if (slot === undefined) break
        starting++
        slot.kernels++
        slot.isProbed = slot.failures > 0
        if (slot.isProbed) probing++
        fork(start(slot, busy === 0 ? 0 : options.replacementDelay))
      }
      while (Plan.toRetire(limits, counts(), isActive) > 0) {
        const spare = spares.shift()
        if (spare === undefined) break
        spare.stopListening()
        fork(remove(spare))
      }
      updateMetrics()
    }
    const failAll = (error: KernelError): void => {
      for (const { answer } of waiters.splice(0)) Deferred.doneUnsafe(answer, Exit.fail(error))
      updateMetrics()
    }

    /** Marks a kernel as stopping, and returns the effect that deletes it. */
    const remove = (pooled: PooledKernel<K>, pause: Duration.Input = 0): Effect.Effect<void> => {
      if (pooled.isRemoved) return Effect.void
      pooled.isRemoved = true
      all.delete(pooled)
      stopping++
      return Effect.andThen(Effect.sleep(pause), Scope.close(pooled.scope, Exit.void)).pipe(
        Effect.ensuring(Effect.sync(() => {
          stopping--
          pooled.slot.kernels--
          balance()
        })),
        Effect.uninterruptible,
      )
    }
    /** Takes back a kernel that was handed out or assigned. It is deleted, as it may have been used. */
    const returnKernel = (pooled: PooledKernel<K>): Effect.Effect<void> => {
      busy--
      // The borrower may go on with another kernel, which the deletion would slow down.
      const removal = remove(pooled, waiters.length > 0 || isClosed ? 0 : options.replacementDelay)
      balance()
      return removal
    }

    const addSpare = (pooled: PooledKernel<K>): void => {
      all.add(pooled)
      spares.push(pooled)
      pooled.stopListening = pooled.kernel.onEnded(() => {
        const index = spares.indexOf(pooled)
        // The spare was assigned meanwhile: a removed listener may still be called once.
        if (index < 0) return
        spares.splice(index, 1)
        fork(remove(pooled))
        balance()
      })
    }

    /** Starts a kernel after the pause, or as soon as a request waits. */
    const start = (slot: GatewaySlot<K>, pause: Duration.Input): Effect.Effect<void> =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
        const { failures, isProbed } = slot
        const own = yield* Scope.fork(scope)
        const exit = yield* Effect.timeoutOption(hasWaiters.await, pause).pipe(
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
        if (Exit.isSuccess(exit) && exit.value.ended() === undefined && !isClosed) {
          slot.failures = 0
          slot.isPaused = false
          addSpare({ kernel: exit.value, scope: own, slot, stopListening: () => {}, isRemoved: false })
          return balance()
        }
        stopping++
        if (!isClosed) yield* onStartFailed(slot, { exit, failures })
        balance()
        yield* Scope.close(own, exit)
        stopping--
        slot.kernels--
        balance()
      }))

    const onStartFailed = (
      slot: GatewaySlot<K>,
      { exit, failures: before }: { readonly exit: Exit.Exit<K, KernelError>; readonly failures: number },
    ): Effect.Effect<void> =>
      Effect.suspend(() => {
        const error = failureOf(exit)
        lastFailure = error
        // Another start that was under way at the same time failed first: it counts as one failure.
        if (slot.failures !== before) return logFailure(slot, error)
        const failures = ++slot.failures
        slot.isPaused = true
        fork(Effect.delay(
          Effect.sync(() => {
            // Another start has failed since, and its pause is longer.
            if (slot.failures !== failures) return
            slot.isPaused = false
            balance()
          }),
          Plan.retryDelay(failures),
        ))
        if (slots.every((each) => each.isGone || each.failures >= maxFailures)) failAll(error)
        return logFailure(slot, error)
      })
    const logFailure = (slot: GatewaySlot<K>, error: KernelError): Effect.Effect<void> =>
      Effect.annotateLogs(Effect.logWarning(error.message), { gateway: slot.source.name })

    const onGatewayGone = (slot: GatewaySlot<K>, detail: string): void => {
      slot.isGone = true
      lastFailure = startFailed(detail)
      // Without this, the connections would try to reconnect for seconds.
      for (const { kernel, slot: owner } of [...all]) {
        if (owner === slot) kernel.end(new ConnectionLost({ kernelId: kernel.id, detail }))
      }
      Deferred.doneUnsafe(slot.gone, Exit.succeed(detail))
      const reason = unavailableReason()
      if (reason !== undefined) failAll(reason)
      balance()
    }

    /** Returns why no kernel can be expected, or `undefined` if one can. */
    const unavailableReason = (): KernelError | undefined => {
      if (isClosed) return startFailed("The pool is closed")
      const cause = lastFailure === undefined ? "" : `: ${lastFailure.message}`
      if (slots.every(({ isGone }) => isGone)) return startFailed(`No gateway of the pool is left${cause}`)
      const isBroken = starting + spares.length === 0 &&
        slots.every(({ failures, isGone, isPaused }) => isGone || (isPaused && failures >= maxFailures))
      return isBroken ? lastFailure : undefined
    }

    /** Adds a request to the waiters; it may be answered at once. */
    const enqueue = (hasPriority: boolean): Effect.Effect<Request<K>, KernelError> =>
      Effect.suspend(() => {
        const reason = unavailableReason()
        if (reason !== undefined) return Effect.fail(reason)
        if (!hasPriority && spares.length === 0 && waiters.length >= options.maxWaiting) {
          return Effect.fail(startFailed(
            `${waiters.length} requests wait for a kernel of the pool already, and more than its "maxWaiting" ` +
              `must not; ask for fewer at once, or raise "max" or "maxWaiting"`,
          ))
        }
        const request: Request<K> = { hasPriority, answer: Deferred.makeUnsafe(), pooled: undefined }
        const others = waiters.findIndex((each) => !each.hasPriority)
        waiters.splice(hasPriority && others >= 0 ? others : waiters.length, 0, request)
        balance()
        return Effect.succeed(request)
      })
    /** Removes a request that failed or was interrupted. */
    const cancel = (request: Request<K>): void => {
      const index = waiters.indexOf(request)
      if (index >= 0) waiters.splice(index, 1)
      // The check of the kernel did not end, so that its state is unknown.
      if (request.pooled !== undefined) fork(returnKernel(request.pooled))
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
          isHit &&= request.pooled !== undefined
          const pooled = yield* Deferred.await(request.answer).pipe(
            Effect.flatMap((pooled) =>
              Effect.map(options.isAlive(pooled.kernel), (isAlive) => isAlive ? pooled : undefined)
            ),
            restore,
            Effect.onError(() => Effect.sync(() => cancel(request))),
          )
          if (pooled !== undefined && pooled.kernel.ended() === undefined) {
            // The deletion runs in the scope of the pool: the borrower does not wait for it.
            yield* Effect.addFinalizer(() => Effect.sync(() => fork(returnKernel(pooled))))
            yield* Metric.update(isHit ? Metrics.poolHits : Metrics.poolMisses, 1)
            return pooled.kernel
          }
          // The assigned kernel was dead: the request is served again before others.
          hasPriority = true
          isHit = false
          if (request.pooled !== undefined) fork(returnKernel(request.pooled))
        }
      })).pipe(
        Effect.timeoutOrElse({ duration: options.acquireTimeout, orElse: () => Effect.fail(timeoutError()) }),
      )
    const timeoutError = (): KernelError => {
      const bound = Duration.format(Duration.fromInputUnsafe(options.acquireTimeout))
      const cause = lastFailure === undefined ? "" : `; the last start that failed: ${lastFailure.message}`
      return startFailed(
        `No kernel of the pool was free within ${bound}, ${busy} of at most ${limits.max} are in use${cause}`,
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
        for (const spare of spares.splice(0)) spare.stopListening()
        for (const { kernel } of all) {
          kernel.end(new ExecutionAborted({ kernelId: kernel.id, detail: "The pool is closed" }))
        }
        updateMetrics()
      })
    )
    for (const slot of slots) {
      fork(Effect.map(slot.source.gone, (detail) => onGatewayGone(slot, detail)))
    }
    yield* restartIdleTimer
    balance()

    return {
      acquire,
      inventory: () => ({
        warm: spares.length,
        waiting: waiters.length,
        busy,
        starting,
        stopping,
        sources: slots.map(({ isGone, kernels, source: { name } }) => ({ name, kernels, isGone })),
      }),
    }
  },
)
