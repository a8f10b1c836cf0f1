/** What it takes to have a kernel, from nothing, from a gateway and from a pool, and what it costs to keep many. */
import { Effect, Scope } from "effect"
import { readFileSync } from "node:fs"
import process from "node:process"
import { KernelClient, KernelGateway, KernelPool } from "../../src/mod.ts"
import { descendants, supervisors } from "../support/processes.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"
import { inTurns, milliseconds, type Row } from "./table.ts"

/** The memory of a process that it shares with nobody, and its part of what it shares, in MB. */
function pss(pid: number): number {
  try {
    const kilobytes = /^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? "0"
    return Number(kilobytes) / 1024
  } catch {
    return 0
  }
}

/** The memory of all below a process, in MB. */
export function memoryBelow(pid: number): number {
  return descendants(pid).reduce((sum, process) => sum + pss(process.pid), 0)
}

const many = 32

const ourNothing = Effect.flatMap(KernelGateway.make(), (gateway) =>
  KernelClient.make().pipe(
    Effect.flatMap((kernel) => kernel.execute("1+1")),
    Effect.provideService(KernelGateway.KernelGateway, gateway),
  ))
const theirNothing = Effect.flatMap(
  Stock.start(),
  ({ url }) => Effect.flatMap(Raw.make(url), (raw) => raw.execute("1+1")),
)

/** Until the result; what the end takes is not counted. */
const untilDone = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.scoped(milliseconds(effect))

/** Time for many kernels, and what one of them takes, in MB. */
const manyKernels = Effect.fnUntraced(
  function* <E>(kernel: Effect.Effect<unknown, E, Scope.Scope>, pid: number) {
    const scope = yield* Scope.make()
    const before = memoryBelow(pid)
    const time = yield* milliseconds(
      Effect.all(Array.from({ length: many }, () => Scope.provide(kernel, scope)), { concurrency: 4 }),
    )
    const memory = (memoryBelow(pid) - before) / many
    yield* Scope.close(scope, yield* Effect.exit(Effect.void))
    return { time, memory }
  },
)

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const [nothing = NaN, theirs = NaN] = yield* inTurns(5, [untilDone(ourNothing), untilDone(theirNothing)])

  const stock = yield* Stock.start()
  const own = yield* KernelGateway.make()
  const [supervisor] = supervisors(process.pid)
  const ours = Effect.flatMap(
    Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, own),
    (kernel) => Effect.as(kernel.execute("1+1"), kernel),
  )
  const raw = Effect.flatMap(Raw.make(stock.url), (kernel) => Effect.as(kernel.execute("1+1"), kernel))
  const pool = yield* KernelPool.make({ min: 2, max: 6, warm: 2 }).pipe(
    Effect.provideService(KernelGateway.KernelGateway, own),
  )
  const pooled = Effect.flatMap(pool.get, (kernel) => Effect.as(kernel.execute("1+1"), kernel))
  const warm = Effect.repeat(Effect.delay(pool.state, 50), { until: ({ warm }) => warm >= 2 })
  const reset = (kernel: KernelClient.Kernel) => Effect.andThen(kernel.reset, kernel.execute("1+1"))
  const kept = yield* ours
  const keptOfPool = yield* pooled
  const [started = NaN, startedRaw = NaN, fromPool = NaN, again = NaN, againFromPool = NaN, againRaw = NaN] =
    yield* inTurns(7, [
      untilDone(ours),
      untilDone(raw),
      Effect.andThen(warm, untilDone(pooled)),
      milliseconds(reset(kept)),
      Effect.andThen(warm, milliseconds(reset(keptOfPool))),
      milliseconds(Effect.andThen(Effect.scoped(raw), Effect.scoped(raw))).pipe(
        Effect.map((time) => time / 2),
      ),
    ])
  const crowd = yield* manyKernels(ours, supervisor?.pid ?? process.pid)
  const crowdRaw = yield* manyKernels(raw, stock.pid)
  return [
    {
      what: "nothing → first result, against a stock gateway and raw ws",
      ours: nothing,
      theirs,
      unit: "ms",
      atMost: 0.2,
    },
    { what: "POST → first result, against stock", ours: started, theirs: startedRaw, unit: "ms" },
    {
      what: "kernel of a warm pool → first result, against POST on stock",
      ours: fromPool,
      theirs: startedRaw,
      unit: "ms",
      atMost: 0.03,
    },
    {
      what: "reset with a pool → first result, against DELETE and POST",
      ours: againFromPool,
      theirs: againRaw,
      unit: "ms",
      atMost: 0.02,
    },
    {
      what: "reset without a pool → first result, against the same",
      ours: again,
      theirs: againRaw,
      unit: "ms",
      atMost: 0.25,
    },
    {
      what: `${many} kernels with a first result, against stock`,
      ours: crowd.time,
      theirs: crowdRaw.time,
      unit: "ms",
      atMost: 0.3,
    },
    {
      what: `memory of one of ${many} kernels (PSS), against stock`,
      ours: crowd.memory,
      theirs: crowdRaw.memory,
      unit: "MB",
      atMost: 0.65,
    },
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped)
