/**
 * Hands out the kernels of a pool, whatever starts them.
 *
 * @module
 */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Kernels from "../client/kernel.ts"
import type { KernelError } from "../execution.ts"
import type { Instance } from "../kernel/instance.ts"
import * as Setup from "../kernel/setup.ts"
import type { Start } from "../kernel/start.ts"
import * as Span from "../kernel/span.ts"
import type { Images } from "../output/images.ts"
import type { Platform } from "../platform.ts"
import * as Plan from "./plan.ts"
import * as PoolState from "./pool_state.ts"
import type { Source } from "./source.ts"

/** The options of a pool that do not concern the start of kernels. */
export interface PoolOptions {
  /** Shorthand for `min` and `max`: so many kernels, always. */
  readonly size?: number | undefined
  /** Kernels, in use or ready, that exist even without requests; 1 by default. */
  readonly min?: number | undefined
  /** Kernels at one time, those that are being started or deleted included; 8 by default. */
  readonly max?: number | undefined
  /** Spares that are kept ready beside the kernels in use, as far as `max` allows; 1 by default. */
  readonly warm?: number | undefined
  /** The time without a request after which the pool shrinks to `min` kernels; 5 minutes by default. */
  readonly idleTimeToLive?: Duration.Input | undefined
  /** The maximum time that a request waits; 1 minute by default. */
  readonly acquireTimeout?: Duration.Input | undefined
  /** The maximum number of requests that wait; 1,000 by default. With 0, a request without a spare fails at once. */
  readonly maxWaiting?: number | undefined
  /** The maximum number of kernels that start at the same time; 2 by default. */
  readonly startConcurrency?: number | undefined
}

/** The parts of the kernels of a pool. */
export interface KernelParts {
  readonly images?: Images | undefined
  readonly imagesDir?: string | undefined
  readonly maxMessageSize?: number | undefined
  readonly untrusted?: ReadonlyArray<string> | undefined
  readonly platform: Context.Context<Platform>
}

/** The current numbers of a pool. */
interface State extends Omit<PoolState.Inventory, "sources"> {
  readonly gateways: ReadonlyArray<
    { readonly url: string; readonly kernels: number; readonly isGone: boolean }
  >
}

/** A pool of kernels. */
export interface Pool {
  readonly get: Effect.Effect<Kernels.Kernel, KernelError, Scope.Scope>
  /**
   * As `get`; calls `onStart` with the first instance of the kernel, and with that of each reset. `attach` may return
   * another first instance than the one that it is given the start of.
   */
  readonly getWith: (
    onStart: (instance: Instance) => Effect.Effect<void, KernelError>,
    attach?: (start: Start) => Start,
  ) => Effect.Effect<Kernels.Kernel, KernelError, Scope.Scope>
  readonly state: Effect.Effect<State>
}

/** About the duration of a first small execution, which a start at the same time would double. */
const replacementDelay: Duration.Input = "30 millis"

/** Maximum time for a spare to answer the check that it is alive. */
const checkTimeout: Duration.Input = "2 seconds"

/** Makes a pool and starts its kernels; all of them are deleted with the scope. */
export const make: (
  sources: ReadonlyArray<Source<Instance>>,
  options: PoolOptions,
  parts: KernelParts,
) => Effect.Effect<Pool, never, Scope.Scope> = Effect.fnUntraced(function* (sources, options, parts) {
  const poolState = yield* PoolState.make({
    limits: Plan.limits(options),
    sources,
    // A server may take seconds to notice that a kernel died, and a frozen kernel it does not notice at all.
    isAlive: (instance) =>
      instance.endReason() !== undefined ? Effect.succeed(false) : Effect.isSuccess(
        Effect.timeout(Setup.untilAnswered(instance), checkTimeout),
      ),
    idleTimeToLive: options.idleTimeToLive ?? "5 minutes",
    acquireTimeout: options.acquireTimeout ?? "1 minute",
    maxWaiting: options.maxWaiting ?? 1000,
    replacementDelay,
  })
  const getWith: Pool["getWith"] = (onStart, attach) =>
    Effect.suspend(() => {
      let isReset = false
      const acquire = Effect.suspend(() => poolState.acquire({ isReset }))
      const started = (start: Start) =>
        Effect.tap(start, (instance) => {
          isReset = true
          return onStart(instance)
        })
      return Kernels.make({
        ...parts,
        start: started(acquire),
        attach: attach === undefined ? undefined : started(attach(acquire)),
      })
    }).pipe(Span.withSpan("KernelPool.get"))
  return {
    get: getWith(() => Effect.void),
    getWith,
    state: Effect.sync(() => {
      const { sources, ...counts } = poolState.inventory()
      return { ...counts, gateways: sources.map(({ name, ...source }) => ({ url: name, ...source })) }
    }),
  }
})
