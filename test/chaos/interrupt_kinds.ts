/** Operations that are cut short, that wait for one another, and that are asked beside an execution. */
import { Cause, Effect, Exit, Fiber, Option, Result, Schema, Stream } from "effect"
import { type Kind, kind } from "./kind.ts"
import { checkPartial, codeOf, type Outcome, violation } from "./model.ts"
import { cellOf, conduct, expect, isExplained, judge, same, type Subject } from "./subject.ts"

/** Code that runs until it is interrupted, longer than any operation may take. */
const waits = {
  sleep: "import time; time.sleep(120)",
  busy: "while True: pass",
  print: "import time\nfor i in range(10**9):\n    print('MARK.%d' % i, flush=True); time.sleep(0.002)",
  await: "import asyncio; await asyncio.sleep(120)",
  swallow: "import time\ntry: time.sleep(120)\nexcept BaseException: pass\nwhile True: time.sleep(0.01)",
  child: "import subprocess; ended = subprocess.run(['sleep', '120'])",
  join:
    "import threading\nt = threading.Thread(target=threading.Event().wait, daemon=True); t.start(); t.join()",
  finally: "import time\ntry: time.sleep(120)\nfinally: time.sleep(0.2)",
  // Ends, for a consumer whose output was lost on the way.
  brief: "import time\ntry: time.sleep(8)\nexcept BaseException: pass\ntime.sleep(2)",
} as const
const waiting = ["sleep", "busy", "print", "await", "swallow", "child", "join", "finally"] as const

/** The output of the code that prints, up to the longest that a test allows. */
const printed = ({ marker }: Subject): string =>
  Array.from({ length: 20_000 }, (_, index) => `${marker}.${index}`).join("\n")

const waitingCell = (subject: Subject, how: keyof typeof waits) =>
  cellOf(subject, "w", waits[how].replaceAll("MARK", subject.marker), how === "print" ? printed(subject) : "")

const interrupted = kind("interrupted", 8, (dice) => ({
  how: dice.pick(waiting),
  ms: dice.pick([0, 1, 3, 10, 30, 100, 300]),
}), (subject, { how, ms }) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(conduct(subject, waitingCell(subject, how), []), {
      startImmediately: true,
    })
    yield* Effect.sleep(ms)
    yield* Fiber.interrupt(fiber)
    const exit = yield* Fiber.await(fiber)
    if (Exit.isSuccess(exit)) return exit.value.tag
    return Cause.hasInterruptsOnly(exit.cause) ? "Interrupted" : yield* Effect.failCause(exit.cause)
  }))

const timeout = kind(
  "timeout",
  6,
  (dice) => ({
    how: dice.pick(waiting),
    ms: dice.pick([0, 1, 5, 20, 100, 300]),
  }),
  (subject, { how, ms }) =>
    Effect.map(
      conduct(subject, waitingCell(subject, how), ["ExecutionTimeout"], { timeout: ms }),
      ({ tag }) => tag,
    ),
)

/** Ignores interrupts for longer than they are repeated. */
const unresponsive = kind(
  "unresponsive",
  0.5,
  (dice) => ({ seconds: dice.pick([2, 7, 9]) }),
  (subject, { seconds }) => {
    const body = `import time
end = time.monotonic() + ${seconds}
while time.monotonic() < end:
    try: time.sleep(0.05)
    except BaseException: pass`
    return Effect.map(
      conduct(subject, cellOf(subject, "u", body), ["KernelUnresponsive", "ExecutionTimeout"], {
        timeout: 100,
      }),
      ({ tag }) => tag,
    )
  },
)

const early = kind("stream partly consumed", 6, (dice) => ({
  take: dice.int(1, 30),
  how: dice.pick(["print", "brief"]),
}), (subject, { how, take }) =>
  Effect.gen(function* () {
    const cell = waitingCell(subject, how)
    subject.model.mayAdd(cell.by)
    const taken = how === "print" ? take : 1
    const outcome = yield* subject.kernel.stream(codeOf(cell)).pipe(
      Stream.filter((element) => element._tag === "TextChunk"),
      Stream.take(taken),
      Stream.runFold(() => "", (text, { text: more }) => text + more),
      Effect.result,
    )
    if (Result.isFailure(outcome)) return (yield* judge(subject, cell, Result.fail(outcome.failure), [])).tag
    // The end of a stream shows that it is complete.
    const mayLose = subject.tolerated.has("ConnectionLost")
    yield* checkPartial(subject.model, cell, { text: outcome.success, mayLose })
    return "Interrupted"
  }))

