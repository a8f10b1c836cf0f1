/** Requests for values that a kernel takes itself, compared with those that travel as executions. */
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Schema, Stream } from "effect"
import { Execution, KernelClient } from "../src/mod.ts"
import { kernelLayer, kernelOverServer, slow } from "./support/kernel.ts"

const definitions = `
import asyncio, bdb, builtins, contextvars, io, os, signal, sys, threading, time, warnings

def raises(error):
    def inner():
        raise error
    inner()

def chained():
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error

class Liar:
    __class__ = int
    def __eq__(self, other): raise ValueError("not compared")
    __hash__ = None

class Closing:
    def __init__(self, log): self.log = log
    def __iter__(self): return self
    def __next__(self): return 1
    def close(self): self.log.append("closed")

log = []
def numbers(end=None):
    try:
        for number in range(5):
            print("number", number)
            yield number
        if end: raise end
    finally:
        print("closed")
        log.append("closed")

async def numbers_later(end=None):
    try:
        for number in range(5):
            await asyncio.sleep(0)
            yield number
        if end: raise end
    finally:
        await asyncio.sleep(0)
        print("closed later")

def swallows(times):
    count = 0
    while count < times:
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            count += 1
            print("swallowed", count)
    return count

async def nested():
    async with asyncio.timeout(5):
        task = asyncio.create_task(asyncio.sleep(0, "done"))
        return [await task, asyncio.current_task() is not None, (await asyncio.gather(asyncio.sleep(0, 1)))[0]]

def running_loop():
    return asyncio.get_running_loop().is_running()

def runs_loop():
    coroutine = asyncio.sleep(0)
    try:
        asyncio.run(coroutine)
    finally:
        coroutine.close()

def in_threads():
    def say(number):
        print("thread", number)
    threads = [threading.Thread(target=say, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    return len(threads)

def warns():
    warnings.warn("again")

def forks(code):
    child = os.fork()
    if child == 0:
        print("in the child", flush=True)
        sys.exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

variable = contextvars.ContextVar("variable", default=0)
`

/** What becomes of an effect, with the output that it was given. */
interface Outcome {
  readonly value?: unknown
  readonly error?: unknown
  readonly chunks: ReadonlyArray<unknown>
}

type Options = { readonly onChunk: (chunk: Execution.Chunk) => Effect.Effect<void> }

const outcomeOf = <A, E>(ask: (options: Options) => Effect.Effect<A, E>): Effect.Effect<Outcome> =>
  Effect.gen(function* () {
    const chunks: Array<unknown> = []
    const onChunk = (chunk: Execution.Chunk) =>
      Effect.sync(() => {
        const last = chunks.at(-1)
        if (chunk._tag !== "TextChunk") chunks.push(chunk._tag === "DisplayChunk" ? chunk.data : chunk._tag)
        // Text may arrive in one piece or in several.
        else if (typeof last === "string") chunks.splice(-1, 1, `${last}${chunk.text}`)
        else chunks.push(chunk.text)
      })
    const exit = yield* Effect.result(ask({ onChunk }))
    return exit._tag === "Success"
      ? { value: exit.success, chunks }
      : { error: describe(exit.failure), chunks }
  })

function describe(error: unknown): unknown {
  if (error instanceof Execution.ExecutionError) {
    const { ename, evalue, traceback } = error
    return { ename, evalue, traceback }
  }
  if (error instanceof Execution.ExecutionTimeout) {
    return { timeout: true, where: error.traceback.at(-2) }
  }
  return error instanceof Execution.KernelError ? error.reason._tag : String(error)
}

const call = (callable: string, ...args: ReadonlyArray<unknown>) => (kernel: KernelClient.Kernel) =>
  outcomeOf((options) => kernel.call(callable, args, { ...options, returns: Schema.Unknown, onInput }))
const evaluate = (expression: string) => (kernel: KernelClient.Kernel) =>
  outcomeOf((options) => kernel.evaluate(expression, Schema.Unknown, { ...options, onInput }))
const iterate = (expression: string, count = 10) => (kernel: KernelClient.Kernel) =>
  outcomeOf((options) =>
    kernel.iterate(expression, Schema.Unknown, { ...options, batchSize: 2 }).pipe(
      Stream.take(count),
      Stream.runCollect,
    )
  )
