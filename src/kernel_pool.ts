/**
 * Pools of warm kernels, which are started, connected and set up before they are requested, over one or more gateways.
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { KernelError } from "./execution.ts"
import * as Span from "./kernel/span.ts"
import { type Kernel, KernelClient } from "./kernel_client.ts"
import { KernelGateway } from "./kernel_gateway.ts"
import * as Gateways from "./pool/gateways.ts"
import type { PoolOptions } from "./pool/options.ts"

export type { PoolOptions } from "./pool/options.ts"

/**
 * The current numbers of a pool.
 *
 * @category models
 * @since 0.1.0
 */
export interface State {
  /** Kernels that are ready. */
  readonly warm: number
  /** Kernels that are being started. */
  readonly starting: number
  /** Kernels that are in use. */
  readonly busy: number
  /** Kernels that are being deleted. */
  readonly stopping: number
  /** Requests for a kernel that wait. */
  readonly waiting: number
  /** The gateways in the order of the options, with the number of the pool's kernels on each. */
  readonly gateways: ReadonlyArray<{
    readonly url: string
    readonly kernels: number
    /** Its process ended: it gets no more kernels. */
    readonly isGone: boolean
  }>
}

/**
 * A pool of kernels.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { KernelGateway, KernelPool } from "effect-jupyter"
 *
 * const answer = Effect.gen(function*() {
 *   const pool = yield* KernelPool.KernelPool
 *   const kernel = yield* pool.get
 *   return yield* kernel.execute("6 * 7")
 * }).pipe(Effect.scoped)
 *
 * export const program = answer.pipe(
 *   Effect.provide(KernelPool.layer({ size: 4 }).pipe(Layer.provide(KernelGateway.layer())))
 * )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class KernelPool extends Context.Service<KernelPool, {
  /**
   * Returns a kernel that was not used before. It is deleted when the scope closes, and the pool starts another.
   *
   * If no kernel is ready, the request waits in a queue. It fails with the reason `KernelStartFailed` if `maxWaiting`
   * requests wait already, if it waits longer than `acquireTimeout`, if three starts in a row fail or `setup` raises, if
   * all gateways have ended, and if the pool is closed. It fails with `ConnectionLost` if no gateway answers. The pool
   * continues to try starts, at least every 10 seconds.
   *
   * `reset` of the kernel requests another kernel of the pool, and is served before the queue.
   */
  readonly get: Effect.Effect<Kernel, KernelError, Scope.Scope>
  /** The current numbers of the pool. */
  readonly state: Effect.Effect<State>
}>()("effect-jupyter/KernelPool") {}

/**
 * The gateways behind a pool.
 *
 * @category models
 * @since 0.1.0
 */
export interface GatewaysOptions<E, R> {
  /** Local or remote gateways. Each kernel is started on the one with the fewest kernels of the pool. */
  readonly gateways: ReadonlyArray<Layer.Layer<KernelGateway, E, R>>
}

