/** The state of an execution under every order of events: each race that was found, and random ones. */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { ConnectionLost, InputRequested, KernelDied } from "../../src/execution.ts"
import type { JsonObject, Message } from "../../src/jupyter/message.ts"
import type { Delivery } from "../../src/kernel/connection.ts"
import * as ExecutionState from "../../src/kernel/execution_state.ts"
import type { EndReason } from "../../src/kernel/outcome.ts"

const kernelId = "k"
const message = (type: string, content: JsonObject): Message => ({
  channel: type === "execute_reply" ? "shell" : "iopub",
  header: { msg_id: "m", msg_type: type },
  parentHeader: { msg_id: "request" },
  metadata: {},
  content,
  buffers: [],
})
const messages = {
  started: message("execute_input", { code: "1", execution_count: 1 }),
  text: message("stream", { name: "stdout", text: "a" }),
  error: message("error", { ename: "KeyboardInterrupt", evalue: "", traceback: [] }),
  ok: message("execute_reply", { status: "ok", execution_count: 1 }),
  failed: message("execute_reply", { status: "error", ename: "KeyboardInterrupt", evalue: "" }),
  busy: message("status", { execution_state: "busy" }),
  idle: message("status", { execution_state: "idle" }),
}

const lost = new ConnectionLost({ kernelId, detail: "It was cut" })
const deliveryOf = (known: { ordered?: boolean; all?: boolean; cut?: boolean }): Delivery => ({
  isOrdered: () => known.ordered ?? true,
  hasReceivedAll: () => known.all ?? true,
  wasCut: () => known.cut ?? false,
  lossReason: () => lost,
})
const whole = deliveryOf({})
const restored = deliveryOf({ cut: true })
const lossy = deliveryOf({ cut: true, all: false })
const unordered = deliveryOf({ ordered: false })

const timeout: EndReason = { _tag: "Timeout" }
const died = new KernelDied({ kernelId })
const stopped = (reason: EndReason): ExecutionState.Event => ({ _tag: "Stopped", reason })
const gone: ExecutionState.Event = { _tag: "ConsumerGone" }
const ended: ExecutionState.Event = { _tag: "KernelEnded", reason: died }
const answered: ExecutionState.Event = { _tag: "InterruptAnswered" }
const due = (attempts: number): ExecutionState.Event => ({ _tag: "InterruptDue", attempts })
const overdue = (attempts: number): ExecutionState.Event => ({ _tag: "AnswerOverdue", attempts })
const lateOverdue: ExecutionState.Event = { _tag: "LateAnswerOverdue" }
const fenced = (delivery: Delivery): ExecutionState.Event => ({ _tag: "Fenced", delivery })

/** An event, or a message with what is known of the connection when it arrives. */
type Input =
  | ExecutionState.Event
  | keyof typeof messages
  | readonly [
    keyof typeof messages,
    Delivery,
  ]

/** A command in words. */
const show = (command: ExecutionState.Command): string => {
  switch (command._tag) {
    case "Emit":
      return command.output._tag === "Text" ? `emit ${command.output.text.trim()}` : "emit"
    case "Fence":
      return `fence ${command.delay}`
    case "Wait": {
      const { duration, event, isForOutput } = command
      const number = "attempts" in event ? ` ${event.attempts}` : ""
      return `${event._tag}${number} in ${duration}${isForOutput ? " and after output" : ""}`
    }
    case "Free":
      return command.isSafe ? "free" : "free, but not safe"
    case "Finish":
      return command.endReason === undefined ? "finish" : `finish by ${command.endReason._tag}`
    default:
      return command._tag.toLowerCase()
  }
}

const apply = (state: ExecutionState.State, input: Input): ExecutionState.Step => {
  if (typeof input === "object" && "_tag" in input) return ExecutionState.step(state, input)
  const [name, delivery] = typeof input === "string" ? [input, whole] as const : input
  const [next, commands, output] = ExecutionState.onMessage(state, messages[name], delivery)
  return [next, output === undefined ? commands : [{ _tag: "Emit", output }, ...commands]]
}

/** The commands that inputs result in, one list for each of them. */
const follow = (...inputs: ReadonlyArray<Input>): ReadonlyArray<ReadonlyArray<string>> => {
  let state = ExecutionState.initial(kernelId)
  return inputs.map((input) => {
    const [next, commands] = apply(state, input)
    state = next
    return commands.map(show)
  })
}

