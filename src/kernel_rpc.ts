/**
 * Kernels over RPC: the sessions of one process are used by others, with any protocol and serialization of
 * `effect/rpc`. `KernelClient.layerRpc` is the client; this module has it as `layerClient`, and needs no Node, so that
 * it works in a browser.
 *
 * @module
 */
import * as Layer from "effect/Layer"
import type * as Rpc from "effect/rpc/Rpc"
import type * as RpcClient from "effect/rpc/RpcClient"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import { KernelClient } from "./client/service.ts"
import type { KernelError } from "./execution.ts"
import * as Remote from "./rpc/client.ts"
import * as Group from "./rpc/group.ts"
import * as Handlers from "./rpc/handlers.ts"
import type { KernelSessions } from "./sessions/service.ts"

export { KernelClient } from "./client/service.ts"

/**
 * The procedures of kernels. Each takes the `key` of a session.
 *
 * - `execute` emits the chunks of an execution and the result, `interrupt` and `reset` are those of a kernel.
 * - `evaluate` returns the value of an expression as JSON. `exchange`, to which large arguments are sent by `upload`,
 *   carries typed values of any schema.
 * - `complete`, `inspect`, `isComplete`, `history`, `info`, `variables` and `output` are those of a kernel.
 * - `detach`, `start` and `resume` are those of a kernel; a `Position` comes before each chunk of `resume`.
 * - `open` opens a session, and `hold` has it in use until its stream is ended.
 * - `settled` waits until the kernel has ended an execution that was interrupted.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { RpcClient } from "effect/rpc"
 * import { KernelRpc } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const client = yield* RpcClient.make(KernelRpc.group)
 *   yield* client.execute({ key: "ada", code: "print(6 * 7)" }).pipe(Stream.runForEach(Effect.log))
 * })
 * ```
 *
 * @category rpc
 * @since 0.1.0
 */
export const group = Group.group

/**
 * Provides the procedures over the sessions of this process. A client that reaches them can run any code in the kernels
 * of any key: a middleware of the group has to check who it is.
 *
 * Over HTTP the serialization should be `RpcSerialization.layerNdjson`: with `layerJson`, which has no frames, the server
 * holds an answer in memory until it is complete, and `execute` fails beyond 100 MB of output.
 *
 * @example
 * ```ts
 * import { NodeHttpServer } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { RpcSerialization, RpcServer } from "effect/rpc"
 * import { KernelGateway, KernelRpc, KernelSessions } from "effect-jupyter"
 * import { createServer } from "node:http"
 *
 * export const server = HttpRouter.serve(RpcServer.layerHttp({ group: KernelRpc.group, path: "/rpc" })).pipe(
 *   Layer.provide(KernelRpc.layerHandlers),
 *   Layer.provide(KernelSessions.layer()),
 *   Layer.provide(KernelGateway.layer()),
 *   Layer.provide(RpcSerialization.layerNdjson),
 *   Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 3000 }))
 * )
 * ```
 *
 * @category rpc
 * @since 0.1.0
 */
export const layerHandlers: Layer.Layer<
  Rpc.ToHandler<RpcGroup.Rpcs<typeof group>>,
  never,
  KernelSessions
> = Group.group.toLayer(Handlers.make)

/**
 * Provides the kernel of a session in another process. It is `KernelClient.layerRpc`, whose description it has.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { KernelRpc } from "effect-jupyter"
 * import { RpcClient, RpcSerialization } from "effect/rpc"
 * import { Socket } from "effect/socket"
 *
 * const Protocol = RpcClient.layerProtocolSocket().pipe(
 *   Layer.provide(Socket.layerWebSocket("wss://kernels.example.org/rpc")),
 *   Layer.provide([Socket.layerWebSocketConstructorGlobal, RpcSerialization.layerNdjson])
 * )
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelRpc.KernelClient
 *   return yield* kernel.execute("6 * 7")
 * }).pipe(Effect.provide(KernelRpc.layerClient("ada").pipe(Layer.provide(Protocol))))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (key: string): Layer.Layer<KernelClient, KernelError, RpcClient.Protocol> =>
  Layer.effect(KernelClient, Remote.make(key))
