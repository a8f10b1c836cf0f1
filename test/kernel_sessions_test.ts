/** Sessions of real kernels: one kernel for each key, and its whole life. */
import { assert, layer } from "@effect/vitest"
import {
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  LayerMap,
  RcMap,
  Redacted,
  Schedule,
  Schema,
  Scope,
  Stream,
} from "effect"
import { HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import { Execution, KernelClient, KernelGateway, KernelSessions } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow, text } from "./support/kernel.ts"
import { descendants, supervisors } from "./support/processes.ts"

type Sessions = KernelSessions.KernelSessions["Service"]

class NotYet extends Schema.TaggedError<NotYet>()("NotYet", { state: Schema.Unknown }) {}

/** Waits until an effect gives what is expected, and fails with what it gives if it does not. */
const until = <A, E, R>(effect: Effect.Effect<A, E, R>, isSo: (value: A) => boolean) =>
  effect.pipe(
    Effect.filterOrFail(isSo, (state) => new NotYet({ state })),
    Effect.retry({ schedule: Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "20 seconds" })) }),
  )

const kernelIds = Effect.gen(function* () {
  const { token, url } = yield* KernelGateway.KernelGateway
  const models = yield* HttpClientRequest.get(`${url}/api/kernels`).pipe(
    HttpClientRequest.setHeader("authorization", `token ${token === undefined ? "" : Redacted.value(token)}`),
    HttpClient.execute,
    Effect.flatMap(HttpClientResponse.schemaBodyJson(Schema.Array(Schema.Struct({ id: Schema.String })))),
  )
  return models.map(({ id }) => id)
})

/** Collects events from now on, each as a line. */
const record = Effect.fnUntraced(function* (sessions: Sessions) {
  const events: Array<KernelSessions.SessionEvent> = []
  yield* sessions.events.pipe(
    Stream.runForEach((event) => Effect.sync(() => events.push(event))),
    Effect.forkScoped({ startImmediately: true }),
  )
  return events
})
const lines = (events: ReadonlyArray<KernelSessions.SessionEvent>) =>
  events.map(({ _tag, key }) => `${_tag} ${key}`)

/** Runs code in the session of a key, which is in use only meanwhile. */
const ask = (sessions: Sessions, key: string, code: string) =>
  Effect.scoped(Effect.flatMap(sessions.get(key), (kernel) => text(kernel.execute(code))))

/** Has a session in use until the returned effect runs. */
const hold = Effect.fnUntraced(function* (sessions: Sessions, key: string) {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const kernel = yield* Scope.provide(sessions.get(key), scope)
  return { kernel, release: Scope.close(scope, Exit.void) }
})

const keys = (sessions: Sessions) => Effect.map(sessions.list, (all) => all.map(({ key }) => key))
const reasonOf = (failure: Execution.ExecutionFailure) =>
  failure._tag === "KernelError" ? failure.reason._tag : failure._tag

/** Kernel Gateway lists its kernels only if it is told to. */
const gateway = KernelGateway.layer({ env: { KG_LIST_KERNELS: "True" } })

