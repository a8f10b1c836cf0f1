/** Nothing waits without a bound: kernels, gateways and servers that are slow, stopped, silent or gone. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Exit, Fiber, Layer, Schedule, Schema, Scope, Stream } from "effect"
import { readFileSync } from "node:fs"
import { KernelClient, KernelGateway, KernelPool } from "../src/mod.ts"
import type { Message } from "../src/jupyter/message.ts"
import * as Fake from "./support/fake_server.ts"
import { text } from "./support/kernel.ts"
import { reasonOf, timed } from "./support/outcome.ts"
import { descendants, eventually, supervisors, survivors } from "./support/processes.ts"

/** A gateway of its own, with the pids of its supervisor and of itself. */
const gatewayOfOurs = Effect.gen(function* () {
  const before = new Set(supervisors(process.pid).map(({ pid }) => pid))
  const gateway = yield* KernelGateway.make()
  const supervisor = supervisors(process.pid).find(({ pid }) => !before.has(pid))?.pid ?? 0
  const pid = descendants(supervisor)[0]?.pid ?? 0
  // Whatever happens to the test, nothing stays stopped.
  yield* Effect.addFinalizer(() => Effect.sync(() => [supervisor, pid].forEach(resume)))
  return { gateway, supervisor, pid }
})

const resume = (pid: number): void => {
  try {
    process.kill(pid, "SIGCONT")
  } catch {
    // It ended.
  }
}

/** A server that follows a script, as a gateway. */
const scripted = Effect.fnUntraced(function* (script: Fake.Script) {
  const server = yield* Fake.make(script)
  const gateway = yield* Layer.build(KernelGateway.layerRemote({ url: server.url, token: "secret" }))
  return { server, gateway }
})

const eight = Effect.forEach(Array.from({ length: 8 }), () => KernelClient.make(), { concurrency: 8 })
const endless = `print("<begun>", flush=True)\nimport time\nwhile True: time.sleep(0.01)`

/** Runs code until it has put out something. */
const begun = (kernel: KernelClient.Kernel, code: string) =>
  Effect.gen(function* () {
    let hasBegun = false
    const fiber = yield* Effect.forkChild(
      Effect.exit(Stream.runForEach(kernel.stream(code), () =>
        Effect.sync(() => {
          hasBegun = true
        }))),
      { startImmediately: true },
    )
    yield* eventually(() => hasBegun ? undefined : "Nothing was put out", 30)
    return fiber
  })

describe("closing eight kernels", () => {
  for (
    const [what, reaction] of [
      ["is slow", { status: 204, after: 3000 }],
      ["is silent", "silence"],
    ] as const
  ) {
    it.live(`of a server that ${what}: together within 5 seconds`, () =>
      Effect.gen(function* () {
        const { gateway, server } = yield* scripted({
          rest: (name) => name.startsWith("DELETE") ? reaction : undefined,
        })
        const scope = yield* Scope.make()
        yield* eight.pipe(Scope.provide(scope), Effect.provideContext(gateway))
        const [, millis] = yield* timed(Scope.close(scope, Exit.void))
        assert.isBelow(millis, 5500)
        const deletions = () => server.requests.filter((name) => name.startsWith("DELETE")).length
        yield* eventually(() => deletions() < 8 ? `${deletions()} deletions` : undefined)
      }), 60_000)
  }

  it.live(
    "of a stopped gateway of ours, and the gateway: together within about 5 seconds",
    () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const { pid, supervisor } = yield* Effect.gen(function* () {
          const ours = yield* gatewayOfOurs
          yield* Effect.provideService(eight, KernelGateway.KernelGateway, ours.gateway)
          return ours
        }).pipe(Scope.provide(scope))
        const pids = [supervisor, ...descendants(supervisor).map(({ pid }) => pid)]
        process.kill(pid, "SIGSTOP")
        const [, millis] = yield* timed(Scope.close(scope, Exit.void))
        assert.isBelow(millis, 7000)
        assert.isUndefined(survivors(pids))
      }),
    60_000,
  )

  it.live(
    "of a pool whose gateway and supervisor are stopped: together within about 5 seconds",
    () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const { pid, supervisor } = yield* Effect.gen(function* () {
          const ours = yield* gatewayOfOurs
          const pool = yield* KernelPool.make({ min: 2, max: 3, warm: 1 }).pipe(
            Effect.provideService(KernelGateway.KernelGateway, ours.gateway),
          )
          yield* pool.get
          return ours
        }).pipe(Scope.provide(scope))
        const pids = [supervisor, ...descendants(supervisor).map(({ pid }) => pid)]
        process.kill(pid, "SIGSTOP")
        process.kill(supervisor, "SIGSTOP")
        const closing = yield* Effect.forkChild(timed(Scope.close(scope, Exit.void)))
        const [, millis] = yield* Fiber.join(closing)
        assert.isBelow(millis, 7000)
        assert.isUndefined(survivors(pids))
      }),
    60_000,
  )
})

