/**
 * Kernels in a cluster: each session has one owner among any number of processes, by `effect/cluster`. The owner of a
 * key has its kernel, and any process that knows the cluster uses it.
 *
 * @module
 */
import type * as Entity from "effect/cluster/Entity"
import type { Sharding } from "effect/cluster/Sharding"
import * as Layer from "effect/Layer"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import { KernelClient } from "./client/service.ts"
import * as Client from "./cluster/client.ts"
import * as Owner from "./cluster/owner.ts"
import type { KernelError } from "./execution.ts"
import type * as Group from "./rpc/group.ts"
import type { KernelSessions } from "./sessions/service.ts"

export { KernelRefs } from "./sessions/kept.ts"

/**
 * The entity of kernels: the procedures of `KernelRpc.group`, for the session whose key is the id of the entity.
 *
 * Nothing of an execution is stored. If its owner ends, a cluster sends a request again to the next owner; a request
 * with a `session` then fails, and others, which those of {@link layerClient} never are, run a second time. With
 * `continues`, `execute` emits a reference by which `resume` goes on with it.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import * as KernelCluster from "effect-jupyter/kernel_cluster"
 *
 * export const program = Effect.gen(function*() {
 *   const kernelOf = yield* KernelCluster.entity.client
 *   const { kernelId, session } = yield* kernelOf("ada").open({ key: "ada" })
 *   yield* Effect.log(`The kernel is ${kernelId}`)
 *   yield* kernelOf("ada").execute({ key: "ada", session, code: "print(6 * 7)" }).pipe(Stream.runForEach(Effect.log))
 * })
 * ```
 *
 * @category entities
 * @since 0.1.0
 */
export const entity: Entity.Entity<"effect-jupyter/Kernel", RpcGroup.Rpcs<typeof Group.group>> = Owner.entity

/**
 * Makes this process a runner of the kernels' entity: it owns a part of the keys, and has their kernels in its sessions.
 *
 * - A session stays open, with its owner, until the sessions close it. Another runner becomes the owner when this one
 *   stops, or when runners join: code that runs then has `entityTerminationTimeout` of the `ShardingConfig` to end, the
 *   session is closed, and the next owner opens a new one; with the same kernel if {@link KernelRefs} has it.
 * - If this process is killed or does not answer, another runner becomes the owner after `shardLockExpiration`.
 * - Clients of a session that is gone see the reason `KernelDied` until `reset`; `ExecutionAborted` if the owner is the same
 *   process as before, which lost the key meanwhile or evicted the session.
 *
 * The cluster needs a storage of messages, which remembers the keys that have a session: one message for a session.
 * Requests, output and results are not stored.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { KernelGateway, KernelSessions } from "effect-jupyter"
 * import * as KernelCluster from "effect-jupyter/kernel_cluster"
 *
 * export const runner = KernelCluster.layer.pipe(
 *   Layer.provide(KernelSessions.layer({ max: 100 })),
 *   Layer.provide(KernelGateway.layer())
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never, never, Sharding | KernelSessions> = Owner.layer

/**
 * Provides the kernel of a session, whose owner is any runner of the cluster. The session is in use until the scope of
 * the layer closes.
 *
 * The kernel is the same as that of `KernelClient.layerRpc`, with these differences:
 *
 * - While the key has no owner, requests wait for one, for one minute and a half at most.
 * - If the owner ends, what runs and all requests after it fail with the reason `KernelDied` as soon as there is another
 *   one, until `reset`. The output of `execute` is gone with the owner; `stream` has emitted it.
 * - If the next owner has the kernel, its state stays. On a gateway of `KernelGateway.layerShared`, `execute` and `stream`
 *   go on with code that has begun, and `resume` does: each output comes once, and images for a function once more. They
 *   fail with `OutputGone` if the gateway has not kept all output. If they are interrupted meanwhile, the next owner
 *   interrupts the code. Other requests that were sent to the owner before fail with the reason `ConnectionLost`, although
 *   they may run; so do executions on other servers.
 * - A key of more than 255 characters, or with NUL, fails with `InvalidOption`, as storages have no space for it.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 * import * as KernelCluster from "effect-jupyter/kernel_cluster"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   const { text } = yield* kernel.execute("print(6 * 7)")
 *   yield* Effect.log(text)
 * }).pipe(Effect.provide(KernelCluster.layerClient("ada")))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (key: string): Layer.Layer<KernelClient, KernelError, Sharding> =>
  Layer.effect(KernelClient, Client.make(key))
