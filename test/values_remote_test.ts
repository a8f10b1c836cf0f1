/** Values on a server that is not ours, with a kernel that is not either, in both wire formats. */
import { assert, it } from "@effect/vitest"
import { DateTime, Effect, Schedule, Schema, Stream } from "effect"
import process from "node:process"
import { KernelClient, KernelGateway, PythonEnvironment } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { temporary } from "./support/kernel.ts"
import { tied } from "./support/tied.ts"

const Value = Schema.Struct({
  at: Schema.DateTimeUtc,
  bytes: Schema.Uint8Array,
  big: Schema.BigInt,
  text: Schema.String,
})

for (const [index, subprotocol] of ["v1.kernel.websocket.jupyter.org", ""].entries()) {
  it.live(
    `a plain Jupyter Server${subprotocol === "" ? " that speaks the legacy format" : ""}`,
    () =>
      Effect.gen(function* () {
        const folder = yield* temporary
        const { python } = yield* PythonEnvironment.make()
        const port = 12_000 + (process.pid % 3_900) * 2 + index
        yield* tied(python, [
          "-m",
          "jupyter_server",
          "--no-browser",
          "--allow-root",
          `--ServerApp.root_dir=${folder}`,
          `--ServerApp.port=${port}`,
          "--ServerApp.port_retries=0",
          "--IdentityProvider.token=secret",
          `--ZMQChannelsWebsocketConnection.kernel_ws_protocol=${subprotocol}`,
        ], { extendEnv: true, stdout: "ignore", stderr: "ignore", forceKillAfter: "3 seconds" })
        const kernel = yield* KernelClient.make().pipe(
          Effect.provide(KernelGateway.layerRemote({ url: `http://127.0.0.1:${port}`, token: "secret" })),
          Effect.retry({
            schedule: Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: "30 seconds" })),
            while: (error) => error._tag === "GatewayError" && error.reason._tag === "Unreachable",
          }),
        )
        const value = {
          at: DateTime.makeUnsafe(0),
          bytes: new Uint8Array(100_000).fill(7),
          big: 2n ** 70n,
          text: `"'\\\n\0😀`,
        }
        yield* kernel.set("value", value)
        assert.deepStrictEqual(yield* kernel.evaluate("value", Value), value)
        // More than such servers take in one message.
        yield* kernel.set("large", { bytes: new Uint8Array(25_000_000).fill(1) })
        assert.strictEqual(yield* kernel.evaluate("sum(large['bytes'])", Schema.Int), 25_000_000)
        assert.strictEqual(yield* kernel.call("operator:add", ["a", "b"], { returns: Schema.String }), "ab")
        const squares = kernel.iterate("(n * n for n in range(10**9))", Schema.Int, { batchSize: 10 })
        assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(squares, 3)), [0, 1, 4])
        for (const sleeping of ["__import__('time').sleep(60)", "await __import__('asyncio').sleep(60)"]) {
          const error = yield* Effect.flip(
            kernel.evaluate(sleeping, Schema.Unknown, { timeout: "500 millis" }),
          )
          assert.strictEqual(error._tag, "ExecutionTimeout")
        }
        const failure = yield* Effect.flip(kernel.evaluate("1 / 0", Schema.Unknown))
        assert.notInclude(failure.message, "effect_jupyter")
        assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
        const pause = yield* kernel.evaluate("get_ipython().kernel._execute_sleep", Schema.Finite)
        assert.strictEqual(pause, 0, "replies are put off for clients that do not wait for output")
      }).pipe(Effect.provide(Platform.layer)),
    120_000,
  )
}
