/** Options that are given as undefined are what they are when they are left out. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { KernelClient, KernelGateway, KernelPool, Testing } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow } from "./support/kernel.ts"

const gateway = KernelGateway.layer({
  host: undefined,
  port: undefined,
  workingDir: undefined,
  env: undefined,
  sandbox: undefined,
  python: { python: undefined, packages: undefined, cacheDir: undefined },
  preload: undefined,
  fork: undefined,
  logLevel: undefined,
  startTimeout: undefined,
})
const client = {
  workingDir: undefined,
  imagesDir: undefined,
  kernelName: undefined,
  env: undefined,
  sandbox: undefined,
  initTimeout: undefined,
  pingInterval: undefined,
  usageInterval: undefined,
}
const execution = { timeout: undefined, outputLimit: undefined, onInput: undefined, images: undefined }
const value = { ...execution, onChunk: undefined, tables: undefined }
const plot = `
from IPython.display import Image, display
display(Image(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(16), format="png"))
`

layer(Layer.provideMerge(gateway, Platform.layer), slow)("options", (it) => {
  it.effect("of gateway, client, execution, values and introspection may be undefined", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make({ ...client, images: "bytes" })
      const { images } = yield* kernel.execute(plot, execution)
      assert.instanceOf(images[0]?.bytes, Uint8Array, "the client's option holds")
      yield* kernel.set("x", 1, value)
      assert.strictEqual(yield* kernel.evaluate("x", Schema.Int, value), 1)
      const called = yield* kernel.call("builtins:abs", [-1], {
        ...value,
        kwargs: undefined,
        returns: Schema.Int,
      })
      assert.strictEqual(called, 1)
      const { found } = yield* kernel.inspect("len", 3, { timeout: undefined, detail: undefined })
      assert.isTrue(found)
    }))

  it.effect("of a pool may be undefined", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({
        ...client,
        size: undefined,
        min: 0,
        max: 1,
        warm: undefined,
        idleTimeToLive: undefined,
        setup: undefined,
        acquireTimeout: undefined,
        maxWaiting: undefined,
        startConcurrency: undefined,
      })
      assert.strictEqual((yield* (yield* pool.get).execute("1", execution)).text, "1")
    }))

  it.effect("of a test kernel and its scripts may be undefined", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const { images } = yield* kernel.execute("plot()", execution)
      assert.instanceOf(images[0]?.bytes, Uint8Array)
    }).pipe(Effect.provide(Testing.layer([{
      match: "plot()",
      times: undefined,
      chunks: [Testing.display({ "image/png": "iVBORw==" }, { displayId: undefined, metadata: undefined })],
      result: undefined,
      error: undefined,
      delay: undefined,
      interval: undefined,
    }], { images: undefined, imagesDir: undefined, members: undefined }))))
})