/** Interrupts by the method, which does nothing to an idle kernel. */
const interrupt = kind("interrupt", 3, (dice) => ({ ms: dice.int(0, 60), isIdle: dice.chance(0.2) }), (
  subject,
  { isIdle, ms },
) =>
  Effect.gen(function* () {
    if (isIdle) {
      yield* expect(subject, "interrupt", subject.kernel.interrupt)
      return (yield* conduct(subject, cellOf(subject, "n", ""))).tag
    }
    const cell = cellOf(subject, "n", "import time\nfor _ in range(100): time.sleep(0.01)")
    const [{ tag }] = yield* Effect.all([
      conduct(subject, cell, ["ExecutionError", "ExecutionResult"]),
      Effect.delay(expect(subject, "interrupt", subject.kernel.interrupt), ms),
    ], { concurrency: 2 })
    return tag
  }))

/** Several at once: each has its own output, in the order asked; some are withdrawn. */
const queue = kind("queue", 5, (dice) => ({
  executions: Array.from({ length: dice.int(2, 8) }, () => ({
    ms: dice.pick([0, 0, 2, 20]),
    withdrawn: dice.chance(0.3) ? dice.int(0, 60) : undefined,
  })),
}), (subject, { executions }) =>
  Effect.gen(function* () {
    const runs = yield* Effect.forEach(executions, ({ ms, withdrawn }, index) => {
      const cell = cellOf(subject, `q${index}`, `import time; time.sleep(${ms / 1000})`)
      const run = Effect.result(subject.kernel.execute(codeOf(cell)))
      return Effect.map(
        Effect.forkChild(
          withdrawn === undefined ? Effect.asSome(run) : Effect.timeoutOption(run, withdrawn),
          {
            startImmediately: true,
          },
        ),
        (fiber) => ({ cell, fiber }),
      )
    })
    const tags = yield* Effect.forEach(runs, ({ cell, fiber }) =>
      Effect.gen(function* () {
        const outcome = yield* Fiber.join(fiber)
        subject.model.mayAdd(cell.by)
        return Option.isNone(outcome)
          ? "Interrupted"
          : (yield* judge(subject, cell, outcome.value, ["ExecutionResult"])).tag
      }))
    return [...new Set(tags)].join("+")
  }))

/** Questions while an execution runs, whose output they must not touch. */
const questions = kind("questions", 4, (dice) => ({
  ms: dice.int(0, 300),
  asked: dice.pick(["complete", "inspect", "variables", "isComplete", "history", "info", "all"]),
  isGivenUp: dice.chance(0.2),
}), (subject, { asked, isGivenUp, ms }) =>
  Effect.gen(function* () {
    const { kernel, marker } = subject
    const bound = { timeout: "40 seconds" } as const
    const { tag } = yield* conduct(subject, cellOf(subject, "v", `value_${marker} = '${marker}'`))
    if (tag !== "ExecutionResult") return tag
    const ask = {
      complete: Effect.gen(function* () {
        const found = yield* expect(
          subject,
          "complete",
          kernel.complete(`value_${marker}`.slice(0, -1), undefined, bound),
        )
        if (found !== undefined && !found.matches.includes(`value_${marker}`)) {
          return yield* violation(`complete has ${found.matches.slice(0, 5).join(", ")}`)
        }
      }),
      inspect: Effect.gen(function* () {
        const found = yield* expect(subject, "inspect", kernel.inspect(`value_${marker}`, undefined, bound))
        if (found !== undefined) yield* same("inspect", found.found, true)
      }),
      variables: Effect.gen(function* () {
        const found = yield* expect(subject, "variables", kernel.variables)
        if (found === undefined) return
        const variable = found.find(({ name }) => name === `value_${marker}`)
        yield* same("variables", variable?.repr, `'${marker}'`)
      }),
      isComplete: Effect.gen(function* () {
        const found = yield* expect(subject, "isComplete", kernel.isComplete("def f():", bound))
        if (found !== undefined) yield* same("isComplete", found.status, "incomplete")
      }),
      history: Effect.gen(function* () {
        const found = yield* expect(subject, "history", kernel.history({ last: 3, ...bound }))
        if (found !== undefined && !found.some(({ code }) => code.includes(marker))) {
          return yield* violation(`history lacks ${marker}`)
        }
      }),
      info: Effect.gen(function* () {
        const found = yield* expect(subject, "info", kernel.info)
        if (found !== undefined) yield* same("info", found.language, "python")
      }),
    } as const
    const all = asked === "all" ? Object.values(ask) : [ask[asked]]
    const [run] = yield* Effect.all([
      conduct(
        subject,
        cellOf(subject, "r", `import time; time.sleep(${ms / 1000}); print('${marker}')`, marker),
      ),
      Effect.forEach(all, (one) => isGivenUp ? Effect.timeoutOption(one, ms / 10) : one, { concurrency: 3 }),
    ], { concurrency: 2 })
    return run.tag
  }))

