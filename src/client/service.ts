/**
 * The service of a kernel, apart from what starts one, which needs Node.
 *
 * @module
 */
import * as Context from "effect/Context"
import type { Kernel } from "./kernel.ts"

/**
 * The kernel of an application.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { KernelClient, KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   const result = yield* kernel.execute("6 * 7")
 *   yield* Effect.log(result.text)
 * }).pipe(Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))))
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class KernelClient extends Context.Service<KernelClient, Kernel>()("effect-jupyter/KernelClient") {}
