import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { type Message, request } from "../../src/jupyter/message.ts"
import * as Sequence from "../../src/jupyter/sequence.ts"

const session = "own-session"
const origin = "0b8b1d3e-abc_4711"

const own = request("execute_request", { id: "request", session, content: {} }).header
/** The requests that a server sends when it opens a connection, in the session of the client. */
const nudge = { ...own, msg_id: `${session}_99_1`, username: "username" }
const foreign = { ...own, msg_id: "other", session: "other-session" }

const message = (
  number: number | string,
  { channel = "iopub", content = {}, parentHeader = own, type = "stream" }: {
    readonly channel?: "iopub" | "shell"
    readonly content?: Message["content"]
    readonly parentHeader?: Message["parentHeader"]
    readonly type?: string
  } = {},
): Message => ({
  channel,
  header: { msg_id: typeof number === "string" ? number : `${origin}_${number}`, msg_type: type },
  parentHeader,
  metadata: {},
  content,
  buffers: [],
})
const idle = (number: number, parentHeader: Message["parentHeader"]): Message =>
  message(number, { type: "status", content: { execution_state: "idle" }, parentHeader })

const observe = (start: Sequence.Sequence, messages: ReadonlyArray<Message>): Sequence.Sequence =>
  messages.reduce(
    (sequence, next) =>
      Sequence.observe(sequence, next, { session, number: Sequence.numberOf(sequence, next.header.msg_id) }),
    start,
  )

/** A count that begins behind the message with this number. */
const behind = (number: number): Sequence.Sequence =>
  Sequence.begin(observe(Sequence.unknown, [message(number)]))

type Kind = "own" | "reply" | "idle" | "foreign" | "nudge"

/** The messages of a kernel: outputs of the client, and conversations with others without their replies. */
interface Traffic {
  readonly messages: ReadonlyArray<Message>
  readonly next: number
}
const say = ({ messages, next }: Traffic, kind: Kind): Traffic => {
  if (kind === "own") return { messages: [...messages, message(next)], next: next + 1 }
  if (kind === "reply") {
    return {
      messages: [...messages, message(next, { channel: "shell", type: "execute_reply" })],
      next: next + 1,
    }
  }
  if (kind === "idle") return { messages: [...messages, idle(next, own)], next: next + 1 }
  const parentHeader = kind === "foreign" ? foreign : nudge
  const busy = message(next, { type: "status", content: { execution_state: "busy" }, parentHeader })
  // The number between is the reply's, which goes to the other client only.
  return { messages: [...messages, busy, idle(next + 2, parentHeader)], next: next + 3 }
}

const kinds = (all: ReadonlyArray<Kind>) =>
  Arbitrary.array(Arbitrary.schema(Schema.Literals(all)), { minLength: 1, maxLength: 40 })
const first = Arbitrary.schema(Schema.Int).pipe(Arbitrary.map((n) => Math.abs(n) % 100_000))
/** Sorting by these keys shuffles. */
const keys = Arbitrary.array(Arbitrary.schema(Schema.Int), { minLength: 120, maxLength: 120 })

const traffic = (start: number, all: ReadonlyArray<Kind>) =>
  all.reduce(say, { messages: [], next: start + 1 }).messages
const shuffle = (messages: ReadonlyArray<Message>, order: ReadonlyArray<number>): ReadonlyArray<Message> =>
  messages.map((next, index) => ({ next, key: order[index] ?? 0 })).sort((a, b) => a.key - b.key).map((
    { next },
  ) => next)

describe("sequence", () => {
  it.prop(
    "missing is 0 when all messages arrived, in any order and with other clients",
    [first, kinds(["own", "reply", "idle", "foreign", "nudge"]), keys],
    ([start, all, order]) => {
      const sequence = observe(behind(start), shuffle(traffic(start, all), order))
      assert.strictEqual(Sequence.missing(sequence), 0)
    },
  )

  it.prop(
    "missing counts each dropped message without other clients",
    [first, kinds(["own", "reply", "idle"]), keys],
    ([start, all, order]) => {
      // The last one is the one that tells; it is always there, because nothing is over without it.
      const messages = traffic(start, [...all, "idle"])
      for (let dropped = 0; dropped < messages.length - 1; dropped++) {
        const rest = messages.filter((_, index) => index !== dropped)
        assert.strictEqual(Sequence.missing(observe(behind(start), shuffle(rest, order))), 1)
      }
    },
  )

  it.prop(
    "missing counts a dropped output of the client among conversations of others",
    [first, kinds(["own", "foreign", "nudge"])],
    ([start, all]) => {
      const messages = [...traffic(start, all)]
      const last = idle(Number(messages.at(-1)?.header.msg_id.split("_").at(-1)) + 1, own)
      for (const dropped of messages.filter(({ header }) => header.msg_type === "stream")) {
        const rest = [...messages.filter((other) => other !== dropped), last]
        assert.strictEqual(Sequence.missing(observe(behind(start), rest)), 1)
      }
    },
  )

  it("missing does not count replies to requests of the server in the client's session", () => {
    const { messages } = say({ messages: [], next: 1 }, "nudge")
    assert.strictEqual(Sequence.missing(observe(behind(0), messages)), 0)
  })

  it("missing does not count messages that a reply overtakes", () => {
    const reply = message(13, { channel: "shell", type: "kernel_info_reply" })
    const overtaken = observe(behind(10), [message(11), reply])
    assert.strictEqual(Sequence.missing(overtaken), 0)
    assert.strictEqual(Sequence.missing(observe(overtaken, [idle(14, own)])), 1)
    assert.strictEqual(Sequence.missing(observe(overtaken, [idle(14, own), message(12)])), 0)
    // A count that begins in between takes it along.
    assert.strictEqual(Sequence.missing(observe(Sequence.begin(overtaken), [message(12), idle(14, own)])), 0)
  })

  it("missing does not count late messages from before begin", () => {
    const sequence = observe(behind(10), [message(9), message(12), idle(8, foreign)])
    assert.strictEqual(Sequence.missing(sequence), 1)
    assert.strictEqual(Sequence.missing(observe(sequence, [message(11)])), 0)
    assert.strictEqual(Sequence.missing(Sequence.begin(sequence)), 0)
  })

  it("observe ignores messages of other origins, such as children of the kernel", () => {
    const sequence = observe(behind(10), [message("0b8b1d3e-abc_4712_900"), message("elsewhere_1_500")])
    assert.strictEqual(Sequence.missing(sequence), 0)
    assert.strictEqual(sequence.highest, 10)
  })

  it("missing is undefined for a kernel that does not number its messages", () => {
    const ids = ["8e4c2f0e-9a1b-4c57-b8a0-0d5f3c1e2a77", "4e1f4d0a9b", "_", "abc_", "abc_1x"]
    assert.isUndefined(Sequence.missing(Sequence.unknown))
    assert.isUndefined(Sequence.missing(observe(Sequence.unknown, ids.map((id) => message(id)))))
    assert.isUndefined(Sequence.missing(Sequence.begin(Sequence.unknown)))
  })

  it("numberOf identifies a message by its number when the kernel is known", () => {
    const known = behind(10)
    assert.strictEqual(Sequence.numberOf(known, `${origin}_12`), 12)
    assert.strictEqual(Sequence.numberOf(Sequence.unknown, `${origin}_12`), 12)
    for (
      const id of [
        origin,
        `${origin}_`,
        `${origin}_1x`,
        `${origin}-12`,
        `${origin}1_2`,
        `other_1_12`,
        "",
        "_1",
      ]
    ) {
      assert.isUndefined(Sequence.numberOf(known, id))
    }
  })
})
