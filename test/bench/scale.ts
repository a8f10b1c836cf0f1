/**
 * The figures that `scale.md` rests on: the rates of one gateway and of one process that serves sessions over RPC, each
 * against kernels without either.
 */
import { Context, Effect, Layer, Redacted, Stream } from "effect"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import * as Rpc from "../support/rpc.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"
import { inTurns, milliseconds, type Row } from "./table.ts"

const kernels = 8
const lines = 2000
const executions = 100

/** Prints lines of which each is a message. */
const print = `for index in range(${lines}): print("x" * 80, flush=True)`

/** Per second, of several kernels at once. */
const rate = <E, R>(works: ReadonlyArray<Effect.Effect<unknown, E, R>>, each: number) =>
  Effect.map(
    milliseconds(Effect.all(works, { concurrency: "unbounded", discard: true })),
    (time) => works.length * each / time * 1000,
  )

const chunks = (all: ReadonlyArray<KernelClient.Kernel>) =>
  rate(all.map((kernel) => Stream.runDrain(kernel.stream(print))), lines)

const repeated = (all: ReadonlyArray<KernelClient.Kernel>) =>
  rate(
    all.map((kernel) => Effect.replicateEffect(kernel.execute("1+1"), executions, { discard: true })),
    executions,
  )

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const own = yield* KernelGateway.make()
  const stock = yield* Stock.start
  const over = Context.get(
    yield* Layer.build(
      KernelGateway.layerRemote({ url: own.url, token: own.token ?? Redacted.make("") }),
    ),
    KernelGateway.KernelGateway,
  )
  const of = (gateway: KernelGateway.KernelGateway["Service"]) =>
    Effect.replicateEffect(
      Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway),
      kernels,
    )
  const direct = yield* of(own)
  const remote = yield* of(over)
  const raw = yield* Effect.replicateEffect(Raw.make(stock.url), kernels)
  const server = yield* Rpc.serve("socket", "binary")
  const sessions = yield* Effect.forEach(
    Array.from({ length: 4 }, (_, index) => `session ${index}`),
    (key) =>
      Effect.map(
        Layer.build(
          Layer.provide(KernelClient.layerRpc(key), Rpc.clientLayer(server.port, "socket", "binary")),
        ),
        Context.get(KernelClient.KernelClient),
      ),
  )
  // A stock gateway takes no part: it drops messages of such a flood, at times the end of an execution.
  const [chunk = NaN, chunkRemote = NaN, chunkRpc = NaN] = yield* inTurns(5, [
    chunks(direct),
    chunks(remote),
    chunks(sessions),
  ])
  const [execute = NaN, executeRemote = NaN, executeRpc = NaN, executeStock = NaN] = yield* inTurns(5, [
    repeated(direct),
    repeated(remote),
    repeated(sessions),
    rate(
      raw.map((kernel) => Effect.replicateEffect(kernel.execute("1+1"), executions, { discard: true })),
      executions,
    ),
  ])
  const row = (what: string, ours: number, theirs: number): Row => ({ what, ours, theirs, unit: "/s" })
  return [
    row(
      "chunks per second of 8 kernels over Jupyter's channels, against their own connections",
      chunkRemote,
      chunk,
    ),
    row("chunks per second of 4 sessions of one RPC server, against kernels of the process", chunkRpc, chunk),
    row(
      "executes per second of 8 kernels over Jupyter's channels, against stock",
      executeRemote,
      executeStock,
    ),
    row(
      "executes per second of 4 sessions of one RPC server, against kernels of the process",
      executeRpc,
      execute,
    ),
  ]
}).pipe(Effect.scoped)
