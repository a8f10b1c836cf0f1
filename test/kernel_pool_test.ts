/** Pools of real kernels; `pool/pool_state_test.ts` tests every order of events. */
import { assert, it, layer } from "@effect/vitest"
import {
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  FileSystem,
  Layer,
  LayerMap,
  Metric,
  RcMap,
  Redacted,
  Schedule,
  Schema,
} from "effect"
import { HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import * as Metrics from "../src/kernel/metrics.ts"
import { Execution, KernelClient, KernelGateway, KernelPool } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow, temporary, text } from "./support/kernel.ts"
import { eventually, supervisors, survivors } from "./support/processes.ts"

type Pool = KernelPool.KernelPool["Service"]

class NotYet extends Schema.TaggedError<NotYet>()("NotYet", { state: Schema.Unknown }) {}

/** Waits until the pool is as it should be, and fails with how it is if it does not become so. */
const until = (pool: Pool, isSo: (state: KernelPool.State) => boolean) =>
  pool.state.pipe(
    Effect.filterOrFail(isSo, (state) => new NotYet({ state })),
    Effect.retry({ schedule: Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "40 seconds" })) }),
  )
const isAtRest = ({ busy, starting, stopping, waiting }: KernelPool.State): boolean =>
  busy + starting + stopping + waiting === 0

/** All kernels that the gateway has, each with how many clients are connected to it. */
const kernelModels = Effect.gen(function* () {
  const { token, url } = yield* KernelGateway.KernelGateway
  return yield* HttpClientRequest.get(`${url}/api/kernels`).pipe(
    HttpClientRequest.setHeader("authorization", `token ${token === undefined ? "" : Redacted.value(token)}`),
    HttpClient.execute,
    Effect.flatMap(HttpClientResponse.schemaBodyJson(
      Schema.Array(Schema.Struct({ id: Schema.String, connections: Schema.Int })),
    )),
  )
})
const kernelIds = Effect.map(kernelModels, (all) => all.map(({ id }) => id))

const kill = (pid: number, signal: "SIGKILL" | "SIGSTOP" = "SIGKILL") =>
  Effect.sync(() => process.kill(pid, signal))
const pidOf = (kernel: KernelClient.Kernel) =>
  Effect.map(text(kernel.execute("import os; print(os.getpid())")), Number)
const counts = Effect.forEach(
  [Metrics.poolHits, Metrics.poolMisses],
  (metric) => Effect.map(Metric.value(metric), ({ count }) => Number(count)),
)

/** Kernel Gateway lists its kernels only if it is told to. */
const gateway = KernelGateway.layer({ env: { KG_LIST_KERNELS: "True" } })

