/** Runners of a cluster in processes of their own, which share the keys of sessions by PostgreSQL. */
import { NodeClusterHttp } from "@effect/platform-node"
import { Context, Deferred, Effect, HashRing, Layer, Option, Queue, Schedule, Schema, Stream } from "effect"
import { EntityId, RunnerAddress, Sharding, type ShardingConfig } from "effect/cluster"
import { ChildProcess } from "effect/process"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import { createServer } from "node:net"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { KernelClient } from "../../src/mod.ts"
import * as KernelCluster from "../../src/kernel_cluster.ts"
import * as Platform from "../../src/platform.ts"
import * as Postgres from "./postgres.ts"

const shards = 30

/** Short times, so that a test need not wait for the default ones. */
const config: Partial<ShardingConfig.ShardingConfig["Service"]> = {
  shardsPerGroup: shards,
  shardLockRefreshInterval: "2 seconds",
  shardLockExpiration: "6 seconds",
  refreshAssignmentsInterval: "250 millis",
  runnerHealthCheckInterval: "1 second",
  entityMessagePollInterval: "1 second",
  entityTerminationTimeout: "2 seconds",
}

const applicationName = (port: number) => `runner-${port}`

/** A server of PostgreSQL. */
class Server extends Context.Service<Server, string>()("test/Server") {}

export const serverLayer = Layer.provideMerge(Layer.effect(Server, Postgres.serve), Platform.layer)

/** The database of a cluster of its own. */
export const database = Effect.flatMap(Server, Postgres.makeDatabase)

/** The kernel of a key. */
export const kernelOf = (key: string = randomUUID()) =>
  Effect.map(
    Effect.suspend(() => Layer.build(KernelCluster.layerClient(key))),
    (context) => Context.get(context, KernelClient.KernelClient),
  )

/** Kernels of a cluster that this process is no runner of. */
export const kernelsOf = Effect.fnUntraced(function* (where: Postgres.Database) {
  const cluster = yield* Layer.build(clusterLayer(where))
  return Effect.fnUntraced(function* (key: string) {
    return yield* Effect.provide(kernelOf(key), cluster)
  })
})

/** The cluster of a database; with a port the process is one of its runners. */
export const clusterLayer = (database: Postgres.Database, port?: number): Layer.Layer<Sharding.Sharding> => {
  const storage = Layer.orDie(
    Postgres.clientLayer(database, port === undefined ? "client" : applicationName(port)),
  )
  return port === undefined
    ? NodeClusterHttp.layer({ clientOnly: true, transport: "websocket", shardingConfig: config }).pipe(
      Layer.provide(storage),
      Layer.orDie,
    )
    : NodeClusterHttp.layer({
      transport: "websocket",
      shardingConfig: {
        ...config,
        runnerAddress: Option.some(RunnerAddress.make("127.0.0.1", port)),
      },
    }).pipe(Layer.provide(storage), Layer.orDie)
}

/** The gateway of a runner that is not its own; `keeps` has kernels stay when their runner ends. */
export const Gateway = Schema.Struct({ url: Schema.String, keeps: Schema.Boolean })

/** The argument of a runner that says which gateway it has: the name of a shared one, or one of another process. */
export const GatewayArgument = Schema.fromJsonString(Schema.Union([Schema.String, Gateway]))

/** A request to a runner: code for the kernel of a key. */
export const Request = Schema.Struct({ id: Schema.Int, key: Schema.String, code: Schema.String })

/** Its answer: the text of the result and the kernel, or the reason of the failure. */
export const Answer = Schema.Struct({
  id: Schema.Int,
  kernelId: Schema.optionalKey(Schema.String),
  text: Schema.optionalKey(Schema.String),
  reason: Schema.optionalKey(Schema.String),
})

const encode = Schema.encodeSync(Schema.fromJsonString(Request))
const decode = Schema.decodeSync(Schema.fromJsonString(Answer))
const encodeGateway = Schema.encodeSync(GatewayArgument)

let nextPort = 28_000 + (process.pid * 37) % 4_000

/**
 * A port that is free. It is none of those that the system gives to connections, of which one could have it before the
 * program that it is for.
 */
export const freePort: Effect.Effect<number> = Effect.callback<number | undefined>((resume) => {
  const port = nextPort = nextPort >= 32_700 ? 28_000 : nextPort + 1
  const server = createServer().on("error", () => resume(Effect.undefined))
  server.listen(port, "127.0.0.1", () => server.close(() => resume(Effect.succeed(port))))
}).pipe(Effect.filterOrElse((port) => port !== undefined, () => freePort))

/** A runner in a process of its own. */
export interface Runner {
  readonly pid: number
  readonly port: number
  /** Runs code in the kernel of a key, wherever that is. */
  readonly execute: (key: string, code: string) => Effect.Effect<typeof Answer.Type>
  readonly kill: (signal: "SIGKILL" | "SIGTERM" | "SIGSTOP" | "SIGCONT") => Effect.Effect<void>
  readonly exitCode: Effect.Effect<number>
}