const Value = Schema.Struct({
  count: Schema.Int,
  text: Schema.String,
  list: Schema.Array(Schema.Finite),
  nothing: Schema.Null,
})

const values = kind("values", 6, (dice) => ({
  count: dice.int(-1e9, 1e9),
  text: dice.pick(["", "ü\n'\"", "\u{1f600}", "x".repeat(70_000), "\\x00"]),
  list: Array.from({ length: dice.pick([0, 3, 2000]) }, () => dice.next()),
}), (subject, { count, list, text }) =>
  Effect.gen(function* () {
    const { kernel, marker, model } = subject
    const value = { count, text, list, nothing: null }
    const set = yield* expect(subject, "set", Effect.as(kernel.set(`value_${marker}`, value), true))
    if (set === undefined) return "tolerated"
    const back = yield* expect(subject, "evaluate", kernel.evaluate(`value_${marker}`, Value))
    if (back !== undefined) yield* same("the value", [back.count, back.text, back.list], [count, text, list])
    const sorted = yield* expect(
      subject,
      "call",
      kernel.call("builtins:sorted", [list], { returns: Schema.Array(Schema.Finite) }),
    )
    if (sorted !== undefined) yield* same("sorted", sorted, list.toSorted((a, b) => a - b))
    const counter = yield* expect(
      subject,
      "evaluate",
      kernel.evaluate("globals().get('counter', 0)", Schema.Int),
    )
    if (counter !== undefined) yield* model.see(counter)
    return "Values"
  }))

/** A value that is asked for and given up, or that does not come in time. */
const slowValue = kind(
  "slow value",
  2,
  (dice) => ({ ms: dice.int(0, 100), how: dice.pick(["timeout", "interrupt"]) }),
  (
    subject,
    { how, ms },
  ) =>
    Effect.gen(function* () {
      const { kernel, model } = subject
      const slow = (options: object) => kernel.evaluate("__import__('time').sleep(120)", Schema.Null, options)
      if (how === "interrupt") {
        yield* expect(subject, "evaluate", Effect.timeoutOption(slow({}), ms))
        return "Interrupted"
      }
      const failure = yield* Effect.flip(slow({ timeout: ms })).pipe(
        Effect.catch(() => violation("It succeeded")),
      )
      const tag: Outcome | string = failure._tag === "KernelError" ? failure.reason._tag : failure._tag
      model.failed(tag)
      return tag === "ExecutionTimeout" || isExplained(subject, tag)
        ? tag
        : yield* violation(`It failed with ${tag}`)
    }),
)

/** Another kernel of the gateway works at the same time. */
const beside = kind("beside", 4, (dice) => ({ ms: dice.int(0, 50), how: dice.pick(["sleep", "busy"]) }), (
  subject,
  { how, ms },
) =>
  Effect.gen(function* () {
    const cell = waitingCell(subject, how)
    const [{ tag }] = yield* Effect.all([
      conduct(subject, cell, ["ExecutionTimeout"], { timeout: ms }),
      subject.beside,
    ], { concurrency: 2 })
    yield* subject.beside
    return tag
  }))

export const interruptKinds: ReadonlyArray<Kind> = [
  interrupted,
  timeout,
  unresponsive,
  early,
  interrupt,
  queue,
  questions,
  values,
  slowValue,
  beside,
]
