/** Questions that are interrupted, answered never, asked during a reset or a cut, or make no sense. */
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Latch, Layer, Random, Redacted, Result, Stream } from "effect"
import { Execution, Introspection, KernelClient, KernelGateway } from "../src/mod.ts"
import { collect, kernelLayer, slow, text, texts } from "./support/kernel.ts"
import { eventually } from "./support/processes.ts"
import * as TcpProxy from "./support/tcp_proxy.ts"

const subshells = "get_ipython().kernel.shell_channel_thread.manager.list_subshell()"
/** The number of subshells of the idle kernel. */
const countSubshells = (kernel: KernelClient.Kernel) =>
  text(kernel.execute(`import time
for _ in range(500):
    if len(${subshells}) <= 1: break
    time.sleep(0.02)
len(${subshells})`))
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.timed(effect), ([elapsed, value]) => ({ millis: Duration.toMillis(elapsed), value }))

const definitions = `import time
class Slow:
    def __init__(self, seconds): self.seconds = seconds
    def __dir__(self): time.sleep(self.seconds); return ["attribute"]
short, long, endless = Slow(0.01), Slow(2), Slow(600)
some_name = 1`

const prepared = Effect.gen(function* () {
  const kernel = yield* KernelClient.make()
  yield* kernel.execute(definitions)
  // The completer is loaded, which takes seconds on a busy machine.
  yield* kernel.complete("some_na", undefined, { timeout: "30 seconds" })
  return kernel
})

