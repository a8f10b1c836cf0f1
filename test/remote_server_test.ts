/** Servers that are not ours: credentials, cookies, certificates, unavailable proxies, and what a server has. */
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Layer, Logger, Redacted, References, Stream, Tracer } from "effect"
import { FetchHttpClient, HttpClient } from "effect/http"
import type { IncomingHttpHeaders } from "node:http"
import { setTimeout as wait } from "node:timers/promises"
import { inspect } from "node:util"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as Certificates from "./support/certificates.ts"
import * as Fake from "./support/fake_server.ts"
import { text } from "./support/kernel.ts"
import { reasonOf, timed } from "./support/outcome.ts"
import { eventually } from "./support/processes.ts"

type Remote = Omit<KernelGateway.RemoteOptions, "url">

/** A server that follows a script, and a gateway of it. */
const connect = Effect.fnUntraced(function* (script: Fake.Script, options: Remote = {}) {
  const server = yield* Fake.make(script)
  const context = yield* Layer.build(KernelGateway.layerRemote({ url: server.url, ...options }))
  const gateway = yield* Effect.provideContext(KernelGateway.KernelGateway, context)
  const make = (client?: KernelClient.ClientOptions) =>
    Effect.provideContext(KernelClient.make(client), context)
  return { server, gateway, make }
})

/** A script that accepts the current token only, and records how often each request was refused. */
const guarded = (status = 401) => {
  const state = { token: "first", refusals: 0 }
  const guard = ({ authorization }: IncomingHttpHeaders): Fake.Reaction => {
    if (authorization === `token ${state.token}`) return undefined
    state.refusals++
    return { status, body: `{"message": "Invalid ${authorization}"}` }
  }
  const script: Fake.Script = {
    rest: (_name, headers) => guard(headers),
    handshake: (_count, headers) => guard(headers),
  }
  return { state, script }
}

