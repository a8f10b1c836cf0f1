/** The servers of users on a real JupyterHub. */
import { assert, it, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Redacted, Schedule, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import process from "node:process"
import * as Hub from "../src/gateway/hub.ts"
import * as Server from "../src/jupyter/server.ts"
import { JupyterHub, KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as Fake from "./support/fake_server.ts"
import * as Support from "./support/jupyter_hub.ts"
import { slow, text } from "./support/kernel.ts"
import { timed } from "./support/outcome.ts"
import { eventually } from "./support/processes.ts"

const port = 12_000 + (process.pid % 3_900) * 4 + 24_000

type Served = Effect.Success<ReturnType<typeof Support.serve>>

/** The hub of these tests; `undefined` where it cannot be installed. */
class TestHub extends Context.Service<TestHub, Served | undefined>()("test/Hub") {}
const hub = Layer.effect(
  TestHub,
  Effect.flatMap(
    Support.provision,
    (tools) => tools === undefined ? Effect.undefined : Support.serve(tools, port),
  ),
).pipe(Layer.provideMerge(Platform.layer))

/** The options of a user's server, with a token of the user. */
const optionsOf = Effect.fnUntraced(function* ({ tokenOf, url }: Served, user: string) {
  return { hub: `${url}/hub/home`, token: yield* tokenOf(user) }
})

const reasonOf = <A, R>(effect: Effect.Effect<A, KernelGateway.GatewayError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

layer(hub, { ...slow, timeout: "10 minutes" })("JupyterHub", (it) => {
  const test = (name: string, run: (served: Served) => Effect.Effect<void, unknown, Scope.Scope>) =>
    it.effect(
      name,
      (context) =>
        Effect.flatMap(
          TestHub,
          (served) =>
            served === undefined
              ? Effect.sync(() => context.skip("JupyterHub cannot be installed here"))
              : run(served),
        ),
      120_000,
    )

  test("layer starts the server of the token's owner, and stops it, with another token if it has to", (served) =>
    Effect.gen(function* () {
      let asked = 0
      const token = Effect.map(served.tokenOf("ada"), (value) => {
        asked++
        return Redacted.make(value)
      })
      yield* Effect.gen(function* () {
        const server = yield* JupyterHub.UserServer
        assert.deepInclude(server, { user: "ada", name: "", isOwn: true })
        assert.deepStrictEqual(yield* served.running("ada"), [""])
        const [last] = yield* Stream.runCollect(server.progress)
        assert.deepInclude(last, { percent: 100, ready: true })
        const gateway = yield* KernelGateway.KernelGateway
        assert.strictEqual(gateway.url, `${served.url}/user/ada`)
        const python = (yield* gateway.kernelspecs).find(({ name }) => name === "python3")
        assert.deepInclude(python, { language: "python", isDefault: true })
        const kernel = yield* KernelClient.make({ env: { MINE: "1" } })
        const code = "import os; print(os.environ['MINE'], os.environ['SPAWN_OPTION'])"
        assert.strictEqual(yield* text(kernel.execute(code)), "1 none")
        const running = yield* gateway.kernels
        assert.deepStrictEqual(running.map(({ connections, id, name }) => [connections, id, name]), [
          [1, kernel.id, "python3"],
        ])
        assert.isDefined(running[0]?.lastActivity)
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
        // The hub and the server of the user each have their credentials.
        assert.strictEqual(asked, 2)
        yield* served.revoke("ada")
      }).pipe(Effect.scoped, Effect.provide(JupyterHub.layer({ hub: served.url, token })))
      assert.deepStrictEqual(yield* served.running("ada"), [])
      assert.strictEqual(asked, 3)
    }))

  test("make gives the progress while the server starts, and gateway waits until it is ready", (served) =>
    Effect.gen(function* () {
      const options = yield* optionsOf(served, "ada")
      const [server, millis] = yield* timed(JupyterHub.make({ ...options, options: { option: "slow" } }))
      assert.isBelow(millis, 4000)
      const gathering = yield* Effect.forkChild(Stream.runCollect(server.progress))
      yield* server.gateway
      const events = yield* Fiber.join(gathering)
      assert.isAbove(events.length, 1)
      assert.deepStrictEqual(events.map(({ ready }) => ready), [...events.slice(1).map(() => false), true])
      const percents = events.map(({ percent }) => percent)
      assert.deepStrictEqual(percents, percents.toSorted((a, b) => a - b))
    }))

  test("a server that runs already is used and not stopped, a named one of the user beside it", (served) =>
    Effect.gen(function* () {
      const options = yield* optionsOf(served, "eve")
      yield* served.api("POST", "users/eve/server")
      yield* Effect.gen(function* () {
        assert.isFalse((yield* JupyterHub.UserServer).isOwn)
      }).pipe(Effect.provide(JupyterHub.layer({ ...options, user: "eve" })))
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* served.running("eve"), ["", "large-one"])
        const kernel = yield* KernelClient.make()
        const code = "import os; print(os.environ['SPAWN_OPTION'])"
        assert.strictEqual(yield* text(kernel.execute(code)), "huge")
      }).pipe(
        Effect.scoped,
        Effect.provide(JupyterHub.layer({ ...options, server: "large-one", options: { option: "huge" } })),
      )
      assert.deepStrictEqual(yield* served.running("eve"), [""])
      yield* served.api("DELETE", "users/eve/server")
    }))

  test("of programs that start a server at once one owns it, and stops it", (served) =>
    Effect.gen(function* () {
      const options = {
        ...(yield* optionsOf(served, "eve")),
        server: "shared",
        options: { option: "slow" },
      }
      const scopes = yield* Effect.all(Array.from({ length: 3 }, () => Scope.make()))
      const servers = yield* Effect.forEach(
        scopes,
        (scope) =>
          Effect.gen(function* () {
            const { gateway, isOwn } = yield* JupyterHub.make(options)
            yield* gateway
            return { isOwn, scope }
          }).pipe(Scope.provide(scope)),
        { concurrency: "unbounded" },
      )
      assert.deepStrictEqual(servers.map(({ isOwn }) => isOwn).toSorted(), [false, false, true])
      for (const { scope } of servers.filter(({ isOwn }) => !isOwn)) yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* served.running("eve"), ["shared"])
      for (const { scope } of servers.filter(({ isOwn }) => isOwn)) yield* Scope.close(scope, Exit.void)
      // Closing waits for 10 seconds at most.
      yield* served.running("eve").pipe(
        Effect.repeat({ schedule: Schedule.spaced("200 millis"), until: (names) => names.length === 0 }),
        Effect.timeout("60 seconds"),
      )
    }))

  test("a start that fails, takes too long or is interrupted leaves no server", (served) =>
    Effect.gen(function* () {
      const options = yield* optionsOf(served, "ada")
      const failed = yield* reasonOf(
        Effect.scoped(Effect.flatMap(
          JupyterHub.make({ ...options, options: { option: "impossible" } }),
          ({ gateway }) => gateway,
        )),
      )
      assert.strictEqual(failed._tag, "StartFailed")
      const slowly = { ...options, options: { option: "slow" } }
      const [late] = yield* Effect.all([
        reasonOf(Effect.scoped(Layer.build(
          JupyterHub.layer({ ...slowly, server: "late", startTimeout: "1 second" }),
        ))),
        Effect.scoped(Layer.build(JupyterHub.layer({ ...slowly, server: "cut" }))).pipe(
          Effect.timeoutOption("500 millis"),
        ),
      ], { concurrency: 2 })
      assert.strictEqual(late._tag, "StartTimeout")
      // The hub does not stop a server while it starts.
      yield* served.running("ada").pipe(
        Effect.repeat({ schedule: Schedule.spaced("200 millis"), until: (names) => names.length === 0 }),
        Effect.timeout("60 seconds"),
      )
    }))

  test("a user with special characters, whose server is stopped while code runs", (served) =>
    Effect.gen(function* () {
      const options = yield* optionsOf(served, Support.oddUser)
      yield* Effect.gen(function* () {
        assert.deepInclude(yield* JupyterHub.UserServer, { user: Support.oddUser, isOwn: true })
        const kernel = yield* KernelClient.make({ pingInterval: "1 second" })
        assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
        const code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
        const begun = yield* Deferred.make<void>()
        const running = yield* kernel.stream(code).pipe(
          Stream.tap(() => Effect.asVoid(Deferred.succeed(begun, undefined))),
          Stream.runDrain,
          Effect.flip,
          Effect.forkChild,
        )
        yield* Deferred.await(begun)
        yield* served.api("DELETE", `users/${encodeURIComponent(Support.oddUser)}/server`)
        const [failure, millis] = yield* timed(Fiber.join(running))
        assert.strictEqual(
          failure._tag === "KernelError" ? failure.reason._tag : failure._tag,
          "ConnectionLost",
        )
        assert.strictEqual(failure.partial?.text, "begun")
        assert.isBelow(millis, 30_000)
        const gateway = yield* KernelGateway.KernelGateway
        assert.strictEqual((yield* reasonOf(gateway.kernels))._tag, "Unreachable")
      }).pipe(Effect.scoped, Effect.provide(JupyterHub.layer(options)))
      assert.deepStrictEqual(yield* served.running(Support.oddUser), [])
    }))

  test("a wrong token, user or address is a typed failure without the token", (served) =>
    Effect.gen(function* () {
      const { hub, token } = yield* optionsOf(served, "ada")
      const cases = [
        [{ hub, token: "not-the-token" }, "Unauthorized"],
        [{ hub, token, user: "eve" }, "StartFailed"],
        [{ hub: "http://127.0.0.1:1", token }, "Unreachable"],
        [{ hub: "ftp://hub", token }, "Unreachable"],
        [{ hub, token, startTimeout: -1 }, "InvalidOption"],
        [{ hub, token: Effect.fail("no vault") }, "CredentialsFailed"],
      ] as const
      for (const [options, expected] of cases) {
        const reason = yield* reasonOf(Effect.scoped(JupyterHub.make(options)))
        assert.strictEqual(reason._tag, expected, JSON.stringify(reason))
        assert.notInclude(reason.message, token)
        assert.notInclude(reason.message, "not-the-token")
      }
    }))
})