layer(kernelLayer(), slow)("questions", (it) => {
  it.effect("complete has time to read the sources of libraries for the first answer", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute(`${definitions}\nfirst = Slow(5.5)`)
      assert.deepStrictEqual((yield* kernel.complete("first.")).matches, ["attribute"])
    }))

  it.effect("that are interrupted, many of them, leave nothing behind", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const ask = [
        kernel.complete("short."),
        kernel.complete("some_n"),
        kernel.inspect("short"),
        kernel.variables,
      ]
      yield* Effect.forEach(
        Array.from({ length: 300 }, (_, index) => index),
        (index) =>
          Effect.gen(function* () {
            const question: Effect.Effect<unknown, unknown> = ask[index % ask.length] ?? Effect.void
            const fiber = yield* Effect.forkChild(question, { startImmediately: true })
            yield* Effect.sleep(Duration.millis(yield* Random.nextBetween(0, 20)))
            const { millis } = yield* timed(Fiber.interrupt(fiber))
            assert.isBelow(millis, 1000)
          }),
        { concurrency: 4 },
      )
      const { millis, value } = yield* timed(kernel.complete("some_na"))
      assert.deepStrictEqual(value.matches, ["some_name"])
      assert.isBelow(millis, 2000)
      assert.strictEqual(yield* countSubshells(kernel), "1")
      assert.strictEqual((yield* kernel.execute("some_name")).text, "1")
    }))

  it.effect("wait for one that was interrupted as long as it had, and its subshell ends when it is free", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.complete("some_na")
      for (let round = 0; round < 3; round++) {
        const long = kernel.complete("long.", undefined, { timeout: "500 millis" })
        const fiber = yield* Effect.forkChild(long, { startImmediately: true })
        yield* Effect.sleep("100 millis")
        yield* Fiber.interrupt(fiber)
        const { millis, value } = yield* timed(kernel.complete("some_na"))
        assert.deepStrictEqual(value.matches, ["some_name"])
        assert.isBelow(millis, 1500)
      }
      assert.isAbove(Number(yield* text(kernel.execute(`len(${subshells})`))), 1)
      assert.strictEqual(yield* countSubshells(kernel), "1")
    }))

  it.effect("that never end are so many at most, and the kernel goes on", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const ask = Effect.flip(kernel.complete("endless.", undefined, { timeout: "200 millis" }))
      for (let round = 0; round < 8; round++) {
        const error = yield* ask
        assert.instanceOf(error, Introspection.IntrospectionFailed)
        assert.include(error.message, "No answer came within 200ms")
      }
      const error = yield* Effect.flip(kernel.complete("some_na"))
      assert.instanceOf(error, Introspection.IntrospectionFailed)
      assert.include(error.message, "It still has 8 questions to answer")
      assert.strictEqual((yield* kernel.execute("some_name")).text, "1")
      yield* kernel.info
      yield* kernel.reset
      const fresh = yield* kernel.complete("prin", undefined, { timeout: "30 seconds" })
      assert.include(fresh.matches, "print")
    }))

  it.effect("of a kernel without subshells do not hold up its executions", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute(`kernel = get_ipython().kernel
info = {**kernel.kernel_info, "supported_features": []}
type(kernel).kernel_info = property(lambda self: info)
${definitions}`)
      const failed = yield* Effect.flip(kernel.complete("endless.", undefined, { timeout: "300 millis" }))
      assert.instanceOf(failed, Introspection.IntrospectionFailed)
      const first = yield* timed(kernel.execute("some_name"))
      assert.strictEqual(first.value.text, "1")
      assert.isBelow(first.millis, 2000)

      const fiber = yield* Effect.forkChild(kernel.complete("endless."), { startImmediately: true })
      yield* Effect.sleep("300 millis")
      yield* Fiber.interrupt(fiber)
      const second = yield* timed(kernel.execute("some_name"))
      assert.strictEqual(second.value.text, "1")
      assert.isBelow(second.millis, 2000)
      const { matches } = yield* kernel.complete("some_na", undefined, { timeout: "30 seconds" })
      assert.deepStrictEqual(matches, ["some_name"])
    }))

  it.effect("during a reset, of a closed client, and after a kernel that has no answers", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const resetting = yield* Effect.forkChild(kernel.reset, { startImmediately: true })
      const during = yield* Effect.flip(kernel.complete("a"))
      assert.instanceOf(during, Execution.KernelError)
      assert.include(during.message, "The kernel is being reset")
      yield* Fiber.join(resetting)
      assert.deepStrictEqual(yield* kernel.variables, [])
      assert.deepStrictEqual(yield* kernel.history(), [])

      const closed = yield* Effect.scoped(KernelClient.make())
      const { millis, value } = yield* timed(Effect.flip(closed.variables))
      assert.instanceOf(value, Execution.KernelError)
      assert.include(value.message, "The client is closed")
      assert.isBelow(millis, 500)
    }))

  it.effect("of a remote server whose connection is cut are answered, or fail in time", () =>
    Effect.gen(function* () {
      const gateway = yield* KernelGateway.KernelGateway
      const proxy = yield* TcpProxy.make(gateway.url)
      const token = gateway.token ?? Redacted.make("")
      const remote = yield* Layer.build(KernelGateway.layerRemote({ url: proxy.url, token }))
      const kernel = yield* Effect.provideContext(KernelClient.make({ pingInterval: "500 millis" }), remote)
      yield* kernel.execute(definitions)
      yield* kernel.complete("some_na", undefined, { timeout: "30 seconds" })
      const begun = yield* Latch.make()
      const running = yield* kernel.stream("print('begun', flush=True); time.sleep(4); print('ended')").pipe(
        Stream.runForEach(() => begun.open),
        Effect.forkChild,
      )
      yield* begun.await
      for (const how of ["reset", "end", 1001] as const) {
        const asked = yield* Effect.forkChild(
          kernel.complete("long.", undefined, { timeout: "10 seconds" }),
          {
            startImmediately: true,
          },
        )
        yield* Effect.sleep("300 millis")
        proxy.cut(how)
        assert.deepStrictEqual((yield* Fiber.join(asked)).matches, ["attribute"])
      }
      // Messages that are sent while a connection is cut may be lost, which the execution reports.
      const ended = yield* Effect.result(Fiber.join(running))
      if (Result.isFailure(ended)) {
        assert.strictEqual(
          ended.failure._tag === "KernelError" ? ended.failure.reason._tag : ended.failure._tag,
          "ConnectionLost",
        )
      }

      // The loss of the request is not reported, and it must not count for ever.
      for (let round = 0; round < 3; round++) {
        const opened = proxy.opened()
        proxy.freeze()
        const ask = kernel.complete("some_na", undefined, { timeout: "100 millis" })
        const lost = yield* timed(Effect.flip(ask))
        assert.instanceOf(lost.value, Introspection.IntrospectionFailed)
        assert.isBelow(lost.millis, 1000)
        yield* eventually(() => proxy.opened() > opened ? undefined : "The connection is not back")
        assert.deepStrictEqual((yield* kernel.complete("some_na")).matches, ["some_name"])
        assert.strictEqual(yield* countSubshells(kernel), "1")
      }
      assert.strictEqual((yield* kernel.execute("some_name")).text, "1")
    }))

  it.effect("print nothing into the output of what runs", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute(`import sys, time
class Loud:
    def __dir__(self):
        print("from dir", flush=True)
        display("from dir")
        return ["attribute"]
    def __getattr__(self, name):
        sys.stderr.write("from getattr\\n")
        raise AttributeError(name)
class Raises:
    def __dir__(self): raise SystemExit("from dir")
loud, raises = Loud(), Raises()`)
      yield* kernel.complete("prin", undefined, { timeout: "30 seconds" })
      const begun = yield* Latch.make()
      const running = yield* kernel.stream(
        "for i in range(30): print(i, flush=True); time.sleep(0.05)",
      ).pipe(Stream.tap(() => begun.open), collect, Effect.forkChild)
      yield* begun.await
      assert.deepStrictEqual((yield* kernel.complete("loud.")).matches, ["attribute"])
      yield* kernel.inspect("loud")
      yield* kernel.complete("raises.")
      const elements = yield* Fiber.join(running)
      assert.strictEqual(texts(elements).join(""), Array.from({ length: 30 }, (_, i) => `${i}\n`).join(""))
      assert.isTrue(elements.every(({ _tag }) => _tag !== "DisplayChunk"))
    }))

  it.effect("about places in any text", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const befores = [
        "",
        "'😀'; ",
        "'👩‍👩‍👧‍👦e\u0301𝒳'\n",
        "# 😀😀\n\n  # é\n",
        "x = '\u{10ffff}' + ",
        "'\u0000😀'; ",
      ]
      for (const before of befores) {
        for (const after of ["", " + '😀'", "\n'😀'\n"]) {
          const code = `${before}some_na${after}`
          const cursor = before.length + "some_na".length
          const { end, matches, start } = yield* kernel.complete(code, cursor)
          assert.deepStrictEqual([matches, code.slice(start, end)], [["some_name"], "some_na"], code)
          const name = `${before}some_name${after}`
          const inspection = yield* kernel.inspect(name, before.length + 2)
          assert.include(inspection.data["text/plain"], "int", name)
        }
      }
      // A name that is no ASCII, of which Jupyter counts one where JavaScript counts two.
      yield* kernel.execute("𐐀name = 1")
      const wide = yield* kernel.complete("'😀'; 𐐀na", undefined)
      assert.strictEqual("'😀'; 𐐀na".slice(0, wide.start) + wide.matches[0], "'😀'; 𐐀name")
      for (const cursor of [-5, 0, 0.5, 1, 2, 7, 1e9, NaN, Infinity, -Infinity]) {
        const completion = yield* kernel.complete("'😀'", cursor)
        assert.isAtLeast(completion.start, 0)
        assert.isAtMost(completion.end, 4)
        assert.isAtMost(completion.start, completion.end)
        yield* kernel.inspect("'😀'", cursor)
      }
      assert.deepStrictEqual((yield* kernel.complete("")).start, 0)
      assert.isFalse((yield* kernel.inspect("")).found)
      assert.strictEqual((yield* kernel.isComplete("")).status, "complete")
      // Half a character.
      for (const half of ["'\ud83d", "\ude00 some_na"]) {
        const questions = [kernel.complete(half), kernel.inspect(half), kernel.isComplete(half)]
        for (const question of questions) {
          const asked: Effect.Effect<unknown, KernelClient.IntrospectionFailure> = question
          const outcome = yield* Effect.result(asked)
          assert.isTrue(outcome._tag === "Success" || outcome.failure._tag === "IntrospectionFailed")
        }
      }
      assert.strictEqual((yield* kernel.execute("some_name")).text, "1")
      assert.deepStrictEqual((yield* kernel.complete("some_na")).matches, ["some_name"])
    }))
})
