/**
 * Sessions over a pool: an `RcMap` has a kernel for each key, and the least recently used one is evicted.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as RcMap from "effect/RcMap"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Take from "effect/Take"
import type { Kernel } from "../client/kernel.ts"
import {
  ExecutionAborted,
  isKernelError,
  KernelError,
  type KernelErrorReason,
  KernelStartFailed,
} from "../execution.ts"
import type { Instance } from "../kernel/instance.ts"
import * as Span from "../kernel/span.ts"
import * as Start from "../kernel/start.ts"
import { notReady } from "../kernel/start_failure.ts"
import * as Options from "../options/check.ts"
import * as Gateways from "../pool/gateways.ts"
import * as Plan from "../pool/plan.ts"
import type { Pool } from "../pool/service.ts"
import * as Handover from "./handover.ts"
import * as Kept from "./kept.ts"
import type { SessionsOptions } from "./options.ts"
import type { KernelSessions } from "./service.ts"
import { Closed, Died, Evicted, Idle, Opened, Replaced, Session, type SessionEvent } from "./session.ts"

/** An open session. */
interface OpenSession {
  readonly key: string
  readonly kernel: Kernel
  /** Its entry, which counts the scopes that use it, and whose scope deletes the kernel. */
  readonly entry: Entry
  readonly openedAt: DateTime.Utc
  lastUsedAt: DateTime.Utc
  readonly isDead: () => boolean
  /** True if the event `Idle` was published since the last use. */
  isIdle: boolean
  isClosed: boolean
  /** True if its kernel is for another process. */
  isLeft: boolean
  /** The event of its end; none if another session replaces it. */
  ending: typeof Closed | typeof Evicted | undefined
}
type Entry = RcMap.State.Entry<OpenSession, KernelError>

interface State {
  readonly map: RcMap.RcMap<string, OpenSession, KernelError>
  readonly max: number
  readonly publish: (event: SessionEvent) => void
  /** The open sessions, the least recently used first. */
  readonly opened: Map<string, OpenSession>
}

/** The id of the kernel that died, in the context of a request that replaces it. */
const PreviousId = Context.Reference<string | undefined>("effect-jupyter/KernelSessions/PreviousId", {
  defaultValue: () => undefined,
})

/** Maximum number of buffered events of a consumer. */
const maxEvents = 1000

/** Makes sessions over a pool of kernels of gateways; all of them are closed with the scope. */
export const make: <R>(
  gateways: Parameters<typeof Gateways.make>[0],
  options: SessionsOptions<R>,
) => Effect.Effect<KernelSessions["Service"], KernelError, Scope.Scope | R> = Effect.fnUntraced(
  function* <R>(gateways: Parameters<typeof Gateways.make>[0], options: SessionsOptions<R>) {
    const { idleTimeToLive = "30 minutes", max, setup, ...poolOptions } = options
    yield* Options.check(Options.Sessions, { idleTimeToLive, max }).pipe(
      Effect.andThen(Options.check(Options.Kernel, { ...poolOptions })),
      Effect.mapError((reason) => new KernelError({ reason })),
    )
    const runFork = Effect.runForkWith(Context.empty())
    const events = yield* Effect.acquireRelease(
      PubSub.sliding<Take.Take<SessionEvent>>(maxEvents),
      (events) => PubSub.end(events, Exit.void),
    )
    const pool = yield* Gateways.make(gateways, {
      ...poolOptions,
      max,
      setup: typeof setup === "function" ? undefined : setup,
    })
    const prepare = typeof setup === "function" ? yield* makePrepare(setup, options) : undefined
    const kept = yield* Kept.make(gateways, poolOptions)
    const state: State = {
      map: yield* RcMap.make({
        lookup: (key: string) => open(state, key, { pool, prepare, kept }),
        idleTimeToLive,
      }),
      max: Plan.limits(options).max,
      publish: (event) => void runFork(PubSub.publish(events, [event])),
      opened: new Map(),
    }
    const close = (key: string) =>
      Effect.suspend(() => {
        const entry = entryOf(state, key)
        return entry === undefined ? Effect.void : remove(state, key, entry)
      })
    const sessions: KernelSessions["Service"] = {
      get: (key) => Span.withSpan("KernelSessions.get")(get(state, key)),
      close,
      list: Effect.sync(() => list(state)),
      events: Stream.fromPubSubTake(events),
    }
    return Handover.attach(sessions, (key) =>
      Effect.suspend(() => {
        const session = state.opened.get(key)
        if (session !== undefined) session.isLeft = true
        return close(key)
      }))
  },
)

