/** A page that uses a kernel of another process; its title is what came of it. */
import { Cause, Effect, Layer, Schema } from "effect"
import { RpcClient, RpcSerialization } from "effect/rpc"
import { Socket } from "effect/socket"
import * as KernelRpc from "../../src/kernel_rpc.ts"
const port = location.hash.slice(1)
const Protocol = RpcClient.layerProtocolSocket().pipe(
  Layer.provide(Socket.layerWebSocket(`ws://127.0.0.1:${port}/rpc`)),
  Layer.provide([Socket.layerWebSocketConstructorGlobal, RpcSerialization.layerNdjson]),
)
const program = Effect.gen(function* () {
  const kernel = yield* KernelRpc.KernelClient
  const { text } = yield* kernel.execute("print(6 * 7)")
  yield* kernel.set("x", new Map([["a", [1n, new Uint8Array(3)]]]))
  const sum = yield* kernel.evaluate("x['a'][0] + len(x['a'][1])", Schema.Int)
  const failure = yield* Effect.flip(kernel.execute("1 / 0"))
  return `${text} ${sum} ${failure._tag}`
}).pipe(Effect.provide(KernelRpc.layerClient("ada").pipe(Layer.provide(Protocol))))

program.pipe(
  Effect.catchCause((cause) => Effect.succeed(Cause.pretty(cause))),
  Effect.map((title) => {
    document.title = title
  }),
  Effect.runFork,
)