describe("a gateway of ours that is killed", () => {
  it.live("ends what runs and fails what is asked at once, by name", () =>
    Effect.gen(function* () {
      const { gateway, pid } = yield* gatewayOfOurs
      const make = Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
      const [running, evaluating] = yield* Effect.all([make, make])
      const execution = yield* begun(running, endless)
      const evaluation = yield* Effect.forkChild(
        Effect.flip(evaluating.evaluate("__import__('time').sleep(60)", Schema.Unknown)),
      )
      yield* Effect.sleep("300 millis")
      process.kill(pid, "SIGKILL")
      const [exit, millis] = yield* timed(Fiber.join(execution))
      const error = yield* Effect.flip(exit)
      assert.strictEqual(reasonOf(error), "ConnectionLost")
      assert.include(error.message, "kernel gateway ended")
      assert.isBelow(millis, 4000)
      const failure = yield* Fiber.join(evaluation)
      assert.strictEqual(failure._tag === "KernelError" && failure.reason._tag, "ConnectionLost")
      const [completed, later] = yield* timed(Effect.flip(running.complete("pri")))
      assert.strictEqual(completed._tag, "KernelError")
      assert.isBelow(later, 2000)
    }), 60_000)
})

describe("after a reset that was cut short", () => {
  it.live("whatever is asked finds the new kernel", () =>
    Effect.gen(function* () {
      const { gateway } = yield* gatewayOfOurs
      const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
      const cutReset = Effect.gen(function* () {
        yield* kernel.execute("mine = 1")
        const fiber = yield* Effect.forkChild(kernel.reset, { startImmediately: true })
        yield* Effect.sleep("5 millis")
        yield* Fiber.interrupt(fiber)
      })
      const questions: ReadonlyArray<readonly [string, Effect.Effect<unknown, unknown>]> = [
        ["complete", kernel.complete("pri")],
        ["inspect", kernel.inspect("print")],
        ["info", kernel.info],
        ["variables", kernel.variables],
        ["interrupt", kernel.interrupt],
        ["evaluate", kernel.evaluate("1", Schema.Int)],
        ["set", kernel.set("x", 1)],
      ]
      for (const [what, asking] of questions) {
        const before = kernel.id
        yield* cutReset
        const exit = yield* Effect.exit(asking)
        assert.isTrue(Exit.isSuccess(exit), `${what}: ${exit}`)
        if (what !== "interrupt") assert.notStrictEqual(kernel.id, before, what)
        assert.strictEqual(yield* text(kernel.execute("print('mine' in globals())")), "False")
      }
    }), 60_000)
})

/** A kernel that calls itself Python and answers no execution. */
const hangingSetup: Fake.Script = {
  info: ({ message, send }) =>
    send(
      message("status", { execution_state: "busy" }),
      message("kernel_info_reply", {
        status: "ok",
        implementation: "ipython",
        language_info: { name: "python" },
      }),
      message("status", { execution_state: "idle" }),
    ),
  execute: () => {},
}

