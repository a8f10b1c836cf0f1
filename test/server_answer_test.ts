/** Servers that answer requests with something else than they should, or not at all. */
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import process from "node:process"
import { setTimeout as wait } from "node:timers/promises"
import * as Link from "../src/jupyter/link.ts"
import * as Rest from "../src/jupyter/rest.ts"
import { Execution, KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { crashes } from "./support/crashes.ts"
import * as Fake from "./support/fake_server.ts"
import { reasonOf, timed } from "./support/outcome.ts"
import { eventually } from "./support/processes.ts"

afterEach(() => assert.deepStrictEqual(crashes(), []))

/** Proxies and login pages between a client and a server, and the text that an error must have. */
const refusals: ReadonlyArray<readonly [string, Fake.Answer, ReadonlyArray<string>]> = [
  ["401", { status: 401, body: `{"message": "Who is there?"}` }, ["401", "Who is there?"]],
  ["403", { status: 403, body: "Not you" }, ["403", "Not you"]],
  ["404", { status: 404, body: "<h1>No such page</h1>" }, ["404", "No such page"]],
  ["429", { status: 429, body: "Slow down" }, ["429", "Slow down"]],
  ["500", { status: 500, body: `{"traceback": "KeyError: 'kernel'"}` }, ["500", "KeyError"]],
  ["503", { status: 503, body: "Try again later" }, ["503", "Try again later"]],
  ["a redirect", { status: 302, headers: { location: "/hub/login?next=x" } }, ["302", "/hub/login?next=x"]],
]
/** Answers with a status of success that are none. */
const disguised: ReadonlyArray<readonly [string, Fake.Answer, ReadonlyArray<string>]> = [
  ["HTML", { status: 200, body: "<!DOCTYPE html><title>Log in</title>" }, ["200", "Log in"]],
  ["an empty body", { status: 200 }, ["200", `""`]],
  ["some other JSON", { status: 200, body: `{"hello": "world"}` }, ["200", "hello"]],
  ["a kernel without id", { status: 201, body: `{"name": "fake"}` }, ["201", "fake"]],
  // Ids are parts of paths.
  ...["", "..", "../kernelspecs", "a/b", "a?b", "\ud800"].map((id) =>
    [
      `the id ${JSON.stringify(id)}`,
      { status: 201, body: JSON.stringify({ id, name: "fake" }) },
      ["201", "fake"],
    ] as const
  ),
  ["JSON that is cut", { status: 200, body: `{"id": "kernel-1", "name": "fa` }, ["200", "kernel-1"]],
]
const long = "words ".repeat(100_000)

describe("a gateway is not there", { concurrent: true }, () => {
  const check = (answer: Fake.Answer) =>
    Fake.client({ rest: (name) => name === "GET /api/kernelspecs" ? answer : undefined }).pipe(
      Effect.flip,
      Effect.filterOrElse(KernelGateway.isGatewayError, () => Effect.die("The kernel was to blame")),
    )

  for (const [what, answer, words] of [...refusals, ...disguised]) {
    it.live(`if it answers with ${what}`, () =>
      Effect.gen(function* () {
        const error = yield* check(answer)
        const isRefused = answer.status === 401 || answer.status === 403
        assert.strictEqual(error.reason._tag, isRefused ? "Unauthorized" : "Unreachable")
        for (const word of isRefused ? words.slice(0, 1) : words) assert.include(error.message, word)
      }))
  }

  it.live("and a long answer is not repeated", () =>
    Effect.gen(function* () {
      const error = yield* check({ status: 500, body: long })
      assert.isBelow(error.message.length, 700)
    }))

  it.live("if its answer has no end, whatever the status: at once", () =>
    Effect.gen(function* () {
      for (const status of [200, 500]) {
        const answer = { status, body: `["words", `.repeat(10_000), isEndless: true }
        const [error, millis] = yield* timed(check(answer))
        assert.strictEqual(error.reason._tag, "Unreachable")
        for (
          const part of [`${status}`, `["words", `, ...(status === 200 ? ["more than 16777216 bytes"] : [])]
        ) {
          assert.include(error.message, part)
        }
        assert.isBelow(error.message.length, 1000)
        assert.isBelow(millis, 5000)
      }
    }))

  it.live("if it accepts connections and is silent: within 10 seconds", () =>
    Effect.gen(function* () {
      const [error, millis] = yield* timed(Effect.flip(Fake.client({ rest: () => "silence" })))
      assert.isTrue(KernelGateway.isGatewayError(error) && error.reason._tag === "Unreachable")
      assert.include(error.message, "No answer within 10s")
      assert.isBelow(millis, 11_500)
    }))
})

/** The failure of a kernel's start, and what became of the server. */
const startFailure = (script: Fake.Script, initTimeout = "20 seconds" as const) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const error = yield* Fake.client(script, { initTimeout }).pipe(Effect.flip, Scope.provide(scope))
    yield* Scope.close(scope, Exit.void)
    return error
  })