type Prepare = (kernel: Kernel, key: string) => Effect.Effect<unknown, KernelError, Scope.Scope>

/** Makes the function that prepares kernels by the function `setup`, within a bound. */
const makePrepare = <R>(
  setup: (kernel: Kernel, key: string) => Effect.Effect<unknown, unknown, R>,
  { initTimeout = Start.defaultTimeout }: SessionsOptions<R>,
): Effect.Effect<Prepare, never, R> =>
  Effect.map(
    Effect.context<R>(),
    (context) => (kernel, key) =>
      Effect.flatMap(Effect.scope, (scope) =>
        Effect.suspend(() => setup(kernel, key)).pipe(
          // With the scope of the kernel in place of that of all sessions.
          Effect.provideContext(Context.add(context, Scope.Scope, scope)),
          Effect.mapError((error) =>
            isKernelError(error) ? error : new KernelError({
              reason: new KernelStartFailed({
                kernelId: kernel.id,
                detail: `Its "setup" failed: ${error instanceof Error ? error.message : String(error)}`,
              }),
            })
          ),
          Effect.timeoutOrElse({
            duration: initTimeout,
            orElse: () => new KernelError({ reason: notReady(initTimeout) }),
          }),
        )),
  )

/** Opens the session of a key, which ends with the scope. */
const open = Effect.fnUntraced(function* (
  state: State,
  key: string,
  { kept, pool, prepare }: {
    readonly pool: Pool
    readonly prepare: Prepare | undefined
    readonly kept: Kept.Kept | undefined
  },
) {
  const entry = entryOf(state, key)
  if (entry === undefined) return yield* Effect.interrupt
  const previousId = yield* PreviousId
  yield* evict(state)

  let session: OpenSession | undefined
  let current: Instance | undefined
  const attach = yield* kept?.find(key) ?? Effect.undefined
  const started = yield* pool.getWith(
    (lifecycle) =>
      Effect.map(kept?.keep(key, lifecycle) ?? Effect.void, () => {
        const previous = current
        current = lifecycle
        lifecycle.onEnded((reason) => {
          if (session === undefined || session.isClosed || current !== lifecycle || !isDeath(reason)) return
          state.publish(new Died({ key, kernelId: lifecycle.id, reason }))
        })
        if (session === undefined || previous === undefined) return
        state.publish(new Replaced({ key, kernelId: lifecycle.id, previousId: previous.id }))
      }),
    attach,
  )
  const kernel = prepare === undefined
    ? started
    : yield* prepared(started, prepare(started, key), remove(state, key, entry))
  const now = yield* DateTime.now
  const opened: OpenSession = {
    key,
    kernel,
    entry,
    openedAt: now,
    lastUsedAt: now,
    isDead: () => isDeath(current?.endReason()),
    isIdle: false,
    isClosed: false,
    isLeft: false,
    ending: Closed,
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      session = opened
      state.opened.set(key, opened)
      state.publish(
        previousId === undefined
          ? new Opened({ key, kernelId: kernel.id })
          : new Replaced({ key, kernelId: kernel.id, previousId: previousId }),
      )
    }),
    () =>
      Effect.suspend(() => {
        const isLeft = opened.isLeft || state.map.state._tag === "Closed"
        return kept === undefined || current === undefined || isLeft ? Effect.void : kept.drop(key, current)
      }).pipe(Effect.andThen(Effect.sync(() => {
        opened.isClosed = true
        if (state.opened.get(key) === opened) state.opened.delete(key)
        if (opened.ending !== undefined) state.publish(new opened.ending({ key, kernelId: kernel.id }))
        current?.end(
          new ExecutionAborted({ kernelId: kernel.id, detail: `The session "${key}" was closed` }),
        )
      }))),
  )
  return opened
})

/** Tells whether a kernel ended by itself, and not because its client did without it. */
const isDeath = (reason: KernelErrorReason | undefined): boolean =>
  reason !== undefined && reason._tag !== "ExecutionAborted"

/**
 * Prepares a kernel, now and after each reset. A reset that fails or is interrupted closes the session: the next kernel
 * would not be prepared.
 */
const prepared = Effect.fnUntraced(function* (
  kernel: Kernel,
  prepare: Effect.Effect<unknown, KernelError, Scope.Scope>,
  close: Effect.Effect<void>,
) {
  const outer = yield* Effect.scope
  let scope = yield* Scope.fork(outer)
  yield* Scope.provide(prepare, scope)
  const reset = Effect.gen(function* () {
    yield* Scope.close(scope, Exit.void)
    yield* kernel.reset
    scope = yield* Scope.fork(outer)
    yield* Scope.provide(prepare, scope)
  })
  const again: Kernel = {
    ...kernel,
    get id() {
      return kernel.id
    },
    reset: Effect.onError(reset, () => close),
  }
  return again
})