describe("an interruption does not wait for", { concurrent: true }, () => {
  const starts: ReadonlyArray<readonly [string, Fake.Script, string]> = [
    [
      "a POST that is not answered",
      { rest: (name) => name === "POST /api/kernels" ? "silence" : undefined },
      "POST /api/kernels",
    ],
    [
      "a handshake that is not answered, and the deletion neither",
      {
        handshake: () => "silence",
        rest: (name) => name.startsWith("DELETE") ? "silence" : undefined,
      },
      "GET /api/kernels/:id/channels",
    ],
    [
      "a kernel that does not answer",
      { info: () => {}, rest: (name) => name.startsWith("DELETE") ? "silence" : undefined },
      "GET /api/kernels/:id/channels",
    ],
    [
      "a set-up that hangs",
      { ...hangingSetup, rest: (name) => name.startsWith("DELETE") ? "silence" : undefined },
      "GET /api/kernels/:id/channels",
    ],
  ]
  for (const [what, script, sign] of starts) {
    it.live(`${what}, of make, of reset and of a pool`, () =>
      Effect.gen(function* () {
        let isGood = false
        const { gateway, server } = yield* scripted({
          rest: (...asked) => isGood ? undefined : script.rest?.(...asked),
          handshake: (...asked) => isGood ? undefined : script.handshake?.(...asked),
          info: (conversation) =>
            isGood ? conversation.good() : (script.info ?? conversation.good)(conversation),
          execute: (conversation) =>
            isGood ? conversation.good() : (script.execute ?? conversation.good)(conversation),
        })
        /** Interrupts it once the server was asked, and a moment later. */
        const cut = (effect: Effect.Effect<unknown, unknown>) =>
          Effect.gen(function* () {
            const before = server.requests.length
            const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
            yield* eventually(() => server.requests.indexOf(sign, before) < 0 ? "not asked yet" : undefined)
            yield* Effect.sleep("100 millis")
            assert.isUndefined(fiber.pollUnsafe())
            const [, millis] = yield* timed(Fiber.interrupt(fiber))
            return millis
          })
        const make = Effect.scoped(KernelClient.make()).pipe(Effect.provideContext(gateway))
        assert.isBelow(yield* cut(make), 1500)
        const bounded = Effect.timeoutOption(make, "500 millis")
        assert.isBelow((yield* timed(bounded))[1], 2000)
        const got = Effect.flatMap(KernelPool.make({ size: 1 }), ({ get }) => Effect.scoped(get))
        const scope = yield* Scope.make()
        const pooled = got.pipe(Scope.provide(scope), Effect.provideContext(gateway))
        assert.isBelow(yield* cut(pooled), 1500)
        // The pool goes on to start what it is to have.
        assert.isBelow((yield* timed(Scope.close(scope, Exit.void)))[1], 5500)
        isGood = true
        const kernel = yield* Effect.provideContext(KernelClient.make(), gateway)
        isGood = false
        assert.isBelow(yield* cut(kernel.reset), 1500)
        isGood = true
        assert.strictEqual((yield* kernel.execute("x")).text, "x")
      }), 60_000)
  }

  it.live("what it is queued behind", () =>
    Effect.gen(function* () {
      const { kernel, server } = yield* Fake.client({
        execute: (conversation) =>
          conversation.request.content.code === "hang" ? undefined : conversation.good(),
        rest: (name) => name.endsWith("/interrupt") ? "silence" : undefined,
      })
      yield* Effect.forkDetach(kernel.execute("hang"), { startImmediately: true })
      yield* eventually(() => server.received.includes("execute_request") ? undefined : "not sent")
      const waiting: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        kernel.execute("x"),
        kernel.evaluate("x", Schema.Int),
        kernel.set("x", 1),
        Stream.runDrain(kernel.stream("x")),
        kernel.reset,
      ]
      for (const queued of waiting) {
        const fiber = yield* Effect.forkChild(Effect.exit(queued), { startImmediately: true })
        yield* Effect.sleep("50 millis")
        const [, millis] = yield* timed(Fiber.interrupt(fiber))
        assert.isBelow(millis, 1000)
      }
    }), 60_000)
})