layer(gateway.pipe(Layer.provideMerge(Platform.layer)), slow)("KernelPool", (it) => {
  it.effect("hands out a kernel that is warm, once, and replaces it; metrics tell of it", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({ size: 2 })
      yield* until(pool, ({ warm }) => warm === 2)
      assert.strictEqual((yield* Metric.value(Metrics.poolWarm)).value, 2)
      const [hits = 0, misses = 0] = yield* counts
      const ids = yield* kernelIds
      // Clients connect to the kernels themselves.
      assert.deepStrictEqual((yield* kernelModels).map(({ connections }) => connections), [0, 0])
      const used = yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* pool.get
        assert.include(ids, kernel.id, "it was there before")
        assert.strictEqual((yield* kernel.execute("6 * 7")).text, "42")
        assert.deepInclude(yield* pool.state, { busy: 1, warm: 1 })
        return kernel.id
      }))
      yield* until(pool, ({ warm }) => warm === 2)
      assert.deepStrictEqual(yield* counts, [hits + 1, misses])
      const after = yield* kernelIds
      assert.lengthOf(after, 2)
      assert.notInclude(after, used)
    }))

  it.effect("nothing of one user is seen by the next", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const pool = yield* KernelPool.make({ size: 1 })
      const pids = yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* pool.get
        yield* kernel.execute(`
import asyncio, builtins, calendar, math, os, signal, subprocess, sys, threading, time, types
secret = 1
math.pi = 3
calendar.isleap = lambda year: "patched"
builtins.planted = True
builtins.print = lambda *_, **__: None
sys.displayhook = lambda _: None
signal.signal(signal.SIGUSR1, lambda *_: None)
asyncio.get_running_loop().create_task(asyncio.sleep(3600), name="planted")
get_ipython().events.register("pre_run_cell", lambda _: None)
sys.modules["planted_module"] = types.ModuleType("planted_module")
sys.path.insert(0, "/planted")
os.environ["PLANTED"] = "1"
os.chdir(${JSON.stringify(folder)})
handle = open("held.txt", "w")
def beat():
    while True:
        handle.write("."); handle.flush(); time.sleep(0.01)
threading.Thread(target=beat, daemon=False, name="planted").start()
get_ipython().run_line_magic("alias", "planted ls")
child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
`)
        const pids = yield* text(kernel.execute("sys.stdout.write(f'{os.getpid()} {child.pid}')"))
        return (pids ?? "").split(" ").map(Number)
      }))
      assert.lengthOf(pids, 2)
      const kernel = yield* pool.get
      assert.notInclude(pids, yield* pidOf(kernel))
      const seen = yield* text(kernel.execute(`
import asyncio, builtins, calendar, math, os, signal, sys, threading
files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
print("secret" in globals(), math.pi == 3, calendar.isleap(2024), hasattr(builtins, "planted"),
      "planted_module" in sys.modules, "/planted" in sys.path, "PLANTED" in os.environ,
      os.getcwd() == ${JSON.stringify(folder)}, any("held.txt" in file for file in files),
      any(thread.name == "planted" for thread in threading.enumerate()),
      signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, any(task.get_name() == "planted" for task in asyncio.all_tasks()),
      any(hook.__name__ == "<lambda>" for hook in get_ipython().events.callbacks["pre_run_cell"]), len(In))
`))
      assert.strictEqual(
        seen,
        "False False True False False False False False False False True False False 3",
      )
      assert.strictEqual(yield* text(kernel.execute("'shown'")), "'shown'")
      yield* eventually(() => survivors(pids))
      const fs = yield* FileSystem.FileSystem
      const held = `${folder}/held.txt`
      assert.strictEqual(yield* fs.readFileString(held), yield* Effect.delay(fs.readFileString(held), 100))
    }))

  it.effect("no kernel can tell from its random numbers those of another one", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({ size: 3 })
      const drawn = yield* Effect.forEach(yield* Effect.replicateEffect(pool.get, 3), (kernel) =>
        text(kernel.execute(`
import os, random, uuid
import numpy
print(random.random(), uuid.uuid4(), numpy.random.rand(), os.urandom(8).hex())
`)))
      const columns = drawn.map((line) =>
        (line ?? "").split(" ")
      )
      for (const column of [0, 1, 2, 3]) {
        assert.strictEqual(new Set(columns.map((numbers) => numbers[column])).size, 3, `column ${column}`)
      }
    }))

  it.effect("spares that were killed or stand still are not handed out", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* temporary
      const pool = yield* KernelPool.make({
        size: 2,
        setup: `import os; open(os.path.join(${JSON.stringify(folder)}, str(os.getpid())), "w").close()`,
      })
      yield* until(pool, ({ warm }) => warm === 2)
      const [killed = 0, stopped = 0] = (yield* fs.readDirectory(folder)).map(Number)
      yield* kill(killed)
      yield* kill(stopped, "SIGSTOP")
      // The server notices the one after seconds and the other never.
      const kernel = yield* pool.get
      assert.notInclude([killed, stopped], yield* pidOf(kernel))
      yield* until(pool, ({ stopping, warm }) => stopping === 0 && warm === 1)
      assert.isUndefined(survivors([killed, stopped]))
    }))

  it.effect("a spare whose death the server reports is replaced before the next request", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({ size: 1, pingInterval: "1 second" })
      yield* until(pool, ({ warm }) => warm === 1)
      const before = yield* kernelIds
      const { token, url } = yield* KernelGateway.KernelGateway
      // Another client deletes it.
      yield* HttpClientRequest.delete(`${url}/api/kernels/${before[0]}`).pipe(
        HttpClientRequest.setHeader(
          "authorization",
          `token ${token === undefined ? "" : Redacted.value(token)}`,
        ),
        HttpClient.execute,
      )
      yield* until(pool, ({ warm }) => warm === 0)
      yield* until(pool, ({ warm }) => warm === 1)
      assert.notDeepEqual(yield* kernelIds, before)
    }))

  it.effect("who waits is served in order, and one too many is turned away", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({ size: 1, maxWaiting: 2 })
      const served: Array<string> = []
      const use = (name: string) =>
        Effect.scoped(Effect.gen(function* () {
          const kernel = yield* pool.get
          served.push(name)
          yield* kernel.execute("1")
        }))
      const [hits = 0, misses = 0] = yield* counts
      const waitingElsewhere = (yield* Metric.value(Metrics.poolWaiting)).value
      const go = yield* Deferred.make<void>()
      const holder = yield* Effect.forkChild(
        Effect.scoped(Effect.andThen(pool.get, Deferred.await(go))),
        { startImmediately: true },
      )
      yield* until(pool, ({ busy }) => busy === 1)
      const waiting = yield* Effect.forEach(["first", "second"], (name) =>
        Effect.forkChild(use(name), { startImmediately: true }))
      const error = yield* Effect.flip(Effect.scoped(pool.get))
      assert.strictEqual(error.reason._tag, "KernelStartFailed")
      assert.include(error.message, "maxWaiting")
      assert.strictEqual((yield* Metric.value(Metrics.poolWaiting)).value, waitingElsewhere + 2)
      yield* Deferred.succeed(go, undefined)
      for (const fiber of [holder, ...waiting]) {
        yield* Fiber.join(fiber)
      }
      assert.deepStrictEqual(served, ["first", "second"])
      assert.strictEqual((yield* Metric.value(Metrics.poolWaiting)).value, waitingElsewhere)
      // The holder came before the first kernel was ready.
      assert.deepStrictEqual(yield* counts, [hits, misses + 3])
    }))

  it.effect("a request that is interrupted at any moment leaks nothing", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({ size: 2 })
      for (const moment of [0, 0, 1, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 40, 80, 160, 320, 640]) {
        const fibers = yield* Effect.replicateEffect(
          Effect.forkChild(Effect.scoped(Effect.andThen(pool.get, Effect.sleep(moment / 4))), {
            startImmediately: true,
          }),
          3,
        )
        yield* Effect.sleep(moment)
        for (const fiber of fibers) yield* Fiber.interrupt(fiber)
        const { busy, starting, stopping, warm } = yield* pool.state
        assert.isAtMost(busy + starting + stopping + warm, 2, `after ${moment} ms`)
      }
      yield* until(pool, (state) => isAtRest(state) && state.warm === 2)
      assert.lengthOf(yield* kernelIds, 2)
      const kernel = yield* pool.get
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }), 120_000)

  it.effect("setup has run, cell by cell, and is no part of what follows", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({
        size: 1,
        setup: ["print('not shown')\nx = 20", "import math\nx += 1"],
      })
      const kernel = yield* pool.get
      const result = yield* kernel.execute("math.floor(x)")
      assert.deepStrictEqual([result.text, result.executionCount], ["21", 1])
    }))

  it.effect(
    "setup that fails is a typed error with the traceback, one that does not end is one too",
    () =>
      Effect.gen(function* () {
        const failure = (options: KernelPool.PoolOptions) =>
          Effect.scoped(
            Effect.flatMap(KernelPool.make({ size: 1, ...options }), ({ get }) => Effect.flip(get)),
          )
        const raised = yield* failure({ setup: ["def prepare():\n  1 / 0", "prepare()"] })
        assert.strictEqual(raised.reason._tag, "KernelStartFailed")
        assert.include(raised.message, "ZeroDivisionError: division by zero")
        assert.include(raised.message, "prepare()")
        const endless = yield* failure({ setup: "while True: pass", initTimeout: "3 seconds" })
        assert.include(endless.message, "initTimeout")
        assert.deepStrictEqual(yield* kernelIds, [])
      }),
    120_000,
  )

  it.effect("spares are deleted after idleTimeToLive, and started again with a request", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({ min: 0, max: 4, warm: 2, idleTimeToLive: "2 seconds" })
      yield* until(pool, (state) => isAtRest(state) && state.warm === 0)
      assert.deepStrictEqual(yield* kernelIds, [])
      const kernel = yield* pool.get
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      // With the request its spares began to start as well; they may have come and gone by now.
      yield* until(pool, (state) => state.busy === 1 && isAtRest({ ...state, busy: 0 }) && state.warm === 0)
      assert.deepStrictEqual(yield* kernelIds, [kernel.id])
    }))

  it.effect("reset takes a spare", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({ size: 2, setup: "x = 1" })
      yield* until(pool, ({ warm }) => warm === 2)
      const kernel = yield* pool.get
      const [spare] = (yield* kernelIds).filter((id) => id !== kernel.id)
      yield* kernel.execute("x = 2; y = 3")
      const [hits = 0] = yield* counts
      yield* kernel.reset
      assert.strictEqual(kernel.id, spare)
      assert.strictEqual((yield* counts)[0], hits + 1)
      assert.strictEqual(yield* text(kernel.execute("print(x, 'y' in globals())")), "1 False")
      yield* until(pool, ({ busy, warm }) => busy === 1 && warm === 1)
      yield* Effect.flip(kernel.execute("import os; os._exit(1)"))
      yield* kernel.reset
      assert.strictEqual(yield* text(kernel.execute("x")), "1", "a dead kernel is replaced too")
    }))

  it.effect("closing the scope deletes all kernels, those in use too, and ends what waits and runs", () =>
    Effect.gen(function* () {
      const borrowed = yield* Effect.scoped(Effect.gen(function* () {
        const pool = yield* KernelPool.make({ size: 2 })
        const kernel = yield* pool.get
        const other = yield* pool.get
        const running = yield* Effect.forkDetach(Effect.flip(kernel.execute("import time; time.sleep(60)")), {
          startImmediately: true,
        })
        const waiting = yield* Effect.forkDetach(Effect.flip(Effect.scoped(pool.get)), {
          startImmediately: true,
        })
        return { kernel: other, pool, running, waiting }
      }))
      assert.deepStrictEqual(yield* kernelIds, [])
      const ended = yield* Fiber.join(borrowed.running)
      assert.strictEqual(ended._tag === "KernelError" && ended.reason._tag, "ExecutionAborted")
      assert.include((yield* Fiber.join(borrowed.waiting)).message, "The pool is closed")
      assert.instanceOf(yield* Effect.flip(borrowed.kernel.execute("1")), Execution.KernelError)
      assert.include((yield* Effect.flip(Effect.scoped(borrowed.pool.get))).message, "The pool is closed")
    }))

  it.effect("layerClient is a kernel of its own in each build, although it is one constant", () =>
    Effect.gen(function* () {
      const id = Effect.map(KernelClient.KernelClient, (kernel) => kernel.id)
      class First extends Context.Service<First, string>()("test/First") {}
      class Second extends Context.Service<Second, string>()("test/Second") {}
      const first = Layer.effect(First, id)
      const second = Layer.effect(Second, id)
      const both = (one: typeof KernelPool.layerClient, other: typeof KernelPool.layerClient) =>
        Effect.provide(
          Effect.all([First, Second]),
          Layer.merge(Layer.provide(first, one), Layer.provide(second, other)),
        )
      const all = yield* Effect.scoped(Effect.gen(function* () {
        const layers = yield* LayerMap.make((_: string) => KernelPool.layerClient)
        const contexts = yield* RcMap.make({ lookup: (_: string) => Layer.build(KernelPool.layerClient) })
        const ofContext = (key: string) =>
          Effect.map(
            RcMap.get(contexts, key),
            (context) => Context.get(context, KernelClient.KernelClient).id,
          )
        const [ada, grace, again] = yield* Effect.all([
          Effect.provide(id, yield* layers.contextEffect("ada")),
          Effect.provide(id, yield* layers.contextEffect("grace")),
          Effect.provide(id, yield* layers.contextEffect("ada")),
        ])
        assert.strictEqual(again, ada, "one kernel a key")
        const provided = Effect.provide(id, KernelPool.layerClient)
        return [
          ada,
          grace,
          yield* ofContext("ada"),
          yield* ofContext("grace"),
          ...yield* both(KernelPool.layerClient, KernelPool.layerClient),
          ...yield* both(Layer.fresh(KernelPool.layerClient), KernelPool.layerClient),
          ...yield* Effect.provide(Effect.all([id, provided]), KernelPool.layerClient),
          ...yield* Effect.all([provided, provided], { concurrency: 2 }),
        ]
      }))
      assert.lengthOf(new Set(all), 12)

      // A layer of an application is one kernel for all its services.
      const shared = Layer.provide(KernelPool.layerClient, Layer.empty)
      const [one, other] = yield* both(shared, shared)
      assert.strictEqual(one, other)
    }).pipe(Effect.provide(KernelPool.layer({ max: 6, warm: 2 }))))

  it.effect("KernelClient.layer gives each key of a LayerMap a kernel, and one constant is one kernel", () =>
    Effect.gen(function* () {
      const idOf = (context: Context.Context<KernelClient.KernelClient>) =>
        Context.get(context, KernelClient.KernelClient).id
      const called = yield* LayerMap.make((_: string) => KernelClient.layer())
      const ids = yield* Effect.forEach(
        ["ada", "grace"],
        (key) => Effect.map(called.contextEffect(key), idOf),
      )
      assert.notStrictEqual(ids[0], ids[1])
      const constant = KernelClient.layer()
      const merged = yield* Layer.build(Layer.merge(constant, Layer.provide(constant, Layer.empty)))
      const nested = yield* Effect.provide(Effect.map(KernelClient.KernelClient, ({ id }) => id), merged)
      assert.strictEqual(nested, idOf(merged))
      const apart = yield* Effect.all([
        Layer.build(Layer.fresh(constant)),
        Layer.build(Layer.fresh(constant)),
      ])
      assert.notStrictEqual(idOf(apart[0]), idOf(apart[1]))
    }))

  it.effect("is the kernel of an application as well", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const before = kernel.id
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      yield* kernel.reset
      assert.notStrictEqual(kernel.id, before)
    }).pipe(Effect.provide(KernelPool.layerClient.pipe(Layer.provide(KernelPool.layer({ size: 1 }))))))
})

