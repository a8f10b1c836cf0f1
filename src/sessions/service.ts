/**
 * The service of sessions, apart from its implementation, which needs Node.
 *
 * @module
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Kernel } from "../client/kernel.ts"
import type { KernelError } from "../execution.ts"
import type { Session, SessionEvent } from "./session.ts"

/**
 * Kernels by key, for instance by user.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { KernelGateway, KernelSessions } from "effect-jupyter"
 *
 * const count = Effect.fn("count")(function*(user: string) {
 *   const sessions = yield* KernelSessions.KernelSessions
 *   const kernel = yield* sessions.get(user)
 *   return yield* kernel.execute("n = globals().get('n', 0) + 1; n")
 * }, Effect.scoped)
 *
 * export const program = Effect.all([count("ada"), count("grace"), count("ada")]).pipe( // 1, 1, 2
 *   Effect.provide(KernelSessions.layer({ max: 10 }).pipe(Layer.provide(KernelGateway.layer())))
 * )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class KernelSessions extends Context.Service<KernelSessions, {
  /**
   * Returns the kernel of a key, which is in use until the scope closes. All scopes that are open at a time share it.
   * A key without a session gets a kernel of the pool, and the function `setup` runs.
   *
   * If the kernel of a session has died, it is replaced by a new one with a new state, and {@link Replaced} says so.
   * The other scopes with the session do not get the new kernel: what they execute fails, until they `get` it.
   *
   * If there are `max` sessions, the least recently used one that is not in use is evicted, dead ones first. If all are in use, the
   * request waits as requests of a pool do: it fails with the reason `KernelStartFailed` after `acquireTimeout`, and at
   * once if `maxWaiting` requests wait already. It fails with `ExecutionAborted` if the session is closed meanwhile, or
   * all sessions are, and for the other reasons of `KernelPool.get`.
   *
   * An interrupted request that no other waits with leaves no session behind. A key of more than 10,000 characters, or
   * with a surrogate that is alone, fails with `InvalidOption`.
   */
  readonly get: (key: string) => Effect.Effect<Kernel, KernelError, Scope.Scope>
  /**
   * Closes the session of a key, also if it is in use: its executions fail with the reason `ExecutionAborted`. The next
   * `get` opens a new one. Without a session it does nothing.
   */
  readonly close: (key: string) => Effect.Effect<void>
  /** The sessions whose kernel is alive, the least recently used first. */
  readonly list: Effect.Effect<ReadonlyArray<Session>>
  /**
   * Emits the events from now on, and ends with the scope of the sessions. A slow consumer loses the oldest of more
   * than 1,000 events.
   */
  readonly events: Stream.Stream<SessionEvent>
}>()("effect-jupyter/KernelSessions") {}
