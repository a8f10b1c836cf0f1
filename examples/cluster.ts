/**
 * Kernels of users on two machines: each user has one kernel, whichever process asks for it. PostgreSQL decides which
 * machine has it.
 *
 * `PGHOST=localhost PGUSER=postgres node --conditions=effect-jupyter-source examples/cluster.ts` runs it. The two
 * machines are processes here: the same program with the port of a runner as argument.
 *
 * @module
 */
import { NodeClusterHttp, NodeRuntime, NodeServices } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Config, Console, Effect, Layer, Logger, Option, References, Stream } from "effect"
import { KernelClient, KernelGateway, KernelSessions } from "effect-jupyter"
import * as KernelCluster from "effect-jupyter/kernel_cluster"
import { RunnerAddress } from "effect/cluster"
import { ChildProcess } from "effect/process"

const Database = PgClient.layerConfig({
  host: Config.String("PGHOST"),
  username: Config.String("PGUSER"),
  database: Config.String("PGDATABASE").pipe(Config.withDefault("postgres")),
})

/** A process that has kernels. WebSockets send small messages at once, which plain sockets do not. */
const runner = (port: number) =>
  KernelCluster.layer.pipe(
    Layer.provide(KernelSessions.layer({ max: 20, idleTimeToLive: "10 minutes" })),
    Layer.provide(KernelGateway.layer()),
    Layer.provide(NodeClusterHttp.layer({
      transport: "websocket",
      shardingConfig: { runnerAddress: Option.some(RunnerAddress.make("127.0.0.1", port)) },
    })),
    Layer.provide(Database),
  )

/** A process that uses them, for instance a web server. */
const Client = NodeClusterHttp.layer({ transport: "websocket", clientOnly: true }).pipe(
  Layer.provide(Database),
)

const startRunner = Effect.fn("startRunner")(function* (port: number) {
  const handle = yield* ChildProcess.make(process.execPath, [
    ...process.execArgv,
    ...process.argv.slice(1),
    `${port}`,
  ], {
    extendEnv: true,
    stderr: "inherit",
    forceKillAfter: "20 seconds",
  })
  yield* handle.stdout.pipe(Stream.decodeText(), Stream.splitLines, Stream.take(1), Stream.runDrain)
  return handle
})

/** Counts the visits of a user in the user's kernel. */
const visit = Effect.fn("visit")(function* (user: string) {
  yield* Effect.gen(function* () {
    const kernel = yield* KernelClient.KernelClient
    const { text } = yield* kernel.execute("n = globals().get('n', 0) + 1; print(n)")
    yield* Console.log(`  ${user}: ${text}`)
  }).pipe(Effect.provide(KernelCluster.layerClient(user)))
})

const users = ["ada", "eve", "grace", "linus"]

const program = Effect.gen(function* () {
  const port = yield* Config.Int("PORT").pipe(Config.withDefault(34431))
  const [first] = yield* Effect.all([startRunner(port), startRunner(port + 1)], { concurrency: 2 })

  yield* Console.log("Users come back to their kernels:")
  yield* Effect.forEach([...users, ...users], visit)

  yield* Console.log("One machine stops, and the other takes over its users, with new kernels:")
  yield* first.kill()
  yield* Effect.forEach(users, visit)
}).pipe(Effect.provide(Client))

const main = Effect.gen(function* () {
  const [, , port] = process.argv
  if (port === undefined) return yield* program
  yield* Layer.build(runner(Number(port)))
  yield* Console.log("The runner is there")
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

main.pipe(
  Effect.provideService(References.MinimumLogLevel, "Error"),
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain,
)