/** The commands that the last of the inputs results in. */
const last = (...inputs: ReadonlyArray<Input>): ReadonlyArray<string> | undefined => follow(...inputs).at(-1)

const interruptOnce = ["interrupt", "AnswerOverdue 1 in 2 seconds"]
const awaitEnd = (attempts: number, seconds: number) => [
  "fence 200 millis",
  `InterruptDue ${attempts} in ${seconds} seconds and after output`,
]

describe("onMessage", () => {
  it("returns the state itself and no new list for output", () => {
    const [state] = apply(ExecutionState.initial(kernelId), "started")
    const [next, commands, output] = ExecutionState.onMessage(state, messages.text, whole)
    assert.strictEqual(next, state)
    assert.strictEqual(commands, ExecutionState.onMessage(state, messages.text, whole)[1])
    assert.deepStrictEqual(output, { _tag: "Text", name: "stdout", text: "a" })
  })

  it("ends an execution with reply and idle, in either order", () => {
    assert.deepStrictEqual(last("started", "ok", "idle"), ["close", "free", "finish"])
    assert.deepStrictEqual(last("started", "idle", "ok"), ["close", "free", "finish"])
  })

  it("asks a kernel that sends channels apart, once each for one and for both", () => {
    const inputs: ReadonlyArray<Input> = [["ok", unordered], ["text", unordered], ["idle", unordered]]
    const settle = ["fence 50 millis"]
    assert.deepStrictEqual(follow("started", ...inputs), [[], ["fence 1 second"], ["emit a"], settle])
    assert.deepStrictEqual(last("started", ...inputs, ["text", unordered]), ["emit a"])
    assert.deepStrictEqual(last("started", ...inputs, fenced(unordered)), ["close", "free", "finish"])
  })

  it("asks a kernel that sends channels apart until it puts out no more, 20 times at most", () => {
    const inputs: ReadonlyArray<Input> = ["started", ["ok", unordered], ["idle", unordered]]
    const again: ReadonlyArray<Input> = [["text", unordered], fenced(unordered)]
    const asked = (times: number) => Array.from({ length: times }, () => again).flat()
    assert.deepStrictEqual(last(...inputs, ...asked(1)), ["fence 50 millis"])
    assert.deepStrictEqual(last(...inputs, ...asked(1), fenced(unordered)), ["close", "free", "finish"])
    assert.deepStrictEqual(last(...inputs, ...asked(20)), ["fence 50 millis"])
    assert.deepStrictEqual(last(...inputs, ...asked(21)), ["close", "free", "finish"])
  })

  it("does not interrupt a kernel that is done and may put out more", () => {
    const inputs: ReadonlyArray<Input> = ["started", ["ok", unordered], ["idle", unordered]]
    assert.deepStrictEqual(last(...inputs, stopped(timeout)), ["close", "free", "finish"])
    assert.deepStrictEqual(last(...inputs, gone), ["close", "free", "finish"])
  })

  it("ends an execution that is over when the output arrives that was missing", () => {
    const inputs: ReadonlyArray<Input> = ["started", ["ok", lossy], ["idle", lossy]]
    assert.deepStrictEqual(last(...inputs, ["text", restored]), ["emit a", "close", "free", "finish"])
  })

  it("ignores a reply that is repeated, also after the end", () => {
    assert.deepStrictEqual(follow("started", "ok", "ok", "idle", "ok", "idle").slice(2), [
      [],
      ["close", "free", "finish"],
      [],
      [],
    ])
  })

  it("idle without a reply is an aborted execution once the kernel was asked", () => {
    assert.deepStrictEqual(follow("started", "idle", fenced(whole)).slice(1), [
      ["fence 1 second"],
      ["expirehandlers", "close", "free", "finish by ExecutionAborted"],
    ])
  })

  it("a reply without idle ends once the kernel was asked", () => {
    assert.deepStrictEqual(last("started", "ok", fenced(whole)), ["close", "free", "finish"])
  })
})

