/** Kernels that another client deletes or uses at the same time. */
import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Redacted, Scope, Stream } from "effect"
import * as Channel from "../src/jupyter/channel.ts"
import { executeContent, type Message, request } from "../src/jupyter/message.ts"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import { kernelLayer, overServer, slow, text } from "./support/kernel.ts"
import { reasonOf, timed } from "./support/outcome.ts"

const headersOf = ({ token }: KernelGateway.KernelGateway["Service"]) => ({
  authorization: `token ${token === undefined ? "" : Redacted.value(token)}`,
})

/** Deletes a kernel behind its client's back. */
const deleteKernel = Effect.fnUntraced(function* (id: string) {
  const gateway = yield* KernelGateway.KernelGateway
  const status = yield* Effect.promise(() =>
    fetch(`${gateway.url}/api/kernels/${id}`, { method: "DELETE", headers: headersOf(gateway) })
      .then((response) => response.status)
  )
  assert.strictEqual(status, 204)
})

/** Consumes a stream and does something once, at its first text. */
const atFirstText = <R>(
  kernel: KernelClient.Kernel,
  code: string,
  then: Effect.Effect<unknown, never, R>,
) => {
  let isDone = false
  return kernel.stream(code).pipe(
    Stream.tap((element) => {
      if (isDone || element._tag !== "TextChunk") return Effect.void
      isDone = true
      return then
    }),
    Stream.runDrain,
  )
}

const forever = "import time\nprint('before', flush=True)\nwhile True: time.sleep(0.05)"

/** A kernel that others can connect to: one with a connection of its own has one client. */
const shared = Effect.flatMap(
  KernelGateway.KernelGateway,
  (gateway) => Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, overServer(gateway)),
)

/** Another client of a kernel, made of the protocol alone. */
const otherClient = Effect.fnUntraced(function* (kernelId: string, session: string) {
  const gateway = yield* KernelGateway.KernelGateway
  const unclaimed: Array<Message> = []
  const channel = yield* Channel.make({
    url: gateway.url,
    headers: headersOf(gateway),
    kernelId,
    session,
    pingInterval: "10 seconds",
    onUnclaimed: (message) => void unclaimed.push(message),
    onMalformed: (error) => assert.fail(error.message),
  })
  let count = 0
  /** Runs code and gives what it printed and the status of its reply. */
  const run = Effect.fnUntraced(function* (code: string, onText: (text: string) => void = () => {}) {
    const content = executeContent(code, { silent: false, allowStdin: false })
    const id = `${session}-${++count}`
    const over = yield* Deferred.make<{ readonly text: string; readonly status: unknown }>()
    let text = ""
    let status: unknown
    let isIdle = false
    const conversation = yield* channel.request(request("execute_request", { id, session, content }), {
      onMessage: ({ content, header }) => {
        if (header.msg_type === "execute_reply") status = content.status
        if (header.msg_type === "status" && content.execution_state === "idle") isIdle = true
        if (header.msg_type === "stream") {
          text += String(content.text)
          onText(text)
        }
        if (isIdle && status !== undefined) Deferred.doneUnsafe(over, Exit.succeed({ text, status }))
      },
    })
    yield* conversation.send
    return yield* Deferred.await(over)
  }, Effect.scoped)
  return { run, unclaimed }
})