it.live("JupyterHub.make refuses names and options that cannot be sent, before anything is sent", () =>
  Effect.gen(function* () {
    const { requests, url: hub } = yield* Fake.make()
    for (const name of ["..", ".", "\ud800", "a\0b"]) {
      for (const options of [{ user: name }, { user: "ada", server: name }]) {
        const reason = yield* reasonOf(Effect.scoped(JupyterHub.make({ hub, token: "secret", ...options })))
        assert.strictEqual(reason._tag, "InvalidOption")
      }
    }
    const options = { password: "s3cret", size: 1n }
    const reason = yield* reasonOf(Effect.scoped(JupyterHub.make({ hub, token: "secret", options })))
    assert.strictEqual(reason._tag, "InvalidOption")
    assert.notInclude(JSON.stringify(reason), "s3cret")
    assert.deepStrictEqual(requests, [])
  }))

const event = (fields: Record<string, unknown>) => `data: ${JSON.stringify(fields)}\n\n`

/** A hub that follows a script, with the server of the user "ada". */
const fakeHub = Effect.fnUntraced(function* ({ onStart, progress = () => undefined }: {
  /** Called for each request to start; the answer that refuses it. */
  readonly onStart?: (count: number) => Fake.Answer | undefined
  /** Called for each connection; the events until it is cut, and after the last ones the server is ready. */
  readonly progress?: (count: number) => string | undefined
} = {}) {
  const hub: {
    state: "stopped" | "spawn" | "ready"
    options: unknown
    started: string
    starts: number
    cuts: number
  } = { state: "stopped", options: {}, started: "2026-01-01T00:00:00Z", starts: 0, cuts: 0 }
  const server = yield* Fake.make({
    rest: (name, _headers, body) => {
      switch (name) {
        case "GET /hub/api/users/ada": {
          const model = {
            ready: hub.state === "ready",
            pending: hub.state === "spawn" ? hub.state : null,
            url: "/user/ada/",
            started: hub.started,
            user_options: hub.options,
          }
          return {
            status: 200,
            body: JSON.stringify({ name: "ada", servers: hub.state === "stopped" ? {} : { "": model } }),
          }
        }
        case "POST /hub/api/users/ada/server": {
          const refusal = onStart?.(++hub.starts)
          if (refusal !== undefined) return refusal
          hub.state = "spawn"
          hub.options = JSON.parse(body)
          return { status: 202 }
        }
        case "GET /hub/api/users/ada/server/progress": {
          const events = progress(++hub.cuts)
          if (events !== undefined) return { status: 200, body: events }
          hub.state = "ready"
          return { status: 200, body: event({ progress: 100, ready: true, message: "Ready" }) }
        }
        case "DELETE /hub/api/users/ada/server":
          hub.state = "stopped"
          return { status: 204 }
        case "GET /user/ada/api/kernelspecs":
          return { status: 200, body: `{"kernelspecs": {}}` }
        default:
          return undefined
      }
    },
  })
  return { hub, server, options: { hub: server.url, token: "secret-of-ada", user: "ada" } as const }
})