describe("a connection that was cut and restored", () => {
  it("ends what ended meanwhile, by what the kernel said of it", () => {
    assert.deepStrictEqual(last("started", "text", fenced(lossy)), [
      "expirehandlers",
      "close",
      "free",
      "finish by ConnectionLost",
    ])
    assert.deepStrictEqual(last("started", "ok", fenced(restored)), ["close", "free", "finish"])
    assert.deepStrictEqual(last("started", "ok", fenced(lossy)), [
      "expirehandlers",
      "close",
      "free",
      "finish by ConnectionLost",
    ])
    // Idle was recovered and the reply was not: it is lost, and was not missing from the start.
    assert.deepStrictEqual(last("started", "idle", fenced(restored))?.at(-1), "finish by ConnectionLost")
    // What the kernel showed before the cut ended the code.
    assert.deepStrictEqual(last("started", "error", fenced(restored)), ["close", "free", "finish"])
  })

  it("while the code is interrupted ends both, once", () => {
    const inputs: ReadonlyArray<Input> = ["started", stopped(timeout), answered, fenced(lossy)]
    assert.deepStrictEqual(last(...inputs), ["close", "free", "finish by Timeout"])
    assert.deepStrictEqual(follow(...inputs, fenced(lossy), due(1)).slice(4), [[], []])
  })
})

describe("the interruption", () => {
  it("interrupts, waits, interrupts again and abandons code that goes on", () => {
    assert.deepStrictEqual(
      follow("started", stopped(timeout), answered, due(1), answered, due(2), "ok", "idle").slice(1),
      [
        ["expirehandlers", "drain", ...interruptOnce],
        awaitEnd(1, 2),
        ["interrupt", "AnswerOverdue 2 in 2 seconds"],
        awaitEnd(2, 3),
        ["free, but not safe", "finish by KernelUnresponsive"],
        ["fence 1 second"],
        ["close"],
      ],
    )
  })

  it("waits for the code to begin, at most for the grace", () => {
    assert.deepStrictEqual(follow(stopped(timeout), "busy", "started", due(0)), [
      ["expirehandlers", "drain", "InterruptDue 0 in 500 millis"],
      [],
      interruptOnce,
      [],
    ])
    assert.deepStrictEqual(follow(stopped(timeout), due(0), "started").slice(1), [interruptOnce, []])
  })

  it("has one owner for two reasons at once, of which the first counts", () => {
    const input = new InputRequested({ kernelId, prompt: "" })
    assert.deepStrictEqual(
      follow("started", stopped(input), stopped(timeout), gone, answered, "failed", "idle").slice(1),
      [
        ["expirehandlers", "drain", ...interruptOnce],
        [],
        [],
        awaitEnd(1, 2),
        ["fence 1 second"],
        ["close", "free", "finish by InputRequested"],
      ],
    )
    // The consumer came first: a deadline that passes meanwhile does not begin another.
    assert.deepStrictEqual(follow("started", gone, stopped(timeout)).slice(1), [
      ["drain", ...interruptOnce],
      ["expirehandlers"],
    ])
  })

  it("of a consumer that is gone in a flood waits for the output on its way before it interrupts again", () => {
    const inputs: ReadonlyArray<Input> = ["started", "text", gone, "text", answered, "text"]
    assert.deepStrictEqual(follow(...inputs).slice(2), [
      ["drain", ...interruptOnce],
      ["emit a"],
      awaitEnd(1, 2),
      ["emit a"],
    ])
    assert.deepStrictEqual(last(...inputs, "failed", "idle"), ["close", "free", "finish"])
  })

  it("of a deadline while queued output is unread drains it once", () => {
    const drains = follow("started", "text", stopped(timeout), gone, answered, due(1), answered).flat()
      .filter((command) => command === "drain")
    assert.lengthOf(drains, 1)
  })

  it("keeps the next execution waiting for an answer that comes after the end", () => {
    const inputs: ReadonlyArray<Input> = ["started", stopped(timeout), "failed", "idle"]
    assert.deepStrictEqual(last(...inputs), [
      "close",
      "finish by Timeout",
      "LateAnswerOverdue in 6 seconds",
    ])
    assert.deepStrictEqual(follow(...inputs, answered, lateOverdue).slice(4), [["free"], []])
    assert.deepStrictEqual(follow(...inputs, lateOverdue, answered).slice(4), [["free, but not safe"], []])
  })

  it("sends no second interrupt while the server has not answered the first", () => {
    assert.deepStrictEqual(follow("started", gone, overdue(1), due(1), answered, overdue(2)).slice(1), [
      ["drain", ...interruptOnce],
      awaitEnd(1, 2),
      ["AnswerOverdue 2 in 2 seconds"],
      awaitEnd(2, 3),
      [],
    ])
    // An answer after its bound does not prolong the wait.
    assert.deepStrictEqual(last("started", gone, overdue(1), answered), [])
  })

  it("ends with the kernel, for which no answer is awaited", () => {
    assert.deepStrictEqual(last("started", stopped(timeout), ended), [
      "close",
      "free",
      "finish by KernelDied",
    ])
    assert.deepStrictEqual(follow("started", gone, ended, answered, due(1), gone).slice(3), [[], [], []])
    assert.deepStrictEqual(last("started", gone, overdue(1), due(1), overdue(2), due(2), ended), ["close"])
  })
})

