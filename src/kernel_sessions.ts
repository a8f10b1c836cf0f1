/**
 * Kernels by key: a user who comes back finds the kernel with its state, until it was not used for some time.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { KernelError } from "./execution.ts"
import { KernelClient } from "./kernel_client.ts"
import { KernelGateway } from "./kernel_gateway.ts"
import type { GatewaysOptions } from "./kernel_pool.ts"
import * as Sessions from "./sessions/make.ts"
import type { SessionsOptions } from "./sessions/options.ts"
import { KernelSessions } from "./sessions/service.ts"

export type { SessionsOptions } from "./sessions/options.ts"
export { KernelSessions } from "./sessions/service.ts"
export { Closed, Died, Evicted, Idle, Opened, Replaced, Session, SessionEvent } from "./sessions/session.ts"

/**
 * Makes sessions over a pool of their own, over the gateway of the context or over `gateways`. When the scope closes, all
 * of them are closed. If one of several gateways ends, its sessions get kernels on the others by the next `get`.
 *
 * Fails with the reason `InvalidOption`, and with the error of a gateway in `gateways` that cannot be built; requests
 * fail for other reasons, see {@link KernelSessions}.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway, KernelSessions } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const sessions = yield* KernelSessions.make({
 *     idleTimeToLive: "1 hour",
 *     setup: (kernel, user) => kernel.set("user", user)
 *   })
 *   const kernel = yield* sessions.get("ada")
 *   return yield* kernel.execute("print('Hello', user)")
 * }).pipe(Effect.scoped, Effect.provide(KernelGateway.layer()))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function make<R = never, E = never, RG = never>(
  options: SessionsOptions<R> & GatewaysOptions<E, RG>,
): Effect.Effect<KernelSessions["Service"], KernelError | E, R | RG | Scope.Scope>
export function make<R = never>(
  options?: SessionsOptions<R> & { readonly gateways?: undefined },
): Effect.Effect<KernelSessions["Service"], KernelError, KernelGateway | Scope.Scope | R>
export function make<R, E, RG>(
  { gateways, ...options }: SessionsOptions<R> & {
    readonly gateways?: GatewaysOptions<E, RG>["gateways"] | undefined
  } = {},
): Effect.Effect<KernelSessions["Service"], KernelError | E, KernelGateway | R | RG | Scope.Scope> {
  if (gateways === undefined) {
    return Effect.flatMap(KernelGateway, (gateway) => Sessions.make([gateway], options))
  }
  return Effect.forEach(gateways, (gateway) => Layer.build(gateway), { concurrency: "unbounded" }).pipe(
    Effect.flatMap((contexts) =>
      Sessions.make(contexts.map((context) => Context.get(context, KernelGateway)), options)
    ),
  )
}

/**
 * Provides sessions. Fails as {@link make} does.
 *
 * Each build of the layer has kernels of its own: the same key in two of them is two sessions.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { KernelGateway, KernelSessions } from "effect-jupyter"
 *
 * export const sessions = KernelSessions.layer({ max: 20, warm: 2, idleTimeToLive: "10 minutes" }).pipe(
 *   Layer.provide(KernelGateway.layer())
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layer<R = never, E = never, RG = never>(
  options: SessionsOptions<R> & GatewaysOptions<E, RG>,
): Layer.Layer<KernelSessions, KernelError | E, Exclude<R, Scope.Scope> | Exclude<RG, Scope.Scope>>
export function layer<R = never>(
  options?: SessionsOptions<R> & { readonly gateways?: undefined },
): Layer.Layer<KernelSessions, KernelError, KernelGateway | Exclude<R, Scope.Scope>>
export function layer<R, E, RG>(
  { gateways, ...options }: SessionsOptions<R> & {
    readonly gateways?: GatewaysOptions<E, RG>["gateways"] | undefined
  } = {},
): Layer.Layer<
  KernelSessions,
  KernelError | E,
  KernelGateway | Exclude<R, Scope.Scope> | Exclude<RG, Scope.Scope>
> {
  return gateways === undefined
    ? Layer.effect(KernelSessions, make(options))
    : Layer.effect(KernelSessions, make({ ...options, gateways }))
}

/**
 * Provides the kernel of a key, see {@link KernelSessions}. Fails as `get` of the sessions does.
 *
 * @example
 * ```ts
 * import { Effect, LayerMap } from "effect"
 * import { KernelClient, KernelSessions } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernels = yield* LayerMap.make((user: string) => KernelSessions.layerClient(user))
 *   const ask = Effect.flatMap(KernelClient.KernelClient, (kernel) => kernel.execute("6 * 7"))
 *   return yield* Effect.provide(ask, kernels.get("ada"))
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (key: string): Layer.Layer<KernelClient, KernelError, KernelSessions> =>
  Layer.effect(KernelClient, Effect.flatMap(KernelSessions, ({ get }) => get(key)))
