/**
 * A program that reads 100 MB, printed in lines of 1 kB, and prints its peak memory in MB, with that of its gateway and
 * kernel. Takes `ours` or `stock`.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Schedule, Stream } from "effect"
import process from "node:process"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"
import { memoryOf } from "./memory.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"

const flood = "line = 'x' * 1023 + '\\n'\nfor _ in range(100_000): print(line, end='')"

const ours = KernelGateway.make().pipe(
  Effect.flatMap((gateway) =>
    Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
  ),
  Effect.map((kernel) => Stream.runDrain(kernel.stream(flood, { outputLimit: 1_000_000 }))),
)
/** Without the limits of Jupyter Server, which would drop most of the output. */
const stock = Effect.map(
  Effect.flatMap(Stock.unlimited, ({ url }) => Raw.make(url, { keepsOutputs: false })),
  (kernel) => kernel.execute(flood),
)

Effect.gen(function* () {
  const execution = yield* process.argv[2] === "ours" ? ours : stock
  let peak = 0
  const look = Effect.sync(() => {
    peak = Math.max(peak, memoryOf(process.pid))
  })
  yield* Effect.raceFirst(execution, Effect.repeat(look, Schedule.spaced("50 millis")))
  yield* Console.log(peak)
}).pipe(Effect.scoped, Effect.provide(Layer.fresh(Platform.layer)), NodeRuntime.runMain)
