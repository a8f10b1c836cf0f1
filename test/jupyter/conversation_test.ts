/** Requests that are answered, or not, on a channel that the test plays. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Conversation from "../../src/jupyter/conversation.ts"
import { type Message, request, WireError } from "../../src/jupyter/message.ts"
import { ChannelError } from "../../src/jupyter/socket.ts"

const message = (type: string, content: Message["content"] = {}): Message =>
  request(type, { id: "answer", session: "kernel", content })
const idle = message("status", { execution_state: "idle" })

/** Asks, plays what happens to the listener, and gives how it went and how many still listen. */
const play = (
  events: ReadonlyArray<(listener: Conversation.Listener) => void>,
  { asked = request("complete_request", { id: "1", session: "client", content: {} }), send = Effect.void }: {
    readonly asked?: Message
    readonly send?: Effect.Effect<void, ChannelError>
  } = {},
) =>
  Effect.gen(function* () {
    const listeners = new Map<string, Conversation.Listener>()
    const open: Conversation.Open = ({ header: { msg_id: id } }, listener) =>
      Effect.sync(() => {
        listeners.set(id, listener)
        return {
          id,
          send,
          reply: () => Effect.void,
          isSent: () => true,
          fence: Effect.void,
          pause: () => {},
          resume: () => {},
          close: () => void listeners.delete(id),
          hasReceivedAll: () => true,
          takeGap: () => false,
          isOrdered: () => true,
          disconnectError: () => undefined,
        }
      })
    const pick = ({ header }: Message) => header.msg_type.endsWith("_reply") ? header.msg_type : undefined
    const fiber = yield* Effect.forkChild(
      Effect.exit(Conversation.ask(open, asked, pick, { replyTimeout: "500 millis" })),
      { startImmediately: true },
    )
    for (const event of events) for (const listener of listeners.values()) event(listener)
    yield* TestClock.adjust("1 second")
    const exit = fiber.pollUnsafe() === undefined ? undefined : yield* Fiber.join(fiber)
    yield* Fiber.interrupt(fiber)
    assert.strictEqual(listeners.size, 0, "nothing listens afterwards")
    return exit
  })

const unanswered = (detail: string) => Exit.fail(new Conversation.Unanswered({ detail }))
const lost = unanswered("The connection was cut, and the answer is lost")

describe("ask", () => {
  it.effect("returns the first answer, also after idle", () =>
    Effect.gen(function* () {
      const reply = (listener: Conversation.Listener) => listener.onMessage(message("complete_reply"), 1)
      const other = (listener: Conversation.Listener) => listener.onMessage(message("late_reply"), 1)
      assert.deepStrictEqual(yield* play([reply, other]), Exit.succeed("complete_reply"))
      assert.deepStrictEqual(
        yield* play([({ onMessage }) => onMessage(idle, 1), reply]),
        yield* play([reply]),
      )
    }))

  it.effect("waits without a bound for a busy kernel", () =>
    Effect.gen(function* () {
      assert.isUndefined(yield* play([]))
    }))

  it.effect("fails with Unanswered when no answer can arrive", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* play([({ onMessage }) => onMessage(idle, 1)]),
        unanswered("The kernel sent no answer"),
      )
      const tooLarge = new WireError({ detail: "It is too large", isTooLarge: true })
      assert.deepStrictEqual(
        yield* play([({ onTooLarge }) => onTooLarge?.(tooLarge)]),
        unanswered(tooLarge.detail),
      )
      assert.deepStrictEqual(yield* play([({ onFenced }) => onFenced?.()]), lost)
    }))

  it.effect("ignores a fence for requests to subshells and on the control channel", () =>
    Effect.gen(function* () {
      const options = { id: "1", session: "client", content: {} }
      const control = request("usage_request", { ...options, channel: "control" })
      const main = request("complete_request", options)
      const subshell = { ...main, header: { ...main.header, subshell_id: "s" } }
      for (const asked of [control, subshell]) {
        assert.isUndefined(yield* play([({ onFenced }) => onFenced?.()], { asked }))
      }
    }))

  it.effect("fails with ChannelError when the request cannot be sent", () =>
    Effect.gen(function* () {
      const error = new ChannelError({ detail: "gone" })
      assert.deepStrictEqual(yield* play([], { send: Effect.fail(error) }), Exit.fail(error))
    }))
})