const reasonOfGateway = <A, R>(effect: Effect.Effect<A, KernelGateway.GatewayError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

describe("layerRemote token and headers", { concurrent: true }, () => {
  for (const status of [401, 403]) {
    it.live(`a token Effect runs once, and again when the server refuses the token with ${status}`, () =>
      Effect.gen(function* () {
        const { script, state } = guarded(status)
        let asked = 0
        const token = Effect.sync(() => {
          asked++
          return Redacted.make(state.token)
        })
        const { gateway, make } = yield* connect(script, { token })
        const kernel = yield* make()
        yield* gateway.kernels
        assert.deepStrictEqual([asked, state.refusals], [1, 0])
        state.token = "second"
        yield* Effect.all([gateway.kernels, gateway.kernelspecs, kernel.interrupt], { concurrency: 3 })
        assert.strictEqual(asked, 2)
        // The handshake of another kernel is refused first.
        const scripted = yield* make()
        state.token = "third"
        yield* scripted.reset
        assert.strictEqual(asked, 3)
        assert.strictEqual(yield* text(scripted.execute("hello")), "hello")
      }))
  }

  it.live("a token with an expiry is asked for again before it is refused, and once for a refusal", () =>
    Effect.gen(function* () {
      const { script, state } = guarded()
      let lifetime = 200
      const lives: Array<string> = []
      const token = Effect.map(Clock.currentTimeMillis, (now) => {
        lives.push(state.token = `token-${lives.length}`)
        return { token: state.token, expiresAt: now + lifetime }
      })
      const { gateway } = yield* connect(script, { token })
      const before = lives.length
      lifetime = 3_600_000
      yield* Effect.sleep(200)
      yield* gateway.kernels
      yield* gateway.kernels
      assert.deepStrictEqual([lives.length - before, state.refusals], [1, 0])
      // Tokens that the clock of this machine takes for expired.
      lifetime = -1000
      state.token = "another"
      yield* gateway.kernels
      assert.deepStrictEqual([lives.length - before, state.refusals], [2, 1])
    }))

  it.live("requests that are refused at once ask once, and their number is that of the refusals", () =>
    Effect.gen(function* () {
      const { script, state } = guarded()
      let asked = 0
      const token = Effect.suspend(() => {
        asked++
        return Effect.delay(Effect.succeed(state.token), "50 millis")
      })
      const { gateway, server } = yield* connect(script, { token })
      state.token = "second"
      const before = server.requests.length
      const requests = Array.from({ length: 20 }, () => gateway.kernels)
      yield* Effect.all(requests, { concurrency: "unbounded" })
      assert.strictEqual(asked, 2)
      assert.strictEqual(server.requests.length - before, 20 + state.refusals)
      // Of the requests that wait for a token one is interrupted, the others are not.
      state.token = "third"
      const all = yield* Effect.forEach(requests, (request) => Effect.forkChild(request))
      yield* eventually(() => asked < 3 ? "not asked yet" : undefined)
      const [first, ...others] = all
      if (first !== undefined) yield* Fiber.interrupt(first)
      yield* Effect.forEach(others, Fiber.join)
      // Twice if no other one waited yet.
      assert.isAtMost(asked, 4)
    }))

  it.live("a handshake that is refused is repeated with another token", () =>
    Effect.gen(function* () {
      const { script, state } = guarded()
      const token = Effect.sync(() => ({ token: state.token, expiresAt: new Date(2100, 1) }))
      const { make } = yield* connect({
        ...script,
        rest: (name, headers, body) => {
          const reaction = script.rest?.(name, headers, body)
          if (name === "POST /api/kernels" && reaction === undefined) state.token = "second"
          return reaction
        },
      }, { token })
      assert.strictEqual(yield* text((yield* make()).execute("hello")), "hello")
    }))

  it.live("the same token again, or none: Unauthorized or CredentialsFailed, and the request is not repeated", () =>
    Effect.gen(function* () {
      const { script, state } = guarded()
      const refused = yield* reasonOfGateway(connect(script, { token: Effect.succeed("wrong") }))
      assert.strictEqual(refused._tag, "Unauthorized")
      assert.strictEqual(state.refusals, 1)
      const failed = yield* reasonOfGateway(connect(script, { token: Effect.fail({ message: "no vault" }) }))
      assert.strictEqual(failed._tag, "CredentialsFailed")
      assert.include(failed.message, "no vault")
      const invalid = yield* reasonOfGateway(connect(script, { token: Effect.succeed("two words") }))
      assert.strictEqual(invalid._tag, "CredentialsFailed")
      assert.notInclude(invalid.message, "two words")
      let isBroken = false
      const token = Effect.suspend(() => isBroken ? Effect.fail("no vault") : Effect.succeed(state.token))
      const { gateway, make } = yield* connect(script, { token })
      isBroken = true
      state.token = "second"
      assert.strictEqual((yield* reasonOfGateway(gateway.kernels))._tag, "CredentialsFailed")
      const start = yield* Effect.flip(Effect.scoped(make()))
      assert.strictEqual(start.reason._tag, "KernelStartFailed")
      assert.include(start.message, "no vault")
    }))

  it.live("headers may be an Effect, beside a token", () =>
    Effect.gen(function* () {
      const seen = new Set<string>()
      let version = 1
      const see = (headers: IncomingHttpHeaders): Fake.Reaction => {
        seen.add(`${headers["x-key"]} ${headers.authorization}`)
        return headers["x-key"] === `key-${version}` ? undefined : { status: 401 }
      }
      const { gateway, make } = yield* connect({
        rest: (_name, headers) => see(headers),
        handshake: (_count, headers) => see(headers),
      }, { token: "secret", headers: Effect.sync(() => ({ "x-key": `key-${version}` })) })
      yield* make()
      version = 2
      yield* gateway.kernels
      assert.deepStrictEqual([...seen], ["key-1 token secret", "key-2 token secret"])
    }))
})

describe("layerRemote cookies", { concurrent: true }, () => {
  for (
    const [what, client] of [
      ["without a client", Layer.effectDiscard(Effect.void)],
      ["over undici", NodeHttpClient.layerUndici],
      ["over node:http", NodeHttpClient.layerNodeHttp],
    ] as const
  ) {
    it.live(`cookies of REST and of the handshake are sent with later ones, until they expire, ${what}`, () =>
      Effect.gen(function* () {
        const seen: Array<readonly [string, string | undefined]> = []
        let isOver = false
        const { gateway, make } = yield* connect({
          rest: (name, { cookie }) => {
            seen.push([name, cookie])
            if (name === "GET /api/kernels") {
              return {
                status: 200,
                body: "[]",
                headers: isOver ? { "set-cookie": "route=; Path=/; Max-Age=0" } : {},
              }
            }
            return name === "GET /api/kernelspecs"
              ? {
                status: 200,
                body: `{"kernelspecs": {}}`,
                headers: {
                  "set-cookie": seen.length === 1 ? "route=a.1; Path=/; HttpOnly" : "other=x; Path=/else",
                },
              }
              : undefined
          },
          handshake: (_count, { cookie }) => {
            seen.push(["handshake", cookie])
            return undefined
          },
          accepted: ["set-cookie: socket=s; Path=/", "set-cookie: second=a%20b; Path=/; HttpOnly"],
        }, { headers: { cookie: "mine=1" } })
        yield* make()
        yield* gateway.kernelspecs
        isOver = true
        yield* gateway.kernels
        yield* gateway.kernels
        assert.deepStrictEqual(seen.filter(([name]) => name !== "GET /api/kernels/:id"), [
          ["GET /api/kernelspecs", "mine=1"],
          ["POST /api/kernels", "mine=1; route=a.1"],
          ["handshake", "mine=1; route=a.1"],
          ["GET /api/kernelspecs", "mine=1; route=a.1; socket=s; second=a%20b"],
          ["GET /api/kernels", "mine=1; route=a.1; socket=s; second=a%20b"],
          ["GET /api/kernels", "mine=1; socket=s; second=a%20b"],
        ])
      }).pipe(Effect.scoped, Effect.provide(client)))
  }

  it.live("a server that sets cookies without end is not kept in memory", () =>
    Effect.gen(function* () {
      let count = 0
      let longest = 0
      const { gateway } = yield* connect({
        rest: (name, { cookie = "" }) => {
          longest = Math.max(longest, cookie.length)
          const headers = {
            "set-cookie": `name${count++}=${"x".repeat(count % 2 === 0 ? 10 : 5000)}; Path=/`,
          }
          return name === "GET /api/kernels" ? { status: 200, body: "[]", headers } : undefined
        },
      })
      yield* Effect.repeat(gateway.kernels, { times: 200 })
      assert.isBelow(longest, 64 * 30)
    }))
})

describe("layerRemote a server that is not available", { concurrent: true }, () => {
  /** Answers the named requests with these, and then as a good server. */
  const flaky = (name: string, ...answers: ReadonlyArray<Fake.Answer>): Fake.Script => {
    const left = [...answers]
    return {
      rest: (asked) => asked === name ? left.shift() : undefined,
      handshake: () => name === "handshake" ? left.shift() : undefined,
    }
  }
  const soon = { status: 429, headers: { "retry-after": "1" } }
  const busy = [502, 503, 504].map((status) => ({ status }))

  for (const [what, answers] of [["502, 503 and 504", busy], ["429 that names a time", [soon]]] as const) {
    it.live(`requests that are safe to repeat are repeated after ${what}`, () =>
      Effect.gen(function* () {
        for (const name of ["GET /api/kernelspecs", "handshake"]) {
          const [kernel, millis] = yield* timed(
            Effect.flatMap(connect(flaky(name, ...answers)), ({ make }) => make()),
          )
          assert.strictEqual(yield* text(kernel.execute("hello")), "hello")
          assert.isAbove(millis, answers === busy ? 1700 : 990)
        }
      }))
  }

  it.live("a start is not repeated, and 429 without a time or with a long one is told at once", () =>
    Effect.gen(function* () {
      for (const answer of [{ status: 503 }, { status: 504 }, soon]) {
        const { make, server } = yield* connect(flaky("POST /api/kernels", answer))
        const { reason } = yield* Effect.flip(Effect.scoped(make()))
        assert.strictEqual(reason._tag, answer === soon ? "ResourceLimit" : "KernelStartFailed")
        assert.lengthOf(server.requests.filter((name) => name === "POST /api/kernels"), 1)
      }
      for (
        const headers of [{}, { "retry-after": "3600" }, { "retry-after": "Thu, 01 Jan 2099 00:00:00 GMT" }]
      ) {
        const [reason, millis] = yield* timed(
          reasonOfGateway(connect(flaky("GET /api/kernelspecs", { status: 429, headers }, { status: 429 }))),
        )
        assert.strictEqual(reason._tag, "Unreachable")
        assert.isBelow(millis, 900)
      }
    }))
})

it.live("layerRemote startConcurrency: so many kernels start at once, one by default", () =>
  Effect.gen(function* () {
    for (const [options, expected] of [[{}, 1], [{ startConcurrency: 3 }, 3]] as const) {
      let running = 0
      let most = 0
      const { make } = yield* connect({
        rest: (name) => {
          if (name !== "POST /api/kernels") return undefined
          most = Math.max(most, ++running)
          // Before the answer, after which the next one may start.
          void wait(90).then(() => running--)
          return { status: 201, body: `{"id": "kernel-1", "name": "fake"}`, after: 100 }
        },
      }, options)
      yield* Effect.all([make(), make(), make(), make()], { concurrency: "unbounded" })
      assert.strictEqual(most, expected)
    }
  }))

describe("layerRemote secrets", { concurrent: true }, () => {
  it.live("a token that the server repeats is in no message, log or span", () =>
    Effect.gen(function* () {
      const token = "top+secret/token"
      const told: Array<string> = []
      const spans: Array<Tracer.NativeSpan> = []
      const logger = Logger.make(({ cause, message }) =>
        void told.push(`${inspect(message)} ${inspect(cause)}`)
      )
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        },
      })
      const observed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        effect.pipe(
          Effect.provide(Logger.layer([logger])),
          Effect.provideService(References.MinimumLogLevel, "Trace"),
          Effect.withTracer(tracer),
        )
      const repeating: ReadonlyArray<Fake.Answer> = [
        { status: 401, body: `{"message": "Bad token ${token}"}`, headers: { "x-echo": `token ${token}` } },
        { status: 500, body: `{"traceback": "KeyError: '${encodeURIComponent(token)}'"}` },
        { status: 400, body: `${"x".repeat(190)}${token}${"y".repeat(400)}` },
        { status: 302, headers: { location: `/login?token=${encodeURIComponent(token)}` } },
        { status: 200, body: `<html>${token}` },
      ]
      const names = ["GET /api/kernelspecs", "POST /api/kernels", "DELETE /api/kernels/:id"]
      const cases = repeating.flatMap((answer) => names.map((name) => ({ answer, name })))
      yield* Effect.forEach(cases, ({ answer, name }) =>
        Effect.gen(function* () {
          const script: Fake.Script = { rest: (asked) => asked === name ? answer : undefined }
          const exit = yield* connect(script, { token, headers: { "x-key": "another-secret" } }).pipe(
            Effect.flatMap(({ make }) => make()),
            Effect.scoped,
            Effect.exit,
            observed,
          )
          told.push(inspect(exit, { depth: 12 }))
          if (Exit.isFailure(exit)) told.push(String(exit.cause))
        }), { concurrency: "unbounded" })
      const execute: Fake.Script["execute"] = (conversation) => conversation.close(4000, `Bad ${token}`)
      const handshake: Fake.Script["handshake"] = (count) => count > 1 ? { status: 404 } : undefined
      const { make } = yield* connect({ execute, handshake }, { token })
      const lost = yield* observed(Effect.flip(Effect.flatMap(make(), (kernel) => kernel.execute("hello"))))
      told.push(lost.message)
      assert.strictEqual(reasonOf(lost), "KernelNotFound")
      assert.isNotEmpty(spans)
      for (const { attributes, events, status } of spans) {
        const failure = status._tag === "Ended" && Exit.isFailure(status.exit) ? status.exit : undefined
        told.push(inspect({ attributes, events, failure }, { depth: 9 }))
      }
      const all = told.join("\n")
      for (const secret of [token, encodeURIComponent(token), token.slice(0, 10), "another-secret"]) {
        const at = all.indexOf(secret)
        assert.strictEqual(at < 0 ? "" : all.slice(Math.max(0, at - 200), at + 100), "")
      }
      assert.include(all, "<redacted>")
    }))

  it.live("a session that the server sets is in no message", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOfGateway(connect({
        rest: () => ({
          status: 500,
          headers: { "set-cookie": "sid=0123456789%2Babcdef; Path=/" },
          body: "Lost the session 0123456789+abcdef (0123456789%2Babcdef)",
        }),
      }))
      assert.include(reason.message, "Lost the session <redacted> (<redacted>)")
    }))

  it.live("a token and cookies do not follow a redirect to another server, whatever the client does", () =>
    Effect.gen(function* () {
      const clients = [
        Layer.effectDiscard(Effect.void),
        NodeHttpClient.layerUndici,
        FetchHttpClient.layer,
        Layer.effect(
          HttpClient.HttpClient,
          Effect.map(HttpClient.HttpClient, HttpClient.followRedirects(3)),
        ).pipe(Layer.provide(NodeHttpClient.layerNodeHttp)),
      ]
      for (const client of clients) {
        const seen: Array<string> = []
        const other = yield* Fake.make({
          rest: (name, { authorization = "", cookie = "" }) => {
            seen.push(`${name}${authorization}${cookie}`)
            return undefined
          },
        })
        // Another name of this machine.
        const location = `${other.url.replace("127.0.0.1", "localhost")}/api/kernelspecs?token=secret-token`
        const exit = yield* connect(
          { rest: () => ({ status: 307, headers: { location, "set-cookie": "sid=1; Path=/" } }) },
          { token: "secret-token", headers: { cookie: "mine=1" } },
        ).pipe(Effect.scoped, Effect.provide(client), Effect.exit)
        assert.notInclude(inspect(exit, { depth: 12 }), "secret-token")
        if (seen.length > 0) assert.deepStrictEqual(seen, ["GET /api/kernelspecs"])
        else assert.isTrue(Exit.isFailure(exit))
      }
    }))
})

