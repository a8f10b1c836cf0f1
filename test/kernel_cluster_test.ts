/** Kernels of a cluster: in one process, and in several that share the keys by PostgreSQL. */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer, Schema, Stream } from "effect"
import { TestRunner } from "effect/cluster"
import { randomUUID } from "node:crypto"
import { Execution, KernelClient, KernelGateway, KernelSessions } from "../src/mod.ts"
import * as KernelCluster from "../src/kernel_cluster.ts"
import * as Platform from "../src/platform.ts"
import * as Cluster from "./support/cluster.ts"
import { slow, text } from "./support/kernel.ts"
import * as Postgres from "./support/postgres.ts"
import { descendants, eventually, survivors } from "./support/processes.ts"

const kernelOf = (key: string = randomUUID()) =>
  Effect.map(
    Effect.suspend(() => Layer.build(KernelCluster.layerClient(key))),
    (context) => Context.get(context, KernelClient.KernelClient),
  )
const reasonOf = (failure: { readonly _tag: string }) =>
  failure instanceof Execution.KernelError ? failure.reason._tag : failure._tag

const OneProcess = KernelCluster.layer.pipe(
  Layer.provideMerge(TestRunner.layer),
  Layer.provideMerge(KernelSessions.layer({ max: 4 })),
  Layer.provide(KernelGateway.layer()),
  Layer.provideMerge(Platform.layer),
)

layer(OneProcess, slow)("KernelCluster", (it) => {
  it.effect("execute, stream, values and failures cross the cluster, and the state stays", () =>
    Effect.gen(function* () {
      const key = randomUUID()
      const kernel = yield* kernelOf(key)
      const streamed = yield* Stream.runCollect(kernel.stream("x = 20\nprint('hello')\nx + 1"))
      assert.deepStrictEqual(streamed.map(({ _tag }) => _tag), [
        "TextChunk",
        "DisplayChunk",
        "ExecutionResult",
      ])
      const raised = yield* Effect.flip(kernel.execute("print(x)\n1 / 0"))
      assert.isTrue(raised._tag === "ExecutionError" && raised.partial.text === "20")
      assert.strictEqual(
        reasonOf(yield* Effect.flip(kernel.execute("while True: pass", { timeout: "300 millis" }))),
        "ExecutionTimeout",
      )
      const bytes = new Uint8Array(3_000_000).fill(7)
      yield* kernel.set("bytes", bytes)
      assert.strictEqual(yield* kernel.evaluate("sum(bytes)", Schema.Int), 21_000_000)
      assert.strictEqual((yield* kernel.complete("byte")).matches.includes("bytes"), true)
      const other = yield* kernelOf(key)
      assert.strictEqual(other.id, kernel.id)
      assert.strictEqual(yield* text(other.execute("x")), "20")
    }))

  it.effect("interruption ends the code and keeps the state", () =>
    Effect.gen(function* () {
      const kernel = yield* kernelOf()
      yield* kernel.stream("n = 0\nwhile True:\n  n += 1\n  print(n, flush=True)").pipe(
        Stream.take(3),
        Stream.runDrain,
      )
      assert.isAbove(yield* kernel.evaluate("n", Schema.Int), 2)
      yield* Effect.timeoutOption(kernel.execute("while True: n = -1"), "1 second")
      assert.strictEqual(yield* text(kernel.execute("n")), "-1")
    }))

  it.effect("a kernel that dies is told until a reset", () =>
    Effect.gen(function* () {
      const kernel = yield* kernelOf()
      yield* kernel.execute("x = 1")
      assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("import os; os._exit(1)"))), "KernelDied")
      assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("1"))), "KernelDied")
      yield* kernel.reset
      assert.strictEqual(yield* text(kernel.execute("'x' in globals()")), "False")
    }))

  it.effect("an entity serves the session of its id alone, and code once", () =>
    Effect.gen(function* () {
      const clientOf = yield* KernelCluster.entity.client
      const [ada, eve] = [randomUUID(), randomUUID()]
      const { kernelId, session } = yield* clientOf(ada).open({ key: ada })
      assert.strictEqual((yield* clientOf(ada).open({ key: eve })).kernelId, kernelId)
      const { list } = yield* KernelSessions.KernelSessions
      assert.isFalse((yield* list).some(({ key }) => key === eve))
      const count = clientOf(ada).execute({
        key: ada,
        session,
        requestId: "1",
        code: "n = globals().get('n', 0) + 1",
      })
      yield* Stream.runDrain(count)
      assert.strictEqual(reasonOf(yield* Effect.flip(Stream.runDrain(count))), "ConnectionLost")
      assert.strictEqual(yield* clientOf(ada).evaluate({ key: ada, expression: "n" }), 1)
      const lost = yield* Effect.flip(
        clientOf(ada).evaluate({ key: ada, session: "another", expression: "n" }),
      )
      assert.strictEqual(reasonOf(lost), "KernelDied")
    }))
})

/** The database of a cluster of its own. */
class Server extends Context.Service<Server, string>()("test/Server") {}

const database = Effect.flatMap(Server, Postgres.makeDatabase)
const keys = Array.from({ length: 6 }, (_, index) => `user-${index}`)

/** The kernels' ids by key, as a runner finds them. */
const kernelIds = (runner: Cluster.Runner, code: string = "") =>
  Effect.forEach(keys, (key) => runner.execute(key, code), { concurrency: "unbounded" }).pipe(
    Effect.map((answers) => answers.map(({ kernelId, reason }) => kernelId ?? reason)),
  )

describe.skipIf(Postgres.programs === undefined)("KernelCluster with PostgreSQL", () => {
  layer(Layer.provideMerge(Layer.effect(Server, Postgres.serve), Platform.layer), slow)((it) => {
    it.effect("every key has one owner, and answers from every process", () =>
      Effect.gen(function* () {
        const where = yield* database
        const runners = yield* Effect.all([Cluster.run(where), Cluster.run(where), Cluster.run(where)], {
          concurrency: "unbounded",
        })
        const [first, second, third] = runners
        yield* Cluster.settled(where, runners)
        yield* Effect.forEach(keys, (key) => first.execute(key, `x = "${key}"`), { concurrency: "unbounded" })
        for (const runner of [second, third]) {
          const found = yield* Effect.forEach(keys, (key) => runner.execute(key, "print(x, end='')"))
          assert.deepStrictEqual(found.map(({ text }) => text), keys)
        }
        const owners = runners.map(({ pid }) => descendants(pid).length)
        yield* Effect.logInfo(`Processes of the runners: ${owners.join(", ")}`)

        // In order: the keys go to the others, and nothing stays behind.
        const before = yield* kernelIds(first)
        const pids = descendants(third.pid).map(({ pid }) => pid)
        yield* third.kill("SIGTERM")
        yield* third.exitCode
        yield* eventually(() => survivors(pids))
        yield* Cluster.settled(where, [first, second])
        const after = yield* kernelIds(first)
        assert.deepStrictEqual(yield* kernelIds(second), after)
        assert.isTrue(after.every((id) => id?.length === 36), String(after))
        yield* Effect.logInfo(`${after.filter((id) => before.includes(id)).length} kernels stayed`)
      }))
  })
})
