/** Kernels that die, freeze or do not listen. */
import { assert, layer } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, FileSystem, Option, Schedule, Stream } from "effect"
import { Execution, KernelClient } from "../src/mod.ts"
import { inSandbox, kernelLayer, slow, temporary, text } from "./support/kernel.ts"
import { eventually, processes } from "./support/processes.ts"

/** Time that an effect takes, in seconds, with its value. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = yield* Clock.currentTimeMillis
    const value = yield* effect
    return [value, ((yield* Clock.currentTimeMillis) - before) / 1000] as const
  })

const reasonOf = (error: Execution.ExecutionFailure): string =>
  error._tag === "KernelError" ? error.reason._tag : error._tag

/** Runs code to its first output. */
const untilOutput = (
  kernel: KernelClient.Kernel,
  code: string,
  then: Effect.Effect<unknown, Execution.KernelError>,
) =>
  kernel.stream(code).pipe(
    Stream.tap((element) => element._tag === "TextChunk" && element.text.includes("go") ? then : Effect.void),
    Stream.runDrain,
  )

const deaths = {
  "os._exit": "import os; os._exit(7)",
  "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
  "SIGTERM":
    "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGTERM)",
  "a segmentation fault": "import ctypes; ctypes.string_at(0)",
  "an abort": "import os; os.abort()",
} as const

layer(kernelLayer(), slow)("a kernel that dies", (it) => {
  for (const [cause, code] of Object.entries(deaths)) {
    it.effect(`by ${cause}, mid-cell: KernelDied within 3 s, with the output before it; reset helps`, () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        const [error, seconds] = yield* timed(
          Effect.flip(kernel.execute(`import time; print('before', flush=True); time.sleep(0.3)\n${code}`)),
        )
        assert.strictEqual(reasonOf(error), "KernelDied")
        assert.strictEqual(error.partial?.text, "before")
        assert.isBelow(seconds, 3.3)
        assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("1"))), "KernelDied")
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }))
  }

  const ends = {
    "that SIGINT kills":
      "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\nimport time; time.sleep(60)",
    "that became another program": "import os, time; time.sleep(0.2); os.execvp('sleep', ['sleep', '60'])",
    "that exits on KeyboardInterrupt":
      "import os, time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: os._exit(3)",
  } as const
  for (const [cause, code] of Object.entries(ends)) {
    it.effect(`by the interrupt of its timeout, ${cause}: KernelDied, for the state is lost`, () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        const [error, seconds] = yield* timed(
          Effect.flip(kernel.execute(`print('before', flush=True)\n${code}`, { timeout: "400 millis" })),
        )
        assert.strictEqual(reasonOf(error), "KernelDied")
        assert.strictEqual(error.partial?.text, "before")
        assert.isBelow(seconds, 4)
        assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("1"))), "KernelDied")
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }))
  }

  it.effect("while idle: the next execution fails, reset helps", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      // It dies after the execution has ended.
      yield* kernel.execute("import threading, os; threading.Timer(0.2, lambda: os._exit(1)).start()")
      const [error, seconds] = yield* timed(Effect.flip(kernel.execute("import time; time.sleep(60)")))
      assert.strictEqual(reasonOf(error), "KernelDied")
      assert.isBelow(seconds, 3.3)
      yield* kernel.reset
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))
})

layer(kernelLayer(), slow)("a kernel that dies while it starts", (it) => {
  it.effect("fails the start with what is known, not with its bound", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* temporary
      // IPython's kernel imports a module of this name.
      yield* fs.writeFileString(`${folder}/comm.py`, "import sys; sys.exit('no such luck')")
      const error = yield* Effect.flip(KernelClient.make({ env: { PYTHONPATH: folder } }))
      assert.strictEqual(reasonOf(error), "KernelStartFailed")
      assert.include(error.message, "no such luck")
      assert.include(error.message, "It ended before it was ready")
    }))
})

layer(kernelLayer(), slow)("a kernel that freezes", (it) => {
  it.effect("is bounded by the timeout, then KernelUnresponsive at once, until reset", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const [error, seconds] = yield* timed(Effect.flip(
        kernel.execute(
          "print('before', flush=True)\nimport os, signal, time; time.sleep(0.3); os.kill(os.getpid(), signal.SIGSTOP)",
          {
            timeout: "500 millis",
          },
        ),
      ))
      assert.strictEqual(reasonOf(error), "KernelUnresponsive")
      assert.strictEqual(error.partial?.text, "before")
      assert.isBelow(seconds, 0.5 + 0.5 + 5 + 2)
      const [next, immediately] = yield* timed(Effect.flip(kernel.execute("1")))
      assert.strictEqual(reasonOf(next), "KernelUnresponsive")
      // Without waiting for another five seconds; a busy machine may need one to get round to it.
      assert.isBelow(immediately, 3)
      yield* kernel.reset
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))
})

