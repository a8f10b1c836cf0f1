/** Code that asks for input. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { KernelClient } from "../src/mod.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"

const { KernelClient: Client } = KernelClient

layer(kernelLayer(), slow)("input()", (it) => {
  it.effect("is answered by a handler, passwords are marked", () =>
    Effect.gen(function* () {
      const asked: Array<KernelClient.InputRequest> = []
      const output = yield* text(
        (yield* Client).execute(
          "import getpass\nname = input('Name? ')\nsecret = getpass.getpass('Secret? ')\nprint(name, secret)",
          {
            onInput: (request) =>
              Effect.sync(() => {
                asked.push(request)
                return request.password ? `hidden "\\ü\n` : "Ada"
              }),
          },
        ),
      )
      assert.deepStrictEqual(asked, [
        { prompt: "Name? ", password: false },
        { prompt: "Secret? ", password: true },
      ])
      assert.include(output, `Ada hidden "\\ü`)
    }))

  it.effect("without a handler fails at once, with the prompt and the output before it", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const error = yield* Effect.flip(kernel.execute("print('before')\ninput('Who? ')")).pipe(
        Effect.timeout("4 seconds"),
      )
      assert.strictEqual(error._tag, "KernelError")
      if (error._tag !== "KernelError") return
      assert.deepInclude({ ...error.reason }, { _tag: "InputRequested", prompt: "Who? " })
      assert.include(error.partial?.text, "before")
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))

  it.effect("a handler that fails counts as none", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const error = yield* Effect.flip(
        kernel.execute("input('Who? ')", { onInput: () => Effect.die("no idea") }),
      )
      assert.strictEqual(error._tag === "KernelError" && error.reason._tag, "InputRequested")
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))

  it.effect("a handler that takes its time can be interrupted with the execution", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      let interrupted = false
      const error = yield* Effect.flip(kernel.execute("input('Who? ')", {
        timeout: "500 millis",
        onInput: () => Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => (interrupted = true)))),
      }))
      assert.strictEqual(error._tag, "ExecutionTimeout")
      assert.isTrue(interrupted)
      const running = yield* Effect.forkChild(
        kernel.execute("input('Who? ')", { onInput: () => Effect.never }),
      )
      yield* Effect.sleep("200 millis")
      yield* Fiber.interrupt(running)
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))

  it.effect("allowStdin: false raises an exception that the code can catch, without a call of onInput", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const options: KernelClient.ExecuteOptions = { allowStdin: false, onInput: () => Effect.die("asked") }
      const code = `import getpass
for ask in (input, getpass.getpass):
    try:
        ask('Who? ')
    except Exception as error:
        print(type(error).__name__)`
      assert.strictEqual(
        yield* text(kernel.execute(code, options)),
        "StdinNotImplementedError\nStdinNotImplementedError",
      )
      const error = yield* Effect.flip(kernel.execute("input()", options))
      assert.strictEqual(error._tag === "ExecutionError" && error.ename, "StdinNotImplementedError")
      const value = yield* kernel.execute("input()", { onInput: () => Effect.succeed("Ada") })
      assert.include(value.text, "'Ada'")
    }))

  it.effect("without a handler at the moment of the timeout is one interrupt, and the next execution is not hit", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const moment of [180, 190, 195, 200, 205, 210, 220]) {
        const code = `import time; time.sleep(${moment / 1000}); input('Who? ')`
        yield* Effect.flip(kernel.execute(code, { timeout: "200 millis" }))
        const next = yield* text(kernel.execute("import time; time.sleep(0.05); print('untouched')"))
        assert.strictEqual(next, "untouched", `after ${moment} ms`)
      }
    }))
})
