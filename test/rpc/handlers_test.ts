/** The procedures over sessions of kernels for tests, in one process. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import { RpcSerialization, RpcTest } from "effect/rpc"
import { TestClock } from "effect/testing"
import { KernelClient, KernelRpc, KernelSessions, Testing } from "../../src/mod.ts"
import { reasonOf } from "../support/outcome.ts"

/** Sessions that all have the kernel of the context. */
const sessions = Layer.effect(
  KernelSessions.KernelSessions,
  Effect.map(KernelClient.KernelClient, (kernel) => ({
    get: () => Effect.succeed(kernel),
    close: () => Effect.void,
    list: Effect.succeed([]),
    events: Stream.never,
  })),
)
const megabyte = `${"x".repeat(1_000_000)}\n`
const kernel = Testing.layer([
  { match: "slow", delay: "65 seconds", result: "42" },
  { match: "quick", result: "1" },
  { match: "flood", chunks: Array.from({ length: 105 }, () => megabyte) },
])

layer(KernelRpc.layerHandlers.pipe(Layer.provide(sessions), Layer.provide(kernel)))("KernelRpc", (it) => {
  it.effect("execute and hold send something at least every 20 seconds, and end as they would without it", () =>
    Effect.gen(function* () {
      const client = yield* RpcTest.makeClient(KernelRpc.group)
      const attachments: Array<string> = []
      yield* client.hold({ key: "ada" }).pipe(
        Stream.runForEach(({ kernelId }) => Effect.sync(() => attachments.push(kernelId))),
        Effect.forkScoped({ startImmediately: true }),
      )
      const tags: Array<string> = []
      const run = (code: string) =>
        client.execute({ key: "ada", code, requestId: code }).pipe(
          Stream.runForEach(({ _tag }) => Effect.sync(() => tags.push(_tag))),
        )
      yield* run("quick")
      assert.deepStrictEqual(tags.splice(0), ["Accepted", "DisplayChunk", "ExecutionResult"])
      const fiber = yield* Effect.forkChild(run("slow"), { startImmediately: true })
      for (let seconds = 0; seconds < 60; seconds += 20) {
        yield* TestClock.adjust("20 seconds")
        assert.deepStrictEqual(tags.splice(0), seconds === 0 ? ["Accepted", "Accepted"] : ["Accepted"])
      }
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(tags, ["DisplayChunk", "ExecutionResult"])
      assert.lengthOf(attachments, 4)
      assert.lengthOf(new Set(attachments), 1)
    }))

  it.effect("what a server holds until it is complete, as over HTTP with JSON, is bounded", () =>
    Effect.gen(function* () {
      const client = yield* RpcTest.makeClient(KernelRpc.group)
      const flood = (contentType: string) =>
        client.execute({ key: "ada", code: "flood" }, { headers: { "content-type": contentType } }).pipe(
          Stream.take(103),
          Stream.runFold(() => 0, (count) => count + 1),
        )
      const { json, ndjson } = RpcSerialization
      assert.strictEqual(yield* flood(ndjson.contentType), 103)
      const failure = yield* Effect.flip(flood(json.contentType))
      assert.strictEqual(reasonOf(failure), "Unsupported")
      assert.include(failure.message, "layerNdjson")
    }))
})
