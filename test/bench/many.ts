/** Many kernels of one gateway: how long until all have given a result, and what each of them costs. */
import { Effect, Exit, Scope } from "effect"
import process from "node:process"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import { supervisors } from "../support/processes.ts"
import { memoryBelow } from "./memory.ts"
import { quiet } from "./quiet.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"
import { inTurns, median, milliseconds, type Row } from "./table.ts"

const kernels = 32

/** Time for all of them; once they rest, what one takes, with all that is there for their sake, is noted in MB. */
const crowd = Effect.fnUntraced(
  function* <E>(
    kernel: Effect.Effect<unknown, E, Scope.Scope>,
    { memory, pid }: { readonly pid: number; readonly memory: Array<number> },
  ) {
    const scope = yield* Scope.make("parallel")
    const time = yield* milliseconds(
      Effect.all(Array.from({ length: kernels }, () => Scope.provide(kernel, scope)), { concurrency: 4 }),
    )
    yield* quiet
    memory.push(memoryBelow(pid) / kernels)
    yield* Scope.close(scope, Exit.void)
    return time
  },
)

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const stock = yield* Stock.start
  const own = yield* KernelGateway.make()
  const [supervisor] = supervisors(process.pid)
  const ours = Effect.flatMap(
    Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, own),
    (kernel) => kernel.execute("1+1"),
  )
  const raw = Effect.flatMap(Raw.make(stock.url), (kernel) => kernel.execute("1+1"))
  const memory: Array<number> = []
  const memoryStock: Array<number> = []
  const [time = NaN, timeStock = NaN] = yield* inTurns(3, [
    crowd(ours, { pid: supervisor?.pid ?? NaN, memory }),
    crowd(raw, { pid: stock.pid, memory: memoryStock }),
  ], { before: quiet })
  return [
    {
      what: `${kernels} kernels started, against stock`,
      ours: time,
      theirs: timeStock,
      unit: "ms",
      atMost: 0.3,
    },
    {
      what: `memory per kernel (PSS, N = ${kernels}), against stock`,
      ours: median(memory),
      theirs: median(memoryStock),
      unit: "MB",
      atMost: 0.35,
    },
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped)