describe("a kernel does not start", { concurrent: true }, () => {
  for (const [what, answer, words] of [...refusals, ...disguised]) {
    it.live(`if the server answers with ${what}`, () =>
      Effect.gen(function* () {
        const rest = (name: string) => name === "POST /api/kernels" ? answer : undefined
        const error = yield* startFailure({ rest })
        const expected = answer.status === 429
          ? "ResourceLimit"
          : answer.status === 401 || answer.status === 403
          ? "Forbidden"
          : "KernelStartFailed"
        assert.strictEqual(Execution.isKernelError(error) ? error.reason._tag : undefined, expected)
        for (const word of words) assert.include(error.message, word)
      }))
  }

  for (const [what, answer] of [...refusals, ["success", { status: 200, body: "<html>" }] as const]) {
    it.live(`if the WebSocket is refused with ${what}; it is deleted`, () =>
      Effect.gen(function* () {
        const requests: Array<string> = []
        const rest = (name: string) => void requests.push(name)
        const [error, millis] = yield* timed(startFailure({ rest, handshake: () => answer }))
        assert.isTrue(Execution.isKernelError(error) && error.reason._tag === "KernelStartFailed")
        assert.include(error.message, `${answer.status}`)
        assert.isBelow(millis, 6000)
        assert.deepStrictEqual(requests.slice(-1), ["DELETE /api/kernels/:id"])
      }))
  }

  for (
    const [what, answer, expected] of [
      [
        "a limit of Kernel Gateway or Enterprise Gateway",
        { status: 403, body: `{"reason": "Forbidden", "message": "Resource Limit"}` },
        new Execution.ResourceLimit({ detail: "" }),
      ],
      [
        "a limit of Enterprise Gateway that it explains",
        {
          status: 403,
          body: `{"message": "A max kernels limit has been set to 1 and there is currently 1 active"}`,
        },
        new Execution.ResourceLimit({ detail: "" }),
      ],
      [
        "a limit and when to come back",
        { status: 429, headers: { "retry-after": "7" }, body: "Slow down" },
        new Execution.ResourceLimit({ detail: "", retryAfter: Duration.seconds(7) }),
      ],
      [
        "the demand for another user",
        { status: 403, body: `{"message": "User 'root' is not authorized to start kernel 'Python'"}` },
        new Execution.Forbidden({ detail: "" }),
      ],
      [
        "a refusal of a user who is called as limits are",
        {
          status: 403,
          body: `{"message": "User 'quota limit' is not authorized to start kernel 'maximum'"}`,
        },
        new Execution.Forbidden({ detail: "" }),
      ],
      [
        "an error about a kernelspec that it does not have",
        { status: 500, body: `{"message": "No such kernel named cobol"}` },
        new Execution.NoSuchKernelspec({ kernelName: "cobol", known: ["fake"] }),
      ],
    ] as const
  ) {
    it.live(`if the server answers with ${what}: ${expected._tag}`, () =>
      Effect.gen(function* () {
        const rest = (name: string) => name === "POST /api/kernels" ? answer : undefined
        const error = yield* Effect.flip(Effect.scoped(Fake.client({ rest }, { kernelName: "cobol" })))
        assert.isTrue(Execution.isKernelError(error))
        if (!Execution.isKernelError(error)) return
        const { reason } = error
        assert.deepInclude({ ...reason, detail: "" }, { detail: "", ...expected })
        const said = /(?:"message": )?"?([^"]+)"?}?$/.exec(answer.body)?.[1] ?? ""
        if (reason._tag !== "NoSuchKernelspec") assert.include(reason.message, said)
      }))
  }

  it.live("if the answer to the start has no end, and if there are a hundred thousand kernelspecs", () =>
    Effect.gen(function* () {
      for (const status of [201, 500]) {
        const answer = { status, body: `{"id": "1", `.repeat(10_000), isEndless: true }
        const [error, millis] = yield* timed(
          startFailure({ rest: (name) => name === "POST /api/kernels" ? answer : undefined }),
        )
        assert.isTrue(Execution.isKernelError(error) && error.reason._tag === "KernelStartFailed")
        assert.isBelow(error.message.length, 1000)
        assert.isBelow(millis, 5000)
      }
      const names = Array.from({ length: 100_000 }, (_, index) => [`spec-${index}`, {}])
      const kernelspecs = { status: 200, body: JSON.stringify({ kernelspecs: Object.fromEntries(names) }) }
      const rest = (name: string) =>
        name === "GET /api/kernelspecs"
          ? kernelspecs
          : name === "POST /api/kernels"
          ? { status: 500, body: "no" }
          : undefined
      const error = yield* Effect.flip(Effect.scoped(Fake.client({ rest }, { kernelName: "cobol" })))
      assert.isTrue(Execution.isKernelError(error) && error.reason._tag === "NoSuchKernelspec")
      assert.include(error.message, "and 99980 others")
      assert.isBelow(error.message.length, 1000)
    }))

  it.live("if the start is not answered: within initTimeout", () =>
    Effect.gen(function* () {
      const rest = (name: string) => name === "POST /api/kernels" ? "silence" : undefined
      const [error, millis] = yield* timed(Effect.flip(Fake.client({ rest }, { initTimeout: "1 second" })))
      assert.include(error.message, "not ready within 1s")
      assert.isBelow(millis, 2500)
    }))

  for (const what of ["handshake", "kernel"] as const) {
    it.live(`if the ${what} is silent: within initTimeout, and it is deleted`, () =>
      Effect.gen(function* () {
        const requests: Array<string> = []
        const script: Fake.Script = {
          rest: (name) => void requests.push(name),
          ...(what === "handshake" ? { handshake: () => "silence" } : { info: () => {} }),
        }
        const [error, millis] = yield* timed(
          Effect.flip(Effect.scoped(Fake.client(script, { initTimeout: "1 second" }))),
        )
        assert.include(error.message, "not ready within 1s")
        assert.isBelow(millis, 2500)
        assert.deepStrictEqual(requests.slice(-1), ["DELETE /api/kernels/:id"])
      }))
  }

  it.effect("only when initTimeout is over, however long the handshake takes", () =>
    Effect.gen(function* () {
      const server = yield* Fake.make({ handshake: () => "silence" })
      const opening = yield* Link.open({
        url: server.url,
        headers: {},
        kernelId: "kernel",
        session: "session",
        pingInterval: "10 seconds",
        openTimeout: "5 minutes",
      }, () => false).pipe(Effect.scoped, Effect.flip, Effect.forkChild)
      yield* TestClock.withLive(eventually(() => server.requests.length === 0 ? "not asked yet" : undefined))
      yield* TestClock.adjust("4 minutes")
      assert.isUndefined(opening.pollUnsafe())
      yield* TestClock.adjust("1 minute")
      assert.include((yield* Fiber.join(opening)).message, "within 5m")
    }))

  it.effect("only when initTimeout is over, however long that is", () =>
    Effect.gen(function* () {
      const server = yield* Fake.make({ rest: () => "silence" })
      const rest = yield* Effect.provide(Rest.make({ url: server.url, headers: {} }), Platform.layer)
      const starting = yield* Effect.forkChild(Effect.flip(rest.start({ env: {}, timeout: "5 minutes" })))
      yield* TestClock.withLive(eventually(() => server.requests.length === 0 ? "not asked yet" : undefined))
      yield* TestClock.adjust("4 minutes")
      assert.isUndefined(starting.pollUnsafe())
      yield* TestClock.adjust("1 minute")
      const error = yield* Fiber.join(starting)
      assert.deepInclude({ ...error }, { kind: "Timeout", detail: "No answer within 5m" })
    }))

  it.live("if it dies before it was asked anything", () =>
    Effect.gen(function* () {
      const [error, millis] = yield* timed(startFailure({
        info: ({ message, send }) =>
          send(message("status", { execution_state: "dead" }, { parentHeader: {} })),
      }))
      assert.isTrue(Execution.isKernelError(error) && error.reason._tag === "KernelStartFailed")
      assert.include(error.message, "died")
      assert.isBelow(millis, 3000)
    }))
})