/** Starts a runner, which ends with the scope. Its kernels are on a gateway of its own, or on another one. */
export const run = Effect.fnUntraced(function* (
  { folder, name }: Postgres.Database,
  gateway?: string | typeof Gateway.Type,
) {
  const port = yield* freePort
  const input = yield* Queue.unbounded<string>()
  const handle = yield* ChildProcess.make(
    fileURLToPath(new URL("../../node_modules/.bin/node", import.meta.url)),
    [
      "--conditions=effect-jupyter-source",
      fileURLToPath(new URL("cluster_runner.ts", import.meta.url)),
      folder,
      name,
      String(port),
      ...(gateway === undefined ? [] : [encodeGateway(gateway)]),
    ],
    {
      extendEnv: true,
      stdin: Stream.fromQueue(input).pipe(Stream.encodeText),
      stderr: "inherit",
      forceKillAfter: "15 seconds",
    },
  )
  const waiting = new Map<number, Deferred.Deferred<typeof Answer.Type>>()
  const ready = yield* Deferred.make<void>()
  let hasEnded = false
  const end = Effect.suspend(() => {
    hasEnded = true
    return Effect.forEach(
      Array.from(waiting),
      ([id, answer]) => Deferred.succeed(answer, { id, reason: "Ended" }),
    )
  })
  yield* handle.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => {
      if (line === "ready") return Deferred.succeed(ready, undefined)
      const answer = decode(line)
      const deferred = waiting.get(answer.id)
      waiting.delete(answer.id)
      return deferred === undefined ? Effect.void : Deferred.succeed(deferred, answer)
    }),
    Effect.ensuring(end),
    Effect.ignore,
    Effect.forkScoped,
  )
  yield* Effect.raceFirst(
    Deferred.await(ready),
    Effect.flatMap(handle.exitCode, (code) => Effect.die(`It ended with ${code}`)),
  )
  let nextId = 0
  const runner: Runner = {
    pid: handle.pid,
    port,
    execute: (key, code) =>
      Effect.gen(function* () {
        const answer = yield* Deferred.make<typeof Answer.Type>()
        const id = nextId++
        if (hasEnded) return { id, reason: "Ended" }
        waiting.set(id, answer)
        yield* Queue.offer(input, `${encode({ id, key, code })}\n`)
        return yield* Deferred.await(answer)
      }),
    kill: (signal) => Effect.sync(() => void process.kill(handle.pid, signal)),
    exitCode: Effect.orDie(Effect.map(handle.exitCode, Number)),
  }
  return runner
})

/** The port of the runner that is due to own each shard. */
const ownersOf = (runners: ReadonlyArray<Runner>): ReadonlyArray<number> => {
  const ring = HashRing.make<RunnerAddress.RunnerAddress>()
  for (const { port } of runners) HashRing.add(ring, RunnerAddress.make("127.0.0.1", port))
  return HashRing.getShards(ring, shards)?.map(({ port }) => port) ?? []
}

/** Tells which of the runners is due to own a key, and a key that one of them is due to own. */
export const placement = (database: Postgres.Database, runners: ReadonlyArray<Runner>) =>
  Effect.map(Sharding.Sharding, ({ getShardId }) => {
    const owners = ownersOf(runners)
    const ownerOf = (key: string) => {
      const { id } = getShardId(EntityId.make(key), "default")
      return runners.find(({ port }) => port === owners[id - 1])
    }
    const keyOf = (runner: Runner, index = 0): string => {
      const key = `user-${index}`
      return ownerOf(key) === runner ? key : keyOf(runner, index + 1)
    }
    return { ownerOf, keyOf }
  }).pipe(Effect.provide(clusterLayer(database)))

/** Keys that the tests share. */
export const keys = Array.from({ length: 6 }, (_, index) => `user-${index}`)

/** The kernels' ids by key, as a runner finds them. */
export const kernelIds = (runner: Runner) =>
  Effect.forEach(keys, (key) => runner.execute(key, ""), { concurrency: "unbounded" }).pipe(
    Effect.map((answers) => answers.map(({ kernelId, reason }) => kernelId ?? reason)),
  )

/** Waits until each of the runners, and no other process, has the locks of the shards that are due to it. */
export const settled = (database: Postgres.Database, runners: ReadonlyArray<Runner>, seconds = 30) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const wanted = ownersOf(runners).map(applicationName)
    return yield* Effect.gen(function* () {
      const held = yield* sql<{ shard: number; owner: string }>`
        select (objid::bigint % 1000000)::int as shard, application_name as owner
        from pg_locks join pg_stat_activity using (pid)
        where locktype = 'advisory' and objsubid = 2 and datname = ${database.name}
        order by shard`
      return held.length === shards && held.every(({ owner, shard }) => owner === wanted[shard - 1])
    }).pipe(
      Effect.filterOrFail((isSettled) => isSettled, () => new Unsettled({})),
      Effect.retry(Schedule.spaced("50 millis").pipe(Schedule.upTo({ duration: `${seconds} seconds` }))),
    )
  }).pipe(Effect.provide(Postgres.clientLayer(database, "test")))

class Unsettled extends Schema.TaggedError<Unsettled>()("Unsettled", {}) {}