layer(kernelLayer({ env: { EVERYONE: "all" } }), slow)("on a real gateway", (it) => {
  describe("a kernel that another client deletes", () => {
    it.effect("mid-cell: KernelNotFound with the output; a reset helps", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ pingInterval: "200 millis" })
        const error = yield* Effect.flip(
          atFirstText(kernel, forever, Effect.forkDetach(deleteKernel(kernel.id))),
        )
        assert.strictEqual(reasonOf(error), "KernelNotFound")
        assert.include(error.message, kernel.id)
        assert.strictEqual(error._tag === "KernelError" ? error.partial?.text : undefined, "before")
        assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("1"))), "KernelNotFound")
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }))

    it.effect("idle: the next execution fails within bounds; a reset helps", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ pingInterval: "200 millis" })
        yield* kernel.execute("x = 1")
        yield* deleteKernel(kernel.id)
        const [error, millis] = yield* timed(Effect.flip(kernel.execute("print(x)")))
        assert.strictEqual(reasonOf(error), "KernelNotFound")
        assert.isBelow(millis, 3000)
        assert.strictEqual(reasonOf(yield* Effect.flip(kernel.interrupt)), "KernelNotFound")
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }))

    it.effect("noticed by an interrupt, long before the next check", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ pingInterval: "1 hour" })
        yield* deleteKernel(kernel.id)
        const [error, millis] = yield* timed(Effect.flip(kernel.execute("1", { timeout: "200 millis" })))
        assert.include(["KernelNotFound", "ExecutionTimeout"], reasonOf(error))
        assert.isBelow(millis, 4000)
        assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("1"))), "KernelNotFound")
      }))

    it.effect("does not keep its client from closing", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const kernel = yield* Scope.provide(KernelClient.make(), scope)
        yield* deleteKernel(kernel.id)
        const [, millis] = yield* timed(Scope.close(scope, Exit.void))
        assert.isBelow(millis, 2000)
      }))
  })

  describe("two clients on one kernel", () => {
    it.effect("each gets exactly its own output", () =>
      Effect.gen(function* () {
        const kernel = yield* shared
        const other = yield* otherClient(kernel.id, "other")
        const rounds = Array.from({ length: 30 }, (_, round) => round)
        const code = (name: string, round: number) =>
          `for i in range(5): print('${name}${round}.%d' % i, flush=True)`
        const expected = (name: string, round: number) =>
          Array.from({ length: 5 }, (_, index) => `${name}${round}.${index}`).join("\n")
        const [ours, theirs] = yield* Effect.all([
          Effect.forEach(rounds, (round) => text(kernel.execute(code("a", round)))),
          Effect.forEach(rounds, (round) => other.run(code("b", round))),
        ], { concurrency: 2 })
        assert.deepStrictEqual(ours, rounds.map((round) => expected("a", round)))
        assert.deepStrictEqual(
          theirs.map(({ text }) => text.trim()),
          rounds.map((round) => expected("b", round)),
        )
      }))

    it.effect("both see the same state", () =>
      Effect.gen(function* () {
        const kernel = yield* shared
        const other = yield* otherClient(kernel.id, "state")
        yield* other.run("shared = 'theirs'")
        assert.strictEqual(yield* text(kernel.execute("print(shared)")), "theirs")
      }))

    it.effect("a timeout interrupts what runs, be it the other's; both go on", () =>
      Effect.gen(function* () {
        const kernel = yield* shared
        const other = yield* otherClient(kernel.id, "long")
        const running = yield* Deferred.make<void>()
        const theirs = yield* Effect.forkChild(
          other.run(forever, () => Deferred.doneUnsafe(running, Exit.void)),
        )
        yield* Deferred.await(running)
        const error = yield* Effect.flip(
          kernel.execute("import time; time.sleep(60)", { timeout: "300 millis" }),
        )
        assert.include(["ExecutionTimeout", "KernelUnresponsive"], reasonOf(error))
        assert.strictEqual((yield* Fiber.join(theirs)).status, "error")
        const both = yield* Effect.all(
          [text(kernel.execute("print('ours')")), other.run("print('theirs')")],
          {
            concurrency: 2,
          },
        )
        assert.strictEqual(both[0], "ours")
        assert.strictEqual(both[1].text, "theirs\n")
      }))

    it.effect("an interrupt of ours ends the other's cell when only that runs", () =>
      Effect.gen(function* () {
        const kernel = yield* shared
        const other = yield* otherClient(kernel.id, "only")
        const running = yield* Deferred.make<void>()
        const theirs = yield* Effect.forkChild(
          other.run(forever, () => Deferred.doneUnsafe(running, Exit.void)),
        )
        yield* Deferred.await(running)
        yield* kernel.interrupt
        assert.deepStrictEqual(yield* Fiber.join(theirs), { text: "before\n", status: "error" })
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }))
  })

  describe("a client that is closed", () => {
    it.effect("fails typed, at once, whatever is asked of it", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const kernel = yield* Scope.provide(KernelClient.make(), scope)
        yield* kernel.execute("x = 1")
        const cut = yield* Effect.forkChild(
          Effect.flip(atFirstText(kernel, forever, Effect.forkDetach(Scope.close(scope, Exit.void)))),
        )
        const queued = yield* Effect.forkChild(Effect.flip(kernel.execute("print(x)")))
        const ofCut = yield* Fiber.join(cut)
        assert.strictEqual(reasonOf(ofCut), "ExecutionAborted")
        assert.strictEqual(ofCut._tag === "KernelError" ? ofCut.partial?.text : undefined, "before")
        assert.strictEqual(reasonOf(yield* Fiber.join(queued)), "ExecutionAborted")
        // Twice: what one of them does must not change what another finds.
        for (let round = 0; round < 2; round++) {
          for (
            const use of [
              kernel.execute("1"),
              Stream.runDrain(kernel.stream("1")),
              kernel.interrupt,
              kernel.reset,
            ]
          ) {
            const [error, millis] = yield* timed(Effect.flip(use))
            assert.strictEqual(reasonOf(error), "ExecutionAborted")
            assert.include(error.message, "closed")
            assert.isBelow(millis, 2000)
          }
        }
      }))

    it.effect("leaves no kernel on the server", () =>
      Effect.gen(function* () {
        const gateway = yield* KernelGateway.KernelGateway
        const ids = yield* Effect.scoped(
          Effect.all([KernelClient.make(), KernelClient.make()], { concurrency: 2 }).pipe(
            Effect.map((kernels) => kernels.map(({ id }) => id)),
          ),
        )
        const list = yield* Effect.promise(() =>
          fetch(`${gateway.url}/api/kernels`, { headers: headersOf(gateway) }).then((answer) => answer.text())
        )
        for (const id of ids) assert.notInclude(list, id)
      }))
  })

  describe("kernels that start at once", () => {
    it.effect("have each their own environment, and nothing of another's", () =>
      Effect.gen(function* () {
        const read = "import os; print(sorted((k, v) for k, v in os.environ.items() if k.startswith('MARK')" +
          " or k in ('EVERYONE', 'SHARED')))"
        const wanted = Array.from({ length: 12 }, (_, index) =>
          index % 3 === 2 ? undefined : { SHARED: `s${index}`, [`MARK_${index}`]: `m${index}` })
        const seen = yield* Effect.forEach(wanted, (env) =>
          Effect.scoped(
            Effect.flatMap(
              KernelClient.make(env === undefined ? {} : { env }),
              (kernel) =>
                text(kernel.execute(read)),
            ),
          ), { concurrency: 4 })
        const expected = wanted.map((env, index) =>
          env === undefined
            ? "[('EVERYONE', 'all')]"
            : `[('EVERYONE', 'all'), ('MARK_${index}', 'm${index}'), ('SHARED', 's${index}')]`
        )
        assert.deepStrictEqual(seen, expected)
      }))
  })
})
