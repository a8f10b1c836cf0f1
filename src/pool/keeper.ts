/**
 * Who has which kernel: spares and borrowers, the line of those who wait, and the starts that serve them.
 *
 * Kernels change hands in plain functions: no interruption comes between the spares and a borrower.
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
import { failed, failureOf, type Life, patience, type Place, placeOf, type Source } from "./source.ts"

/** What to keep. */
export interface KeeperOptions<K> {
  readonly limits: Plan.Limits
  readonly sources: ReadonlyArray<Source<K>>
  /** Asked before a kernel is handed out; has to have a bound. */
  readonly isAlive: (kernel: K) => Effect.Effect<boolean>
  /** How long nobody has to ask until `min` is enough. */
  readonly idleTimeToLive: Duration.Input
  /** How long a request waits. */
  readonly acquireTimeout: Duration.Input
  /** How many requests wait. */
  readonly maxWaiting: number
  /** How long whoever just got a kernel has the machine for himself: before others start or end that nobody waits for. */
  readonly headStart: Duration.Input
}

/** What a keeper has now. */
export interface Inventory extends Omit<Plan.Counts, "probing"> {
  readonly sources: ReadonlyArray<
    { readonly name: string; readonly kernels: number; readonly isGone: boolean }
  >
}

/** Kernels to be had. */
export interface Keeper<K> {
  /**
   * Takes a kernel, which goes back to be deleted when the scope closes. Who replaces a kernel that he had (`isReset`) goes
   * before those who have none, and is never turned away for their number.
   */
  readonly take: (options: { readonly isReset: boolean }) => Effect.Effect<K, KernelError, Scope.Scope>
  readonly inventory: () => Inventory
}

/** A kernel that runs, and the scope that it lives in. */
interface Held<K> {
  readonly kernel: K
  readonly scope: Scope.Closeable
  readonly place: Place<K>
  /** Stops to listen for the end of a spare. */
  forget: () => void
  isDropped: boolean
}

interface Request<K> {
  readonly isUrgent: boolean
  readonly answer: Deferred.Deferred<Held<K>, KernelError>
  given: Held<K> | undefined
}

