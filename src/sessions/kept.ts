/**
 * Kernels of sessions that outlive the process: their references are in a store, where the next process finds them.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import { KernelError, KernelRef, KernelStartFailed } from "../execution.ts"
import * as Gateway from "../gateway/connection.ts"
import { type Instance, running } from "../kernel/instance.ts"
import * as Start from "../kernel/start.ts"
import * as Platform from "../platform.ts"
import type { SessionsOptions } from "./options.ts"

/**
 * The store of references to the kernels of sessions, which outlive the process with it; none by default.
 *
 * A session is opened with the kernel that the store has for its key, without `setup`, and else with a new one. The kernels
 * of sessions that are open when the process ends or is killed stay; those of sessions that are closed are deleted. The
 * gateway has to outlive its programs, as that of `KernelGateway.layerShared` does.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { KeyValueStore } from "effect/persistence"
 * import type { SqlClient } from "effect/sql"
 * import { KernelGateway, KernelSessions } from "effect-jupyter"
 * import * as KernelCluster from "effect-jupyter/kernel_cluster"
 *
 * export const sessions = (database: Layer.Layer<SqlClient.SqlClient>) =>
 *   KernelSessions.layer({ max: 20 }).pipe(
 *     Layer.provide(Layer.effect(KernelCluster.KernelRefs, KeyValueStore.KeyValueStore)),
 *     Layer.provide(KeyValueStore.layerSql().pipe(Layer.provide(database))),
 *     Layer.provide(KernelGateway.layerShared({ name: "sessions" }))
 *   )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export const KernelRefs = Context.Reference<KeyValueStore.KeyValueStore | undefined>(
  "effect-jupyter/KernelCluster/KernelRefs",
  { defaultValue: () => undefined },
)

/** The kernels of keys that stay when this process ends. */
export interface Kept {
  /** Returns what attaches to the kernel of a key, if the store has one; a new kernel is started if it is gone. */
  readonly find: (key: string) => Effect.Effect<Attach | undefined, KernelError>
  /** Has a kernel stay. */
  readonly keep: (key: string, instance: Pick<Instance, "durable">) => Effect.Effect<void, KernelError>
  /** Has a kernel end with its scope again, unless another process has it. */
  readonly drop: (key: string, instance: Pick<Instance, "durable">) => Effect.Effect<void>
}

/** Attaches to a kernel, or uses the other start. */
type Attach = (start: Start.Start) => Start.Start

/** Makes the operations over a store. */
export const make = Effect.fnUntraced(function* (
  gateways: ReadonlyArray<Parameters<typeof Gateway.of>[0]>,
  options: Omit<SessionsOptions<never>, "setup">,
) {
  const store = yield* KernelRefs
  if (store === undefined) return undefined
  const refs = KeyValueStore.toSchemaStore(store, KernelRef)
  const platform = yield* Platform.services
  const connections = yield* Effect.forEach(gateways, (gateway) => Gateway.of(gateway)).pipe(
    Effect.provideContext(platform),
  )
  const failed = (error: { readonly message: string }) =>
    new KernelError({
      reason: new KernelStartFailed({
        kernelId: undefined,
        detail: `The store of kernels' references failed: ${error.message}`,
      }),
    })
  /** The references that this process stored. */
  const stored = new WeakMap<Instance["durable"], KernelRef>()
  const kept: Kept = {
    find: (key) =>
      Effect.map(Effect.mapError(refs.get(key), failed), (found): Attach | undefined => {
        const [first] = connections
        if (Option.isNone(found) || first === undefined) return undefined
        const ref = found.value
        const gateway = connections.find((connection) => Gateway.serverOf(connection) === ref.server) ?? first
        return (start) =>
          Start.attach(gateway, ref, { ...options, deletes: false }).pipe(
            // One that died is there as long as the gateway keeps its output.
            Effect.tap(running),
            Effect.catchReasons("KernelError", {
              KernelDied: () => start,
              KernelNotFound: () => start,
              ServerReplaced: () => start,
            }),
          )
      }),
    keep: (key, { durable }) =>
      Effect.flatMap(durable.detach, (ref) => {
        stored.set(durable, ref)
        return Effect.mapError(refs.set(key, ref), failed)
      }),
    drop: Effect.fnUntraced(
      function* (key, { durable }) {
        const ref = stored.get(durable)
        // A process that has the key by now stored a reference of its own: to this kernel, or to another one.
        const storedBy = (isOwn: boolean) =>
          Effect.map(
            refs.get(key),
            Option.exists(({ kernelId, session }) =>
              kernelId === ref?.kernelId && (session === ref.session) === isOwn
            ),
          )
        if ((yield* storedBy(false)) || !(yield* durable.reclaim)) return
        if (yield* storedBy(true)) yield* store.remove(key)
      },
      Effect.catch((error) => Effect.logWarning(failed(error).message)),
    ),
  }
  return kept
})
