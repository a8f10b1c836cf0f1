/**
 * Starts a kernel as a scoped resource, which executes code and returns its output as a Stream and a result.
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as RpcClient from "effect/rpc/RpcClient"
import type { KernelError, KernelRef } from "./execution.ts"
import * as Gateway from "./gateway/connection.ts"
import type { AttachOptions, ClientOptions } from "./client/options.ts"
import * as Kernels from "./client/kernel.ts"
import { KernelClient } from "./client/service.ts"
import * as Span from "./kernel/span.ts"
import * as Start from "./kernel/start.ts"
import { KernelGateway } from "./kernel_gateway.ts"
import * as Platform from "./platform.ts"
import * as Remote from "./rpc/client.ts"

export type { AskOptions, Introspection, IntrospectionFailure } from "./kernel/introspection.ts"
export type { ExecuteOptions, Kernel, ResumeOptions, StartCodeOptions } from "./client/kernel.ts"
export { KernelClient } from "./client/service.ts"
export type { AttachOptions, ClientOptions } from "./client/options.ts"
export type { ImageFile, Images } from "./output/images.ts"
export type { InputRequest } from "./kernel/input.ts"

/**
 * Starts a kernel and connects to it. The kernel is deleted when the scope closes.
 *
 * Fails with {@link KernelError}: `KernelStartFailed` if the kernel does not become ready, `ConnectionLost` if the server
 * is not reachable, `ResourceLimit`, `Forbidden` or `NoSuchKernelspec` if the server refuses, and `InvalidOption`.
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
) => Effect.Effect<Kernels.Kernel, KernelError, KernelGateway | Scope.Scope> = (options = {}) =>
  Span.withSpan("KernelClient.make")(open(options))

/**
 * Attaches to a kernel that was detached, in this program or another one. The program that was attached before, if it
 * still runs, fails with the reason `SessionTaken` from then on. The kernel stays when the scope closes, unless `deletes`
 * is set.
 *
 * Executions wait for code that was started before. A kernel that died can be attached as long as its gateway keeps the
 * output of code that was started, which `resume` emits; every other operation fails with the reason `KernelDied`.
 *
 * Fails with {@link KernelError}: `KernelNotFound` or `KernelDied` if the kernel is gone, `ServerReplaced` if it was on
 * another server, `ConnectionLost` if the server is not reachable, and `InvalidOption`.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { type Execution, KernelClient, KernelGateway } from "effect-jupyter"
 *
 * const gateway = KernelGateway.layerShared({ name: "reports" })
 *
 * export const rest = (ref: Execution.ExecutionRef) =>
 *   Effect.gen(function*() {
 *     const kernel = yield* KernelClient.attach(ref.kernel)
 *     yield* Stream.runForEach(kernel.resume(ref), Effect.log)
 *   }).pipe(Effect.scoped, Effect.provide(gateway))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const attach: (
  ref: KernelRef,
  options?: AttachOptions,
) => Effect.Effect<Kernels.Kernel, KernelError, KernelGateway | Scope.Scope> = (ref, options = {}) =>
  Span.withSpan("KernelClient.attach")(open(options, ref))

/** Starts a kernel, or attaches to one, and connects to it. */
const open = Effect.fnUntraced(function* (options: AttachOptions, ref?: KernelRef) {
  const platform = yield* Platform.services
  const gateway = yield* Effect.provideContext(Gateway.of(yield* KernelGateway), platform)
  const starting = yield* Effect.provideContext(Start.load(options), platform)
  const { deletes = false } = options
  return yield* Kernels.make({
    start: starting(gateway),
    attach: ref && Start.attach(gateway, ref, { ...options, deletes }),
    imagesDir: options.imagesDir,
    images: options.images,
    maxMessageSize: options.maxMessageSize,
    untrusted: gateway.sandbox?.rules.allowWrite,
    platform,
  })
})

/**
 * Provides a kernel. Fails as {@link make} does.
 *
 * Like any layer, one that is assigned to a constant is built once in a program, and all its users share one kernel.
 * Each call of `layer` returns a new layer: the lookup function of a `LayerMap` calls it to start a kernel for each key.
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
 * Provides a kernel that was detached. Fails as {@link attach} does.
 *
 * @example
 * ```ts
 * import { type Execution, KernelClient } from "effect-jupyter"
 *
 * export const kernel = (ref: Execution.KernelRef) => KernelClient.layerAttach(ref, { imagesDir: "plots" })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layerAttach(
  ref: KernelRef,
  options?: AttachOptions,
): Layer.Layer<KernelClient, KernelError, KernelGateway> {
  return Layer.effect(KernelClient, attach(ref, options))
}

/**
 * Provides a kernel with options from configuration. Fails as {@link make} does, and with `ConfigError` if an option is
 * missing or invalid.
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

/**
 * Provides the kernel of a session in another process, which serves `KernelRpc.group`. Its session is in use until the
 * scope of the layer closes.
 *
 * The kernel is the same as in its process, with these differences:
 *
 * - Images are sent as `bytes` by default. The option `images: "directory"` fails with the reason `Unsupported`.
 * - The text and the displays of a result have at most 100 MB each, which `outputLimit` can only reduce.
 * - If the connection is lost, executions that run are interrupted, and fail with the reason `ConnectionLost` as all
 *   requests do until it is there again. Late output that arrives meanwhile is lost.
 * - With `RpcSerialization.layerSchemaBinary`, a surrogate of a text that is alone arrives as U+FFFD.
 * - Code, values and output of any size are sent in parts. An answer of introspection with more than 15 MB fails with
 *   `IntrospectionFailed`.
 * - Over HTTP with `RpcSerialization.layerJson`, an answer arrives as a whole: output when the code has ended, until when
 *   the server holds it in memory, and late output never. `stream` with more than 100 MB of output, `onInput`, and a
 *   function as `images` fail with the reason `Unsupported`. `layerNdjson` and WebSockets have none of these limits.
 * - If the session is closed or gets a new kernel, requests fail with the reason `ExecutionAborted` until `reset`; if
 *   its process ended, they fail with `KernelDied`.
 *
 * @example
 * ```ts
 * import { NodeHttpClient } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 * import { RpcClient, RpcSerialization } from "effect/rpc"
 * import { KernelClient } from "effect-jupyter"
 *
 * const Protocol = RpcClient.layerProtocolHttp({ url: "https://kernels.example.org/rpc" }).pipe(
 *   Layer.provide([RpcSerialization.layerNdjson, NodeHttpClient.layerUndici])
 * )
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   return yield* kernel.execute("6 * 7")
 * }).pipe(Effect.provide(KernelClient.layerRpc("ada").pipe(Layer.provide(Protocol))))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRpc = (key: string): Layer.Layer<KernelClient, KernelError, RpcClient.Protocol> =>
  Layer.effect(KernelClient, Remote.make(key))
