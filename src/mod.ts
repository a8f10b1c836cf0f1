/**
 * Jupyter kernels for Effect: stateful Python as scoped resources, Streams and typed errors.
 *
 * @example
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 * import { KernelClient, KernelGateway } from "effect-jupyter"
 *
 * const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   const { text } = yield* kernel.execute("print('hello from', 6 * 7)")
 *   yield* Effect.log(text)
 * })
 *
 * program.pipe(
 *   Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))),
 *   NodeRuntime.runMain
 * )
 * ```
 *
 * @module
 */
export * as Execution from "./execution.ts"
export * as Introspection from "./introspection.ts"
export * as JupyterHub from "./jupyter_hub.ts"
export * as KernelClient from "./kernel_client.ts"
export * as KernelCluster from "./kernel_cluster.ts"
export * as KernelGateway from "./kernel_gateway.ts"
export * as KernelPool from "./kernel_pool.ts"
export * as KernelRpc from "./kernel_rpc.ts"
export * as KernelSessions from "./kernel_sessions.ts"
export * as PythonEnvironment from "./python_environment.ts"
export * as Sandbox from "./sandbox.ts"
export * as Testing from "./testing.ts"
export * as Values from "./values.ts"