const hello = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
  assert.strictEqual(yield* text(kernel.execute("hello")), "hello")
})

describe("layerRemote the application's HttpClient", { concurrent: true }, () => {
  it.live("client certificates and own authorities apply to REST and the WebSocket", () =>
    Effect.gen(function* () {
      const { client, server: tls } = yield* Certificates.make
      const clients = [
        NodeHttpClient.layerNodeHttpOptions(client),
        NodeHttpClient.layerUndiciOptions({ connect: client }),
      ]
      for (const layer of clients) {
        yield* Effect.gen(function* () {
          const large = "x".repeat(3_000_000)
          const { make, server } = yield* connect({
            tls,
            execute: ({ run, send }) => send(...run(large, large)),
          }, { token: "secret" })
          const kernel = yield* make()
          assert.strictEqual((yield* kernel.execute("print")).text?.length, 6_000_000)
          assert.strictEqual((yield* kernel.execute("print")).text?.length, 6_000_000)
          assert.include(server.requests, "GET /api/kernels/:id/channels")
        }).pipe(Effect.scoped, Effect.provide(layer))
      }
      const refused = yield* reasonOfGateway(Effect.scoped(connect({ tls })))
      assert.strictEqual(refused._tag, "Unreachable")
    }).pipe(Effect.scoped, Effect.provide(Platform.layer)))

  it.live("a WebSocket that is closed is opened again, and a large output waits for its consumer", () =>
    Effect.gen(function* () {
      let executions = 0
      const { make, server } = yield* connect({
        execute: ({ close, good, request, run, send }) => {
          if (request.content.code === "flood") {
            return send(...run(...Array.from({ length: 64 }, () => "x".repeat(1_000_000))))
          }
          good()
          if (++executions === 1) close(1001, "Going away")
        },
      })
      const kernel = yield* make()
      yield* hello(kernel)
      yield* eventually(() => {
        const opened = server.requests.filter((name) => name === "GET /api/kernels/:id/channels").length
        return opened < 2 ? `Opened ${opened} times` : undefined
      })
      yield* hello(kernel)
      const slowly = kernel.stream("flood").pipe(
        Stream.tap(() => Effect.sleep("5 millis")),
        Stream.runFold(
          () => 0,
          (length, chunk) => length + (chunk._tag === "TextChunk" ? chunk.text.length : 0),
        ),
      )
      assert.strictEqual(yield* slowly, 64_000_000)
    }).pipe(Effect.scoped, Effect.provide(NodeHttpClient.layerNodeHttp)))

  it.live("a handshake that is refused or not answered fails as without it, and the socket is closed", () =>
    Effect.gen(function* () {
      const { make } = yield* connect({ handshake: () => ({ status: 418 }) })
      const refused = yield* Effect.flip(Effect.scoped(make()))
      assert.include(refused.message, "418")
      const silent = yield* connect({ handshake: () => "silence" })
      const [error, millis] = yield* timed(
        Effect.flip(Effect.scoped(silent.make({ initTimeout: "1 second" }))),
      )
      assert.strictEqual(error.reason._tag, "KernelStartFailed")
      assert.isBelow(millis, 3000)
    }).pipe(Effect.scoped, Effect.provide(NodeHttpClient.layerUndici)))

  it.live("one that fails for a status works as others: other paths, another token, refused handshakes", () =>
    Effect.gen(function* () {
      const { script, state } = guarded()
      const server = yield* Fake.make(script)
      const url = `${server.url}/lab`
      yield* Effect.gen(function* () {
        const gateway = yield* KernelGateway.KernelGateway
        assert.strictEqual(gateway.url, server.url)
        state.token = "second"
        yield* gateway.kernels
        state.token = "third"
        yield* hello(yield* KernelClient.make())
      }).pipe(
        Effect.scoped,
        Effect.provide(KernelGateway.layerRemote({ url, token: Effect.sync(() => state.token) })),
      )
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Layer.effect(
          HttpClient.HttpClient,
          Effect.map(HttpClient.HttpClient, HttpClient.filterStatusOk),
        ).pipe(Layer.provide(NodeHttpClient.layerNodeHttp)),
      ),
    ))

  it.live("one over fetch sends requests, and WebSockets are opened without it", () =>
    Effect.gen(function* () {
      const { make } = yield* connect({}, { token: "secret" })
      yield* hello(yield* make())
      const { url } = yield* Effect.scoped(Fake.make())
      const refused = yield* reasonOfGateway(Effect.scoped(Layer.build(KernelGateway.layerRemote({ url }))))
      assert.include(refused.message, "ECONNREFUSED")
    }).pipe(Effect.scoped, Effect.provide(FetchHttpClient.layer)))
})

