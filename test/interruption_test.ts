/** Fibers that are interrupted at any moment, executions that wait and are withdrawn. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Metric, Random, Stream } from "effect"
import { setTimeout as wait } from "node:timers/promises"
import * as Metrics from "../src/kernel/metrics.ts"
import { Execution, KernelClient, KernelGateway } from "../src/mod.ts"
import * as Fake from "./support/fake_server.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"
import { timed } from "./support/outcome.ts"
import { eventually } from "./support/processes.ts"

const { KernelClient: Client } = KernelClient

/** Moments after the start of something, in milliseconds, denser where more happens. */
const moments = [0, 0, 1, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60, 100, 200]

/** Starts, waits and interrupts. */
const cut = <A, E, R>(effect: Effect.Effect<A, E, R>, moment: number) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    yield* Effect.sleep(moment)
    yield* Fiber.interrupt(fiber)
  })

/** Checks that the next execution finds an idle kernel and no output of the interrupted one. */
const isClean = Effect.fnUntraced(function* (kernel: KernelClient.Kernel, marker: string) {
  assert.strictEqual(yield* text(kernel.execute(`print('${marker}')`)), marker)
})

layer(kernelLayer(), slow)("interruption", (it) => {
  it.effect("at any moment of an execution leaves the kernel idle and clean", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const moment of moments) {
        yield* cut(kernel.execute("print('old')\nimport time\nfor _ in range(500): time.sleep(0.01)"), moment)
        yield* isClean(kernel, `after ${moment} ms`)
      }
    }), 120_000)

  it.effect("at any moment of a short execution does too", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const before = yield* Metric.value(Metrics.ignored)
      for (const moment of [...moments, ...moments, ...moments, ...moments]) {
        yield* cut(kernel.execute("print('old')"), moment / 4)
        yield* isClean(kernel, `after ${moment / 4} ms`)
      }
      // An interrupt while the kernel writes a message would split it into two invalid ones.
      assert.deepStrictEqual(yield* Metric.value(Metrics.ignored), before)
    }), 120_000)

  it.effect("at any moment of a stream does too", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const moment of moments) {
        const stream = kernel.stream(
          "import time\nfor i in range(500):\n    print(i, flush=True)\n    time.sleep(0.01)",
        )
        yield* cut(Stream.runDrain(stream), moment)
        yield* isClean(kernel, `after ${moment} ms`)
      }
    }), 120_000)

  it.effect("at any moment of a reset leaves a clean kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      for (const moment of [0, 1, 5, 20, 50, 100, 200, 400, 800]) {
        yield* kernel.execute("mine = 1")
        yield* cut(kernel.reset, moment)
        assert.strictEqual(
          yield* text(kernel.execute("print('mine' in globals())")),
          "False",
          `after ${moment} ms`,
        )
      }
    }), 120_000)

  it.effect("at any moment of make leaves no kernel", () =>
    Effect.gen(function* () {
      for (const moment of [0, 1, 5, 20, 50, 100, 200, 400, 800]) {
        yield* cut(Effect.scoped(KernelClient.make()), moment)
      }
      yield* isClean(yield* Client, "still there")
    }), 120_000)
})