layer(gateway.pipe(Layer.provideMerge(Platform.layer)), slow)("KernelSessions", (it) => {
  it.effect("get gives a key the same kernel with its state, and another key another one", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make()
      const events = yield* record(sessions)
      yield* ask(sessions, "ada", "x = 'of ada'")
      yield* ask(sessions, "grace", "x = 'of grace'")
      assert.strictEqual(yield* ask(sessions, "ada", "x"), "'of ada'")
      assert.strictEqual(yield* ask(sessions, "grace", "x"), "'of grace'")
      assert.deepStrictEqual(lines(events), [
        "Opened ada",
        "Idle ada",
        "Opened grace",
        "Idle grace",
        "Idle ada",
        "Idle grace",
      ])
      const [ada] = yield* sessions.list
      assert.strictEqual(ada?.key, "ada")
      assert.strictEqual(ada?.inUse, false)
      assert.include(yield* kernelIds, ada?.kernelId)
      assert.isTrue(ada !== undefined && ada.lastUsedAt.epochMilliseconds > ada.openedAt.epochMilliseconds)
      const { kernel } = yield* hold(sessions, "ada")
      assert.strictEqual(kernel.id, ada?.kernelId)
      assert.deepStrictEqual(
        (yield* sessions.list).map(({ inUse, key }) => [key, inUse]),
        [["grace", false], ["ada", true]],
        "the least recently used first",
      )
    }))

  it.effect("get of one key by many at once opens one session", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ max: 2 })
      const events = yield* record(sessions)
      const kernels = yield* Effect.all(
        Array.from({ length: 20 }, (_, index) => sessions.get(index % 2 === 0 ? "ada" : "grace")),
        { concurrency: "unbounded" },
      )
      assert.lengthOf(new Set(kernels.map(({ id }) => id)), 2)
      assert.strictEqual(new Set(kernels.filter((_, index) => index % 2 === 0).map(({ id }) => id)).size, 1)
      assert.deepStrictEqual(lines(events).toSorted(), ["Opened ada", "Opened grace"])
    }))

  it.effect("idleTimeToLive closes a session that is not in use, and no other", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ idleTimeToLive: "300 millis" })
      const events = yield* record(sessions)
      const { kernel } = yield* hold(sessions, "used")
      yield* ask(sessions, "idle", "x = 1")
      const [idle] = (yield* sessions.list).filter(({ key }) => key === "idle")
      yield* until(keys(sessions), (all) => all.join() === "used")
      assert.strictEqual(lines(events).at(-1), "Closed idle")
      yield* until(kernelIds, (ids) => !ids.includes(idle?.kernelId ?? ""))
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      assert.strictEqual(yield* ask(sessions, "idle", "'x' in globals()"), "False")
    }))

  it.effect("max evicts the least recently used session, never one that is in use", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ max: 3 })
      const events = yield* record(sessions)
      const oldest = yield* hold(sessions, "oldest, in use")
      yield* ask(sessions, "b", "x = 1")
      yield* ask(sessions, "c", "x = 1")
      yield* ask(sessions, "b", "x")
      yield* ask(sessions, "d", "x = 1")
      assert.deepStrictEqual(yield* keys(sessions), ["oldest, in use", "b", "d"])
      assert.deepStrictEqual(lines(events).filter((line) => line.startsWith("Evicted")), ["Evicted c"])
      assert.strictEqual(yield* ask(sessions, "b", "x"), "1")
      yield* ask(sessions, "e", "x = 1")
      assert.deepStrictEqual(yield* keys(sessions), ["oldest, in use", "b", "e"])
      assert.strictEqual(yield* text(oldest.kernel.execute("6 * 7")), "42")
      yield* until(kernelIds, (ids) => ids.length <= 3)
    }))

  it.effect("get waits while max sessions are in use, and fails after acquireTimeout or maxWaiting", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ max: 2, maxWaiting: 1, acquireTimeout: "5 seconds" })
      const events = yield* record(sessions)
      const ada = yield* hold(sessions, "ada")
      const grace = yield* hold(sessions, "grace")
      const waiting = yield* Effect.forkChild(ask(sessions, "joan", "6 * 7"), { startImmediately: true })
      const refused = yield* Effect.flip(Effect.scoped(sessions.get("mary")))
      assert.strictEqual(refused.reason._tag, "KernelStartFailed")
      assert.include(refused.message, "maxWaiting")
      assert.deepStrictEqual(yield* keys(sessions), ["ada", "grace"])
      yield* grace.release
      assert.strictEqual(yield* Fiber.join(waiting), "42")
      assert.include(lines(events), "Evicted grace")
      assert.strictEqual(yield* text(ada.kernel.execute("6 * 7")), "42")
      assert.deepStrictEqual(yield* keys(sessions), ["ada", "joan"])

      yield* hold(sessions, "joan")
      const late = yield* Effect.flip(Effect.scoped(sessions.get("mary")))
      assert.strictEqual(late.reason._tag, "KernelStartFailed")
      assert.include(late.message, "2 of at most 2 are in use")
      assert.strictEqual(yield* text(ada.kernel.execute("6 * 7")), "42")
      assert.deepStrictEqual(yield* keys(sessions), ["ada", "joan"])
    }))

  it.effect("get after the death of a kernel gives a new one, once, and says so by Died and Replaced", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ max: 2 })
      const events = yield* record(sessions)
      const { kernel: dead } = yield* hold(sessions, "ada")
      yield* dead.execute("x = 1")
      const { id } = dead
      const failure = yield* Effect.flip(dead.execute("import os; os._exit(1)"))
      assert.strictEqual(reasonOf(failure), "KernelDied")
      assert.deepStrictEqual(yield* keys(sessions), [], "dead ones are not listed")
      const kernels = yield* Effect.all([sessions.get("ada"), sessions.get("ada"), sessions.get("ada")], {
        concurrency: "unbounded",
      })
      const [kernel] = kernels
      assert.lengthOf(new Set(kernels.map(({ id }) => id)), 1)
      assert.notStrictEqual(kernel?.id, id)
      assert.strictEqual(kernel && (yield* text(kernel.execute("'x' in globals()"))), "False")
      assert.strictEqual(reasonOf(yield* Effect.flip(dead.execute("1"))), "ExecutionAborted")
      assert.strictEqual((yield* Effect.flip(dead.reset)).reason._tag, "ExecutionAborted", "no second kernel")
      assert.deepStrictEqual(lines(events), ["Opened ada", "Died ada", "Replaced ada"])
      const [, died, replaced] = events
      assert.strictEqual(died?._tag === "Died" && died.reason._tag, "KernelDied")
      assert.strictEqual(died?.kernelId, id)
      assert.strictEqual(replaced?._tag === "Replaced" && replaced.previousId, id)
      assert.strictEqual(replaced?.kernelId, kernel?.id)
      yield* until(kernelIds, (ids) => !ids.includes(id))
    }))

  it.effect("get after the death of an idle kernel gives a new one", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ pingInterval: "500 millis" })
      const events = yield* record(sessions)
      const pid = Number(yield* ask(sessions, "ada", "import os; os.getpid()"))
      process.kill(pid, "SIGKILL")
      yield* until(Effect.sync(() => lines(events)), (all) => all.includes("Died ada"))
      assert.strictEqual(yield* ask(sessions, "ada", "6 * 7"), "42")
      assert.deepStrictEqual(lines(events), [
        "Opened ada",
        "Idle ada",
        "Died ada",
        "Replaced ada",
        "Idle ada",
      ])
    }))

  it.effect("reset keeps the session with a new kernel, also after a death, and Replaced says so", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ setup: (kernel, key) => kernel.set("user", key) })
      const events = yield* record(sessions)
      const { kernel } = yield* hold(sessions, "ada")
      const first = kernel.id
      yield* kernel.reset
      assert.notStrictEqual(kernel.id, first)
      assert.strictEqual(yield* text(kernel.execute("user")), "'ada'", "prepared again")
      yield* Effect.flip(kernel.execute("import os; os._exit(1)"))
      yield* kernel.reset
      const other = yield* sessions.get("ada")
      assert.strictEqual(other.id, kernel.id)
      assert.deepStrictEqual(lines(events), ["Opened ada", "Replaced ada", "Died ada", "Replaced ada"])
    }))

  it.effect("close ends a session, also in use, while it opens, and again and again", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ max: 2 })
      const events = yield* record(sessions)
      yield* sessions.close("none")
      const { kernel } = yield* hold(sessions, "ada")
      const { id } = kernel
      const running = yield* Effect.forkChild(Effect.flip(kernel.execute("import time; time.sleep(60)")), {
        startImmediately: true,
      })
      yield* sessions.close("ada")
      const aborted = yield* Fiber.join(running)
      assert.strictEqual(reasonOf(aborted), "ExecutionAborted")
      assert.include(aborted.message, `The session "ada" was closed`)
      assert.deepStrictEqual(yield* keys(sessions), [])
      assert.deepStrictEqual(lines(events), ["Opened ada", "Closed ada"])
      yield* until(kernelIds, (ids) => !ids.includes(id))

      const opening = yield* Effect.forkChild(Effect.flip(Effect.scoped(sessions.get("grace"))), {
        startImmediately: true,
      })
      yield* sessions.close("grace")
      assert.strictEqual((yield* Fiber.join(opening)).reason._tag, "ExecutionAborted")
      assert.deepStrictEqual(yield* keys(sessions), [])

      // A request during a close gets the kernel before it, whose executions fail, or the one after it.
      yield* Effect.forEach([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89], (moment) =>
        Effect.all([
          Effect.andThen(Effect.sleep(moment), sessions.close("joan")),
          Effect.exit(ask(sessions, "joan", "6 * 7")).pipe(Effect.tap((exit) =>
            Effect.sync(() => {
              if (Exit.isSuccess(exit)) return assert.strictEqual(exit.value, "42")
              const failure = Exit.findErrorOption(exit)
              assert.strictEqual(failure._tag === "Some" && reasonOf(failure.value), "ExecutionAborted")
            })
          )),
        ], { concurrency: "unbounded" }))
      assert.strictEqual(yield* ask(sessions, "joan", "6 * 7"), "42")
      assert.deepStrictEqual(yield* keys(sessions), ["joan"])
    }))

  it.effect("get that is interrupted at any moment leaves no session and no kernel behind", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ max: 2, min: 0, warm: 0 })
      for (const moment of [0, 1, 2, 5, 10, 20, 40, 80, 120, 160, 200, 240, 320]) {
        const fiber = yield* Effect.forkChild(Effect.scoped(Effect.asVoid(sessions.get("ada"))), {
          startImmediately: true,
        })
        yield* Effect.delay(Fiber.interrupt(fiber), moment)
        const all = yield* keys(sessions)
        if (Exit.hasInterrupts(yield* Fiber.await(fiber))) {
          assert.deepStrictEqual(all, [], `after ${moment} ms`)
        }
        yield* sessions.close("ada")
      }
      // One of two who wait goes away, and the other gets the kernel.
      const [leaving, staying] = yield* Effect.all([
        Effect.forkChild(Effect.scoped(sessions.get("ada")), { startImmediately: true }),
        Effect.forkChild(ask(sessions, "ada", "6 * 7"), { startImmediately: true }),
      ])
      yield* Fiber.interrupt(leaving)
      assert.strictEqual(yield* Fiber.join(staying), "42")
      yield* sessions.close("ada")
      yield* until(kernelIds, (ids) => ids.length === 0)
    }))

  it.effect("get that waits is served when a session of another key is closed or dies", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ max: 1 })
      const first = yield* hold(sessions, "ada")
      const waiting = yield* Effect.forkChild(ask(sessions, "grace", "6 * 7"), { startImmediately: true })
      yield* sessions.close("ada")
      assert.strictEqual(yield* Fiber.join(waiting), "42")
      yield* first.release
      const dead = yield* hold(sessions, "joan")
      yield* Effect.flip(dead.kernel.execute("import os; os._exit(1)"))
      const next = yield* Effect.forkChild(ask(sessions, "grace", "6 * 7"), { startImmediately: true })
      yield* dead.release
      assert.strictEqual(yield* Fiber.join(next), "42")
    }))

  it.effect("setup prepares each new session once; its failures are typed and not kept", () =>
    Effect.gen(function* () {
      const code = yield* KernelSessions.make({ max: 1, setup: ["x = 20", "x += 1"] })
      assert.strictEqual(yield* ask(code, "ada", "x += 1; x"), "22")
      assert.strictEqual(yield* ask(code, "ada", "x"), "22")

      class Greeting extends Context.Service<Greeting, string>()("Greeting") {}
      let failing = true
      const prepared: Array<string> = []
      const sessions = yield* KernelSessions.make({
        max: 1,
        initTimeout: "10 seconds",
        setup: (kernel, key) =>
          Effect.gen(function* () {
            prepared.push(key)
            if (failing) return yield* kernel.execute("1 / 0")
            return yield* kernel.set("greeting", `${yield* Greeting}, ${key}`)
          }),
      }).pipe(Effect.provideService(Greeting, "Hello"))
      const failed = yield* Effect.flip(ask(sessions, "ada", "1"))
      assert.strictEqual(reasonOf(failed), "KernelStartFailed")
      assert.include(failed.message, "ZeroDivisionError")
      assert.deepStrictEqual(yield* keys(sessions), [])
      failing = false
      assert.strictEqual(yield* ask(sessions, "ada", "greeting"), "'Hello, ada'")
      assert.strictEqual(yield* ask(sessions, "ada", "greeting"), "'Hello, ada'")
      assert.deepStrictEqual(prepared, ["ada", "ada"])
      const endless = yield* KernelSessions.make({ setup: () => Effect.never, initTimeout: "1 second" })
      assert.include((yield* Effect.flip(ask(endless, "ada", "1"))).message, "initTimeout")
    }))

  it.effect("setup that is not repeated after a reset closes the session, and its scope is that of the kernel", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      let next: Effect.Effect<void, string> = Effect.void
      const sessions = yield* KernelSessions.make({
        max: 2,
        setup: (kernel, key) =>
          Effect.gen(function* () {
            yield* Effect.acquireRelease(
              Effect.sync(() => log.push(`begin ${key}`)),
              () => Effect.sync(() => log.push(`end ${key}`)),
            )
            yield* next
            yield* kernel.execute("ready = True")
          }),
      })
      const { kernel, release } = yield* hold(sessions, "ada")
      yield* release
      assert.deepStrictEqual(log, ["begin ada"], "the session is open")
      const again = yield* hold(sessions, "ada")
      yield* again.kernel.reset
      assert.deepStrictEqual(log, ["begin ada", "end ada", "begin ada"])
      next = Effect.fail("no licence")
      const failed = yield* Effect.flip(again.kernel.reset)
      assert.include(failed.message, "no licence")
      assert.deepStrictEqual(yield* keys(sessions), [])
      assert.deepStrictEqual(log.slice(3), ["end ada", "begin ada", "end ada"])
      assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("1"))), "ExecutionAborted")
      next = Effect.void
      assert.strictEqual(yield* ask(sessions, "ada", "ready"), "True")

      const { kernel: other } = yield* hold(sessions, "ada")
      for (const moment of [0, 10, 100]) {
        const reset = yield* Effect.forkChild(other.reset, { startImmediately: true })
        yield* Effect.delay(Fiber.interrupt(reset), moment)
        assert.strictEqual(
          yield* ask(sessions, "ada", "globals().get('ready')"),
          "True",
          `after ${moment} ms`,
        )
      }
    }))

  it.effect("max evicts a session whose kernel died before one that lives", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make({ max: 2 })
      const events = yield* record(sessions)
      yield* ask(sessions, "ada", "x = 1")
      yield* Effect.flip(ask(sessions, "grace", "import os; os._exit(1)"))
      yield* ask(sessions, "joan", "1")
      assert.include(lines(events), "Evicted grace")
      assert.strictEqual(yield* ask(sessions, "ada", "x"), "1")
    }))

  it.effect("keys of all kinds are different sessions, and keys that encodings do not tell apart are refused", () =>
    Effect.gen(function* () {
      const all = [
        "",
        " ",
        "\0",
        "a",
        "A",
        "__proto__",
        "constructor",
        "../a",
        "\u00e4",
        "a\u0308",
        "\ud83d\ude00",
        "x".repeat(10_000),
      ]
      const sessions = yield* KernelSessions.make({ max: all.length })
      const ids = yield* Effect.forEach(all, (key) => Effect.map(sessions.get(key), ({ id }) => id), {
        concurrency: 4,
      })
      assert.lengthOf(new Set(ids), all.length)
      assert.sameMembers(yield* keys(sessions), all)
      for (const key of ["\ud800", "a\udc00b", "x".repeat(10_001)]) {
        const { reason } = yield* Effect.flip(sessions.get(key))
        assert.strictEqual(reason._tag === "InvalidOption" && reason.option, "key")
      }
    }).pipe(Effect.scoped))

  it.effect("gateways share the sessions, and one that ends is replaced by the others", () =>
    Effect.gen(function* () {
      const earlier = new Set(supervisors(process.pid).map(({ pid }) => pid))
      const sessions = yield* KernelSessions.make({
        max: 4,
        gateways: [KernelGateway.layer(), KernelGateway.layer()],
      })
      const names = ["ada", "grace", "joan", "mary"]
      const pids = yield* Effect.forEach(
        names,
        (key) => Effect.map(ask(sessions, key, "import os; x = 1; os.getpid()"), Number),
      )
      const [first, second] = supervisors(process.pid).filter(({ pid }) => !earlier.has(pid))
      const below = new Set(descendants(first?.pid ?? 0).map(({ pid }) => pid))
      const isOfFirst = pids.map((pid) => below.has(pid))
      assert.isDefined(second)
      assert.includeMembers(isOfFirst, [true, false])
      process.kill(first?.pid ?? 0, "SIGKILL")
      yield* until(sessions.list, (all) => all.every(({ key }) => !isOfFirst[names.indexOf(key)]))
      for (const [index, key] of names.entries()) {
        assert.strictEqual(
          yield* ask(sessions, key, "'x' in globals()"),
          isOfFirst[index] ? "False" : "True",
        )
      }
    }).pipe(Effect.scoped))

  it.effect("make fails with InvalidOption", () =>
    Effect.gen(function* () {
      for (
        const options of [
          { max: 0 },
          { max: 1.5 },
          { idleTimeToLive: "-1 seconds" as const },
          { idleTimeToLive: Number.NaN },
          { kernelName: "../python" },
        ]
      ) {
        const error = yield* Effect.flip(Effect.scoped(KernelSessions.make(options)))
        assert.strictEqual(error.reason._tag, "InvalidOption")
        assert.include(error.message, Object.keys(options).join())
      }
      const lasting = yield* KernelSessions.make({ idleTimeToLive: Duration.infinity })
      yield* ask(lasting, "ada", "x = 1")
      assert.strictEqual(yield* ask(lasting, "ada", "x"), "1")
      const none = yield* KernelSessions.make({ idleTimeToLive: 0 })
      yield* ask(none, "ada", "x = 1")
      assert.deepStrictEqual(yield* keys(none), [])
    }))

  it.effect("closing the scope closes all sessions, fails what waits, and ends the events", () =>
    Effect.gen(function* () {
      const go = yield* Deferred.make<void>()
      const left = yield* Effect.scoped(Effect.gen(function* () {
        const sessions = yield* KernelSessions.make({ max: 1 })
        const events = yield* Effect.forkDetach(Stream.runCollect(sessions.events), {
          startImmediately: true,
        })
        const holding = yield* Effect.forkDetach(
          Effect.scoped(Effect.gen(function* () {
            const kernel = yield* sessions.get("ada")
            yield* Deferred.succeed(go, undefined)
            return yield* Effect.flip(kernel.execute("import time; time.sleep(60)"))
          })),
          { startImmediately: true },
        )
        yield* Deferred.await(go)
        const waiting = yield* Effect.forkDetach(Effect.flip(Effect.scoped(sessions.get("grace"))), {
          startImmediately: true,
        })
        return { events, holding, sessions, waiting }
      }))
      assert.strictEqual(reasonOf(yield* Fiber.join(left.holding)), "ExecutionAborted")
      const waited = yield* Fiber.join(left.waiting)
      assert.strictEqual(waited.reason._tag, "ExecutionAborted")
      assert.include(waited.message, "The sessions are closed")
      assert.deepStrictEqual(lines(yield* Fiber.join(left.events)), ["Opened ada", "Closed ada"])
      assert.strictEqual(
        (yield* Effect.flip(Effect.scoped(left.sessions.get("ada")))).reason._tag,
        "ExecutionAborted",
      )
      yield* left.sessions.close("ada")
      assert.deepStrictEqual(yield* left.sessions.list, [])
      assert.deepStrictEqual(yield* Stream.runCollect(left.sessions.events), [])
      yield* until(kernelIds, (ids) => ids.length === 0)
    }))

  it.effect("two users never share a kernel, however layers are memoized", () =>
    Effect.gen(function* () {
      const id = Effect.map(KernelClient.KernelClient, (kernel) => kernel.id)
      const sessions = KernelSessions.layer({ max: 4 })
      const idOf = (key: string) => Effect.provide(id, KernelSessions.layerClient(key))
      const pair = Effect.all([idOf("ada"), idOf("grace"), idOf("ada")])
      // One layer that is shared, and the same one built anew.
      const [one, fresh] = yield* Effect.all([
        Effect.provide(pair, sessions),
        Effect.provide(pair, Layer.fresh(sessions)),
      ])
      assert.strictEqual(one[0], one[2])
      assert.lengthOf(new Set([...one, ...fresh]), 4)

      yield* Effect.gen(function* () {
        const layers = yield* LayerMap.make((key: string) => KernelSessions.layerClient(key))
        const resources = yield* RcMap.make({
          lookup: (key: string) => Effect.flatMap(KernelSessions.KernelSessions, ({ get }) => get(key)),
        })
        const ids = yield* Effect.all([
          Effect.provide(id, layers.get("ada")),
          Effect.provide(id, layers.get("grace")),
          Effect.map(RcMap.get(resources, "ada"), (kernel) => kernel.id),
          Effect.map(RcMap.get(resources, "grace"), (kernel) => kernel.id),
          Effect.provide(id, Layer.fresh(KernelSessions.layerClient("ada"))),
        ], { concurrency: "unbounded" })
        assert.strictEqual(ids[0], ids[2])
        assert.strictEqual(ids[1], ids[3])
        assert.strictEqual(ids[0], ids[4])
        assert.notStrictEqual(ids[0], ids[1])
      }).pipe(Effect.scoped, Effect.provide(sessions))
    }))

  it.effect("events and sessions are schemas", () =>
    Effect.gen(function* () {
      const sessions = yield* KernelSessions.make()
      const events = yield* record(sessions)
      const { kernel } = yield* hold(sessions, "ada")
      yield* Effect.flip(kernel.execute("import os; os._exit(1)"))
      yield* sessions.get("ada")
      const json = Schema.fromJsonString(Schema.toCodecJson(Schema.Array(KernelSessions.SessionEvent)))
      assert.deepStrictEqual(
        yield* Schema.decodeEffect(json)(yield* Schema.encodeEffect(json)(events)),
        events,
      )
      const listed = yield* sessions.list
      const list = Schema.fromJsonString(Schema.toCodecJson(Schema.Array(KernelSessions.Session)))
      assert.deepStrictEqual(
        yield* Schema.decodeEffect(list)(yield* Schema.encodeEffect(list)(listed)),
        listed,
      )
    }))
})