it.live("JupyterHub.layer waits for a hub that is busy, and goes on where the progress was cut", () =>
  Effect.gen(function* () {
    const { hub, options, server } = yield* fakeHub({
      onStart: (count) =>
        count === 1 ? { status: 429, headers: { "retry-after": "1" }, body: "Too many" } : undefined,
      progress: (count) => count === 1 ? event({ progress: 10, message: "Waiting" }) + "data: {" : undefined,
    })
    const [, millis] = yield* timed(Effect.scoped(Layer.build(JupyterHub.layer(options))))
    assert.isAbove(millis, 990)
    assert.deepStrictEqual([hub.starts, hub.cuts, hub.state], [2, 2, "stopped"])
    assert.include(server.requests, "DELETE /hub/api/users/ada/server")
  }))

it.live("JupyterHub.make takes the address of a page of the hub or of a user's server, with its token", () =>
  Effect.gen(function* () {
    const body = JSON.stringify({ name: "ada", servers: { "": { ready: true, pending: null, url: "//[" } } })
    const authorizations = new Set<string | undefined>()
    const { requests, url } = yield* Fake.make({
      rest: (_name, { authorization }) => {
        authorizations.add(authorization)
        return { status: 200, body }
      },
    })
    const cases = [
      ["?", ""],
      ["/team/?", "/team"],
      ["/hub?", ""],
      ["/hub-eu/hub/home?", "/hub-eu"],
      ["/hub/spawn/ada?next=%2Fhub%2Fhome&", ""],
      ["/team/hub/user/ada/hub/?", "/team"],
      ["/user/ada/lab/tree/a.ipynb?", ""],
      ["/team/user/ada?", "/team"],
      ["/user/team/hub/home?", "/user/team"],
    ] as const
    for (const [page, base] of cases) {
      yield* Effect.scoped(JupyterHub.make({ hub: `${url}${page}token=secret#there`, user: "ada" }))
      assert.strictEqual(requests.at(-1), `GET ${base}/hub/api/users/ada`)
    }
    assert.deepStrictEqual([...authorizations], ["token secret"])
    const { gateway } = yield* JupyterHub.make({ hub: url, token: "secret", user: "ada" })
    assert.strictEqual((yield* reasonOf(Effect.scoped(gateway)))._tag, "Unreachable")
  }).pipe(Effect.scoped))