/**
 * Makes a pool over the gateway of the context, or over `gateways`. It returns before the first kernels are ready.
 * When the scope closes, all kernels are deleted, including those in use.
 *
 * Fails with the error of a gateway in `gateways` that cannot be built. If one of several gateways ends later, its
 * kernels are lost, and new ones are started on the others.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway, KernelPool } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const pool = yield* KernelPool.make({
 *     warm: 2,
 *     max: 16,
 *     setup: "import pandas as pd",
 *     gateways: [
 *       KernelGateway.layer({ python: { packages: ["pandas"] } }),
 *       KernelGateway.layerRemote({ url: "http://gateway.example.org:8888", token: "secret" })
 *     ]
 *   })
 *   const kernel = yield* pool.get
 *   return yield* kernel.execute("pd.DataFrame({'x': [1, 2]}).describe()")
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function make<E, R>(
  options: PoolOptions & GatewaysOptions<E, R>,
): Effect.Effect<KernelPool["Service"], E, R | Scope.Scope>
export function make(
  options?: PoolOptions & { readonly gateways?: undefined },
): Effect.Effect<KernelPool["Service"], never, KernelGateway | Scope.Scope>
export function make<E, R>(
  options: PoolOptions & { readonly gateways?: GatewaysOptions<E, R>["gateways"] | undefined } = {},
): Effect.Effect<KernelPool["Service"], E, R | KernelGateway | Scope.Scope> {
  return Effect.gen(function* () {
    if (options.gateways === undefined) return yield* makeOver([yield* KernelGateway], options)
    const contexts = yield* Effect.forEach(options.gateways, (gateway) => Layer.build(gateway), {
      concurrency: "unbounded",
    })
    return yield* makeOver(contexts.map((context) => Context.get(context, KernelGateway)), options)
  }).pipe(Span.withSpan("KernelPool.make"))
}

const makeOver = (
  gateways: ReadonlyArray<KernelGateway["Service"]>,
  options: PoolOptions,
): Effect.Effect<KernelPool["Service"], never, Scope.Scope> =>
  Effect.map(Gateways.make(gateways, options), ({ get, state }) => KernelPool.of({ get, state }))

/**
 * Provides a pool. Fails as {@link make} does.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { KernelGateway, KernelPool } from "effect-jupyter"
 *
 * export const pool = KernelPool.layer({ min: 1, max: 8, warm: 2, idleTimeToLive: "10 minutes" }).pipe(
 *   Layer.provide(KernelGateway.layer())
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layer<E, R>(
  options: PoolOptions & GatewaysOptions<E, R>,
): Layer.Layer<KernelPool, E, R>
export function layer(
  options?: PoolOptions & { readonly gateways?: undefined },
): Layer.Layer<KernelPool, never, KernelGateway>
export function layer<E, R>(
  options: PoolOptions & { readonly gateways?: GatewaysOptions<E, R>["gateways"] | undefined } = {},
): Layer.Layer<KernelPool, E, R | KernelGateway> {
  const { gateways, ...rest } = options
  return gateways === undefined
    ? Layer.effect(KernelPool, make(rest))
    : Layer.effect(KernelPool, make({ ...rest, gateways }))
}

/**
 * Provides a pool with options from configuration. Fails with `ConfigError` if an option is missing or invalid.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { KernelPool } from "effect-jupyter"
 *
 * export const pool = KernelPool.layerConfig({ max: Config.Int("MAX_KERNELS") })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layerConfig(
  options: Config.Wrap<PoolOptions>,
): Layer.Layer<KernelPool, Config.ConfigError, KernelGateway> {
  return Layer.effect(KernelPool, Effect.flatMap(Config.unwrap(options), (options) => make(options)))
}

/**
 * Provides a kernel of the pool, see {@link KernelPool}. Fails as `get` of the pool does.
 *
 * The layer is not memoized: each build takes another kernel of the pool, as for each key of a `LayerMap`. To share one
 * kernel, assign the result of `Layer.provide` to a constant.
 *
 * @example
 * ```ts
 * import { Effect, Layer, LayerMap } from "effect"
 * import { KernelClient, KernelGateway, KernelPool } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernels = yield* LayerMap.make((_user: string) => KernelPool.layerClient)
 *   const ask = Effect.flatMap(KernelClient.KernelClient, (kernel) => kernel.execute("6 * 7"))
 *   yield* Effect.provide(ask, kernels.get("ada"))
 *   yield* Effect.provide(ask, kernels.get("grace"))
 * }).pipe(
 *   Effect.scoped,
 *   Effect.provide(KernelPool.layer({ size: 2 }).pipe(Layer.provide(KernelGateway.layer())))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient: Layer.Layer<KernelClient, KernelError, KernelPool> = Layer.fresh(
  Layer.effect(KernelClient, Effect.flatMap(KernelPool, ({ get }) => get)),
)
