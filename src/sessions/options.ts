/**
 * Options of sessions.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Kernel } from "../client/kernel.ts"
import type { PoolOptions } from "../pool/options.ts"

/**
 * Options of sessions; those of `PoolOptions` apply to the pool that their kernels are of.
 *
 * @category options
 * @since 0.1.0
 */
export interface SessionsOptions<R = never> extends Omit<PoolOptions, "setup"> {
  /**
   * The maximum number of sessions, and of the pool's kernels: those that are ready for the next sessions are part of
   * it; 8 by default.
   */
  readonly max?: number | undefined
  /**
   * The time after which a session that is not in use is closed; 30 minutes by default. With `Duration.infinity` only
   * `close` and `max` close a session.
   */
  readonly idleTimeToLive?: Duration.Input | undefined
  /**
   * Prepares the kernel of a new session, within `initTimeout`. Code runs in each kernel before its session is known, as
   * for a pool. A function runs once when a session gets its kernel, before `get` returns, and again after a `reset`:
   * until then, other scopes with the session may use the new kernel. Its scope closes with the kernel. If it fails
   * after a `reset`, or the reset is interrupted, the session is closed.
   */
  readonly setup?:
    | string
    | ReadonlyArray<string>
    | ((kernel: Kernel, key: string) => Effect.Effect<unknown, unknown, R>)
    | undefined
}