/** Code that is interrupted while it does something that is hard to interrupt. */
const stoppable = {
  "a subprocess": "import subprocess; subprocess.run(['sleep', '60'])",
  "a lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
  "a socket": "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); s.accept()",
  "asyncio.sleep": "import asyncio; await asyncio.sleep(60)",
  "time.sleep in a cell with an await": "import asyncio, time\nawait asyncio.sleep(0)\ntime.sleep(60)",
  "a loop in a cell with an await": "import asyncio\nwhile True: pass\nawait asyncio.sleep(0)",
  "a socket in a coroutine":
    "import socket\nasync def main():\n    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); s.accept()\nawait main()",
  "a task that blocks":
    "import asyncio, time\nasync def block(): time.sleep(60)\nawait asyncio.gather(block(), asyncio.create_task(block()))",
  "a task of a library that blocks":
    "import asyncio, functools, time\nlibrary = {}\nexec('import time\\nasync def block(): time.sleep(60)', library)\nawait asyncio.create_task(library['block']())",
  "a callback that blocks":
    "import asyncio, time\nasyncio.get_running_loop().call_soon(time.sleep, 1)\nasyncio.get_running_loop().call_soon(lambda: time.sleep(60))\nawait asyncio.sleep(60)",
  "a task that swallows its cancellation and blocks":
    "import asyncio, time\ntry: await asyncio.sleep(60)\nexcept asyncio.CancelledError: time.sleep(60)",
  "a hook after a cell with an await":
    "import asyncio, time\ndef hook(*_):\n    get_ipython().events.unregister('post_run_cell', hook)\n    time.sleep(60)\nget_ipython().events.register('post_run_cell', hook)\nawait asyncio.sleep(0)",
  "a thread pool":
    "import time; from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool: pool.submit(time.sleep, 4).result()",
  "a finally that takes a while": "import time\ntry:\n    time.sleep(60)\nfinally:\n    time.sleep(0.5)",
  "one swallowed KeyboardInterrupt":
    "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('swallowed')\n    time.sleep(60)",
  "a command of the shell": "get_ipython().system('sleep 60')",
  "a value that is shown":
    "class Slow:\n    def __repr__(self):\n        import time; time.sleep(60)\nSlow()",
  "a hook after the cell":
    "import time\ndef hook(*_):\n    get_ipython().events.unregister('post_run_cell', hook)\n    time.sleep(60)\nget_ipython().events.register('post_run_cell', hook)",
} as const

/** Code that two interrupts do not stop; each ends by itself after a while. */
const stubborn = {
  "swallows every KeyboardInterrupt":
    "import time\nend = time.time() + 9\nwhile time.time() < end:\n    try:\n        time.sleep(0.1)\n    except BaseException:\n        pass",
  // Signals are looked at between two instructions of Python, of which this is one.
  "sits in C": "import collections, itertools, time\nend = time.monotonic() + 9\n" +
    "collections.deque(itertools.takewhile(end.__gt__, iter(time.monotonic, None)), 0)",
} as const

