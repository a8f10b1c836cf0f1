/** What a warm kernel takes for small things, by us and by others, interleaved. */
import { Context, Effect, Fiber, Layer, Stream } from "effect"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import * as Direct from "./direct.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"
import { inTurns, median, milliseconds, type Row } from "./table.ts"

const rounds = 100

/** How late a line of a running cell is seen: the cell prints the clock, which it shares with us. */
const printed =
  "import time\nfor _ in range(40):\n    time.sleep(0.03)\n    print(time.clock_gettime(time.CLOCK_REALTIME))"
const lateness = (now: number, text: string) =>
  text.split("\n").filter((line) => line !== "").map((line) => now - Number(line) * 1000)

const timeOfDay = () => performance.timeOrigin + performance.now()

const ourLateness = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
  const late: Array<number> = []
  yield* kernel.stream(printed).pipe(
    Stream.runForEach((element) =>
      Effect.sync(() => {
        if (element._tag === "TextChunk") late.push(...lateness(timeOfDay(), element.text))
      })
    ),
  )
  return median(late)
})

const theirLateness = (kernel: Raw.RawKernel) =>
  Effect.map(
    kernel.execute(printed),
    (outputs) => median(outputs.flatMap(([now, text]) => lateness(now, text))),
  )

const sleeping = "import time\ntime.sleep(60)"

const ourTimeout = (kernel: KernelClient.Kernel) =>
  Effect.map(
    milliseconds(Effect.flip(kernel.execute(sleeping, { timeout: "300 millis" }))),
    (time) => time - 300,
  )

/** By ipybox's way: after the interrupt it waits for a fixed time. */
const theirTimeout = Effect.fnUntraced(function* (kernel: Raw.RawKernel) {
  const running = yield* Effect.forkChild(kernel.execute(sleeping), { startImmediately: true })
  yield* Effect.sleep(300)
  const time = yield* milliseconds(Effect.andThen(kernel.interrupt, Effect.sleep(200)))
  yield* Fiber.join(running)
  return time
})

/** Executions per second of eight kernels that are never idle. */
const perSecond = <E, R>(executions: ReadonlyArray<Effect.Effect<unknown, E, R>>) =>
  Effect.map(
    milliseconds(Effect.forEach(
      executions,
      (execution) => Effect.all(Array.from({ length: 50 }, () => execution)),
      { concurrency: "unbounded" },
    )),
    (time) => executions.length * 50 / time * 1000,
  )

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const stock = yield* Stock.start()
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
  const direct = yield* Direct.make()

  const [execute = NaN, executeOverStock = NaN, executeRaw = NaN, executeDirect = NaN] = yield* inTurns(
    rounds,
    [
      milliseconds(ours.execute("1+1")),
      milliseconds(overStock.execute("1+1")),
      milliseconds(raw.execute("1+1")),
      direct("1+1"),
    ],
  )
  const [late = NaN, lateRaw = NaN] = yield* inTurns(3, [ourLateness(ours), theirLateness(raw)])
  const [timeout = NaN, timeoutRaw = NaN] = yield* inTurns(5, [ourTimeout(ours), theirTimeout(raw)])
  const eight = Array.from({ length: 8 })
  const oursOfEight = yield* Effect.forEach(eight, () => client(own), { concurrency: 2 })
  const rawOfEight = yield* Effect.forEach(eight, () => Raw.make(stock.url))
  const [rate = NaN, rateRaw = NaN] = yield* inTurns(3, [
    perSecond(oursOfEight.map((kernel) => kernel.execute("1+1"))),
    perSecond(rawOfEight.map((kernel) => kernel.execute("1+1"))),
  ])
  return [
    {
      what: "execute, own gateway against jupyter_client over ZeroMQ",
      ours: execute,
      theirs: executeDirect,
      unit: "ms",
      atMost: 1,
    },
    {
      what: "execute, own gateway against raw ws on a stock one",
      ours: execute,
      theirs: executeRaw,
      unit: "ms",
      atMost: 0.12,
    },
    {
      what: "execute, both on a stock gateway, against raw ws",
      ours: executeOverStock,
      theirs: executeRaw,
      unit: "ms",
      atMost: 0.15,
    },
    { what: "print → chunk seen, against stock", ours: late, theirs: lateRaw, unit: "ms", atMost: 0.15 },
    {
      what: "deadline → returned and idle, against ipybox's way",
      ours: timeout,
      theirs: timeoutRaw,
      unit: "ms",
      atMost: 0.08,
    },
    { what: "executions of 8 kernels, against stock", ours: rate, theirs: rateRaw, unit: "/s", atLeast: 2.2 },
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped)
