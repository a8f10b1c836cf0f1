/** The servers of users on a real JupyterHub. */
import { assert, it, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted, Schedule, Scope, Stream } from "effect"
import process from "node:process"
import { JupyterHub, KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as Fake from "./support/fake_server.ts"
import * as Support from "./support/jupyter_hub.ts"
import { slow, text } from "./support/kernel.ts"
import { timed } from "./support/outcome.ts"

const port = 12_000 + (process.pid % 3_900) * 4 + 24_000

type Served = Effect.Success<ReturnType<typeof Support.serve>>

/** The hub of these tests; `undefined` where it cannot be installed. */
class Hub extends Context.Service<Hub, Served | undefined>()("test/Hub") {}
const hub = Layer.effect(
  Hub,
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
          Hub,
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

it.live("JupyterHub.make refuses names that are no part of a path, before anything is sent", () =>
  Effect.gen(function* () {
    const { requests, url: hub } = yield* Fake.make()
    for (const name of ["..", ".", "\ud800", "a\0b"]) {
      for (const options of [{ user: name }, { user: "ada", server: name }]) {
        const reason = yield* reasonOf(Effect.scoped(JupyterHub.make({ hub, token: "secret", ...options })))
        assert.strictEqual(reason._tag, "InvalidOption")
      }
    }
    assert.deepStrictEqual(requests, [])
  }))

it.live("JupyterHub.layer waits for a hub that is busy, and goes on where the progress was cut", () =>
  Effect.gen(function* () {
    let state: "stopped" | "spawn" | "ready" = "stopped"
    let starts = 0
    let cuts = 0
    const event = (fields: Record<string, unknown>) => `data: ${JSON.stringify(fields)}\n\n`
    const { requests, url } = yield* Fake.make({
      rest: (name) => {
        switch (name) {
          case "GET /hub/api/users/ada": {
            const model = {
              ready: state === "ready",
              pending: state === "spawn" ? state : null,
              url: "/user/ada/",
            }
            return {
              status: 200,
              body: JSON.stringify({ name: "ada", servers: state === "stopped" ? {} : { "": model } }),
            }
          }
          case "POST /hub/api/users/ada/server":
            if (++starts === 1) return { status: 429, headers: { "retry-after": "1" }, body: "Too many" }
            state = "spawn"
            return { status: 202 }
          case "GET /hub/api/users/ada/server/progress": {
            if (++cuts === 1) {
              return { status: 200, body: event({ progress: 10, message: "Waiting" }) + "data: {" }
            }
            state = "ready"
            return { status: 200, body: event({ progress: 100, ready: true, message: "Ready" }) }
          }
          case "DELETE /hub/api/users/ada/server":
            state = "stopped"
            return { status: 204 }
          case "GET /user/ada/api/kernelspecs":
            return { status: 200, body: `{"kernelspecs": {}}` }
          default:
            return undefined
        }
      },
    })
    const [, millis] = yield* timed(
      Effect.scoped(Layer.build(JupyterHub.layer({ hub: url, token: "secret", user: "ada" }))),
    )
    assert.isAbove(millis, 990)
    assert.deepStrictEqual([starts, cuts, state], [2, 2, "stopped"])
    assert.include(requests, "DELETE /hub/api/users/ada/server")
  }))
