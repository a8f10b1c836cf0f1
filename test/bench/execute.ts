/** The time of small executions in a warm kernel, by this library and by others, interleaved. */
import { Context, Duration, Effect, Layer, Stream } from "effect"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import * as IpyboxWay from "./ipybox_way.ts"
import * as Python from "./python.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"
import { inTurns, median, milliseconds, present, type Row } from "./table.ts"

const rounds = 8

/** Executions of one turn: after the first ones, the processes of a contender are in the caches of the CPU. */
const executionsOfTurn = 50

/** The median of one turn. */
const inARow = <E, R>(execution: Effect.Effect<number, E, R>) =>
  Effect.map(Effect.replicateEffect(execution, executionsOfTurn), median)

/** The delay of a line of a running cell, which prints the clock. */
const printed = `
import time
for _ in range(40):
    time.sleep(0.03)
    print(time.monotonic())
`
const lateness = (at: number, text: string) =>
  text.split("\n").filter((line) => line !== "").map((line) => at - Number(line) * 1000)

const ourLateness = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
  const late: Array<number> = []
  yield* kernel.stream(printed).pipe(
    Stream.runForEach((element) =>
      Effect.sync(() => {
        if (element._tag === "TextChunk") late.push(...lateness(Raw.clock(), element.text))
      })
    ),
  )
  return median(late)
})

const theirLateness = (kernel: Raw.RawKernel) =>
  Effect.map(
    kernel.execute(printed),
    (outputs) => median(outputs.flatMap(({ at, text }) => lateness(at, text))),
  )

const sleeping = "import time\ntime.sleep(60)"
const deadline = 300

/** Until the typed failure is there, which is when the kernel is idle: it answers at once then. */
const ourTimeout = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
  const [time, error] = yield* Effect.timed(Effect.flip(kernel.execute(sleeping, { timeout: deadline })))
  if (error._tag !== "ExecutionTimeout") return yield* Effect.die(error)
  const idle = yield* milliseconds(kernel.execute("1"))
  if (idle > deadline) return yield* Effect.die(new Error(`The kernel was busy for ${idle} ms`))
  return Duration.toMillis(time) - deadline
})

const each = 50