describe("an interrupt", { concurrent: true }, () => {
  for (const [what, answer, words] of refusals) {
    it.live(`that is answered with ${what}`, () =>
      Effect.gen(function* () {
        const { kernel } = yield* Fake.client({
          rest: (name) => name.endsWith("/interrupt") ? answer : undefined,
        })
        const error = yield* Effect.flip(kernel.interrupt)
        assert.strictEqual(error.reason._tag, answer.status === 404 ? "KernelNotFound" : "ConnectionLost")
        if (answer.status !== 404) { for (const word of words) assert.include(error.message, word) }
        if (answer.status !== 404) assert.strictEqual((yield* kernel.execute("x")).text, "x")
      }))
  }

  it.live("that is not answered: within 10 seconds; the kernel stays usable", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({
        rest: (name) => name.endsWith("/interrupt") ? "silence" : undefined,
      })
      const [error, millis] = yield* timed(Effect.flip(kernel.interrupt))
      assert.strictEqual(error.reason._tag, "ConnectionLost")
      assert.isBelow(millis, 11_500)
      assert.strictEqual((yield* kernel.execute("x")).text, "x")
    }))

  it.live("that no kernel gets ends a timeout all the same", () =>
    Effect.gen(function* () {
      let kernelIsBusy = false
      const { kernel } = yield* Fake.client({
        rest: (name) => name.endsWith("/interrupt") ? "silence" : undefined,
        info: ({ good }) => kernelIsBusy ? undefined : good(),
        execute: () => {
          kernelIsBusy = true
        },
      })
      const [error, millis] = yield* timed(Effect.flip(kernel.execute("x", { timeout: "200 millis" })))
      assert.strictEqual(reasonOf(error), "KernelUnresponsive")
      // The beginning, two requests and two waits.
      assert.isBelow(millis, 200 + 500 + 4000 + 5000 + 1500)
    }))
})

