/** Operations that end the kernel, its scope or its gateway, and what is left behind. */
import { Effect, Fiber } from "effect"
import process from "node:process"
import { descendants } from "../support/processes.ts"
import { type Kind, kind } from "./kind.ts"
import { shown, tagOf, violation } from "./model.ts"
import { cellOf, conduct, same, type Subject } from "./subject.ts"
import { maxPooled, type Part, pidOf, signal, type World } from "./world.ts"

/** An operation that may do more than use the kernel. */
export interface WorldSubject extends Subject {
  readonly world: World
}

/** An argument by which processes of user code are found. */
export const sleepFor = `100000.${process.pid}`

const sleeping = "import time; time.sleep(120)"

const reset = kind("reset", 4, (dice) => ({ running: dice.chance(0.6), ms: dice.int(0, 100) }), (
  subject: WorldSubject,
  { ms, running },
) =>
  Effect.gen(function* () {
    const { world } = subject
    if (!running) return yield* Effect.as(world.reset, "Reset")
    const fiber = yield* Effect.forkChild(
      conduct(subject, cellOf(subject, "z", sleeping), ["ExecutionAborted"]),
      { startImmediately: true },
    )
    yield* Effect.sleep(ms)
    yield* world.reset
    return (yield* Fiber.join(fiber)).tag
  }))

const resetCut = kind("reset interrupted", 2, (dice) => ({ ms: dice.pick([0, 1, 5, 20, 60, 200]) }), (
  { kernel, world }: WorldSubject,
  { ms },
) =>
  Effect.gen(function* () {
    yield* Effect.timeoutOption(kernel.reset, ms).pipe(
      Effect.catch((error) => violation(`A reset failed with ${tagOf(error)}: ${error.message}`)),
    )
    // The next execution starts the kernel.
    world.model.renew()
    yield* Effect.catch(kernel.execute("None"), (error) => violation(`After a reset: ${error.message}`))
    yield* world.renewed
    return "Reset"
  }))

const deaths = {
  "_exit": "import os; os._exit(3)",
  "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
  "SIGTERM":
    "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGTERM)",
  "segmentation fault": "import ctypes; ctypes.string_at(0)",
  "abort": "import os; os.abort()",
  "thread": `import os, threading, time; threading.Timer(0.05, os._exit, [3]).start(); time.sleep(120)`,
  "exec": "import os; os.execvp('true', ['true'])",
} as const

const death = kind(
  "death",
  3,
  (dice) => ({
    how: dice.pick(["_exit", "SIGKILL", "SIGTERM", "segmentation fault", "abort", "thread", "exec"]),
  }),
  (subject: WorldSubject, { how }) =>
    Effect.map(conduct(subject, cellOf(subject, "d", deaths[how]), ["KernelDied"]), ({ tag }) => tag),
)

const idleDeath = kind("death while idle", 1, (dice) => ({ ms: dice.int(0, 300), pause: dice.int(0, 500) }), (
  subject: WorldSubject,
  { ms, pause },
) =>
  Effect.gen(function* () {
    const body = `import os, threading; threading.Timer(${ms / 1000}, os._exit, [3]).start()`
    const { tag } = yield* conduct(subject, cellOf(subject, "d", body), ["ExecutionResult", "KernelDied"])
    if (tag === "KernelDied") return tag
    yield* Effect.sleep(pause)
    return (yield* conduct(subject, cellOf(subject, "e", sleeping), ["KernelDied"])).tag
  }))

const children = {
  child: `subprocess.Popen(['sleep', '${sleepFor}'])`,
  session: `subprocess.Popen(['sleep', '${sleepFor}'], start_new_session=True)`,
  daemon: `subprocess.run(['sh', '-c', 'setsid sleep ${sleepFor} </dev/null >/dev/null 2>&1 &'])`,
  stubborn: `subprocess.Popen(['sh', '-c', 'trap "" INT TERM HUP; sleep ${sleepFor}; true'])`,
  fork: `os.fork() or (os.setsid(), os.execvp('sleep', ['sleep', '${sleepFor}']))`,
} as const

const child = kind("child process", 2, (dice) => ({
  how: dice.pick(["child", "session", "daemon", "stubborn", "fork"]),
}), (subject: WorldSubject, { how }) =>
  Effect.map(
    conduct(subject, cellOf(subject, "c", `import os, subprocess\nleft = ${children[how]}`)),
    ({ tag }) => tag,
  ))

