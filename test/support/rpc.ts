/** Kernels of sessions in another process, over RPC. */
import { NodeHttpClient, NodeSocket } from "@effect/platform-node"
import { Effect, Layer, Stream } from "effect"
import { RpcClient, RpcSerialization } from "effect/rpc"
import { fileURLToPath } from "node:url"
import * as Platform from "../../src/platform.ts"
import { tied } from "./tied.ts"

export type Protocol = "http" | "websocket" | "socket"
export type Serialization = "json" | "ndjson" | "binary"

const pathOf = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url))

/** Starts a process that serves sessions; gives its port and its handle. */
export const serve = Effect.fnUntraced(function* (protocol: Protocol, serialization: Serialization) {
  const handle = yield* tied(
    pathOf("node_modules/.bin/node"),
    [
      "--conditions=effect-jupyter-source",
      pathOf("test/support/rpc_server.ts"),
      protocol,
      serialization,
    ],
    { extendEnv: true, stderr: "inherit", forceKillAfter: "10 seconds" },
  )
  const [line = ""] = yield* handle.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.filter((line) => line.startsWith("port ")),
    Stream.take(1),
    Stream.runCollect,
  )
  return { handle, port: Number(line.slice("port ".length)) }
})

/** The client's side of a protocol. */
export const clientLayer = (
  port: number,
  protocol: Protocol,
  serialization: Serialization,
): Layer.Layer<RpcClient.Protocol> => {
  const serializations = {
    json: RpcSerialization.layerJson,
    ndjson: RpcSerialization.layerNdjson,
    binary: RpcSerialization.layerSchemaBinary(),
  }
  const client = protocol === "http"
    ? RpcClient.layerProtocolHttp({ url: `http://127.0.0.1:${port}/rpc` }).pipe(
      Layer.provide(NodeHttpClient.layerUndici),
    )
    : RpcClient.layerProtocolSocket().pipe(
      Layer.provide(
        protocol === "socket"
          ? NodeSocket.layerNet({ host: "127.0.0.1", port })
          : NodeSocket.layerWebSocket(`ws://127.0.0.1:${port}/rpc`),
      ),
    )
  return client.pipe(Layer.provide(serializations[serialization]), Layer.orDie)
}

/** Sessions in a process of their own. */
export const layer = (
  protocol: Protocol,
  serialization: Serialization,
): Layer.Layer<RpcClient.Protocol> =>
  Layer.unwrap(
    Effect.map(serve(protocol, serialization), ({ port }) => clientLayer(port, protocol, serialization)),
  ).pipe(Layer.provide(Platform.layer), Layer.orDie)
