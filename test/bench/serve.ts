/**
 * The size of installations: kernels per GB, starts per second of a core, and messages per second that a gateway passes
 * on. A server of `effect-jupyter serve` has the kernels, as another machine would.
 */
import { Clock, Effect, Exit, Scope, Stream } from "effect"
import { cpus } from "node:os"
import process from "node:process"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import * as Serve from "../support/serve.ts"
import { descendants, supervisors } from "../support/processes.ts"
import { memoryBelow } from "./memory.ts"
import { quiet } from "./quiet.ts"
import { inTurns, type Row } from "./table.ts"

const kernels = 32
const lines = 20_000

/** Seconds that an effect takes. */
const seconds = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const start = yield* Clock.currentTimeMillis
    yield* effect
    return ((yield* Clock.currentTimeMillis) - start) / 1000
  })

/** Messages per second of one kernel that prints, each line in a message of its own. */
const throughput = Effect.fnUntraced(function* (gateway: KernelGateway.KernelGateway["Service"]) {
  const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
  const run = (count: number) =>
    Stream.runDrain(kernel.stream(`for i in range(${count}): print(i, flush=True)`, { outputLimit: 1000 }))
  yield* run(1000)
  return lines / (yield* seconds(run(lines)))
}, Effect.scoped)

/** Starts kernels at the same time; returns how many a second, and the memory of one in MB. */
const crowd = Effect.fnUntraced(
  function* (gateway: KernelGateway.KernelGateway["Service"], supervisor: number) {
    const scope = yield* Scope.make("parallel")
    const start = Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
    const all = Effect.all(Array.from({ length: kernels }, () => Scope.provide(start, scope)), {
      concurrency: 8,
    })
    const time = yield* seconds(all)
    yield* quiet
    const memory = memoryBelow(supervisor) / kernels
    yield* Scope.close(scope, Exit.void)
    return { perSecond: kernels / time, memory }
  },
)

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const server = yield* Serve.start()
  const [supervisor] = descendants(server.pid)
  const joined = yield* Serve.connect(server)
  const channels = yield* Serve.connect(server, { reconnect: true })
  const remote = yield* crowd(joined, supervisor?.pid ?? NaN)
  const local = yield* KernelGateway.make({ fork: false })
  const started = yield* crowd(local, supervisors(process.pid)[0]?.pid ?? NaN)
  const [own = NaN, overChannels = NaN, onThisMachine = NaN] = yield* inTurns(
    3,
    [throughput(joined), throughput(channels), throughput(yield* KernelGateway.make())],
    { before: quiet },
  )
  return [
    {
      what: "kernels per GB, forked, against started",
      ours: 1024 / remote.memory,
      theirs: 1024 / started.memory,
      unit: "",
    },
    {
      what: "starts per second of a core, forked on a server, against started on this machine",
      ours: remote.perSecond / cpus().length,
      theirs: started.perSecond / cpus().length,
      unit: "",
    },
    {
      what: "messages per second, joined, against Jupyter's channels of the same server",
      ours: own,
      theirs: overChannels,
      unit: "",
    },
    {
      what: "messages per second, joined, against a kernel of this machine",
      ours: own,
      theirs: onThisMachine,
      unit: "",
    },
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped)
