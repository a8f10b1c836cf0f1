/**
 * The entity of kernels: a session key has one owner among the runners of a cluster.
 *
 * @module
 */
import * as Entity from "effect/cluster/Entity"
import * as EntityResource from "effect/cluster/EntityResource"
import { Sharding } from "effect/cluster/Sharding"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { group } from "../rpc/group.ts"
import * as Handlers from "../rpc/handlers.ts"
import * as Handover from "../sessions/handover.ts"
import { KernelSessions } from "../sessions/service.ts"

/** The time after which an entity whose session has been closed may end. */
const sweepInterval: Duration.Input = "10 seconds"

/** The time without a tick after which the process has stood still, and may have lost its locks meanwhile. */
const maxPause: Duration.Input = "3 seconds"
const tickInterval: Duration.Input = "500 millis"

/** The time after a pause in which the cluster finds that a lock is lost, which ends the entity. */
const checkTimeout: Duration.Input = "5 seconds"

/** The entity, whose id is the key of a session. */
export const entity = Entity.fromRpcGroup("effect-jupyter/Kernel", group)

/** An entity of this runner. */
interface Resident {
  readonly close: Effect.Effect<void>
  requests: number
}

/**
 * Provides the entity over the sessions of this process. An entity stays as long as its session is open, and a session
 * is closed before another runner becomes the owner of its key.
 */
export const layer: Layer.Layer<never, never, Sharding | KernelSessions> = Layer.unwrap(
  Effect.gen(function* () {
    const sharding = yield* Sharding
    const sessions = yield* KernelSessions
    const handlers = yield* Handlers.make
    const residents = new Map<string, Resident>()

    const closeUnused = Effect.gen(function* () {
      const open = new Set((yield* sessions.list).map(({ key }) => key))
      yield* Effect.forEach(
        Array.from(residents).filter(([key, { requests }]) => requests === 0 && !open.has(key)),
        ([, { close }]) => close,
        { discard: true },
      )
    })

    let tickedAt = yield* Clock.currentTimeMillis
    let suspectedUntil = 0
    const tick = Effect.map(Clock.currentTimeMillis, (now) => {
      if (now - tickedAt > Duration.toMillis(maxPause)) suspectedUntil = now + Duration.toMillis(checkTimeout)
      tickedAt = now
      return Math.max(0, suspectedUntil - now)
    })
    /** Waits after a pause: another runner may be the owner by now, and two must not answer. */
    const ownership = Effect.flatMap(tick, (wait) => wait === 0 ? Effect.void : Effect.sleep(wait))

    const behavior = Effect.gen(function* () {
      const { entityId, shardId } = yield* Entity.CurrentAddress
      const key: string = entityId
      // The previous owner may have had a session, which ended with it.
      yield* Entity.keepAlive(false)
      const resource = yield* EntityResource.make({
        acquire: Effect.acquireRelease(
          Effect.sync(() => residents.set(key, resident)),
          () => Effect.sync(() => residents.delete(key)),
        ),
      })
      const resident: Resident = { close: resource.close, requests: 0 }
      yield* Effect.addFinalizer(() => Handover.leave(sessions, key))

      const enter = Effect.acquireRelease(
        Effect.sync(() => void resident.requests++),
        () => Effect.sync(() => void resident.requests--),
      ).pipe(
        Effect.andThen(ownership),
        // An entity without its lock may still end what runs; the cluster sends other requests to the next owner.
        Effect.andThen(Effect.suspend(() => sharding.hasShardId(shardId) ? Effect.void : Effect.never)),
        Effect.andThen(resource.get),
      )
      /** The request of a client, which is for the session of this entity whatever it says. */
      const own = <A extends { readonly key: string }>({ payload }: { readonly payload: A }): A => ({
        ...payload,
        key,
      })
      /** Code of a kernel that stays is not interrupted because the next owner has the key. */
      const call = { isLeft: () => !sharding.hasShardId(shardId) }
      const effect = <A, E>(request: Effect.Effect<A, E>) => Effect.scoped(Effect.andThen(enter, request))
      const stream = <A, E>(answers: Stream.Stream<A, E>) => Stream.unwrap(Effect.as(enter, answers))

      return entity.of({
        open: (request) => effect(handlers.open(own(request))),
        hold: (request) => stream(handlers.hold(own(request))),
        execute: (request) => stream(handlers.execute(own(request), call)),
        detach: (request) => effect(handlers.detach(own(request))),
        start: (request) => effect(handlers.start(own(request))),
        resume: (request) => stream(handlers.resume(own(request), call)),
        evaluate: (request) => effect(handlers.evaluate(own(request))),
        exchange: (request) => stream(handlers.exchange(own(request))),
        answer: ({ payload }) => handlers.answer(payload),
        upload: ({ payload }) => handlers.upload(payload),
        settled: ({ payload }) => handlers.settled(payload),
        interrupt: (request) => effect(handlers.interrupt(own(request))),
        reset: (request) => effect(handlers.reset(own(request))),
        complete: (request) => effect(handlers.complete(own(request))),
        inspect: (request) => effect(handlers.inspect(own(request))),
        isComplete: (request) => effect(handlers.isComplete(own(request))),
        history: (request) => effect(handlers.history(own(request))),
        info: (request) => effect(handlers.info(own(request))),
        variables: (request) => effect(handlers.variables(own(request))),
        output: (request) => stream(handlers.output(own(request))),
      })
    })

    return Layer.mergeAll(
      entity.toLayer(behavior, {
        concurrency: "unbounded",
        // A defect is the answer of its request; other requests are not repeated because of it.
        disableFatalDefects: true,
      }),
      Layer.effectDiscard(Effect.forkScoped(Effect.repeat(closeUnused, Schedule.spaced(sweepInterval)))),
      Layer.effectDiscard(Effect.forkScoped(Effect.repeat(tick, Schedule.spaced(tickInterval)))),
    )
  }),
)