const execute = (code: string) => (kernel: KernelClient.Kernel) =>
  outcomeOf(() => Effect.map(kernel.execute(code), ({ executionCount, text }) => ({ executionCount, text })))
const bounded = (expression: string) => (kernel: KernelClient.Kernel) =>
  outcomeOf((options) => kernel.evaluate(expression, Schema.Unknown, { ...options, timeout: "400 millis" }))
const onInput = ({ prompt }: { readonly prompt: string }) => Effect.succeed(`${prompt} answered`)

type Step = (kernel: KernelClient.Kernel) => Effect.Effect<Outcome>

const cases: Readonly<Record<string, ReadonlyArray<Step>>> = {
  "keep count, history, In, Out and _": [
    execute("40 + 2"),
    evaluate("1"),
    call("operator:add", 1, 2),
    evaluate("[_, len(In), sorted(Out), get_ipython().execution_count]"),
    evaluate("(left := 7)"),
    execute("left, _"),
  ],
  "take no magics, commands or several expressions": [
    "%time 1",
    "!ls",
    "?len",
    "len?",
    "1; 2",
    "x = 1",
    "1 +",
    "",
    ">>> 1",
  ].map(evaluate),
  "show exceptions with the frames of the code": [
    call("raises", "no exception"),
    evaluate("raises(ValueError('x'))"),
    evaluate("raises(StopIteration(1))"),
    evaluate("raises(SystemExit(3))"),
    evaluate("raises(KeyboardInterrupt())"),
    evaluate("raises(asyncio.CancelledError())"),
    evaluate("raises(bdb.BdbQuit())"),
    evaluate("1 / 0"),
    call("chained"),
    call("missing"),
    call("math:missing"),
    execute("%tb"),
    evaluate("type(sys.last_value).__name__"),
  ],
  "survive replaced built-ins and modules": [
    evaluate("1"),
    execute("builtins.frozenset = builtins.divmod = builtins.aiter = None"),
    execute(
      "for name in [*sys.modules]:\n    if name.startswith('effect_jupyter.values'): del sys.modules[name]",
    ),
    evaluate("[1, {2}]"),
    call("operator:add", 1, new Set([1])),
    iterate("(number async for number in numbers_later())"),
  ],
  "survive lies about the class": [evaluate("Liar()"), evaluate("[Liar(), 1]"), evaluate("{'a': Liar()}")],
  "close generators at each end": [
    iterate("numbers()"),
    iterate("numbers()", 1),
    iterate("numbers()", 3),
    iterate("numbers(ValueError('end'))"),
    iterate("numbers_later()"),
    iterate("numbers_later()", 1),
    iterate("numbers_later(ValueError('end'))"),
    iterate("Closing(log)", 3),
    iterate("raises(ValueError('no iterator'))"),
    iterate("5"),
    evaluate("log"),
  ],
  "are interrupted where the code is": [
    bounded("time.sleep(30)"),
    bounded("await asyncio.sleep(30)"),
    bounded("swallows(1)"),
    bounded("[time.sleep(30) for _ in range(1)]"),
    evaluate("1"),
    execute("signal.signal(signal.SIGINT, lambda *_: print('own handler'))"),
    evaluate("1"),
    execute("signal.signal(signal.SIGINT, signal.default_int_handler)\nNone"),
  ],
  "run in the event loop": [
    call("nested"),
    call("running_loop"),
    call("runs_loop"),
    evaluate("await nested()"),
    evaluate("[await asyncio.sleep(0, n) for n in range(3)]"),
    evaluate("asyncio.sleep(0, 'awaited')"),
  ],
  "put out what threads, displays, pagers, warnings and processes do": [
    call("in_threads"),
    call("print", "a\nb"),
    evaluate("print('out'), print('err', file=sys.stderr)"),
    evaluate("display({'text/plain': 'shown'}, raw=True)"),
    evaluate("get_ipython().run_line_magic('pinfo', 'raises')"),
    evaluate("os.system('echo from a program')"),
    evaluate("os.write(1, b'from C')"),
    evaluate("setattr(sys, 'stdout', io.StringIO())"),
    call("print", "not shown"),
    execute(
      "sys.stdout = sys.__stdout__ if not hasattr(sys.stdout, 'getvalue') else get_ipython().kernel.__dict__.get('out')",
    ),
    call("print", "shown again"),
  ],
  "ask for input": [
    call("input", "name?"),
    call("getpass:getpass", "secret?"),
    (kernel) => outcomeOf((options) => kernel.evaluate("input('nobody')", Schema.Unknown, options)),
    evaluate("input.__name__"),
  ],
  "run the hooks of cells": [
    evaluate("1"),
    execute(`
seen = []
events = get_ipython().events
events.register("pre_execute", lambda: seen.append("pre_execute"))
events.register("pre_run_cell", lambda info: seen.append([info.raw_cell, info.store_history, info.silent]))
events.register("post_execute", lambda: seen.append("post_execute"))
events.register("post_run_cell", lambda result: seen.append([result.success, type(result.error_in_exec).__name__]))
`),
    evaluate("1 / 0"),
    call("asyncio:sleep", 0),
    evaluate("seen"),
  ],
  "know IPython's built-ins": [
    execute(
      "import types\nmodule = types.ModuleType('module')\nexec('def ask(): return type(get_ipython()).__name__', module.__dict__)\nsys.modules['module'] = module",
    ),
    call("module:ask"),
    evaluate("exit"),
    call("exit"),
    evaluate("1"),
  ],
}