layer(kernelLayer(), slow)("concurrency", (it) => {
  it.effect("40 executions at once, some withdrawn in random order: each has its own output, the running one is untouched", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.execute("import time; ran = []")
      const running = yield* Effect.forkChild(
        text(kernel.execute("time.sleep(0.5)\nran.append(-1)\nprint('undisturbed')")),
        { startImmediately: true },
      )
      const fibers = yield* Effect.forEach(
        Array.from({ length: 40 }, (_, index) => index),
        (index) =>
          Effect.forkChild(text(kernel.execute(`ran.append(${index}); print(${index})`)), {
            startImmediately: true,
          }),
      )
      const order = yield* Random.shuffle(fibers.keys())
      const withdrawn = new Set([...order].slice(0, 20))
      yield* Effect.forEach(withdrawn, (index) => {
        const fiber = fibers[index]
        return fiber === undefined ? Effect.void : Fiber.interrupt(fiber)
      })
      assert.strictEqual(yield* Fiber.join(running), "undisturbed")
      for (const [index, fiber] of fibers.entries()) {
        const exit = yield* Fiber.await(fiber)
        if (withdrawn.has(index)) assert.isTrue(Exit.isFailure(exit))
        else assert.deepStrictEqual(exit, Exit.succeed(`${index}`))
      }
      const rest = Array.from({ length: 40 }, (_, index) => index).filter((index) => !withdrawn.has(index))
      assert.strictEqual(yield* text(kernel.execute("print(ran)")), `[${[-1, ...rest].join(", ")}]`)
    }))

  it.effect("executions that wait when the kernel is reset are not run on the new one", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const running = yield* Effect.forkChild(kernel.execute("import time; time.sleep(30)"), {
        startImmediately: true,
      })
      const waiting = yield* Effect.forkChild(kernel.execute("ran = True"), { startImmediately: true })
      yield* Effect.sleep("300 millis")
      yield* kernel.reset
      for (const fiber of [running, waiting]) {
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.strictEqual(error._tag === "KernelError" && error.reason._tag, "ExecutionAborted")
      }
      assert.strictEqual(yield* text(kernel.execute("print('ran' in globals())")), "False")
    }))

  it.effect("a consumer that is still reading does not keep others from the kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      // The consumer runs code, and resets, on the kernel whose stream it reads.
      const nested = yield* kernel.stream("print('outer')").pipe(
        Stream.mapEffect((element) =>
          element._tag === "ExecutionResult"
            ? text(kernel.execute("print('inner')"))
            : Effect.succeed("chunk")
        ),
        Stream.tap((element) => element === "inner" ? kernel.reset : Effect.void),
        Stream.runCollect,
        Effect.timeout("20 seconds"),
      )
      assert.deepStrictEqual(nested, ["chunk", "inner"])
    }))

  it.effect("two resets at once are one kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* Effect.all([kernel.reset, kernel.reset], { concurrency: 2 })
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))
})

layer(kernelLayer(), slow)("ExecutionTimeout", (it) => {
  const timeoutOf = Effect.fnUntraced(function* (code: string) {
    const error = yield* Effect.flip((yield* Client).execute(code, { timeout: "300 millis" }))
    assert.instanceOf(error, Execution.ExecutionTimeout)
    return error instanceof Execution.ExecutionTimeout ? error : yield* Effect.die(error)
  })

  it.effect("says where the code was, in its traceback and its message", () =>
    Effect.gen(function* () {
      const { message, traceback } = yield* timeoutOf(
        "import time\ndef inner(n):\n    while True: time.sleep(0.01)\ninner(1)",
      )
      assert.include(traceback.join("\n"), "inner(1)")
      assert.include(traceback.join("\n"), "while True: time.sleep(0.01)")
      assert.include(message, "while True: time.sleep(0.01)")
      assert.include(message, "300ms")
    }))

  it.effect("says so of an await, and within a bound of very deep and very long code", () =>
    Effect.gen(function* () {
      const { traceback } = yield* timeoutOf("import asyncio\nawait asyncio.sleep(60)")
      assert.include(traceback.join("\n"), "await asyncio.sleep(60)")
      const wide = `import time; x = "${"long ".repeat(20_000)}"; time.sleep(60)`
      for (
        const code of [wide, `${"def f(n): return f(n - 1) if n else time.sleep(60)\n"}import time\nf(500)`]
      ) {
        const deep = yield* timeoutOf(code)
        assert.isAbove(deep.traceback.length, 0)
        assert.isBelow(deep.message.length, 50_000)
      }
    }))

  it.effect("says nothing of code that ended by itself, and is encoded with its traceback", () =>
    Effect.gen(function* () {
      const { traceback } = yield* timeoutOf(
        "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: pass",
      )
      assert.deepStrictEqual(traceback, [])
    }))
})

