/**
 * A program with a sandboxed kernel in the workspace that its argument names, and a daemon of that kernel, for the
 * test that kills them.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import process from "node:process"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import { sandboxUser } from "./sandbox.ts"

const [, , workingDir = ""] = process.argv

Effect.gen(function* () {
  const kernel = yield* KernelClient.KernelClient
  yield* kernel.execute("import subprocess; subprocess.run(['setsid', '--fork', 'sleep', '1000'])")
  return yield* Effect.never
}).pipe(
  Effect.provide(
    KernelClient.layer().pipe(Layer.provide(KernelGateway.layer({ workingDir, sandbox: sandboxUser }))),
  ),
  NodeRuntime.runMain,
)