it.live(
  "several gateways share the kernels, and one that is killed is survived",
  () =>
    Effect.gen(function* () {
      const remote = yield* KernelGateway.make()
      const remotePids = new Set(supervisors(process.pid).map(({ pid }) => pid))
      const pool = yield* KernelPool.make({
        min: 4,
        max: 6,
        gateways: [
          KernelGateway.layer(),
          KernelGateway.layerRemote({
            url: remote.url,
            ...(remote.token === undefined ? {} : { token: remote.token }),
          }),
        ],
      })
      const { gateways } = yield* until(pool, ({ warm }) => warm === 4)
      assert.deepStrictEqual(gateways.map(({ kernels }) => kernels), [2, 2], "by load")
      const kernels = yield* Effect.replicateEffect(pool.get, 4)
      const running = yield* Effect.forEach(kernels, (kernel) =>
        Effect.forkChild(
          Effect.timed(Effect.exit(kernel.execute("import time; time.sleep(3); 'survived'"))),
          {
            startImmediately: true,
          },
        ))

      const [own] = supervisors(process.pid).filter(({ pid }) => !remotePids.has(pid))
      assert.isDefined(own)
      if (own === undefined) {
        return
      }
      yield* kill(own.pid)
      yield* until(pool, (state) => state.gateways[0]?.isGone === true)
      // At once, and from the gateway that is left.
      const kernel = yield* pool.get
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      const exits = yield* Effect.forEach(running, Fiber.join)
      // To notice it by its connection alone would take 10 seconds.
      const outcomes = exits.map(([time, exit]) =>
        exit._tag === "Success" ? exit.value.text : Duration.toSeconds(time) < 9
      )
      const expected = ["'survived'", "'survived'", true, true]
      assert.deepStrictEqual(
        outcomes.map(String).sort(),
        expected.map(String),
        "its kernels end at once, the others go on",
      )
      // The dead ones are still with who has them; all others, new spares among them, are on the one that is left.
      const after = yield* until(pool, ({ starting, stopping }) => starting + stopping === 0)
      assert.deepStrictEqual(after.gateways.map(({ kernels }) => kernels), [2, 4])

      yield* Effect.forEach(remotePids, (pid) => kill(pid))
      // Its gateway goes a moment later, until when it hands out kernels.
      yield* Effect.repeat(Effect.exit(Effect.tryPromise(() => fetch(remote.url))), { until: Exit.isFailure })
      const [time, error] = yield* Effect.timed(Effect.flip(Effect.scoped(pool.get)))
      // A start was under way, or its request had ended.
      assert.include(["KernelStartFailed", "ConnectionLost"], error.reason._tag)
      yield* Effect.logInfo(`All gateways killed: ${error.message} after ${Duration.format(time)}`)
    }).pipe(Effect.scoped),
  120_000,
)