layer(kernelLayer(), slow)("code that is hard to interrupt", (it) => {
  for (const [what, code] of Object.entries(stoppable)) {
    it.effect(`${what}: the timeout is typed, the next execution gets its own output only`, () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.KernelClient
        const [error, seconds] = yield* timed(
          Effect.flip(kernel.execute(`print('old', flush=True)\n${code}`, { timeout: "300 millis" })),
        )
        assert.strictEqual(reasonOf(error), "ExecutionTimeout")
        assert.isBelow(seconds, 0.3 + 0.5 + 5 + 2)
        assert.strictEqual(yield* text(kernel.execute("print('new')")), "new")
      }))
  }

  it.effect("libraries find Python's own handler of interrupts", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
      assert.strictEqual(yield* text(kernel.execute(code)), "True")
    }))

  for (const [what, code] of Object.entries(stubborn)) {
    it.effect(`code that ${what}: KernelUnresponsive within the bound, typed at once after it, usable when it ends`, () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        const [error, seconds] = yield* timed(
          Effect.flip(
            kernel.execute(`print('old', flush=True)\n${code}\nprint('late')`, { timeout: "300 millis" }),
          ),
        )
        assert.strictEqual(reasonOf(error), "KernelUnresponsive")
        assert.isBelow(seconds, 0.3 + 0.5 + 5 + 2)
        const [next, immediately] = yield* timed(Effect.flip(kernel.execute("print('new')")))
        assert.strictEqual(reasonOf(next), "KernelUnresponsive")
        // Without waiting for another five seconds; a busy machine may need one to get round to it.
        assert.isBelow(immediately, 3)
        // As soon as the code ends the kernel counts as idle, and nothing of the old cell shows up.
        const usable = yield* text(kernel.execute("print('new')")).pipe(
          Effect.retry({
            schedule: Schedule.spaced("100 millis"),
            while: (failure) => reasonOf(failure) === "KernelUnresponsive",
          }),
          Effect.timeoutOption("30 seconds"),
        )
        assert.deepStrictEqual(usable, Option.some("new"))
      }))
  }

  it.effect("interrupting the fiber of stubborn code returns within the bound", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const code = `print('go', flush=True)\n${stubborn["swallows every KeyboardInterrupt"]}`
      const running = yield* Effect.forkChild(kernel.execute(code), { startImmediately: true })
      yield* Effect.sleep("500 millis")
      const [, seconds] = yield* timed(Fiber.interrupt(running))
      assert.isBelow(seconds, 0.5 + 5 + 2)
      assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("1"))), "KernelUnresponsive")
      yield* kernel.reset
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))

  it.effect("a reset while code runs ends it with ExecutionAborted and its output", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const error = yield* Effect.flip(
        untilOutput(
          kernel,
          "print('go', flush=True)\nimport time; time.sleep(60)",
          Effect.asVoid(Effect.forkDetach(kernel.reset)),
        ),
      )
      assert.strictEqual(reasonOf(error), "ExecutionAborted")
      assert.strictEqual(error.partial?.text, "go")
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))

  it.effect("many timeouts in a row leave the kernel as it was", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      yield* kernel.execute("import time; n = 0")
      for (const milliseconds of [0, 1, 2, 5, 10, 20, 40, 80]) {
        const error = yield* Effect.flip(
          kernel.execute("while True: n += 1", { timeout: Duration.millis(milliseconds) }),
        )
        assert.strictEqual(reasonOf(error), "ExecutionTimeout", `${milliseconds} ms`)
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }
    }))
})

/** Starts `sleep` for so many seconds, which no other process does, in ways that leave the kernel behind. */
const escapes = (seconds: number) => `
import os, subprocess, time
command = ["/bin/sleep", "${seconds}"]
subprocess.Popen(command)
subprocess.Popen(command, env={}, start_new_session=True)
subprocess.Popen(["/usr/bin/env", "-i", "/usr/bin/setsid", *command], env={}, close_fds=True)
subprocess.run(["/bin/sh", "-c", "(setsid env -i sleep ${seconds} </dev/null >/dev/null 2>&1 &)"], env={})
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        os.execve(command[0], command, {})
    os._exit(0)
os.wait()
`
const sleepers = (seconds: number) =>
  processes().flatMap(({ command, pid }) => command[1] === `${seconds}` ? [pid] : [])
const areThere = (seconds: number, count: number) =>
  eventually(() => {
    const { length } = sleepers(seconds)
    return length === count ? undefined : `${length} of ${count} processes`
  })

for (const fork of [true, false]) {
  layer(kernelLayer({ fork }), slow)(`processes of a kernel that is ${fork ? "forked" : "started"}`, (it) => {
    it.effect("end with it at reset, at the end of the scope and after its death, and no others do", () =>
      Effect.gen(function* () {
        const base = 31_000_000 + (fork ? 0 : 1000) + (inSandbox ? 2000 : 0)
        const other = yield* KernelClient.make()
        yield* other.execute(escapes(base))
        yield* areThere(base, 5)
        yield* Effect.scoped(Effect.gen(function* () {
          const kernel = yield* KernelClient.make()
          yield* kernel.execute(escapes(base + 1))
          yield* areThere(base + 1, 5)
          yield* kernel.reset
          yield* areThere(base + 1, 0)
          yield* kernel.execute(escapes(base + 2))
          yield* areThere(base + 2, 5)
          yield* Effect.flip(kernel.execute("os._exit(1)"))
          yield* kernel.reset
          yield* areThere(base + 2, 0)
          yield* kernel.execute(escapes(base + 3))
          yield* areThere(base + 3, 5)
        }))
        yield* areThere(base + 3, 0)
        assert.strictEqual(sleepers(base).length, 5)
      }))
  })
}
