/** Kernels of a cluster: in one process, and in several that share the keys by PostgreSQL. */
import { assert, describe, layer } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, FileSystem, Latch, Layer, Result, Schema, Stream } from "effect"
import { TestRunner } from "effect/cluster"
import { ChildProcess } from "effect/process"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import { existsSync } from "node:fs"
import process from "node:process"
import { type KernelClient, KernelGateway, KernelSessions } from "../src/mod.ts"
import * as KernelCluster from "../src/kernel_cluster.ts"
import * as Platform from "../src/platform.ts"
import * as Chaos from "./chaos/cluster.ts"
import * as Cluster from "./support/cluster.ts"
import { slow, temporary, text, texts } from "./support/kernel.ts"
import * as Postgres from "./support/postgres.ts"
import { reasonOf } from "./support/outcome.ts"
import { descendants, eventually, survivors } from "./support/processes.ts"

const { kernelOf } = Cluster
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

  it.effect("a key that no storage takes is refused, and leaves no session", () =>
    Effect.gen(function* () {
      const { list } = yield* KernelSessions.KernelSessions
      const before = (yield* list).length
      for (const key of ["x".repeat(256), "a\0b", "a\ud800"]) {
        assert.strictEqual(reasonOf(yield* Effect.flip(kernelOf(key))), "InvalidOption", key)
      }
      assert.lengthOf(yield* list, before)
      const longest = yield* kernelOf("\u{1f600}é/../'; --".padEnd(255, "x"))
      assert.strictEqual(yield* text(longest.execute("6 * 7")), "42")
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

const { keys, kernelIds } = Cluster

describe.skipIf(Postgres.programs === undefined)("KernelCluster with PostgreSQL", () => {
  layer(Cluster.serverLayer, slow)((it) => {
    it.effect("every key has one owner and answers from every process; a stopped one hands its keys over", () =>
      Effect.gen(function* () {
        const where = yield* Cluster.database
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

        const before = yield* kernelIds(first)
        assert.deepStrictEqual(yield* kernelIds(third), before)
        const pids = descendants(third.pid).map(({ pid }) => pid)
        yield* third.kill("SIGTERM")
        yield* third.exitCode
        yield* eventually(() => survivors(pids))
        yield* Cluster.settled(where, [first, second])
        const after = yield* kernelIds(first)
        assert.deepStrictEqual(yield* kernelIds(second), after)
        // The keys of the others stayed where they were.
        const states = yield* Effect.forEach(keys, (key) => second.execute(key, "print(x, end='')"))
        assert.deepStrictEqual(
          states.map(({ text }) => text),
          keys.map((key, index) => after[index] === before[index] ? key : undefined),
        )
        assert.isAbove(after.filter((id) => before.includes(id)).length, 0)
      }))

    it.effect("a runner that is killed while cells print: KernelDied, and every key answers again", () =>
      Effect.gen(function* () {
        const where = yield* Cluster.database
        const [first, second] = yield* Effect.all([Cluster.run(where), Cluster.run(where)], {
          concurrency: "unbounded",
        })
        yield* Cluster.settled(where, [first, second])
        const connect = yield* Cluster.kernelsOf(where)
        // The owner of a key depends on the ports of the runners, and the kernels' processes tell whose they are.
        const kernels: Array<KernelClient.Kernel> = []
        const isLost: Array<boolean> = []
        while (kernels.length < keys.length || new Set(isLost).size < 2) {
          const kernel = yield* connect(`user-${kernels.length}`)
          const pid = yield* kernel.evaluate("__import__('os').getpid()", Schema.Int)
          kernels.push(kernel)
          isLost.push(descendants(second.pid).some((process) => process.pid === pid))
        }
        const lost = descendants(second.pid).map(({ pid }) => pid)
        yield* Effect.forEach(kernels, (kernel) => kernel.execute("x = 1"), { concurrency: "unbounded" })

        const printed = yield* Effect.forEach(kernels, () => Latch.make())
        const running = yield* Effect.forEach(
          kernels,
          (kernel, index) =>
            kernel.stream("import time\nfor i in range(100):\n  print(i, flush=True); time.sleep(0.02)").pipe(
              Stream.tap(() => printed[index]?.open ?? Effect.void),
              Stream.runCollect,
              Effect.result,
              Effect.forkChild({ startImmediately: true }),
            ),
        )
        yield* Effect.forEach(printed, ({ await: opened }) => opened)
        yield* second.kill("SIGKILL")
        const [took, ended] = yield* Effect.timed(Effect.forEach(running, Fiber.join))
        assert.isBelow(Duration.toSeconds(took), 20)
        for (const [index, result] of ended.entries()) {
          if (isLost[index]) {
            assert.strictEqual(Result.isFailure(result) && reasonOf(result.failure), "KernelDied")
          } else {
            const lines = Array.from({ length: 100 }, (_, line) => `${line}\n`).join("")
            assert.strictEqual(Result.isSuccess(result) && texts(result.success).join(""), lines)
          }
        }
        yield* eventually(() => survivors(lost))
        for (const [index, kernel] of kernels.entries()) {
          if (isLost[index]) {
            assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("x"))), "KernelDied")
            yield* kernel.reset
            assert.strictEqual(yield* text(kernel.execute("'x' in globals()")), "False")
          } else assert.strictEqual(yield* text(kernel.execute("x")), "1")
        }
      }))

    it.effect("a runner that was frozen runs nothing that was sent to it once another one has the key", () =>
      Effect.gen(function* () {
        const where = yield* Cluster.database
        const file = `${yield* temporary}/ran`
        const first = yield* Cluster.run(where)
        yield* Cluster.settled(where, [first])
        const kernel = yield* (yield* Cluster.kernelsOf(where))("ada")
        yield* kernel.execute("x = 1")
        yield* first.kill("SIGSTOP")
        const waiting = yield* Effect.forkChild(
          Effect.exit(kernel.execute(`open(${JSON.stringify(file)}, "w").close()`)),
        )
        const second = yield* Cluster.run(where)
        yield* Cluster.settled(where, [second])
        assert.strictEqual((yield* second.execute("ada", "print('new', end='')")).text, "new")
        // Its socket has the request.
        yield* first.kill("SIGCONT")
        yield* Cluster.settled(where, [first, second])
        assert.isTrue(Exit.isFailure(yield* Fiber.join(waiting)))
        assert.isFalse(existsSync(file))
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      }))

    it.effect("interruption and back-pressure cross processes, and PostgreSQL sees nothing of an execution", () =>
      Effect.gen(function* () {
        const where = yield* Cluster.database
        yield* Cluster.settled(where, [yield* Cluster.run(where)])
        const kernel = yield* (yield* Cluster.kernelsOf(where))("ada")

        yield* kernel.stream("n = 0\nwhile True:\n  n += 1\n  print('x' * 100_000, flush=True)").pipe(
          Stream.rechunk(1),
          // The kernel makes several gigabytes in this time, unless it is held up.
          Stream.tap(() => Effect.sleep("3 seconds")),
          Stream.take(1),
          Stream.runDrain,
        )
        const made = yield* kernel.evaluate("n", Schema.Int)
        yield* Effect.logInfo(`${made} prints were made`)
        assert.isTrue(made > 1 && made < 3_000, String(made))

        const statements = Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const [row] = yield* sql<{ calls: number }>`
            select sum(calls)::int as calls from pg_stat_statements
            join pg_database on dbid = pg_database.oid where datname = ${where.name}`
          return row?.calls ?? 0
        })
        yield* Effect.gen(function* () {
          yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`create extension pg_stat_statements`)
          const [idle, , quiet] = [yield* statements, yield* Effect.sleep("3 seconds"), yield* statements]
          const count = 100
          const [took] = yield* Effect.timed(
            Effect.forEach(Array.from({ length: count }), () => kernel.execute("print(1)"), {
              discard: true,
            }),
          )
          const polled = (quiet - idle) / 3 * Duration.toSeconds(took)
          const perExecution = ((yield* statements) - quiet - polled) / count
          yield* Effect.logInfo(
            `${(quiet - idle) / 3} statements a second while nothing happens, ${perExecution} per execution`,
          )
          assert.isBelow(perExecution, 0.1)
        }).pipe(Effect.provide(Postgres.clientLayer(where)))
      }))

    for (const killSignal of ["SIGKILL", "SIGTERM"] as const) {
      it.effect(
        `PostgreSQL and runners end with a process of tests that gets ${killSignal}`,
        () =>
          Effect.gen(function* () {
            const fs = yield* FileSystem.FileSystem
            // Its own folders stay when it is killed.
            const folder = yield* temporary
            yield* fs.chmod(folder, 0o755)
            const chaos = yield* ChildProcess.make("node_modules/.bin/node", [
              "--conditions=effect-jupyter-source",
              "test/chaos/cluster_main.ts",
            ], {
              extendEnv: true,
              env: { TMPDIR: folder },
              stdin: "ignore",
              stdout: "ignore",
              stderr: "ignore",
            })
            const programs = () => descendants(chaos.pid).map(({ command }) => command.join(" "))
            yield* eventually(() => {
              const isComplete = programs().some((program) => program.includes("/postgres -D")) &&
                programs().filter((program) => program.includes("cluster_runner.ts")).length === 3
              return isComplete ? undefined : programs().join("\n")
            }, 40)
            const pids = descendants(chaos.pid).map(({ pid }) => pid)
            yield* Effect.sync(() => process.kill(chaos.pid, killSignal))
            yield* eventually(() => survivors(pids), 40)
          }),
        120_000,
      )
    }

    it.effect(
      "kills, freezes and stops never give a key two owners (npm run chaos:cluster)",
      () =>
        Effect.gen(function* () {
          const seed = Math.floor(Math.random() * 2 ** 32)
          const { executions, violations } = yield* Chaos.run({ seed, kills: 3 })
          assert.deepStrictEqual(violations, [], `npm run chaos:cluster -- --seed ${seed}`)
          assert.isAbove(executions, 20)
        }),
      300_000,
    )
  })
})
