/**
 * A runner of a cluster. Its arguments are the folder of PostgreSQL's socket, the database, its port, and the gateway if that
 * is not one of its own; each line of its standard input is a request for code in the kernel of a key, as `cluster.ts`
 * sends them.
 */
import { NodeRuntime, NodeStdio } from "@effect/platform-node"
import { Console, Effect, Layer, Logger, References, Schema, Stdio, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import process from "node:process"
import { KernelClient, KernelGateway, KernelSessions } from "../../src/mod.ts"
import * as KernelCluster from "../../src/kernel_cluster.ts"
import { clientLayer } from "./postgres.ts"
import { Answer, clusterLayer, GatewayArgument, Request } from "./cluster.ts"

const [folder = "", name = "", port = "", gateway] = process.argv.slice(2)
const decode = Schema.decodeEffect(Schema.fromJsonString(Request))
const encode = Schema.encodeEffect(Schema.fromJsonString(Answer))

const answer = Effect.fnUntraced(function* (line: string) {
  const { code, id, key } = yield* decode(line)
  const given = yield* Effect.gen(function* () {
    const kernel = yield* KernelClient.KernelClient
    const { text = "" } = yield* kernel.execute(code)
    return { id, kernelId: kernel.id, text }
  }).pipe(
    Effect.provide(KernelCluster.layerClient(key), { local: true }),
    Effect.catch((error) =>
      Effect.succeed({ id, reason: error._tag === "KernelError" ? error.reason._tag : error._tag })
    ),
  )
  yield* Console.log(yield* encode(given))
})

/** The references to kernels, in the database. */
const refs = Layer.effect(KernelCluster.KernelRefs, KeyValueStore.KeyValueStore).pipe(
  Layer.provide(KeyValueStore.layerSql()),
  Layer.provide(clientLayer({ folder, name })),
)

const gatewayLayer = (argument: typeof GatewayArgument.Type) => {
  if (typeof argument === "string") {
    return Layer.merge(KernelGateway.layerShared({ name: argument, idleTimeToLive: "1 minute" }), refs)
  }
  const { keeps, url } = argument
  const remote = KernelGateway.layerRemote({ url, reconnect: keeps, user: "ada" })
  return keeps ? Layer.merge(remote, refs) : remote
}

Effect.gen(function* () {
  const { stdin } = yield* Stdio.Stdio
  yield* Console.log("ready")
  yield* stdin.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.mapEffect(answer, { concurrency: "unbounded" }),
    Stream.runDrain,
  )
}).pipe(
  Effect.provide(KernelCluster.layer.pipe(
    Layer.provideMerge(clusterLayer({ folder, name }, Number(port))),
    Layer.provide(KernelSessions.layer({ max: 16 })),
    Layer.provide(
      gateway === undefined
        ? KernelGateway.layer()
        : gatewayLayer(Schema.decodeSync(GatewayArgument)(gateway)),
    ),
    Layer.merge(NodeStdio.layer),
  )),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain,
)