describe("while a client asks whether its kernel is alive", { concurrent: true }, () => {
  for (const [what, answer] of [...refusals, ...disguised].filter(([what]) => what !== "404")) {
    it.live(`${what} is no reason to give it up`, () =>
      Effect.gen(function* () {
        const { kernel, server } = yield* Fake.client({
          rest: (name) => name === "GET /api/kernels/:id" ? answer : undefined,
        }, { pingInterval: "20 millis" })
        const asked = () => server.requests.filter((name) => name === "GET /api/kernels/:id").length
        yield* eventually(() => asked() < 5 ? "not asked yet" : undefined)
        assert.strictEqual((yield* kernel.execute("x")).text, "x")
      }))
  }

  it.live("404 means KernelNotFound, mid-cell with the output", () =>
    Effect.gen(function* () {
      let isGone = false
      const { kernel } = yield* Fake.client({
        rest: (name) => isGone && name === "GET /api/kernels/:id" ? { status: 404 } : undefined,
        execute: ({ run, send }) => {
          send(...run("said").slice(0, 3))
          isGone = true
        },
      }, { pingInterval: "50 millis" })
      const [error, millis] = yield* timed(Effect.flip(kernel.execute("x")))
      assert.strictEqual(reasonOf(error), "KernelNotFound")
      assert.strictEqual(error.partial?.text, "said")
      assert.isBelow(millis, 2000)
    }))
})

describe("while a server is asked for pongs", { concurrent: true }, () => {
  const handshakes = (server: Fake.FakeServer) =>
    server.requests.filter((name) => name === "GET /api/kernels/:id/channels").length

  it.live("one that is late by many pings, and by less than 1.5 seconds, keeps its connection", () =>
    Effect.gen(function* () {
      let asked = 0
      const { kernel, server } = yield* Fake.client({
        ping: (count) => {
          asked = count
          return count % 10 === 0
        },
      }, { pingInterval: "50 millis" })
      yield* eventually(() => asked < 60 ? "not asked yet" : undefined)
      assert.strictEqual(handshakes(server), 1)
      assert.strictEqual((yield* kernel.execute("x")).text, "x")
    }))

  it.live("one that never answers is connected to anew", () =>
    Effect.gen(function* () {
      const { server } = yield* Fake.client({ ping: () => false }, { pingInterval: "50 millis" })
      yield* eventually(() => handshakes(server) < 2 ? "still the first connection" : undefined)
    }))
})

describe("a value that is given up while the kernel loads what values need", { concurrent: true }, () => {
  const load = Effect.fnUntraced(function* (answerAfter: number | undefined) {
    const events: Array<string> = []
    const { kernel } = yield* Fake.client({
      info: ({ message, send }) =>
        send(
          message("kernel_info_reply", { implementation: "ipython", language_info: { name: "python" } }),
          message("status", { execution_state: "idle" }),
        ),
      execute: ({ good, request }) => {
        const isLoading = String(request.content.code).includes("effect_jupyter.values")
        if (isLoading || request.content.silent === false) events.push(isLoading ? "loading" : "execution")
        if (!isLoading) return good()
        if (answerAfter === undefined) return
        void wait(answerAfter).then(() => {
          events.push("loaded")
          good()
        })
      },
    })
    const evaluation = Effect.timeoutOption(kernel.evaluate("1", Schema.Int), "50 millis")
    const [, millis] = yield* timed(evaluation)
    yield* kernel.execute("1")
    return { events, millis }
  })

  it.live("the next execution is sent when it has", () =>
    Effect.gen(function* () {
      const { events } = yield* load(300)
      assert.deepStrictEqual(events, ["loading", "loaded", "execution"])
    }))

  it.live("a kernel that does not: 5 seconds at most", () =>
    Effect.gen(function* () {
      const { events, millis } = yield* load(undefined)
      assert.deepStrictEqual(events, ["loading", "execution"])
      assert.isBelow(millis, 7000)
    }), 20_000)
})

