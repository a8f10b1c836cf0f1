/** The time to a usable kernel: without a gateway, from a gateway, from a pool, and by a reset. */
import { Effect, Exit, Scope } from "effect"
import { KernelClient, KernelGateway, KernelPool } from "../../src/mod.ts"
import * as IpyboxWay from "./ipybox_way.ts"
import * as Python from "./python.ts"
import { quiet } from "./quiet.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"
import { inTurns, milliseconds, present, type Row } from "./table.ts"

const rounds = 11

/** Until the result; what the end takes is not counted. */
const untilDone = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.scoped(milliseconds(effect))

const ourNothing = Effect.flatMap(KernelGateway.make(), (gateway) =>
  KernelClient.make().pipe(
    Effect.flatMap((kernel) => kernel.execute("1+1")),
    Effect.provideService(KernelGateway.KernelGateway, gateway),
  ))
const waysNothing = Effect.flatMap(IpyboxWay.fromNothing, (kernel) => kernel.execute("1+1"))
const stockNothing = Effect.flatMap(
  Stock.start,
  ({ url }) => Effect.flatMap(Raw.make(url), (kernel) => kernel.execute("1+1")),
)

/** A kernel that is deleted when the next one is asked for, which is how to reset without a library. */
const replaceable = Effect.fnUntraced(function* <E, R>(kernel: Effect.Effect<unknown, E, R | Scope.Scope>) {
  const outer = yield* Effect.scope
  let scope = yield* Scope.fork(outer)
  yield* Scope.provide(kernel, scope)
  const replace = Effect.gen(function* () {
    yield* Scope.close(scope, Exit.void)
    scope = yield* Scope.fork(outer)
    yield* Scope.provide(kernel, scope)
  })
  return { replace }
})

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const ipybox = yield* Python.ipybox
  const [nothing = NaN, nothingWay = NaN, nothingStock = NaN, nothingIpybox = NaN] = yield* inTurns(
    5,
    [untilDone(ourNothing), untilDone(waysNothing), untilDone(stockNothing), ipybox("nothing")],
    { before: quiet },
  )

  const stock = yield* Stock.start
  const own = yield* KernelGateway.make()
  const ours = Effect.flatMap(
    Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, own),
    (kernel) => Effect.as(kernel.execute("1+1"), kernel),
  )
  const raw = Effect.flatMap(Raw.make(stock.url), (kernel) => kernel.execute("1+1"))
  const pool = yield* KernelPool.make({ min: 2, max: 6, warm: 2 }).pipe(
    Effect.provideService(KernelGateway.KernelGateway, own),
  )
  const pooled = Effect.flatMap(pool.get, (kernel) => Effect.as(kernel.execute("1+1"), kernel))
  const reset = (kernel: KernelClient.Kernel) =>
    milliseconds(Effect.andThen(kernel.reset, kernel.execute("1+1")))
  const kept = yield* ours
  const keptOfPool = yield* pooled
  const { replace } = yield* replaceable(raw)
  // The work of the pool after handing out a kernel is part of this turn.
  const ready = pool.state.pipe(
    Effect.delay(20),
    Effect.repeat({ until: (state) => state.warm >= 2 && state.starting + state.stopping === 0 }),
    Effect.andThen(quiet),
  )
  const [
    started = NaN,
    startedStock = NaN,
    fromPool = NaN,
    resetAlone = NaN,
    resetOfPool = NaN,
    resetStock = NaN,
    resetIpybox = NaN,
  ] = yield* inTurns(rounds, [
    untilDone(ours),
    untilDone(raw),
    untilDone(pooled),
    reset(kept),
    reset(keptOfPool),
    milliseconds(replace),
    ipybox("reset"),
  ], { before: ready })
  const all: ReadonlyArray<Row> = [
    {
      what: "nothing → first result, against ipybox's way (stock gateway, its waits)",
      ours: nothing,
      theirs: nothingWay,
      unit: "ms",
      atMost: 0.2,
    },
    { what: "nothing → first result, against ipybox", ours: nothing, theirs: nothingIpybox, unit: "ms" },
    {
      what: "nothing → first result, against a stock gateway asked every 5 ms and raw ws",
      ours: nothing,
      theirs: nothingStock,
      unit: "ms",
    },
    {
      what: "POST → first result, against stock",
      ours: started,
      theirs: startedStock,
      unit: "ms",
      atMost: 0.1,
    },
    {
      what: "kernel acquired from a warm pool, first result in hand, against POST on stock",
      ours: fromPool,
      theirs: startedStock,
      unit: "ms",
      atMost: 0.01,
    },
    {
      what: "reset and first result with a pool, against stock DELETE and POST",
      ours: resetOfPool,
      theirs: resetStock,
      unit: "ms",
      atMost: 0.02,
    },
    {
      what: "reset and first result without a pool, against stock DELETE and POST",
      ours: resetAlone,
      theirs: resetStock,
      unit: "ms",
      atMost: 0.25,
    },
    {
      what: "reset and first result without a pool, against ipybox",
      ours: resetAlone,
      theirs: resetIpybox,
      unit: "ms",
    },
  ]
  return present(all)
}).pipe(Effect.scoped)
