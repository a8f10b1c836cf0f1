/** Serves sessions over RPC by the protocol and the serialization of its arguments; prints the port. */
import { NodeHttpServer, NodeRuntime, NodeSocketServer } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { SocketServer } from "effect/socket"
import { createServer } from "node:http"
import process from "node:process"
import { KernelGateway, KernelRpc, KernelSessions } from "../../src/mod.ts"

const [protocol = "http", serialization = "ndjson"] = process.argv.slice(2)

const serializations: Record<string, Layer.Layer<RpcSerialization.RpcSerialization>> = {
  json: RpcSerialization.layerJson,
  ndjson: RpcSerialization.layerNdjson,
  binary: RpcSerialization.layerSchemaBinary(),
}

const tell = (address: HttpServer.HttpServer["Service"]["address"]) =>
  Console.log(address._tag === "UnixPathAddress" ? "no port" : `port ${address.port}`)

const httpServer = NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })
const overHttp = (protocol: "http" | "websocket") =>
  Layer.merge(
    HttpRouter.serve(RpcServer.layerHttp({ group: KernelRpc.group, path: "/rpc", protocol }), {
      disableLogger: true,
      disableListenLog: true,
    }),
    Layer.effectDiscard(Effect.flatMap(HttpServer.HttpServer, ({ address }) => tell(address))),
  ).pipe(Layer.provide(httpServer))

const overSocket = Layer.effectDiscard(
  Effect.flatMap(SocketServer.SocketServer, ({ address }) => tell(address)),
).pipe(
  Layer.provideMerge(RpcServer.layer(KernelRpc.group)),
  Layer.provide(RpcServer.layerProtocolSocketServer),
  Layer.provide(NodeSocketServer.layer({ host: "127.0.0.1", port: 0 })),
)

const server = protocol === "socket"
  ? Layer.orDie(overSocket)
  : Layer.orDie(overHttp(protocol === "http" ? "http" : "websocket"))

server.pipe(
  Layer.provide(KernelRpc.layerHandlers),
  Layer.provide(KernelSessions.layer({ max: 4, idleTimeToLive: "1 second" })),
  Layer.provide(KernelGateway.layer()),
  Layer.provide(serializations[serialization] ?? RpcSerialization.layerNdjson),
  Layer.launch,
  NodeRuntime.runMain,
)