layer(kernelLayer(), slow)("requests for values and executions", (it) => {
  for (const [name, steps] of Object.entries(cases)) {
    it.effect(`${name}, both`, () =>
      Effect.gen(function* () {
        const kernels = [yield* KernelClient.make(), yield* kernelOverServer] as const
        yield* Effect.forEach(kernels, (kernel) => kernel.execute(definitions))
        for (const [index, step] of steps.entries()) {
          const [itself, asExecution] = yield* Effect.all([step(kernels[0]), step(kernels[1])], {
            concurrency: 2,
          })
          assert.deepStrictEqual(itself, asExecution, `step ${index}`)
        }
      }))
  }

  it.effect("a kernel that ends in a call is KernelDied, both", () =>
    Effect.gen(function* () {
      for (const kernel of [yield* KernelClient.make(), yield* kernelOverServer]) {
        assert.strictEqual((yield* call("os:_exit", 3)(kernel)).error, "KernelDied")
      }
    }))

  it.effect("a process that a call forks ends with the code of its end", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute(definitions)
      for (const code of [0, 3]) {
        const { chunks, value } = yield* call("forks", code)(kernel)
        assert.deepStrictEqual({ chunks, value }, { chunks: ["in the child\n"], value: code })
      }
      // The child returns, and so ends; it answers nothing.
      assert.isAbove(yield* kernel.call("os:fork", [], { returns: Schema.Int }), 0)
      assert.strictEqual(yield* kernel.evaluate("os.waitstatus_to_exitcode(os.wait()[1])", Schema.Int), 0)
    }))

  it.effect("introspection and interrupts reach a kernel during a call, both", () =>
    Effect.gen(function* () {
      for (const kernel of [yield* KernelClient.make(), yield* kernelOverServer]) {
        yield* kernel.execute("import time\nname_to_complete = 1")
        const running = yield* Effect.forkChild(call("time:sleep", 60)(kernel), { startImmediately: true })
        const { matches } = yield* kernel.complete("name_to_com", 11)
        assert.deepStrictEqual(matches, ["name_to_complete"])
        yield* kernel.interrupt
        const exit = yield* Fiber.await(running)
        assert.include(JSON.stringify(Exit.isSuccess(exit) ? exit.value : {}), "KeyboardInterrupt")
      }
    }))

  it.effect("an interrupt that overtakes its call is not lost", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute("import time")
      for (let round = 0; round < 50; round++) {
        const sleeping = kernel.call("time:sleep", [60], { returns: Schema.Void })
        const fiber = yield* Effect.forkChild(sleeping, { startImmediately: true })
        for (let turn = 0; turn < round % 5; turn++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
      }
    }), { timeout: 30_000 })
})
