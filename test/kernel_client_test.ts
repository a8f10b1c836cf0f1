import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, FileSystem, Path, Stream } from "effect"
import { Execution, KernelClient } from "../src/mod.ts"
import { collect, kernelLayer, slow, temporary, text, texts } from "./support/kernel.ts"

const { KernelClient: Client } = KernelClient

layer(kernelLayer({ env: { GIVEN_TO_GATEWAY: "to the kernel" } }), slow)("KernelClient", (it) => {
  const executes = (title: string, code: string, expected: string | undefined) =>
    it.effect(title, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* text((yield* Client).execute(code)), expected)
      }))

  it.describe("text", () => {
    executes("a simple print", "print('hello')", "hello")
    executes("arithmetic", "2 + 3", "5")
    executes("several lines", "x = 10\ny = 20\nprint(x + y)", "30")
    executes("no output gives no text", "x = 42", undefined)
    executes("several prints are combined", "print('one')\nprint('two')\nprint('three')", "one\ntwo\nthree")
    executes("empty code", "", undefined)
    executes("500,000 characters on one line", "print('a' * 500_000)", "a".repeat(500_000))
    executes(
      "50,000 lines",
      "for i in range(50_000): print(i)",
      Array.from({ length: 50_000 }, (_, index) => index).join("\n"),
    )
    executes(
      "10,000 lines of input",
      `${Array.from({ length: 10_000 }, (_, index) => `v${index} = ${index}`).join("\n")}\nprint(v9999)`,
      "9999",
    )
    executes(
      "an environment variable given to the gateway",
      "import os; os.environ['GIVEN_TO_GATEWAY']",
      "'to the kernel'",
    )
    executes(
      "stdout, values and displays in order of arrival",
      "print('a')\ndisplay('b')\nprint('c')\n'd'",
      "a\n'b'\nc\n'd'",
    )
    it.effect("stderr is text too", () =>
      Effect.gen(function* () {
        const elements = yield* collect((yield* Client).stream("import sys; print('oops', file=sys.stderr)"))
        assert.deepInclude(elements[0], { _tag: "TextChunk", name: "stderr", text: "oops\n" })
      }))
  })

  it.describe("errors", () => {
    const raises = (title: string, code: string, ename: string) =>
      it.effect(title, () =>
        Effect.gen(function* () {
          const error = yield* Effect.flip((yield* Client).execute(code))
          assert.instanceOf(error, Execution.ExecutionError)
          assert.strictEqual(error.ename, ename)
          assert.include(error.message, ename)
        }))
    raises("a syntax error", "if True print('x')", "SyntaxError")
    raises("a runtime error", "1 / 0", "ZeroDivisionError")
    raises("a name error", "undefined_name", "NameError")

    it.effect("the traceback names the function", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(
          (yield* Client).execute("def failing_function():\n    raise ValueError('no')\nfailing_function()"),
        )
        assert.include(error.message, "failing_function")
        assert.include(error.message, "ValueError: no")
      }))

    it.effect("a stream fails with the same error", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const [executed, streamed] = yield* Effect.all([
          Effect.flip(kernel.execute("raise KeyError('k')")),
          Effect.flip(Stream.runDrain(kernel.stream("raise KeyError('k')"))),
        ])
        assert.instanceOf(executed, Execution.ExecutionError)
        assert.instanceOf(streamed, Execution.ExecutionError)
        assert.deepStrictEqual([streamed.ename, streamed.evalue], [executed.ename, executed.evalue])
      }))

    it.effect("what was put out before is kept", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip((yield* Client).execute("print('before')\n1 / 0"))
        assert.strictEqual(error.partial?.text, "before")
      }))

    it.effect("the client is usable after an error", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* Effect.flip(kernel.execute("1 / 0"))
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }))
  })

  it.describe("streams", () => {
    it.effect("two prints half a second apart are two chunks", () =>
      Effect.gen(function* () {
        const elements = yield* collect(
          (yield* Client).stream("import time\nprint('first')\ntime.sleep(0.5)\nprint('second')"),
        )
        assert.deepStrictEqual(texts(elements), ["first\n", "second\n"])
      }))

    it.effect("the result is the last element and the only one of its kind", () =>
      Effect.gen(function* () {
        const elements = yield* collect((yield* Client).stream("print('a')\nprint('b')"))
        const results = elements.filter((element) => element._tag === "ExecutionResult")
        assert.lengthOf(results, 1)
        assert.strictEqual(elements.at(-1), results[0])
        assert.deepInclude(results[0], { text: "a\nb" })
      }))

    it.effect("chunks and result of one mixed run agree", () =>
      Effect.gen(function* () {
        const elements = yield* collect(
          (yield* Client).stream(
            "import matplotlib.pyplot as plt\nprint('before')\nplt.plot([1, 2])\nplt.show()\nprint('after')\n'value'",
          ),
        )
        const result = elements.at(-1)
        assert.strictEqual(result?._tag, "ExecutionResult")
        if (result?._tag !== "ExecutionResult") return
        const displays = elements.filter((element) => element._tag === "DisplayChunk")
        assert.deepStrictEqual(result.displays, displays)
        assert.deepStrictEqual(
          result.images,
          displays.flatMap((display) => display.image === undefined ? [] : [display.image]),
        )
        assert.lengthOf(result.images, 1)
        assert.strictEqual(result.text, "before\n<Figure size 640x480 with 1 Axes>\nafter\n'value'")
      }))

    it.effect("100 small chunks over a second of asyncio.sleep", () =>
      Effect.gen(function* () {
        const elements = yield* collect(
          (yield* Client).stream(
            "import asyncio\nfor i in range(100):\n    print(f'chunk {i}')\n    await asyncio.sleep(0.01)",
          ),
        )
        const expected = Array.from({ length: 100 }, (_, index) => `chunk ${index}\n`).join("")
        assert.strictEqual(texts(elements).join(""), expected)
        assert.isAbove(texts(elements).length, 1)
      }))

    it.effect("lines come soon and whole, one that takes its time before its end", () =>
      Effect.gen(function* () {
        const chunks = texts(
          yield* collect(
            (yield* Client).stream(
              "import time\nfor i in range(200):\n    print('line', i)\n    time.sleep(0.002)\nprint('Wait', end='')\ntime.sleep(1)\nprint(' over')",
            ),
          ),
        )
        assert.isAbove(chunks.length, 5)
        const parts = chunks.filter((chunk) => !chunk.endsWith("\n"))
        assert.lengthOf(parts, 1)
        assert.match(parts.join(), /Wait$/)
        assert.strictEqual(chunks.at(-1), " over\n")
      }))

    it.effect("ending the consumption early interrupts the kernel", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const first = yield* kernel.stream(
          "import time\nended = False\ntry:\n    while True:\n        print('tick', flush=True)\n        time.sleep(0.05)\nfinally:\n    ended = True",
        ).pipe(Stream.take(1), Stream.runCollect)
        assert.deepInclude(first[0], { _tag: "TextChunk" })
        assert.strictEqual(yield* text(kernel.execute("ended")), "True")
      }))
  })

  it.describe("state", () => {
    it.effect("variables, functions and imports persist", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* kernel.execute("kept = 42")
        yield* kernel.execute("def double(n): return 2 * n")
        yield* kernel.execute("import math")
        assert.strictEqual(yield* text(kernel.execute("print(double(kept), math.floor(2.5))")), "84 2")
      }))

    it.effect("clients are isolated", () =>
      Effect.gen(function* () {
        const [one, two] = yield* Effect.all([KernelClient.make(), KernelClient.make()], { concurrency: 2 })
        yield* one.execute("mine = 1")
        const error = yield* Effect.flip(two.execute("mine"))
        assert.include(error.message, "NameError")
        assert.notStrictEqual(one.id, two.id)
      }))

    it.effect("reset clears state", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        const before = kernel.id
        yield* kernel.execute("mine = 1")
        yield* kernel.reset
        assert.notStrictEqual(kernel.id, before)
        assert.include((yield* Effect.flip(kernel.execute("mine"))).message, "NameError")
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }))

    it.effect("executions are counted", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        assert.strictEqual((yield* kernel.execute("1")).executionCount, 1)
        const second = yield* kernel.execute("_ + 1")
        assert.deepStrictEqual([second.executionCount, second.text], [2, "2"])
        assert.strictEqual(second.displays[0]?.executionCount, 2)
      }))

    it.effect("a kernel has its own environment and that of the gateway", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ env: { OF_THIS_KERNEL: "1" } })
        const code =
          "import os; print(os.environ['OF_THIS_KERNEL'], os.environ['GIVEN_TO_GATEWAY'], 'KG_AUTH_TOKEN' in os.environ, 'npm_command' in os.environ)"
        assert.strictEqual(yield* text(kernel.execute(code)), "1 to the kernel False False")
        assert.include(
          (yield* Effect.flip((yield* Client).execute("os.environ['OF_THIS_KERNEL']"))).message,
          "Error",
        )
      }))
  })

  it.describe("plots", () => {
    const plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()"
    it.effect("one plot gives one existing file, two give two, all in imagesDir", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const path = yield* Path.Path
        const imagesDir = path.join(yield* temporary, "plots")
        const kernel = yield* KernelClient.make({ imagesDir })
        const one = yield* kernel.execute(plot)
        const two = yield* kernel.execute(`${plot}\nplt.plot([3, 2])\nplt.show()`)
        assert.lengthOf(one.images, 1)
        assert.lengthOf(two.images, 2)
        for (const image of [...one.images, ...two.images]) {
          assert.strictEqual(path.dirname(image.path), imagesDir)
          assert.match(image.path, /\.png$/)
          assert.strictEqual(image.mimeType, "image/png")
          const bytes = yield* fs.readFile(image.path)
          assert.deepStrictEqual([...bytes.slice(1, 4)], [..."PNG"].map((letter) => letter.charCodeAt(0)))
        }
      }))
  })

  it.describe("timeouts and interrupts", () => {
    it.effect("a timeout ends the execution with what it had put out, and the client is usable", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const error = yield* Effect.flip(
          kernel.execute("import time\nprint('begun')\ntime.sleep(10)", { timeout: "500 millis" }),
        )
        assert.instanceOf(error, Execution.ExecutionTimeout)
        assert.strictEqual(error.partial.text, "begun")
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }))

    it.effect("state set inside an endless loop survives the interrupt", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const error = yield* Effect.flip(
          kernel.execute("counter = 0\nwhile True: counter += 1", { timeout: "300 millis" }),
        )
        assert.strictEqual(error._tag, "ExecutionTimeout")
        assert.strictEqual(yield* text(kernel.execute("counter > 0")), "True")
      }))

    it.effect("interrupting the fiber leaves the kernel idle", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const reached = yield* kernel.stream(
          "stopped = False\ntry:\n    print('go', flush=True)\n    import time; time.sleep(30)\nfinally:\n    stopped = True",
        )
          .pipe(Stream.runHead, Effect.forkChild)
        yield* Fiber.join(reached)
        assert.strictEqual(yield* text(kernel.execute("stopped")), "True")
      }))

    it.effect("interrupt raises KeyboardInterrupt in the code", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const error = yield* kernel.stream("print('go', flush=True)\nimport time; time.sleep(30)").pipe(
          Stream.tap((element) =>
            element._tag === "TextChunk" && element.name === "stdout" ? kernel.interrupt : Effect.void
          ),
          Stream.runDrain,
          Effect.flip,
        )
        assert.deepInclude(error, { _tag: "ExecutionError", ename: "KeyboardInterrupt" })
      }))

    it.effect("interrupting an idle kernel does nothing", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* kernel.interrupt
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }))

    it.effect("concurrent executions run one after the other, each with its own output", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* kernel.execute("order = []")
        const numbers = Array.from({ length: 10 }, (_, index) => index)
        const all = yield* Effect.forEach(
          numbers,
          (n) => text(kernel.execute(`order.append(${n})\nprint(${n})`)),
          { concurrency: "unbounded" },
        )
        assert.deepStrictEqual(all, numbers.map(String))
        assert.strictEqual(yield* text(kernel.execute("order")), `[${numbers.join(", ")}]`)
      }))

    it.effect("the end of an execution is no interrupt: a process it started goes on", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* kernel.execute("import subprocess; sleeper = subprocess.Popen(['sleep', '1000'])")
        yield* kernel.execute("1 + 1")
        assert.strictEqual(yield* text(kernel.execute("print(sleeper.poll()); sleeper.kill()")), "None")
      }))

    it.effect("a queued execution is withdrawn without touching the running one", () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* kernel.execute("ran = False")
        const running = yield* Effect.forkChild(
          text(kernel.execute("import time; time.sleep(0.5); print('undisturbed')")),
          { startImmediately: true },
        )
        const queued = yield* Effect.forkChild(kernel.execute("ran = True"), { startImmediately: true })
        yield* Fiber.interrupt(queued)
        assert.isTrue(Exit.isSuccess(yield* Fiber.await(running)))
        assert.strictEqual(yield* Fiber.join(running), "undisturbed")
        assert.strictEqual(yield* text(kernel.execute("ran")), "False")
      }))
  })
})