describe("KernelGateway kernelspecs and kernels", { concurrent: true }, () => {
  it.live("list what the server has, whatever it leaves out", () =>
    Effect.gen(function* () {
      const { gateway, make } = yield* connect({
        rest: (name) =>
          name === "GET /api/kernelspecs"
            ? {
              status: 200,
              body: JSON.stringify({
                default: "python3",
                kernelspecs: {
                  python3: { name: "python3", spec: { display_name: "Python 3", language: "python" } },
                  bare: {},
                },
              }),
            }
            : undefined,
      })
      assert.deepStrictEqual(yield* gateway.kernelspecs, [
        new KernelGateway.Kernelspec({
          name: "python3",
          displayName: "Python 3",
          language: "python",
          isDefault: true,
        }),
        new KernelGateway.Kernelspec({ name: "bare", displayName: "bare", language: "", isDefault: false }),
      ])
      assert.deepStrictEqual(yield* gateway.kernels, [])
      const { id } = yield* make()
      const [running] = yield* gateway.kernels
      assert.deepInclude(running, { id, name: "fake", state: "idle", lastActivity: undefined })
    }))

  it.live("fail as the server does", () =>
    Effect.gen(function* () {
      const { gateway } = yield* connect({
        rest: (name) => name === "GET /api/kernels" ? { status: 200, body: "<html>" } : undefined,
      })
      assert.strictEqual((yield* reasonOfGateway(gateway.kernels))._tag, "Unreachable")
    }))
})

