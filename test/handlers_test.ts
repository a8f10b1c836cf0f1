/** Functions of the user that never return: the timeout, a death and an interruption end the execution all the same. */
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Schema, Stream } from "effect"
import { KernelClient } from "../src/mod.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"
import { reasonOf, timed } from "./support/outcome.ts"

const { KernelClient: Client } = KernelClient

const shows = `from IPython.display import display
print("before", flush=True)
display({"image/png": "iVBORw0KGgo=", "text/plain": "a plot"}, raw=True)
print("after", flush=True)
`
const runs = `import time
while True: time.sleep(0.01)`

/** Whatever cannot be interrupted is no reason to wait either. */
const handlers = [
  ["that never return", Effect.never],
  ["that never return and cannot be interrupted", Effect.uninterruptible(Effect.never)],
] as const

layer(kernelLayer(), slow)("handlers", (it) => {
  for (const [what, never] of handlers) {
    for (
      const [when, code] of [["after the code has ended", shows], ["while code runs", shows + runs]] as const
    ) {
      it.effect(`images ${what}, ${when}: ExecutionTimeout with the text, and the kernel is idle`, () =>
        Effect.gen(function* () {
          const kernel = yield* Client
          const images = () => never
          for (
            const execution of [
              kernel.execute(code, { timeout: "1 second", images }),
              Stream.runDrain(kernel.stream(code, { timeout: "1 second", images })),
            ]
          ) {
            const [error, millis] = yield* timed(Effect.flip(execution))
            assert.isBelow(millis, 6000)
            if (error._tag !== "ExecutionTimeout") return assert.fail(error._tag)
            assert.match(error.partial.text ?? "", /^before\na plot\n[^]*after/)
            assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
          }
        }))

      it.effect(`onChunk ${what}, ${when}: ExecutionTimeout with the text, and the kernel is idle`, () =>
        Effect.gen(function* () {
          const kernel = yield* Client
          yield* kernel.execute(`def work():\n${code.replace(/^/gm, "    ")}\n`)
          for (
            const asking of [
              kernel.evaluate("work()", Schema.Unknown, { timeout: "1 second", onChunk: () => never }),
              kernel.call("work", [], { returns: Schema.Unknown, timeout: "1 second", onChunk: () => never }),
            ]
          ) {
            const [error, millis] = yield* timed(Effect.flip(asking))
            assert.isBelow(millis, 6000)
            if (error._tag !== "ExecutionTimeout") return assert.fail(error._tag)
            assert.include(error.partial.text ?? "", "before")
            assert.include(error.partial.text ?? "", "after")
            assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
          }
        }))
    }

    it.effect(`onInput ${what}: ExecutionTimeout, and the kernel is idle`, () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const execution = kernel.execute("print('before')\ninput()", {
          timeout: "1 second",
          onInput: () => never,
        })
        const [error, millis] = yield* timed(Effect.flip(execution))
        assert.isBelow(millis, 6000)
        assert.strictEqual(reasonOf(error), "ExecutionTimeout")
        assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      }))

    it.effect(`images ${what}: an interruption does not wait for them`, () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const begun = yield* Deferred.make<void>()
        const images = () => Effect.andThen(Deferred.succeed(begun, undefined), never)
        const fiber = yield* Effect.forkChild(kernel.execute(shows, { images }), { startImmediately: true })
        yield* Deferred.await(begun)
        const [, millis] = yield* timed(Fiber.interrupt(fiber))
        assert.isBelow(millis, 3000)
        assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      }))
  }

  it.effect("images that never return when the kernel dies: KernelDied with the text, within bounds", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const code = `${shows}import os, time\ntime.sleep(0.5)\nos._exit(1)`
      const [error, millis] = yield* timed(Effect.flip(kernel.execute(code, { images: () => Effect.never })))
      assert.strictEqual(reasonOf(error), "KernelDied")
      assert.isBelow(millis, 12_000)
      assert.match(
        error._tag === "KernelError" ? error.partial?.text ?? "" : "",
        /^before\na plot\n[^]*after/,
      )
    }))

  it.effect("images that are slow and in time are kept", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const images = () => Effect.delay(Effect.succeed("kept"), "300 millis")
      const result = yield* kernel.execute(shows, { timeout: "10 seconds", images })
      assert.deepStrictEqual(result.images.map(({ path }) => path), ["kept"])
      // A consumer that takes its time has not used up that of the handlers.
      const streamed = yield* kernel.stream(shows, { timeout: "1 second", images }).pipe(
        Stream.mapEffect((element) => Effect.delay(Effect.succeed(element), "1100 millis")),
        Stream.runLast,
      )
      assert.isTrue(streamed._tag === "Some" && streamed.value._tag === "ExecutionResult")
    }))
})