layer(kernelLayer(), slow)("a SIGINT handler of the code", (it) => {
  const interrupted = (kernel: KernelClient.Kernel, code: string) =>
    kernel.stream(code).pipe(
      Stream.tap((element) =>
        element._tag === "TextChunk" && element.text.includes("go") ? kernel.interrupt : Effect.void
      ),
      Stream.runLast,
      Effect.map((last) =>
        last._tag === "Some" && last.value._tag === "ExecutionResult" ? last.value.text : ""
      ),
    )
  const wait =
    "import time\nprint('go', flush=True)\nfor _ in range(300):\n    if hits: break\n    time.sleep(0.01)"

  it.effect("is Python's own at first, in every kind of cell and between statements", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const shown = yield* text(kernel.execute(
        "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\nsignal.getsignal(signal.SIGINT) is signal.default_int_handler",
      ))
      assert.strictEqual(shown, "True\nTrue")
    }))

  it.effect("is kept for the statements and the cells that follow, with an await or without, until it is replaced", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute(
        "import signal; hits = []\ndef handle(number, frame): hits.append(number); print('handled', flush=True)\nsignal.signal(signal.SIGINT, handle)\n1",
      )
      assert.include(yield* interrupted(kernel, wait), "handled")
      assert.include(
        yield* interrupted(
          kernel,
          `hits.clear()\nimport asyncio\nawait asyncio.sleep(0)\n${wait}\nawait asyncio.sleep(0)`,
        ),
        "handled",
      )
      assert.strictEqual(
        yield* text(kernel.execute("print(signal.getsignal(signal.SIGINT) is handle)")),
        "True",
      )
      yield* kernel.execute("_ = signal.signal(signal.SIGINT, signal.default_int_handler)\n1")
      const error = yield* Effect.flip(interrupted(kernel, `hits.clear()\n${wait}`))
      assert.strictEqual(error._tag === "ExecutionError" && error.ename, "KeyboardInterrupt")
      // One that an awaiting cell sets is kept too.
      yield* kernel.execute(
        "import asyncio\nawait asyncio.sleep(0)\nhits.clear(); _ = signal.signal(signal.SIGINT, handle)",
      )
      assert.include(yield* interrupted(kernel, wait), "handled")
    }))
})

layer(kernelLayer(), slow)("an execution with several exceptions", (it) => {
  const runs = Array.from({ length: 10 }, (_, index) => index)

  it.effect("fails with the one that the reply names, not with that of a hook, which is output", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute(
        "def hook(*_): raise LookupError('of the hook')\nget_ipython().events.register('post_run_cell', hook)",
      )
      for (const index of runs) {
        const error = yield* Effect.flip(kernel.execute(`raise ValueError('mine ${index}')`))
        assert.strictEqual(error._tag === "ExecutionError" && error.ename, "ValueError")
        assert.include(error.message, `raise ValueError('mine ${index}')`)
        assert.include(error.partial?.text, "of the hook")
      }
      // Equal to the last letter.
      const error = yield* Effect.flip(kernel.execute("x = 'in the cell'\nraise LookupError('of the hook')"))
      assert.include(error.message, "in the cell")
      assert.include(error.partial?.text, "of the hook")
    }))

  it.effect("fails with the one of the code, not with that of drawing its figure", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const error = yield* Effect.flip(kernel.execute(
        "import matplotlib.pyplot as plt\nplt.title('$\\\\nosuchcommand$')\nraise KeyError('the cell')",
      ))
      assert.strictEqual(error._tag === "ExecutionError" && error.ename, "KeyError")
      assert.include(error.partial?.text, "nosuchcommand")
    }))

  it.effect("puts out what was shown before another one ended it", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const index of runs) {
        const error = yield* Effect.flip(kernel.execute(
          `try: raise ValueError('first ${index}')\nexcept ValueError: get_ipython().showtraceback()\n{}['second']`,
        ))
        assert.strictEqual(error._tag === "ExecutionError" && error.ename, "KeyError")
        assert.include(error.partial?.text, `ValueError: first ${index}`)
      }
    }))

  it.effect("puts out what was shown where it was shown, and it alone if the code goes on", () =>
    Effect.gen(function* () {
      const show = "get_ipython().showtraceback()"
      const shown = yield* text((yield* Client).execute(
        `print('before')\ntry: 1 / 0\nexcept ZeroDivisionError: ${show}\nprint('after')\nclass Odd(Exception): pass\ntry: raise ExceptionGroup('many', [Odd()])\nexcept ExceptionGroup: ${show}\nprint('last')`,
      ))
      assert.match(
        shown ?? "",
        /^before\n[^]*ZeroDivisionError: division by zero\n+after\n[^]*ExceptionGroup: many[^]*Odd[^]*\nlast$/,
      )
    }))

  it.effect("that a group holds has all of them in its traceback, those of groups in it too", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const cells = [
        `try:
    raise KeyError('deep')
except KeyError as error:
    inner = ExceptionGroup('inner', [error, ValueError('shallow')])
raise ExceptionGroup('outer', [TypeError('first'), inner])`,
        `import asyncio
async def fail(error): raise error
async with asyncio.TaskGroup() as group:
    for error in (KeyError('deep'), ValueError('shallow'), TypeError('first')): group.create_task(fail(error))`,
      ]
      for (const code of cells) {
        const error = yield* Effect.flip(kernel.execute(code))
        assert.instanceOf(error, Execution.ExecutionError)
        if (!(error instanceof Execution.ExecutionError)) return
        assert.strictEqual(error.ename, "ExceptionGroup")
        const trace = error.traceback.join("\n")
        for (const member of ["KeyError: 'deep'", "ValueError: shallow", "TypeError: first"]) {
          assert.include(trace, member)
        }
        assert.notInclude(trace, "run_code")
        assert.isUndefined(error.partial.text)
      }
      const many = yield* Effect.flip(
        kernel.execute("raise ExceptionGroup('many', [ValueError(str(i)) for i in range(20_000)])"),
      )
      assert.isBelow(many.message.length, 1_000_000)
      const next = yield* Effect.flip(
        kernel.execute(
          "try: raise ExceptionGroup('many', [ValueError('a')])\nexcept* ValueError: raise LookupError('b')",
        ),
      )
      assert.include(next.message, "ValueError: a")
    }))

  it.effect("fails with the exception of a value that cannot be shown", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip((yield* Client).execute(
        "class Bad:\n    def __repr__(self): raise TypeError('no repr')\nBad()",
      ))
      assert.strictEqual(error._tag === "ExecutionError" && error.ename, "TypeError")
    }))
})

