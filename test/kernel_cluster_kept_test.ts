/** Kernels of a cluster that outlive their runner, and what is told of those that do not. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Duration, Effect, Fiber, Latch, Layer, Redacted, Result, Scope, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import { randomUUID } from "node:crypto"
import { Execution, type KernelClient, KernelGateway, KernelSessions } from "../src/mod.ts"
import * as KernelCluster from "../src/kernel_cluster.ts"
import * as Platform from "../src/platform.ts"
import * as Cluster from "./support/cluster.ts"
import * as EnterpriseGateway from "./support/enterprise_gateway.ts"
import { slow, text, texts } from "./support/kernel.ts"
import { reasonOf } from "./support/outcome.ts"
import * as Postgres from "./support/postgres.ts"
import * as Serve from "./support/serve.ts"

it.live("KernelRefs: a session leaves its kernel to the process that has its key by now", () =>
  Effect.gen(function* () {
    const { token, url } = yield* Serve.start()
    const scope = yield* Effect.scope
    const store = yield* Effect.provide(KeyValueStore.KeyValueStore, KeyValueStore.layerMemory)
    const open = Layer.build(Layer.fresh(KernelSessions.layer({ min: 0, max: 2 }))).pipe(
      Effect.provide(KernelGateway.layerRemote({ url, token, reconnect: true })),
      Effect.provideService(KernelCluster.KernelRefs, store),
      Effect.map((context) => Context.get(context, KernelSessions.KernelSessions)),
    )
    const second = yield* open
    // The kernels that sessions close are deleted when they have ended.
    const kernel = yield* Effect.scoped(Effect.gen(function* () {
      const first = yield* open
      const former = yield* first.get("ada")
      yield* former.execute("x = 1")
      const kernel = yield* second.get("ada").pipe(Scope.provide(scope))
      assert.strictEqual(kernel.id, former.id)
      yield* first.close("ada")
      return kernel
    }))
    assert.strictEqual(yield* text(kernel.execute("x")), "1")
    yield* second.close("ada")
    assert.isFalse(yield* store.has("ada"))
  }).pipe(Effect.scoped, Effect.provide(Platform.layer)))

it.live("KernelRefs: a session deletes its kernel if another process has another one for its key", () =>
  Effect.gen(function* () {
    const { token, url } = yield* Serve.start()
    const store = yield* Effect.provide(KeyValueStore.KeyValueStore, KeyValueStore.layerMemory)
    const remote = yield* Layer.build(KernelGateway.layerRemote({ url, token, reconnect: true }))
    const id = yield* Effect.scoped(Effect.gen(function* () {
      const context = yield* Layer.build(KernelSessions.layer({ min: 0, max: 1 }))
      const sessions = Context.get(context, KernelSessions.KernelSessions)
      const { id } = yield* Effect.scoped(sessions.get("ada"))
      const other = new Execution.KernelRef({ server: "other", kernelId: randomUUID(), session: "other" })
      yield* KeyValueStore.toSchemaStore(store, Execution.KernelRef).set("ada", other)
      yield* sessions.close("ada")
      return id
    })).pipe(Effect.provideContext(remote), Effect.provideService(KernelCluster.KernelRefs, store))
    const { kernels } = Context.get(remote, KernelGateway.KernelGateway)
    assert.notInclude((yield* kernels).map((kernel) => kernel.id), id)
    assert.isTrue(yield* store.has("ada"))
  }).pipe(Effect.scoped, Effect.provide(Platform.layer)))

/** A database, and the start of a runner whose kernels are on a shared gateway, which ends with the scope. */
const onSharedGateway = Effect.gen(function* () {
  const where = yield* Cluster.database
  const name = `cluster-${randomUUID().slice(0, 8)}`
  yield* Effect.addFinalizer(() => Effect.ignore(KernelGateway.stopShared(name)))
  return { where, start: Cluster.run(where, name) }
})

