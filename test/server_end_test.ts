/** Servers and kernels that end executions in other ways than they should. */
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Metric, Stream } from "effect"
import * as Metrics from "../src/kernel/metrics.ts"
import { crashes } from "./support/crashes.ts"
import * as Fake from "./support/fake_server.ts"
import { reasonOf, timed } from "./support/outcome.ts"
import { eventually } from "./support/processes.ts"

afterEach(() => assert.deepStrictEqual(crashes(), []))

const ignoredCount = Effect.map(Metric.value(Metrics.ignored), ({ count }) => Number(count))

/** The ends of an execution that the kernel sends: its reply, its idle, or both. */
const without = (missing: (type: string, state: unknown) => boolean) => ({ run, send }: Fake.Conversation) =>
  send(
    ...run("said").filter(({ content, header }) => !missing(header.msg_type, content.execution_state)),
  )
const isReply = (type: string): boolean => type === "execute_reply"
const isIdle = (_: string, state: unknown): boolean => state === "idle"

describe("executions whose end is not what it should be", () => {
  it.live("a reply without idle: the result, as soon as the kernel answers something else", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({ execute: without(isIdle) })
      const [result, millis] = yield* timed(kernel.execute("x"))
      assert.strictEqual(result.text, "said")
      assert.isBelow(millis, 2500)
    }))

  it.live("idle without a reply: a typed end with the output", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({ execute: without(isReply) })
      const [error, millis] = yield* timed(Effect.flip(kernel.execute("x")))
      assert.strictEqual(reasonOf(error), "ExecutionAborted")
      assert.include(error.message, "sent no reply")
      assert.strictEqual(error.partial?.text, "said")
      assert.isBelow(millis, 2500)
    }))

  it.live("idle without a reply, but with an exception: the exception", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({
        execute: (conversation) => {
          conversation.send(conversation.message("error", { ename: "Oh", evalue: "no", traceback: [] }))
          without(isReply)(conversation)
        },
      })
      const error = yield* Effect.flip(kernel.execute("x"))
      assert.deepInclude({ ...error }, { _tag: "ExecutionError", ename: "Oh", evalue: "no" })
    }))

  it.live("neither: the timeout, then the kernel counts as unresponsive until it is reset", () =>
    Effect.gen(function* () {
      let isBusy = false
      const { kernel, server } = yield* Fake.client({
        info: ({ good }) => isBusy ? undefined : good(),
        execute: (conversation) => {
          isBusy = conversation.request.content.code !== "good"
          if (!isBusy) return conversation.good()
          without((type, state) => isReply(type) || isIdle(type, state))(conversation)
        },
      })
      const [error, millis] = yield* timed(Effect.flip(kernel.execute("x", { timeout: "500 millis" })))
      assert.strictEqual(reasonOf(error), "KernelUnresponsive")
      assert.strictEqual(error.partial?.text, "said")
      assert.isBelow(millis, 7500)
      assert.lengthOf(server.requests.filter((name) => name.endsWith("/interrupt")), 2)
      isBusy = false
      yield* kernel.reset
      assert.strictEqual((yield* kernel.execute("good")).text, "good")
    }))

  it.live("neither, but answers to others: the timeout, and the kernel stays usable", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({
        execute: (conversation) => {
          if (conversation.request.content.code === "good") return conversation.good()
          without((type, state) => isReply(type) || isIdle(type, state))(conversation)
        },
      })
      const [error, millis] = yield* timed(Effect.flip(kernel.execute("x", { timeout: "500 millis" })))
      assert.strictEqual(reasonOf(error), "ExecutionTimeout")
      assert.strictEqual(error.partial?.text, "said")
      assert.isBelow(millis, 3000)
      assert.strictEqual((yield* kernel.execute("good")).text, "good")
    }))

  it.live("a kernel that stops at the first interrupt: ExecutionTimeout", () =>
    Effect.gen(function* () {
      let finish = (): void => {}
      const { kernel } = yield* Fake.client({
        rest: (name) => {
          if (name.endsWith("/interrupt")) finish()
          return undefined
        },
        execute: ({ message, run, send }) => {
          send(...run("said").slice(0, 3))
          finish = () =>
            send(
              message("error", { ename: "KeyboardInterrupt", evalue: "", traceback: [] }),
              message("execute_reply", { status: "error", ename: "KeyboardInterrupt", evalue: "" }),
              message("status", { execution_state: "idle" }),
            )
        },
      })
      const error = yield* Effect.flip(kernel.execute("x", { timeout: "200 millis" }))
      assert.strictEqual(error._tag, "ExecutionTimeout")
      assert.strictEqual(error.partial?.text, "said")
    }))

  for (const [status, words] of [["aborted", "did not run the code"], [7, "did not run the code"]] as const) {
    it.live(`a reply with status ${status} is no success`, () =>
      Effect.gen(function* () {
        const { kernel } = yield* Fake.client({
          execute: ({ message, send }) =>
            send(message("execute_reply", { status }), message("status", { execution_state: "idle" })),
        })
        const error = yield* Effect.flip(kernel.execute("x"))
        assert.strictEqual(reasonOf(error), "ExecutionAborted")
        assert.include(error.message, words)
      }))
  }

  it.live("of two replies the first counts", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({
        execute: ({ message, run, send }) => {
          const [idle, ...rest] = run("said").toReversed()
          const more = message("execute_reply", { status: "error", ename: "Oh", evalue: "", traceback: [] })
          const broken = message("execute_reply", {})
          if (idle !== undefined) send(...rest.toReversed(), more, broken, idle)
        },
      })
      const before = yield* ignoredCount
      assert.strictEqual((yield* kernel.execute("x")).text, "said")
      assert.strictEqual((yield* ignoredCount) - before, 2)
    }))
})