const inputs: Record<string, Input> = {
  ...Object.fromEntries(Object.keys(messages).map((name) => [name, name])),
  started: "started",
  lossyIdle: ["idle", lossy],
  unorderedOk: ["ok", unordered],
  unorderedText: ["text", unordered],
  stopped: stopped(timeout),
  violated: stopped(new InputRequested({ kernelId, prompt: "" })),
  gone,
  ended,
  answered,
  fenced: fenced(whole),
  restored: fenced(restored),
  lossy: fenced(lossy),
}

/** Something that happens to an execution: an input, or the end of the first wait or the last one. */
const Happening = Schema.Literals([...Object.keys(inputs), "first timeout", "last timeout"])

describe("every sequence of events", () => {
  it.prop(
    "has one interrupt at a time, and each of Close, Finish and Free once at most, with the end of the kernel once",
    [Schema.Array(Happening)],
    ([happenings]) => {
      let state = ExecutionState.initial(kernelId)
      let isPending = false
      const waits: Array<ExecutionState.Timeout> = []
      const counts = { Close: 0, Finish: 0, Free: 0 }
      const happen = (input: Input): void => {
        if (input === answered) isPending = false
        const [next, commands] = apply(state, input)
        state = next
        for (const command of commands) {
          if (command._tag === "Interrupt") {
            assert.isFalse(isPending, "Two interrupts at a time")
            isPending = true
          }
          if (command._tag === "Wait") waits.push(command.event)
          if (command._tag === "Close" || command._tag === "Finish" || command._tag === "Free") {
            counts[command._tag]++
          }
          // Nothing that is on its way reaches what runs next.
          if (command._tag === "Free" && command.isSafe && state.endReason !== died) assert.isFalse(isPending)
        }
      }
      for (const happening of happenings) {
        const due = happening === "first timeout"
          ? waits.shift()
          : happening === "last timeout"
          ? waits.pop()
          : undefined
        const input = due ?? inputs[happening]
        if (input !== undefined) happen(input)
        assert.isTrue(Object.values(counts).every((count) => count <= 1))
      }
      happen(ended)
      // The end may have come before, with an answer that is awaited.
      if (!state.isFree) waits.forEach(happen)
      assert.deepStrictEqual(counts, { Close: 1, Finish: 1, Free: 1 })
      happen(ended)
      happen(gone)
      assert.deepStrictEqual(counts, { Close: 1, Finish: 1, Free: 1 })
    },
    { arbitrary: { runs: 3000 } },
  )

  it.prop(
    "comes to an end by its waits alone once the consumer is gone",
    [Schema.Array(Happening)],
    ([happenings]) => {
      let state = ExecutionState.initial(kernelId)
      const waits: Array<ExecutionState.Timeout> = []
      const happen = (input: Input): void => {
        const [next, commands] = apply(state, input)
        state = next
        for (const command of commands) if (command._tag === "Wait") waits.push(command.event)
      }
      for (const happening of happenings) {
        const input = inputs[happening]
        if (input !== undefined) happen(input)
      }
      happen(gone)
      for (let due = waits.shift(); due !== undefined && !state.isFree; due = waits.shift()) happen(due)
      assert.isTrue(state.isFree)
    },
    { arbitrary: { runs: 1000 } },
  )
})