/** Starts to keep kernels; all of them end with the scope. */
export const make: <K extends Life>(
  options: KeeperOptions<K>,
) => Effect.Effect<Keeper<K>, never, Scope.Scope> = Effect.fnUntraced(
  function* <K extends Life>(options: KeeperOptions<K>) {
    const { limits } = options
    const context = yield* Effect.context<never>()
    // Deleting a kernel may take seconds: all at once.
    const scope = yield* Scope.fork(yield* Effect.scope, "parallel")
    const idle = yield* FiberHandle.make()
    const runFork = Effect.runForkWith(context)
    const fork = (effect: Effect.Effect<void>): void => void runFork(Effect.forkIn(Defect.log(effect), scope))

    const places = options.sources.map(placeOf)
    const all = new Set<Held<K>>()
    const spares: Array<Held<K>> = []
    /** Open while somebody waits for a kernel. */
    const awaited = Latch.makeUnsafe(false)
    const line: Array<Request<K>> = []
    let busy = 0
    let starting = 0
    let probing = 0
    let stopping = 0
    let isActive = true
    let isClosed = false
    let lastFailure: KernelError | undefined
    let shown = { waiting: 0, warm: 0 }

    const counts = (): Plan.Counts => ({
      warm: spares.length,
      waiting: line.length,
      busy,
      starting,
      probing,
      stopping,
    })
    /** Brings the metrics, which all pools of the process share, up to date. */
    const show = (): void => {
      const { waiting, warm } = counts()
      Metrics.poolWaiting.modifyUnsafe(waiting - shown.waiting, context)
      Metrics.poolWarm.modifyUnsafe(warm - shown.warm, context)
      shown = { waiting, warm }
    }

    /** Makes what is there meet what is wanted. Answering a request runs who waits for it, who may call this. */
    const balance = (): void => {
      if (isClosed) return
      while (line.length > 0 && spares.length > 0) {
        const request = line.shift()
        const spare = spares.shift()
        if (request === undefined || spare === undefined) break
        spare.forget()
        busy++
        request.given = spare
        Deferred.doneUnsafe(request.answer, Exit.succeed(spare))
      }
      // Whoever waits does so for the machine, too.
      if (line.length > 0) awaited.openUnsafe()
      else awaited.closeUnsafe()
      while (Plan.toStart(limits, counts(), isActive) > 0) {
        const place = Plan.place(places, counts())
        if (place === undefined) break
        starting++
        place.kernels++
        place.isProbed = place.failures > 0
        if (place.isProbed) probing++
        fork(begin(place, busy === 0 ? 0 : options.headStart))
      }
      while (Plan.toRetire(limits, counts(), isActive) > 0) {
        const spare = spares.shift()
        if (spare === undefined) break
        spare.forget()
        fork(drop(spare))
      }
      show()
    }
    const failAll = (error: KernelError): void => {
      for (const { answer } of line.splice(0)) Deferred.doneUnsafe(answer, Exit.fail(error))
      show()
    }

    /** Counts a kernel as one that goes, at once, and gives what deletes it. */
    const drop = (held: Held<K>, pause: Duration.Input = 0): Effect.Effect<void> => {
      if (held.isDropped) return Effect.void
      held.isDropped = true
      all.delete(held)
      stopping++
      return Effect.andThen(Effect.sleep(pause), Scope.close(held.scope, Exit.void)).pipe(
        Effect.ensuring(Effect.sync(() => {
          stopping--
          held.place.kernels--
          balance()
        })),
        Effect.uninterruptible,
      )
    }
    /** Takes a kernel back: it is used, or who was to have it has gone, and nobody else shall get it. */
    const takeBack = (held: Held<K>): Effect.Effect<void> => {
      busy--
      // Who takes another one in its place has a head start before its end, too.
      const dropping = drop(held, line.length > 0 || isClosed ? 0 : options.headStart)
      balance()
      return dropping
    }

    const addSpare = (held: Held<K>): void => {
      all.add(held)
      spares.push(held)
      held.forget = held.kernel.onEnded(() => {
        const index = spares.indexOf(held)
        // It has been given away: `onEnded` may call later than it was told to.
        if (index < 0) return
        spares.splice(index, 1)
        fork(drop(held))
        balance()
      })
    }

    /** Starts a kernel after the pause, or as soon as somebody waits for one. */
    const begin = (place: Place<K>, pause: Duration.Input): Effect.Effect<void> =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
        const { failures, isProbed } = place
        const own = yield* Scope.fork(scope)
        const exit = yield* Effect.timeoutOption(awaited.await, pause).pipe(
          Effect.andThen(Scope.provide(place.source.start, own)),
          Effect.raceFirst(Effect.flatMap(Deferred.await(place.gone), (detail) => failed(detail))),
          restore,
          Effect.exit,
        )
        starting--
        if (isProbed) {
          probing--
          place.isProbed = false
        }
        if (Exit.isSuccess(exit) && exit.value.ended() === undefined && !isClosed) {
          place.failures = 0
          place.isPaused = false
          addSpare({ kernel: exit.value, scope: own, place, forget: () => {}, isDropped: false })
          return balance()
        }
        stopping++
        if (!isClosed) yield* noteFailure(place, { exit, failures })
        balance()
        yield* Scope.close(own, exit)
        stopping--
        place.kernels--
        balance()
      }))

    const noteFailure = (
      place: Place<K>,
      { exit, failures: before }: { readonly exit: Exit.Exit<K, KernelError>; readonly failures: number },
    ): Effect.Effect<void> =>
      Effect.suspend(() => {
        const error = failureOf(exit)
        lastFailure = error
        // Starts that were under way together fail by the same cause.
        if (place.failures !== before) return logFailure(place, error)
        const failures = ++place.failures
        place.isPaused = true
        fork(Effect.delay(
          Effect.sync(() => {
            // Another start has failed since, and waits longer.
            if (place.failures !== failures) return
            place.isPaused = false
            balance()
          }),
          Plan.pause(failures),
        ))
        if (places.every((each) => each.isGone || each.failures >= patience)) failAll(error)
        return logFailure(place, error)
      })
    const logFailure = (place: Place<K>, error: KernelError): Effect.Effect<void> =>
      Effect.annotateLogs(Effect.logWarning(error.message), { gateway: place.source.name })

    const noteEnd = (place: Place<K>, detail: string): void => {
      place.isGone = true
      lastFailure = failed(detail)
      // Their connections would try for seconds to come back.
      for (const { kernel, place: home } of [...all]) {
        if (home === place) kernel.end(new ConnectionLost({ kernelId: kernel.id, detail }))
      }
      Deferred.doneUnsafe(place.gone, Exit.succeed(detail))
      const never = hopeless()
      if (never !== undefined) failAll(never)
      balance()
    }

    /** Why no kernel is to be expected, if so. */
    const hopeless = (): KernelError | undefined => {
      if (isClosed) return failed("The pool is closed")
      const cause = lastFailure === undefined ? "" : `: ${lastFailure.message}`
      if (places.every(({ isGone }) => isGone)) return failed(`No gateway of the pool is left${cause}`)
      const isBroken = starting + spares.length === 0 &&
        places.every(({ failures, isGone, isPaused }) => isGone || (isPaused && failures >= patience))
      return isBroken ? lastFailure : undefined
    }

    /** Takes a place in the line; the request may be answered at once. */
    const ask = (isUrgent: boolean): Effect.Effect<Request<K>, KernelError> =>
      Effect.suspend(() => {
        const never = hopeless()
        if (never !== undefined) return Effect.fail(never)
        if (!isUrgent && spares.length === 0 && line.length >= options.maxWaiting) {
          return Effect.fail(failed(
            `${line.length} requests wait for a kernel of the pool already, and more than its "maxWaiting" ` +
              `must not; ask for fewer at once, or raise "max" or "maxWaiting"`,
          ))
        }
        const request: Request<K> = { isUrgent, answer: Deferred.makeUnsafe(), given: undefined }
        const others = line.findIndex((each) => !each.isUrgent)
        line.splice(isUrgent && others >= 0 ? others : line.length, 0, request)
        balance()
        return Effect.succeed(request)
      })
    /** The request came to nothing. */
    const withdraw = (request: Request<K>): void => {
      const index = line.indexOf(request)
      if (index >= 0) line.splice(index, 1)
      // Its check was cut short, and who knows what it would have shown.
      if (request.given !== undefined) fork(takeBack(request.given))
      balance()
    }

    const take = ({ isReset }: { readonly isReset: boolean }): Effect.Effect<K, KernelError, Scope.Scope> =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
        yield* stayActive
        let isUrgent = isReset
        let isHit = true
        while (true) {
          const request = yield* ask(isUrgent)
          isHit &&= request.given !== undefined
          const held = yield* Deferred.await(request.answer).pipe(
            Effect.flatMap((held) =>
              Effect.map(options.isAlive(held.kernel), (isAlive) => isAlive ? held : undefined)
            ),
            restore,
            Effect.onError(() => Effect.sync(() => withdraw(request))),
          )
          if (held !== undefined && held.kernel.ended() === undefined) {
            // The borrower does not wait for the deletion: the scope of the pool is there for that.
            yield* Effect.addFinalizer(() => Effect.sync(() => fork(takeBack(held))))
            yield* Metric.update(isHit ? Metrics.poolHits : Metrics.poolMisses, 1)
            return held.kernel
          }
          // The place in the line is not lost for a kernel that was dead.
          isUrgent = true
          isHit = false
          if (request.given !== undefined) fork(takeBack(request.given))
        }
      })).pipe(
        Effect.timeoutOrElse({ duration: options.acquireTimeout, orElse: () => Effect.fail(tooLate()) }),
      )
    const tooLate = (): KernelError => {
      const bound = Duration.format(Duration.fromInputUnsafe(options.acquireTimeout))
      const cause = lastFailure === undefined ? "" : `; the last start that failed: ${lastFailure.message}`
      return failed(
        `No kernel of the pool was free within ${bound}, ${busy} of at most ${limits.max} are in use${cause}`,
      )
    }

    const stayActive = Effect.suspend(() => {
      // Then nothing can be run in it.
      if (isClosed) return Effect.void
      isActive = true
      const rest = Effect.sync(() => {
        isActive = false
        balance()
      })
      return FiberHandle.run(idle, Effect.delay(rest, options.idleTimeToLive))
    })
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        isClosed = true
        failAll(failed("The pool is closed"))
        for (const spare of spares.splice(0)) spare.forget()
        for (const { kernel } of all) {
          kernel.end(new ExecutionAborted({ kernelId: kernel.id, detail: "The pool is closed" }))
        }
        show()
      })
    )
    for (const place of places) {
      fork(Effect.map(place.source.gone, (detail) => noteEnd(place, detail)))
    }
    yield* stayActive
    balance()

    return {
      take,
      inventory: () => ({
        warm: spares.length,
        waiting: line.length,
        busy,
        starting,
        stopping,
        sources: places.map(({ isGone, kernels, source: { name } }) => ({ name, kernels, isGone })),
      }),
    }
  },
)