it.live("KernelClient.make sends user, initTimeout, workingDir and env as KERNEL_* to a server that is not ours", () =>
  Effect.gen(function* () {
    const bodies: Array<unknown> = []
    const { make } = yield* connect({
      rest: (name, _headers, body) => {
        if (name === "POST /api/kernels") bodies.push(JSON.parse(body))
        return undefined
      },
    }, { user: "ada" })
    yield* make()
    yield* make({ user: "eve", initTimeout: "1500 millis", env: { KERNEL_IMAGE: "r", FOO: "1" } })
    yield* make({ user: "eve", env: { KERNEL_USERNAME: "bob", KERNEL_LAUNCH_TIMEOUT: "99" } })
    yield* Effect.flip(Effect.scoped(make({ workingDir: "/tmp" })))
    assert.deepStrictEqual(bodies, [
      { env: { KERNEL_USERNAME: "ada" } },
      { env: { KERNEL_USERNAME: "eve", KERNEL_LAUNCH_TIMEOUT: "2", KERNEL_IMAGE: "r", FOO: "1" } },
      { env: { KERNEL_USERNAME: "bob", KERNEL_LAUNCH_TIMEOUT: "99" } },
      { env: { KERNEL_USERNAME: "ada", KERNEL_WORKING_DIR: "/tmp" } },
    ])
  }))
