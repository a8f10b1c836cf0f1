/** The cost of the client alone: a fake gateway in another process answers at once. */
import { KernelConnection, ServerConnection } from "@jupyterlab/services"
import { Context, Effect, Layer, Stream } from "effect"
import { spawn } from "node:child_process"
import process from "node:process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import * as Raw from "./raw.ts"
import { median, type Row } from "./table.ts"

const script = fileURLToPath(new URL("./fake_gateway.ts", import.meta.url))
const warmUp = 40
const rounds = 15
const executions = 500
const chunks = 20_000

/** Starts the fake gateway, which ends with the scope. */
const fakeGateway = Effect.acquireRelease(
  Effect.callback<{ readonly url: string; readonly end: () => void }>((resume) => {
    const child = spawn(process.execPath, ["--conditions=effect-jupyter-source", script], {
      stdio: ["ignore", "pipe", "inherit"],
    })
    createInterface(child.stdout).once(
      "line",
      (port) => resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, end: () => child.kill() })),
    )
  }),
  ({ end }) => Effect.sync(end),
)

/** A connection by JupyterLab's own client. */
const jupyterLab = (url: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const serverSettings = ServerConnection.makeSettings({ baseUrl: url, wsUrl: url.replace("http", "ws") })
      const connection = new KernelConnection({ model: { id: "fake", name: "fake" }, serverSettings })
      await connection.info
      return connection
    }),
    (connection) => Effect.sync(() => connection.dispose()),
  )

/** Microseconds for one of the things that an effect does. */
interface Cost {
  readonly time: number
  /** CPU time of this process: what else the machine does is not in it. */
  readonly cpu: number
}

const cost = <E, R>(effect: Effect.Effect<unknown, E, R>, things: number): Effect.Effect<Cost, E, R> =>
  Effect.gen(function* () {
    const start = performance.now()
    const before = process.cpuUsage()
    yield* effect
    const { system, user } = process.cpuUsage(before)
    return { time: (performance.now() - start) * 1000 / things, cpu: (system + user) / things }
  })

/** The medians of contenders, who take turns. The first rounds, in which V8 compiles, do not count. */
const inTurns = <E, R>(contenders: ReadonlyArray<Effect.Effect<Cost, E, R>>) =>
  Effect.map(
    Effect.all(Array.from({ length: warmUp + rounds }, () => Effect.all(contenders))),
    (all) => {
      const costs = all.slice(warmUp)
      return contenders.map((_, index): Cost => ({
        time: median(costs.map((round) => round[index]?.time ?? NaN)),
        cpu: median(costs.map((round) => round[index]?.cpu ?? NaN)),
      }))
    },
  )

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const { url } = yield* fakeGateway
  const gateway = yield* Layer.build(KernelGateway.layerRemote({ url }))
  const ours = yield* Effect.provideService(
    KernelClient.make(),
    KernelGateway.KernelGateway,
    Context.get(gateway, KernelGateway.KernelGateway),
  )
  const theirs = yield* jupyterLab(url)
  const raw = yield* Raw.make(url)

  const many = <E>(execution: Effect.Effect<unknown, E>) =>
    cost(Effect.all(Array.from({ length: executions }, () => execution), { discard: true }), executions)
  const [execute, executeTheirs, executeRaw] = yield* inTurns([
    many(ours.execute("1+1")),
    many(Effect.promise(() => theirs.requestExecute({ code: "1+1" }).done)),
    many(raw.execute("1+1")),
  ])

  const replay = `replay ${chunks}`
  const [chunk, chunkRaw] = yield* inTurns([
    cost(Stream.runDrain(ours.stream(replay)), chunks),
    cost(raw.execute(replay), chunks),
  ])
  /** Times are what counts; CPU times tell the same on a machine that does other things too. */
  const both = (what: string, [ours, theirs]: ReadonlyArray<Cost | undefined>, atMost?: number) => {
    const goal = atMost === undefined ? {} : { atMost }
    const row = (key: keyof Cost) => ({ ours: ours?.[key] ?? NaN, theirs: theirs?.[key] ?? NaN, unit: "µs" })
    return [
      { what, ...row("time"), ...goal },
      { what: `${what}, CPU time of the client`, ...row("cpu") },
    ] satisfies ReadonlyArray<Row>
  }
  return [
    ...both("execute on a fake gateway, against @jupyterlab/services", [execute, executeTheirs], 1.2),
    ...both("execute on a fake gateway, against raw ws", [execute, executeRaw]),
    ...both("a chunk through the Stream, against ws + JSON.parse", [chunk, chunkRaw], 1.15),
  ]
}).pipe(Effect.scoped)