describe("a slow server", () => {
  it.live(
    "that answers an interrupt late gets one at a time, and the next execution only then",
    () =>
      Effect.gen(function* () {
        let running: Fake.Conversation | undefined
        let executions = 0
        let interrupts = 0
        const { kernel, server } = yield* Fake.client({
          rest: (name) => {
            if (!name.endsWith("/interrupt")) return undefined
            interrupts++
            // It takes effect before it is answered.
            void wait(1000).then(() => {
              const { message, send } = running ?? { message: undefined, send: undefined }
              if (message === undefined) return
              running = undefined
              send?.(
                message("error", { ename: "KeyboardInterrupt", evalue: "", traceback: ["line 1"] }),
                message("execute_reply", { status: "error", ename: "KeyboardInterrupt", evalue: "" }),
                message("status", { execution_state: "idle" }),
              )
            })
            return { status: 204, after: 3500 }
          },
          execute: (conversation) => {
            if (++executions > 1) return conversation.good()
            running = conversation
            conversation.send(conversation.message("execute_input", { code: "", execution_count: 1 }))
          },
        })
        const first = yield* Effect.forkChild(Effect.flip(kernel.execute("1", { timeout: "100 millis" })))
        yield* eventually(() => interrupts === 1 ? undefined : "no interrupt")
        const before = server.received.length
        const next = yield* Effect.forkChild(kernel.execute("2"))
        yield* Effect.sleep("3 seconds")
        assert.deepStrictEqual([interrupts, server.received.slice(before)], [1, []])
        assert.strictEqual((yield* Fiber.join(next)).text, "2")
        const error = yield* Fiber.join(first)
        assert.strictEqual(error._tag, "ExecutionTimeout")
        assert.strictEqual(interrupts, 1)
      }),
    20_000,
  )

  it.live(
    "does not delay the interruption of make or reset, and the kernel is deleted when it arrives",
    () =>
      Effect.gen(function* () {
        let isSlow = true
        const script: Fake.Script = {
          rest: (name) =>
            name === "POST /api/kernels" && isSlow
              ? { status: 201, body: JSON.stringify({ id: "late", name: "fake" }), after: 2000 }
              : undefined,
        }
        const server = yield* Fake.make(script)
        const deleted = () => server.requests.filter((name) => name === "DELETE /api/kernels/:id").length
        const gateway = yield* Layer.build(KernelGateway.layerRemote({ url: server.url, token: "secret" }))
        const make = Effect.provideContext(KernelClient.make(), gateway)
        const [, seconds] = yield* timed(Effect.flip(Effect.timeout(Effect.scoped(make), "300 millis")))
        assert.isBelow(seconds, 1000)
        yield* eventually(() => deleted() === 1 ? undefined : "not deleted")
        isSlow = false
        const kernel = yield* make
        isSlow = true
        const [, again] = yield* timed(Effect.flip(Effect.timeout(kernel.reset, "300 millis")))
        assert.isBelow(again, 1000)
        isSlow = false
        yield* eventually(() => deleted() === 3 ? undefined : "not deleted")
        assert.strictEqual((yield* kernel.execute("fine")).text, "fine")
      }),
    20_000,
  )
})
