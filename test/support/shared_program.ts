/**
 * A program with a shared gateway and a kernel, for tests that kill it. Its argument has the options of the gateway as
 * JSON. It prints the id of the gateway and that of the kernel, then runs each line of its standard input, and prints
 * the text of the result.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import process from "node:process"
import { createInterface } from "node:readline"
import * as Connection from "../../src/gateway/connection.ts"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"

Effect.gen(function* () {
  const { serverId } = yield* Effect.flatMap(KernelGateway.KernelGateway, Connection.of)
  const kernel = yield* KernelClient.KernelClient
  yield* Console.log(JSON.stringify({ serverId, kernelId: kernel.id }))
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  for (let line = yield* Effect.promise(() => lines.next()); line.done !== true;) {
    const { text } = yield* kernel.execute(line.value)
    yield* Console.log(JSON.stringify(text ?? null))
    line = yield* Effect.promise(() => lines.next())
  }
}).pipe(
  Effect.provide(
    KernelClient.layer().pipe(
      Layer.provideMerge(KernelGateway.layerShared(JSON.parse(process.argv[2] ?? "{}"))),
      Layer.provideMerge(Platform.layer),
    ),
  ),
  NodeRuntime.runMain,
)