const closed = kind("scope closed", 1.5, (dice) => ({ ms: dice.int(0, 200), running: dice.chance(0.7) }), (
  subject: WorldSubject,
  { ms, running },
) =>
  Effect.gen(function* () {
    const { kernel, world } = subject
    const fiber = yield* Effect.forkChild(
      running
        ? conduct(subject, cellOf(subject, "x", sleeping), ["ExecutionAborted"])
        : Effect.succeed({ tag: "Idle" }),
      { startImmediately: true },
    )
    yield* Effect.sleep(ms)
    yield* world.close
    const { tag } = yield* Fiber.join(fiber)
    const failure = yield* Effect.flip(kernel.execute("1")).pipe(
      Effect.catch(() => violation("A kernel works after its scope was closed")),
    )
    yield* same("A closed kernel", tagOf(failure), "ExecutionAborted")
    yield* world.open
    return tag
  }))

/** The possible outcomes of an execution when a part of its gateway is killed. */
const endings: Readonly<Record<Part, ReadonlyArray<string>>> = {
  supervisor: ["ConnectionLost", "KernelDied"],
  gateway: ["ConnectionLost", "KernelDied"],
  zygote: ["KernelDied"],
}

/** Tells whether the kernel is known not to be forked from the zygote, with which it would have ended. */
const isStarted = (world: World, zygote: number): boolean => {
  const kernel = world.pid()
  return kernel !== undefined && !descendants(zygote).some(({ pid }) => pid === kernel)
}

const gatewayDeath = kind("gateway killed", 0.5, (dice) => ({
  part: dice.pick(["supervisor", "gateway", "zygote"]),
  ms: dice.int(0, 200),
}), (subject: WorldSubject, { ms, part }) =>
  Effect.gen(function* () {
    const { world } = subject
    const pid = pidOf(part)
    if (pid === undefined || (part === "zygote" && isStarted(world, pid))) return "None"
    world.isLost = true
    const fiber = yield* Effect.forkChild(
      conduct(subject, cellOf(subject, "k", sleeping), endings[part]),
      { startImmediately: true },
    )
    yield* Effect.sleep(ms)
    yield* signal(pid, "SIGKILL")
    const { tag } = yield* Fiber.join(fiber)
    if (part === "zygote") {
      yield* world.reset
      return tag
    }
    const ended = yield* Effect.flip(world.gateway.join).pipe(
      Effect.timeoutOrElse({ duration: "15 seconds", orElse: () => violation("join does not end") }),
      Effect.catch(() => violation("join succeeds")),
    )
    yield* same("join", ended._tag === "GatewayError" ? ended.reason._tag : ended._tag, "Exited")
    return tag
  }))

/** Kernels of the pool beside the one that is in use: fresh, each another one, never more than there may be. */
const burst = kind(
  "burst",
  3,
  (dice) => ({ kernels: dice.int(1, 5), ms: dice.int(0, 50), abandon: dice.chance(0.2) }),
  (
    { marker, world: { kernel, pool } }: WorldSubject,
    { abandon, kernels, ms },
  ) => {
    if (pool === undefined) return Effect.succeed("None")
    const use = (index: number) =>
      Effect.gen(function* () {
        const borrowed = yield* pool.get
        if (borrowed.id === kernel().id) return yield* violation("A kernel was given out twice")
        const { text } = yield* borrowed.execute(
          `print('${marker}.${index}', 'counter' in globals()); counter = 1`,
        )
        yield* same("A kernel of the pool", text, `${marker}.${index} False`)
        yield* Effect.sleep(ms)
        return borrowed.id
      }).pipe(
        Effect.scoped,
        Effect.catchIf(
          (error) => error._tag !== "Violation",
          (error) => violation(`The pool failed: ${shown(error.message)}`),
        ),
      )
    return Effect.gen(function* () {
      const all = Effect.forEach(Array.from({ length: kernels }, (_, index) => index), use, {
        concurrency: "unbounded",
      })
      const ids = abandon
        ? yield* Effect.timeoutOption(all, ms * 4)
        : { _tag: "Some" as const, value: yield* all }
      const state = yield* pool.state
      const held = state.warm + state.starting + state.busy + state.stopping
      if (held > maxPooled) {
        return yield* violation(`The pool has ${held} kernels, with a maximum of ${maxPooled}`)
      }
      if (ids._tag === "None") return "Interrupted"
      yield* same("The ids", new Set(ids.value).size, kernels)
      return "Pool"
    })
  },
)

export const endKinds: ReadonlyArray<Kind<WorldSubject>> = [
  reset,
  resetCut,
  death,
  idleDeath,
  child,
  closed,
  gatewayDeath,
  burst,
]