const get = (state: State, key: string): Effect.Effect<Kernel, KernelError, Scope.Scope> =>
  Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
    yield* Options.check(Options.Session, { key }).pipe(
      Effect.mapError((reason) => new KernelError({ reason })),
    )
    const outer = yield* Effect.scope
    let previousId: string | undefined
    while (true) {
      const scope = yield* Scope.fork(outer)
      // Runs after the reference of RcMap is released.
      yield* Scope.addFinalizer(scope, Effect.suspend(() => onReleased(state, key)))
      const session = yield* RcMap.get(state.map, key).pipe(
        Scope.provide(scope),
        Effect.provideService(PreviousId, previousId),
        // Not this fiber was interrupted, but the one that opens the session.
        Effect.catchCauseIf(Cause.hasInterrupts, () => aborted(state, key)),
        restore,
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
      )
      if (!session.isClosed && !session.isDead()) {
        session.isIdle = false
        yield* markUsed(state, session)
        return session.kernel
      }
      if (!session.isClosed) previousId = session.kernel.id
      yield* replace(state, session)
      yield* Scope.close(scope, Exit.void)
    }
  }))

const aborted = (state: State, key: string): Effect.Effect<never, KernelError> =>
  Effect.suspend(() =>
    new KernelError({
      reason: new ExecutionAborted({
        kernelId: undefined,
        detail: state.map.state._tag === "Closed"
          ? "The sessions are closed"
          : `The session "${key}" was closed before its kernel was ready`,
      }),
    })
  )

/** Makes a session the most recently used one. */
const markUsed = (state: State, session: OpenSession): Effect.Effect<void> =>
  Effect.map(DateTime.now, (now) => {
    session.lastUsedAt = now
    if (state.opened.delete(session.key)) state.opened.set(session.key, session)
  })

/** Removes a session whose kernel died; the next one of its key replaces it. */
const replace = (state: State, session: OpenSession): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { entry, key } = session
    if (!session.isClosed && entryOf(state, key) === entry) session.ending = undefined
    return remove(state, key, entry)
  })

/** Tells of a session that is no longer in use, and removes an entry that no request waits for any more. */
const onReleased = (state: State, key: string): Effect.Effect<void> =>
  Effect.suspend(() => {
    const entry = entryOf(state, key)
    if (entry === undefined || entry.refCount > 0) return Effect.void
    const session = state.opened.get(key)
    // The start failed, which RcMap would keep for the next request, or it was interrupted.
    if (session?.entry !== entry) return remove(state, key, entry)
    if (session.isIdle) return Effect.void
    session.isIdle = true
    state.publish(new Idle({ key, kernelId: session.kernel.id }))
    return Effect.andThen(markUsed(state, session), evict(state))
  })

/** Closes sessions that are not in use, dead ones and then the least recently used, while there are more than `max`. */
const evict = (state: State): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (state.map.state._tag === "Closed" || MutableHashMap.size(state.map.state.map) <= state.max) {
      return Effect.void
    }
    const unused = Array.from(state.opened.values()).filter(({ entry, key }) =>
      entry.refCount === 0 && entryOf(state, key) === entry
    )
    const session = unused.find(({ isDead }) => isDead()) ?? unused[0]
    if (session === undefined) return Effect.void
    session.ending = Evicted
    session.isClosed = true
    return Effect.andThen(remove(state, session.key, session.entry), evict(state))
  })

const entryOf = (state: State, key: string): Entry | undefined =>
  state.map.state._tag === "Closed"
    ? undefined
    : Option.getOrUndefined(MutableHashMap.get(state.map.state.map, key))

/** Removes an entry and closes its scope, also if it is in use. */
const remove = (state: State, key: string, entry: Entry): Effect.Effect<void> =>
  Effect.suspend(() => {
    const session = state.opened.get(key)
    if (session?.entry === entry) session.isClosed = true
    return entryOf(state, key) === entry ? RcMap.invalidate(state.map, key) : Effect.void
  }).pipe(
    Effect.andThen(Scope.close(entry.scope, Exit.void)),
    Effect.uninterruptible,
  )

const list = (state: State): ReadonlyArray<Session> =>
  Array.from(state.opened.values()).filter((session) => !session.isDead()).map((session) =>
    new Session({
      key: session.key,
      kernelId: session.kernel.id,
      openedAt: session.openedAt,
      lastUsedAt: session.lastUsedAt,
      inUse: session.entry.refCount > 0,
    })
  )
