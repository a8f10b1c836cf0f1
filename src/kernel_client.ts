/**
 * A kernel as a scoped resource: code goes in, a Stream of chunks and a result come out.
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { KernelError } from "./execution.ts"
import * as Gateway from "./gateway/connection.ts"
import type { Images } from "./output/images.ts"
import * as Kernels from "./client/kernel.ts"
import * as Span from "./kernel/span.ts"
import * as Start from "./kernel/start.ts"
import { KernelGateway } from "./kernel_gateway.ts"
import * as Platform from "./platform.ts"

export type { AskOptions, Introspection, IntrospectionFailure } from "./kernel/introspection.ts"
export type { ExecuteOptions, Kernel } from "./client/kernel.ts"
export type { ImageFile, Images } from "./output/images.ts"
export type { InputRequest } from "./kernel/input.ts"

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
export class KernelClient
  extends Context.Service<KernelClient, Kernels.Kernel>()("effect-jupyter/KernelClient") {}

/**
 * Which kernel to start and how.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClientOptions extends Start.StartOptions {
  /** Where images are written; `"images"` by default. Made with the first image. */
  readonly imagesDir?: string | undefined
  /**
   * What becomes of images: files in `imagesDir` (`"directory"`, the default), `bytes` of the result's images, or what
   * a function makes of them, which gives the `path` that the result names. One that fails costs the image alone.
   */
  readonly images?: Images | undefined
}

/**
 * Starts a kernel and connects to it. The kernel is deleted when the scope closes.
 *
 * Fails with {@link KernelError} for the reasons `KernelStartFailed` and `ConnectionLost`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient, KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const [a, b] = yield* Effect.all([KernelClient.make(), KernelClient.make()])
 *   yield* Effect.all([a.execute("x = 1"), b.execute("x = 2")], { concurrency: 2 })
 * }).pipe(Effect.scoped, Effect.provide(KernelGateway.layer()))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options?: ClientOptions,
) => Effect.Effect<Kernels.Kernel, KernelError, KernelGateway | Scope.Scope> = Effect.fnUntraced(
  function* (options: ClientOptions = {}) {
    const platform = yield* Platform.services
    const gateway = yield* Effect.provideContext(Gateway.of(yield* KernelGateway), platform)
    const starting = yield* Effect.provideContext(Start.load(options), platform)
    return yield* Kernels.make({
      start: starting(gateway),
      imagesDir: options.imagesDir,
      images: options.images,
      untrusted: gateway.sandbox?.rules.allowWrite,
      platform,
    })
  },
  Span.withSpan("KernelClient.make"),
)

/**
 * Provides a kernel, see {@link make}.
 *
 * Each call is a layer of its own. One that is bound to a constant is one kernel for all that a build provides it to,
 * as with any layer: the lookup of a `LayerMap` calls `layer`, so that each key gets a kernel of its own.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { KernelClient, KernelGateway } from "effect-jupyter"
 *
 * export const kernel = KernelClient.layer({ workingDir: "data", imagesDir: "plots" }).pipe(
 *   Layer.provide(KernelGateway.layer())
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layer(options?: ClientOptions): Layer.Layer<KernelClient, KernelError, KernelGateway> {
  return Layer.effect(KernelClient, make(options))
}

/**
 * Provides a kernel with options that come from configuration, see {@link make}.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const kernel = KernelClient.layerConfig({ imagesDir: Config.String("IMAGES_DIR") })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layerConfig(
  options: Config.Wrap<ClientOptions>,
): Layer.Layer<KernelClient, KernelError | Config.ConfigError, KernelGateway> {
  return Layer.effect(KernelClient, Effect.flatMap(Config.unwrap(options), make))
}