describe.skipIf(Postgres.programs === undefined)(
  "KernelCluster with PostgreSQL, kernels that are kept",
  () => {
    layer(Cluster.serverLayer, slow)((it) => {
      it.effect(
        "kernels of a shared gateway: what runs goes on, once, when a runner is killed or stops",
        () =>
          Effect.gen(function* () {
            const { start, where } = yield* onSharedGateway
            const runners = yield* Effect.all([start, start, start], { concurrency: "unbounded" })
            const [first, second, third] = runners
            yield* Cluster.settled(where, runners)
            const connect = yield* Cluster.kernelsOf(where)
            const { keyOf } = yield* Cluster.placement(where, runners)
            const [kept, lost] = [keyOf(first), keyOf(second)]
            const kernels = yield* Effect.forEach([kept, lost], (key) => connect(key))
            const other = yield* connect(lost)
            const ids = kernels.map(({ id }) => id)
            const code = `
import time
n = globals().get("n", 0) + 1
for i in range(200): print(i, flush=True); time.sleep(0.02)
n`
            const lines = Array.from({ length: 200 }, (_, line) => `${line}\n`)
            const counting = "for i in range(100): print(i, flush=True); time.sleep(0.02)"
            /** Runs the code in all kernels, and what comes after it, while something happens to a runner. */
            const during = Effect.fnUntraced(function* <A>(
              event: Effect.Effect<void>,
              after: Effect.Effect<A, Execution.ExecutionFailure>,
            ) {
              const printed = yield* Effect.forEach(kernels, () => Latch.make())
              const running = yield* Effect.forEach(kernels, (kernel, index) =>
                kernel.stream(code).pipe(
                  Stream.tap(() => printed[index]?.open ?? Effect.void),
                  Stream.runCollect,
                  Effect.forkChild({ startImmediately: true }),
                ))
              yield* Effect.forEach(printed, ({ await: opened }) => opened)
              const waiting = yield* Effect.forkChild(after, { startImmediately: true })
              yield* event
              return [
                yield* Effect.forEach(running, Fiber.join),
                yield* Effect.result(Fiber.join(waiting)),
              ] as const
            })

            const [outputs, waiting] = yield* during(second.kill("SIGKILL"), other.execute(counting))
            for (const output of outputs) {
              assert.deepStrictEqual(texts(output), lines)
              const result = output.at(-1)
              assert.strictEqual(result?._tag === "ExecutionResult" && result.text, `${lines.join("")}1`)
            }
            // What was sent to the runner and had not begun may have, for all that is known.
            assert.strictEqual(Result.isFailure(waiting) && reasonOf(waiting.failure), "ConnectionLost")
            assert.deepStrictEqual(kernels.map(({ id }) => id), ids)
            assert.strictEqual((yield* first.execute(lost, "print(n, i, end='')")).text, "1 199")

            // In order, too, although the code has no time to end.
            const { ownerOf } = yield* Cluster.placement(where, [first, third])
            const [owner, next] = ownerOf(lost) === first ? [first, third] : [third, first]
            const ref = yield* other.start(counting)
            const [again, resumed] = yield* during(
              owner.kill("SIGTERM"),
              Stream.runCollect(other.resume(ref)),
            )
            for (const output of again) assert.deepStrictEqual(texts(output), lines)
            assert.deepStrictEqual(Result.map(resumed, texts), Result.succeed(lines.slice(0, 100)))
            assert.deepStrictEqual(kernels.map(({ id }) => id), ids)
            assert.strictEqual((yield* next.execute(lost, "print(n, end='')")).text, "2")
          }),
        120_000,
      )

      it.effect(
        "the next owner keeps the timeout of what runs, asks for its input, tells what is gone, and interrupts what was left",
        () =>
          Effect.gen(function* () {
            const { start, where } = yield* onSharedGateway
            const runners = yield* Effect.all([start, start], { concurrency: "unbounded" })
            yield* Cluster.settled(where, runners)
            const connect = yield* Cluster.kernelsOf(where)
            const { ownerOf } = yield* Cluster.placement(where, runners)
            const owned = Array.from({ length: 100 }, (_, index) => `user-${index}`)
              .filter((key) => ownerOf(key) === runners[1])
            const [slow = "", asking = "", loud = "", left = ""] = owned
            const run = Effect.fnUntraced(function* (
              key: string,
              code: string,
              options?: KernelClient.ExecuteOptions,
            ) {
              const kernel = yield* connect(key)
              const printed = yield* Latch.make()
              const fiber = yield* kernel.stream(`import time\n${code}`, options).pipe(
                Stream.tap(() => printed.open),
                Stream.runLast,
                Effect.result,
                Effect.forkChild({ startImmediately: true }),
              )
              yield* printed.await
              return fiber
            })
            const prints = "for i in range(2000): print(i, flush=True); time.sleep(0.02)"
            const late = yield* run(slow, prints, { timeout: "15 seconds" })
            const asked = yield* run(asking, "print(1, flush=True); time.sleep(2); x = input(); x", {
              onInput: () => Effect.succeed("ada"),
            })
            const flood = yield* run(
              loud,
              `for i in range(26): print("x" * 3_000_000, flush=True); time.sleep(0.1)`,
            )
            const endless = yield* run(left, "print(1, flush=True)\nwhile True: time.sleep(0.01)")
            yield* runners[1].kill("SIGKILL")

            yield* Fiber.interrupt(endless)
            const timeout = yield* Fiber.join(late)
            assert.isTrue(Result.isFailure(timeout) && timeout.failure._tag === "ExecutionTimeout")
            if (Result.isFailure(timeout) && timeout.failure._tag === "ExecutionTimeout") {
              assert.strictEqual(Duration.toMillis(timeout.failure.timeout), 15_000)
              assert.isTrue(timeout.failure.partial.text?.startsWith("0\n1\n"))
            }
            const answered = yield* Fiber.join(asked)
            const result = Result.isSuccess(answered) && answered.success._tag === "Some" &&
              answered.success.value
            assert.strictEqual(result && result._tag === "ExecutionResult" && result.text, "1\n'ada'")
            const gone = yield* Fiber.join(flood)
            assert.strictEqual(Result.isFailure(gone) && reasonOf(gone.failure), "OutputGone")
            // Code without a consumer keeps no other from its turn.
            const next = yield* Effect.timeout(runners[0].execute(left, "print(2, end='')"), "20 seconds")
            assert.strictEqual(next.text, "2")
          }),
        120_000,
      )

      const served = Effect.map(
        Serve.start(),
        ({ token, url }) => `${url}/?token=${Redacted.value(token)}`,
      )
      const enterprise = Effect.flatMap(
        EnterpriseGateway.provision,
        (python) =>
          python === undefined
            ? Effect.undefined
            : Effect.flatMap(Cluster.freePort, (port) => EnterpriseGateway.start(python, port)),
      )
      for (
        const { keeps, start, title } of [
          { title: "Enterprise Gateway", start: enterprise, keeps: true },
          { title: "effect-jupyter serve with reconnect", start: served, keeps: true },
          { title: "effect-jupyter serve", start: served, keeps: false },
        ]
      ) {
        const promise = keeps ? "keep their state and their code" : "end"
        it.effect(`kernels of ${title} ${promise} when their runner is killed while cells print`, (context) =>
          Effect.gen(function* () {
            const url = yield* start
            if (url === undefined) return context.skip(`${title} cannot be installed here`)
            const where = yield* Cluster.database
            const run = Cluster.run(where, { url, keeps })
            const runners = yield* Effect.all([run, run], { concurrency: 2 })
            yield* Cluster.settled(where, runners)
            const connect = yield* Cluster.kernelsOf(where)
            const { keyOf } = yield* Cluster.placement(where, runners)
            const [keptKey, lostKey] = [keyOf(runners[0]), keyOf(runners[1])]
            const [kept, lost] = yield* Effect.all([connect(keptKey), connect(lostKey)])
            const ids = [kept.id, lost.id]
            const print = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
              const printed = yield* Latch.make()
              const code = "import time\nfor i in range(150): print(i, flush=True); time.sleep(0.02)"
              const fiber = yield* kernel.stream(code).pipe(
                Stream.tap(() => printed.open),
                Stream.runCollect,
                Effect.result,
                Effect.forkChild({ startImmediately: true }),
              )
              yield* printed.await
              return fiber
            })
            const whole = yield* print(kept)
            const cut = yield* print(lost)
            yield* runners[1].kill("SIGKILL")
            const [took, result] = yield* Effect.timed(Fiber.join(cut))
            assert.isBelow(Duration.toSeconds(took), 20)
            assert.strictEqual(
              Result.isFailure(result) && reasonOf(result.failure),
              keeps ? "ConnectionLost" : "KernelDied",
            )
            const lines = Array.from({ length: 150 }, (_, line) => `${line}\n`)
            assert.deepStrictEqual(Result.map(yield* Fiber.join(whole), texts), Result.succeed(lines))
            const gateway = yield* Layer.build(KernelGateway.layerRemote({ url }))
            if (keeps) {
              // The same client and another one find the kernel as it was, when its code has ended.
              assert.strictEqual(yield* text(lost.execute("print(i)")), "149")
              assert.strictEqual((yield* runners[0].execute(lostKey, "print(i, end='')")).text, "149")
              assert.strictEqual(reasonOf(yield* Effect.flip(lost.start("1"))), "Unsupported")
            } else {
              assert.strictEqual(reasonOf(yield* Effect.flip(lost.execute("i"))), "KernelDied")
              yield* lost.reset
              assert.strictEqual(yield* text(lost.execute("'i' in globals()")), "False")
            }
            assert.strictEqual(yield* text(kept.execute("print(i)")), "149")
            const { kernels } = Context.get(gateway, KernelGateway.KernelGateway)
            // Others are ready for the next sessions.
            const remaining = (yield* kernels).map(({ id }) => id)
            assert.deepStrictEqual(ids.map((id) => remaining.includes(id)), [true, keeps])
            assert.deepStrictEqual([kept.id === ids[0], lost.id === ids[1]], [true, keeps])
          }))
      }
    })
  },
)