describe("many clients", () => {
  it.live("leave the process's own streams alone", () =>
    Effect.gen(function* () {
      const listeners = () =>
        process.stdin.eventNames().map((name) => [name, process.stdin.listenerCount(name)])
      const before = listeners()
      yield* Effect.forEach(Array.from({ length: 12 }), () => Fake.client())
      assert.deepStrictEqual(listeners(), before)
    }))
})

describe("closing", { concurrent: true }, () => {
  for (const [what, reaction] of [["500", { status: 500 }], ["silence", "silence"]] as const) {
    it.live(`is bounded and no failure if the deletion is met with ${what}`, () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        yield* Scope.provide(
          Fake.client({ rest: (name) => name.startsWith("DELETE") ? reaction : undefined }),
          scope,
        )
        const [, millis] = yield* timed(Scope.close(scope, Exit.void))
        assert.isBelow(millis, 11_500)
      }))
  }

  it.live("a reset does not wait for a deletion that is not answered", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({
        rest: (name) => name.startsWith("DELETE") ? "silence" : undefined,
      })
      const [, millis] = yield* timed(kernel.reset)
      assert.isBelow(millis, 2000)
      assert.strictEqual((yield* kernel.execute("x")).text, "x")
    }))

  it.live("interrupting a start that is not answered is bounded too", () =>
    Effect.gen(function* () {
      const starts: Array<string> = []
      const starting = yield* Effect.forkChild(Effect.scoped(Fake.client({
        rest: (name) => {
          if (name !== "POST /api/kernels") return undefined
          starts.push(name)
          return "silence"
        },
      }, { initTimeout: "2 seconds" })))
      yield* eventually(() => starts.length === 0 ? "not asked yet" : undefined)
      const [, millis] = yield* timed(Fiber.interrupt(starting))
      assert.isBelow(millis, 3500)
    }))
})

it.live("members that a server has as null count as absent", () =>
  Effect.gen(function* () {
    const model = {
      id: "kernel-1",
      name: "fake",
      execution_state: null,
      last_activity: null,
      connections: null,
    }
    const bodies: Readonly<Record<string, unknown>> = {
      "GET /api/kernelspecs": {
        default: null,
        kernelspecs: { fake: { spec: { display_name: null, language: null } }, other: { spec: null } },
      },
      "POST /api/kernels": model,
      "GET /api/kernels/:id": model,
      "GET /api/kernels": [model],
    }
    const server = yield* Fake.make({
      rest: (name) => name in bodies ? { status: 200, body: JSON.stringify(bodies[name]) } : undefined,
    })
    yield* Effect.gen(function* () {
      const gateway = yield* KernelGateway.KernelGateway
      const kernel = yield* KernelClient.make()
      assert.strictEqual((yield* kernel.execute("x")).text, "x")
      assert.deepStrictEqual(
        (yield* gateway.kernelspecs).map(({ displayName, isDefault, language }) => [
          displayName,
          language,
          isDefault,
        ]),
        [["fake", "", false], ["other", "", false]],
      )
      assert.deepInclude((yield* gateway.kernels)[0], { id: "kernel-1", state: undefined })
    }).pipe(Effect.scoped, Effect.provide(KernelGateway.layerRemote({ url: server.url })))
  }))

it.live("a kernel that a server fails to delete is asked for again until it is gone, and closing waits for it", () =>
  Effect.gen(function* () {
    let deletions = 0
    const server = yield* Fake.make({
      rest: (name) => {
        if (name === "DELETE /api/kernels/:id" && ++deletions < 3) return { status: 500, body: "It restarts" }
        return name === "GET /api/kernels/:id" && deletions >= 3 ? { status: 404 } : undefined
      },
    })
    const gateway = yield* Layer.build(KernelGateway.layerRemote({ url: server.url, token: "secret" }))
    const used = KernelClient.make().pipe(Effect.scoped, Effect.provideContext(gateway))
    // The program may end now.
    yield* used
    assert.deepStrictEqual([deletions, server.requests.at(-1)], [3, "GET /api/kernels/:id"])
  }))
