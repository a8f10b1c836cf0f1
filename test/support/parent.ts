/** A program with a kernel and children of it that left its session, for the test that kills it. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { KernelClient, KernelGateway } from "../../src/mod.ts"

Effect.gen(function* () {
  const kernel = yield* KernelClient.KernelClient
  yield* kernel.execute(`import subprocess
for environment in ({}, None):
    subprocess.Popen(["sleep", "1000"], start_new_session=True, env=environment)`)
  return yield* Effect.never
}).pipe(
  Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))),
  NodeRuntime.runMain,
)