/** Executions per second of kernels that are never idle. */
const perSecond = <E, R>(executions: ReadonlyArray<Effect.Effect<unknown, E, R>>) =>
  Effect.map(
    milliseconds(Effect.forEach(
      executions,
      (execution) => Effect.replicateEffect(execution, each, { discard: true }),
      { concurrency: "unbounded" },
    )),
    (time) => executions.length * each / time * 1000,
  )

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const stock = yield* Stock.start
  const own = yield* KernelGateway.make()
  const remote = Context.get(
    yield* Layer.build(KernelGateway.layerRemote({ url: stock.url })),
    KernelGateway.KernelGateway,
  )
  const client = (gateway: KernelGateway.KernelGateway["Service"]) =>
    Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
  const ours = yield* client(own)
  const overStock = yield* client(remote)
  const raw = yield* Raw.make(stock.url)
  const direct = yield* Python.direct
  const inProcess = yield* Python.inProcess
  const ipybox = yield* Python.ipybox

  const executions = [
    milliseconds(ours.execute("1+1")),
    milliseconds(overStock.execute("1+1")),
    milliseconds(raw.execute("1+1")),
    direct("1+1"),
    inProcess("1+1"),
    ipybox("execute"),
  ]
  const [execute = NaN, overStockTime = NaN, rawTime = NaN, directTime = NaN, floor = NaN, ipyboxTime = NaN] =
    yield* inTurns(rounds, executions.map(inARow))
  const [single = NaN, , singleRaw = NaN, singleDirect = NaN] = yield* inTurns(100, executions)
  const inIpyboxWay = yield* IpyboxWay.make(stock.url)
  // Next, since ipybox loses its connection when it is left alone for some ten seconds.
  const [timeout = NaN, timeoutWay = NaN, timeoutIpybox = NaN] = yield* inTurns(15, [
    ourTimeout(ours),
    Effect.map(IpyboxWay.timeOut(inIpyboxWay, { code: sleeping, deadline }), Duration.toMillis),
    ipybox("timeout"),
  ])
  // The first request after a pause finds processes that have left the caches.
  const [idle = NaN, idleWay = NaN] = yield* inTurns(7, [
    ourTimeout(ours),
    Effect.map(IpyboxWay.timeOut(inIpyboxWay, { code: sleeping, deadline }), Duration.toMillis),
  ], { before: Effect.sleep("2 seconds") })
  // Each cell that prints leaves a timer behind in ipykernel, which flushes what later ones print before its time.
  const [late = NaN, lateRaw = NaN, lateAgain = NaN, lateAgainRaw = NaN] = yield* inTurns(5, [
    Effect.scoped(Effect.flatMap(client(own), ourLateness)),
    Effect.scoped(Effect.flatMap(Raw.make(stock.url), theirLateness)),
    ourLateness(ours),
    theirLateness(raw),
  ])
  const oursOfEight = yield* Effect.replicateEffect(client(own), 8)
  const rawOfEight = yield* Effect.replicateEffect(Raw.make(stock.url), 8)
  const [rate = NaN, rateRaw = NaN] = yield* inTurns(7, [
    perSecond(oursOfEight.map((kernel) => kernel.execute("1+1"))),
    perSecond(rawOfEight.map((kernel) => kernel.execute("1+1"))),
  ])
  const all: ReadonlyArray<Row> = [
    {
      what: "execute 1+1, own gateway, against jupyter_client blocking over direct ZMQ",
      ours: execute,
      theirs: directTime,
      unit: "ms",
      atMost: 0.25,
    },
    {
      what: "execute 1+1, own gateway, against raw ws on a stock gateway",
      ours: execute,
      theirs: rawTime,
      unit: "ms",
      atMost: 0.035,
    },
    {
      what: "a single 1+1 after 0.1 s of others' work, against jupyter_client over direct ZMQ",
      ours: single,
      theirs: singleDirect,
      unit: "ms",
    },
    {
      what: "a single 1+1 after 0.1 s of others' work, against raw ws on a stock gateway",
      ours: single,
      theirs: singleRaw,
      unit: "ms",
    },
    {
      what: "execute 1+1, own gateway, against IPython's run_cell in the process itself, the limit",
      ours: execute,
      theirs: floor,
      unit: "ms",
    },
    {
      what: "execute 1+1 through a stock gateway, against raw ws on it",
      ours: overStockTime,
      theirs: rawTime,
      unit: "ms",
      atMost: 0.15,
    },
    { what: "execute 1+1, own gateway, against ipybox", ours: execute, theirs: ipyboxTime, unit: "ms" },
    { what: "print → chunk seen, against stock", ours: late, theirs: lateRaw, unit: "ms", atMost: 0.02 },
    {
      what: "print → chunk seen, in a kernel that has printed before",
      ours: lateAgain,
      theirs: lateAgainRaw,
      unit: "ms",
    },
    {
      what: "deadline → typed timeout returned, kernel idle, against ipybox's way",
      ours: timeout,
      theirs: timeoutWay,
      unit: "ms",
      atMost: 0.05,
    },
    {
      what: "deadline → typed timeout returned, after two idle seconds, against ipybox's way",
      ours: idle,
      theirs: idleWay,
      unit: "ms",
      atMost: 0.15,
    },
    {
      what: "deadline → typed timeout returned, kernel idle, against ipybox",
      ours: timeout,
      theirs: timeoutIpybox,
      unit: "ms",
    },
    {
      what: "executes per second at N = 8, against stock",
      ours: rate,
      theirs: rateRaw,
      unit: "/s",
      atLeast: 7,
    },
  ]
  return present(all)
}).pipe(Effect.scoped)