describe("an interruption behind a backlog", { concurrent: true }, () => {
  it.live(
    "of 8 seconds is judged by what the kernel did: ExecutionTimeout, and the kernel is idle",
    () =>
      Effect.gen(function* () {
        /** Messages that arrive at intervals of 100 ms. */
        const line: Array<() => void> = []
        const slow = setInterval(() => line.shift()?.(), 100)
        yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(slow)))
        let stop = (): void => {}
        const dated = (message: Message): Message => ({
          ...message,
          header: { ...message.header, date: DateTime.formatIso(DateTime.nowUnsafe()) },
        })
        const { kernel } = yield* Fake.client({
          rest: (name) => {
            if (name.endsWith("/interrupt")) stop()
            return undefined
          },
          info: ({ message, send }) => {
            const answers = [
              message("status", { execution_state: "busy" }),
              message("kernel_info_reply", { status: "ok", language_info: { name: "fake" } }),
              message("status", { execution_state: "idle" }),
            ].map(dated)
            if (line.length === 0) send(...answers)
            else line.push(() => send(...answers))
          },
          execute: ({ good, message, request, send }) => {
            if (request.content.code !== "flood") return good()
            send(...[
              message("status", { execution_state: "busy" }),
              message("execute_input", { code: "flood", execution_count: 1 }),
            ].map(dated))
            for (let count = 0; count < 80; count++) {
              const text = dated(message("stream", { name: "stdout", text: `${count}\n` }))
              line.push(() => send(text))
            }
            stop = () => {
              stop = () => {}
              const last = [
                message("error", { ename: "KeyboardInterrupt", evalue: "", traceback: [] }),
                message("execute_reply", { status: "error", ename: "KeyboardInterrupt", evalue: "" }),
                message("status", { execution_state: "idle" }),
              ].map(dated)
              line.push(() => send(...last))
            }
          },
        })
        const error = yield* Effect.flip(kernel.execute("flood", { timeout: "300 millis" }))
        assert.strictEqual(reasonOf(error), "ExecutionTimeout")
        assert.include(error._tag === "ExecutionTimeout" ? error.partial.text : "", "79")
        assert.strictEqual((yield* kernel.execute("x")).text, "x")
      }),
    60_000,
  )

  it.live(
    "that never ends, of code that ignores it: KernelUnresponsive within bounds",
    () =>
      Effect.gen(function* () {
        const { gateway } = yield* gatewayOfOurs
        const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
        const stubborn = `import time
while True:
    try:
        print("x" * 1000, flush=True)
        time.sleep(0.001)
    except KeyboardInterrupt: pass`
        const [error, millis] = yield* timed(Effect.flip(kernel.execute(stubborn, { timeout: "300 millis" })))
        assert.strictEqual(reasonOf(error), "KernelUnresponsive")
        assert.isBelow(millis, 9000)
      }),
    60_000,
  )
})

it.live(
  "a kernel that is stopped while code runs, without a timeout: KernelUnresponsive, and usable when it goes on",
  () =>
    Effect.gen(function* () {
      const { gateway } = yield* gatewayOfOurs
      const kernel = yield* KernelClient.make({ pingInterval: "300 millis" }).pipe(
        Effect.provideService(KernelGateway.KernelGateway, gateway),
      )
      const pid = Number((yield* kernel.execute("import os; os.getpid()")).text)
      yield* Effect.addFinalizer(() => Effect.sync(() => resume(pid)))
      const execution = yield* begun(kernel, endless)
      process.kill(pid, "SIGSTOP")
      const [exit, millis] = yield* timed(Fiber.join(execution))
      const error = yield* Effect.flip(exit)
      assert.strictEqual(reasonOf(error), "KernelUnresponsive")
      assert.include(error.message, "or it is stopped")
      assert.isBelow(millis, 12_000)
      resume(pid)
      const next = kernel.execute("6 * 7").pipe(
        Effect.retry({ times: 100, schedule: Schedule.spaced("50 millis") }),
      )
      assert.strictEqual((yield* next).text, "42")
    }),
  60_000,
)

it.live(
  "an interrupt of a process that is stopped reaches the code as soon as it goes on",
  () =>
    Effect.gen(function* () {
      const { gateway } = yield* gatewayOfOurs
      const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
      const pid = Number((yield* kernel.execute("import os, time; os.getpid()")).text)
      yield* Effect.addFinalizer(() => Effect.sync(() => resume(pid)))
      yield* kernel.execute(`import threading
for _ in range(20): threading.Thread(target=threading.Event().wait, daemon=True).start()`)
      // Of a signal to a process that is stopped, the system chooses the thread.
      for (let times = 0; times < 10; times++) {
        const execution = yield* begun(kernel, "print('<begun>', flush=True); time.sleep(30)")
        process.kill(pid, "SIGSTOP")
        yield* eventually(() => statusOf(pid, "State").startsWith("T") ? undefined : "It is not stopped")
        const interrupt = yield* Effect.forkChild(kernel.interrupt)
        yield* eventually(() => Number(statusOf(pid, "SigPnd")) === 2 ? undefined : "No interrupt is pending")
        resume(pid)
        assert.strictEqual(reasonOf(yield* Effect.flip(yield* Fiber.join(execution))), "ExecutionError")
        yield* Fiber.join(interrupt)
      }
    }),
  60_000,
)

const statusOf = (pid: number, name: string): string =>
  new RegExp(`^${name}:\\s*(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? ""