describe("kernels that die", () => {
  for (const state of ["dead", "restarting"]) {
    for (const [parent, told] of [["nobody", false], ["the cell", true]] as const) {
      it.live(`mid-cell, "${state}" with ${parent} as parent: KernelDied with the output`, () =>
        Effect.gen(function* () {
          let die = (): void => {}
          const { kernel, server } = yield* Fake.client({
            execute: ({ message, run, send }) => {
              send(...run("said").slice(0, 3))
              die = () =>
                told
                  ? send(message("status", { execution_state: state }))
                  : server.broadcast("status", { execution_state: state })
            },
          })
          const dying = Stream.tap(kernel.stream("x"), () => Effect.sync(() => die()))
          const error = yield* Effect.flip(Stream.runDrain(dying))
          assert.strictEqual(reasonOf(error), "KernelDied")
          assert.strictEqual(error.partial?.text, "said")
          assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("x"))), "KernelDied")
        }))
    }

    it.live(`idle, "${state}": the next execution fails at once, a reset helps`, () =>
      Effect.gen(function* () {
        const { kernel, server } = yield* Fake.client()
        yield* kernel.execute("x")
        server.broadcast("status", { execution_state: state })
        // The death is noticed when its message arrives, which nothing else shows.
        const dead = yield* Effect.flip(Effect.forever(kernel.execute("x")))
        assert.strictEqual(reasonOf(dead), "KernelDied")
        const sent = server.received.length
        assert.strictEqual(reasonOf(yield* Effect.flip(kernel.execute("x"))), "KernelDied")
        assert.lengthOf(server.received, sent, "Nothing was sent to the dead kernel")
        yield* kernel.reset
        assert.strictEqual((yield* kernel.execute("fine")).text, "fine")
      }))
  }
})

describe("input", () => {
  it.live("a handler that throws is no answer, and the connection survives", () =>
    Effect.gen(function* () {
      let asked = 0
      let finish = (): void => {}
      const { kernel, server } = yield* Fake.client({
        rest: (name) => {
          if (name.endsWith("/interrupt")) finish()
          return undefined
        },
        execute: ({ message, run, send }) => {
          if (asked++ > 0) return send(...run("fine"))
          send(...run().slice(0, 2), message("input_request", { prompt: "Name? " }, { channel: "stdin" }))
          finish = () => send(...run().slice(2))
        },
      })
      const onInput = (): Effect.Effect<string> => {
        throw new Error("no handler at all")
      }
      const execution = yield* Effect.forkChild(Effect.flip(kernel.execute("x", { onInput })))
      yield* eventually(() => server.requests.some((name) => name.endsWith("/interrupt")) ? undefined : "-")
      assert.strictEqual(reasonOf(yield* Fiber.join(execution)), "InputRequested")
      assert.strictEqual((yield* kernel.execute("x")).text, "fine")
    }))
})