it.live("UserServer.progress goes on where it was cut, and has no event twice and no token", () =>
  Effect.gen(function* () {
    const events = [
      event({ progress: 10, message: "Waiting" }),
      event({ progress: 20, message: "Pulling as secret-of-ada" }),
      event({ progress: 20, message: "Pulled", html_message: "<b>Pulled</b>" }),
      event({ message: "Starting" }),
    ]
    const { options } = yield* fakeHub({
      progress: (count) => count < 4 ? events.slice(0, count + 1).join("") : undefined,
    })
    const { progress } = yield* JupyterHub.make(options)
    assert.deepStrictEqual(
      (yield* Stream.runCollect(progress)).map(({ message, percent, ready }) => [percent, message, ready]),
      [
        [10, "Waiting", false],
        [20, "Pulling as <redacted>", false],
        [20, "Pulled", false],
        [20, "Starting", false],
        [100, "Server ready at /user/ada/", true],
      ],
    )
  }).pipe(Effect.scoped))

it.live("a start that fails has the last events, without the token", () =>
  Effect.gen(function* () {
    const { options } = yield* fakeHub({
      progress: () =>
        event({ progress: 10, message: "Waiting" }) + event({ failed: true, message: "No secret-of-ada" }),
    })
    const { gateway, progress } = yield* JupyterHub.make(options)
    for (const waiting of [Effect.scoped(gateway), Stream.runDrain(progress)]) {
      const reason = yield* reasonOf(waiting)
      assert.deepInclude(reason, {
        _tag: "StartFailed",
        detail: "No <redacted>",
        output: ["Waiting"],
      })
    }
  }).pipe(Effect.scoped))

it.live("a server that another client started, at the same time or again later, is not stopped", () =>
  Effect.gen(function* () {
    const { hub, options, server } = yield* fakeHub()
    const isOwn = yield* Effect.scoped(Effect.map(JupyterHub.make(options), ({ isOwn }) => {
      // As if the hub had stopped it meanwhile.
      hub.started = "2026-01-01T01:00:00Z"
      return isOwn
    }))
    assert.isTrue(isOwn)
    assert.strictEqual(hub.state, "spawn")
    hub.state = "stopped"
    const other = yield* fakeHub()
    const both = yield* Effect.scoped(Effect.gen(function* () {
      const own = yield* JupyterHub.make(other.options)
      // As if the requests had been sent at the same time.
      other.hub.options = { effect_jupyter: "of-another" }
      return own.isOwn
    }))
    assert.isTrue(both)
    assert.strictEqual(other.hub.state, "spawn")
    for (const { requests } of [server, other.server]) {
      assert.notInclude(requests, "DELETE /hub/api/users/ada/server")
    }
  }))

it.effect("UserServer.progress of a hub that is silent is asked for again after 30 seconds", () =>
  Effect.gen(function* () {
    const server = yield* Fake.make({ rest: () => "silence" })
    const connection = yield* Effect.provide(Server.make({ url: server.url, headers: {} }), Platform.layer)
    const { progress } = Hub.userServer(connection, "ada", "")
    const following = yield* Effect.forkChild(Effect.flip(Stream.runDrain(progress)))
    yield* TestClock.withLive(eventually(() => server.requests.length === 0 ? "not asked yet" : undefined))
    yield* TestClock.adjust("29 seconds")
    assert.isUndefined(following.pollUnsafe())
    yield* TestClock.adjust("1 second")
    assert.strictEqual((yield* Fiber.join(following)).kind, "Timeout")
  }))
