/** Runs code in a kernel of its own gateway and prints its text, or the failure, for the tests that need a process for it. */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Logger } from "effect"
import process from "node:process"
import { KernelClient, KernelGateway } from "../../src/mod.ts"

const run = Effect.gen(function* () {
  const kernel = yield* KernelClient.KernelClient
  return (yield* kernel.execute(process.argv[2] ?? "")).text ?? ""
})

run.pipe(
  Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))),
  Effect.catch((error) => Effect.succeed(error.message)),
  Effect.flatMap(Console.log),
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain,
)
