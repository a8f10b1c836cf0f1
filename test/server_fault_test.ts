/** Servers and kernels that send nonsense on the WebSocket: none of it is fatal, and no output is lost by it. */
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Metric, Schema, Stream } from "effect"
import { Buffer } from "node:buffer"
import type { Message } from "../src/jupyter/message.ts"
import * as WireLegacy from "../src/jupyter/wire_legacy.ts"
import * as WireV1 from "../src/jupyter/wire_v1.ts"
import * as Metrics from "../src/kernel/metrics.ts"
import { json, text as anyText } from "./support/arbitrary.ts"
import { crashes } from "./support/crashes.ts"
import * as Fake from "./support/fake_server.ts"

afterEach(() => assert.deepStrictEqual(crashes(), []))

const formats = ["v1", "legacy"] as const
const ignoredCount = Effect.map(Metric.value(Metrics.ignored), ({ count }) => Number(count))
/** Sends the messages of a good execution with something before, between and after them. */
const around = (conversation: Fake.Conversation, between: (place: number) => void): void => {
  conversation.run("one ", "two ", "three").forEach((message, place) => {
    between(place)
    conversation.send(message)
  })
}

/** Frames that are no messages in either format. */
const nonsense: Record<string, string | Uint8Array> = {
  "no JSON": "{",
  "no object": "[1, 2]",
  "null": "null",
  "empty text": "",
  "empty binary": new Uint8Array(),
  "an object without keys": "{}",
  "no channel": JSON.stringify({ header: { msg_id: "1", msg_type: "stream" }, content: {} }),
  "no header": JSON.stringify({ channel: "iopub", content: {} }),
  "a header without id": JSON.stringify({ channel: "iopub", header: { msg_type: "stream" }, content: {} }),
  "a header without type": JSON.stringify({ channel: "iopub", header: { msg_id: "1" }, content: {} }),
  "content that is no object": JSON.stringify({
    channel: "iopub",
    header: { msg_id: "1", msg_type: "stream" },
    content: "text",
  }),
  "short binary": new Uint8Array([1, 2, 3]),
  "a huge table": new Uint8Array(64).fill(0xff),
  "a table of nothing": new Uint8Array(64),
}

describe("frames that are no messages", () => {
  for (const format of formats) {
    it.live(`are ignored and counted, ${format}`, () =>
      Effect.gen(function* () {
        const frames = Object.values(nonsense)
        const { kernel } = yield* Fake.client({
          format,
          execute: (conversation) => around(conversation, () => frames.forEach(conversation.raw)),
        })
        const before = yield* ignoredCount
        assert.strictEqual((yield* kernel.execute("x")).text, "one two three")
        assert.strictEqual((yield* ignoredCount) - before, 7 * frames.length)
      }))

    it.live(`truncated, ${format}`, () =>
      Effect.gen(function* () {
        let cuts = 0
        const { kernel } = yield* Fake.client({
          format,
          execute: (conversation) =>
            around(conversation, () => {
              const message = conversation.message("stream", { name: "stdout", text: "cut" }, {
                buffers: [new Uint8Array(3)],
              })
              const frame = format === "v1" ? WireV1.encode(message) : Buffer.from(WireLegacy.encode(message))
              // Of a legacy frame the last part, a buffer, may have any length.
              const whole = format === "v1" ? frame.byteLength : frame.byteLength - 3
              for (let length = 0; length < whole; length += 7) {
                cuts++
                conversation.raw(frame.subarray(0, length))
              }
            }),
        })
        const before = yield* ignoredCount
        assert.strictEqual((yield* kernel.execute("x")).text, "one two three")
        assert.strictEqual((yield* ignoredCount) - before, cuts)
      }))
  }

  it.live("of the other format, on a v1 connection", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({
        execute: (conversation) =>
          around(conversation, () => {
            const other = conversation.message("stream", { name: "stdout", text: "no" }, {
              buffers: [new Uint8Array(3)],
            })
            conversation.raw(WireLegacy.encode(other))
          }),
      })
      const before = yield* ignoredCount
      assert.strictEqual((yield* kernel.execute("x")).text, "one two three")
      assert.strictEqual((yield* ignoredCount) - before, 7)
    }))

  it.live("of the other format, on a legacy connection", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({
        format: "legacy",
        execute: (conversation) =>
          around(conversation, () =>
            conversation.raw(
              WireV1.encode(conversation.message("stream", { name: "stdout", text: "no" })),
            )),
      })
      const before = yield* ignoredCount
      assert.strictEqual((yield* kernel.execute("x")).text, "one two three")
      assert.strictEqual((yield* ignoredCount) - before, 7)
    }))
})

describe("messages that do not belong here", () => {
  for (const format of formats) {
    it.live(`of unknown types, without a known request, with missing keys, and repeated, ${format}`, () =>
      Effect.gen(function* () {
        const { kernel } = yield* Fake.client({
          format,
          execute: (conversation) => {
            const { message, send } = conversation
            const stream = (text: string, parent: Record<string, unknown>) =>
              message("stream", { name: "stdout", text }, { parentHeader: parent })
            around(conversation, () =>
              send(
                message("comm_open", { comm_id: "1" }),
                message("no_such_type", {}),
                stream("stray", {}),
                stream("stray", { msg_id: "nobody" }),
                stream("stray", { msg_id: 7 }),
                message("stream", { name: "stdin", text: "no" }),
                message("stream", { name: "stdout" }),
                message("display_data", {}),
                message("error", { ename: 1 }),
                message("clear_output", { wait: "yes" }),
                message("status", {}),
              ))
          },
        })
        const before = yield* ignoredCount
        const result = yield* kernel.execute("x")
        assert.strictEqual(result.text, "one two three")
        assert.lengthOf(result.displays, 0)
        assert.strictEqual((yield* ignoredCount) - before, 7 * 11)
      }))
  }

  it.live("the same message twice counts once", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({
        execute: ({ run, send }) => send(...run("one ", "two").flatMap((message) => [message, message])),
      })
      const chunks = yield* Stream.runCollect(kernel.stream("x"))
      assert.deepStrictEqual(
        chunks.map((chunk) => chunk._tag === "ClearOutput" ? "" : chunk.text),
        ["one ", "two", "one two"],
      )
    }))

  it.live("what a cell says after its end does not reach the next one", () =>
    Effect.gen(function* () {
      const { kernel } = yield* Fake.client({
        execute: ({ message, run, send }) =>
          send(...run("mine"), message("stream", { name: "stdout", text: "late" })),
      })
      const before = yield* ignoredCount
      const all = yield* Effect.forEach(Array.from({ length: 20 }), () => kernel.execute("x"))
      assert.deepStrictEqual(all.map(({ text }) => text), Array.from({ length: 20 }, () => "mine"))
      // The last of them may not have arrived when its cell ended.
      yield* kernel.execute("x")
      assert.isAtLeast((yield* ignoredCount) - before, 20)
    }))
})

const Bytes = Schema.Uint8Array.check(Schema.isMaxLength(80))
/** Types that end nothing; what they contain is anything. */
const harmless = ["stream", "display_data", "execute_input", "clear_output", "comm_msg", "kernel_info_reply"]

describe("random frames between the real ones", () => {
  const frames = Arbitrary.array(
    Arbitrary.all({
      bytes: Arbitrary.schema(Bytes),
      words: anyText,
      content: json,
      parent: json,
      kind: Arbitrary.schema(Schema.Literals(["bytes", "text", "json", "mine", "foreign", "bent", "head"])),
      type: Arbitrary.schema(Schema.Literals(harmless)),
      place: Arbitrary.schema(Schema.Int),
    }),
    { maxLength: 40 },
  )
  for (const format of formats) {
    it.live(`change nothing, ${format}`, () =>
      Effect.gen(function* () {
        let script: (conversation: Fake.Conversation) => void = () => {}
        const { kernel } = yield* Fake.client({ format, execute: (conversation) => script(conversation) })
        const checked = yield* Arbitrary.checkEffect(frames, (frames) =>
          Effect.gen(function* () {
            script = (conversation) =>
              around(conversation, (place) => {
                for (const frame of frames) {
                  if (Math.abs(frame.place % 7) === place) disturb(conversation, frame)
                }
              })
            const result = yield* kernel.execute("x", { timeout: "10 seconds" })
            return result.text === "one two three"
          }), { runs: 150 })
        assert.isUndefined(Arbitrary.formatCheckFailure(checked))
      }))
  }

  type Frame = typeof frames extends Arbitrary.Arbitrary<ReadonlyArray<infer F>> ? F : never
  const disturb = ({ message, raw, request }: Fake.Conversation, frame: Frame): void => {
    const flip = (bytes: Uint8Array): Uint8Array => {
      const index = Math.abs(frame.place) % 48
      return bytes.map((byte, place) => place === index ? byte ^ 0xff : byte)
    }
    const foreign = message(frame.type, frame.content, { parentHeader: frame.parent })
    switch (frame.kind) {
      case "bytes":
        return raw(frame.bytes)
      case "text":
        return raw(frame.words)
      case "json":
        return raw(JSON.stringify(frame.content))
      case "mine":
        // Of this execution, but of an unknown type.
        return raw(WireLegacy.encode(message(`x${frame.type}`, frame.content)))
      case "foreign":
        return raw(WireLegacy.encode(foreign))
      case "bent":
        return raw(flip(WireV1.encode(foreign)))
      case "head":
        return raw(
          WireV1.encode({ ...message("stream", {}), header: { ...request.header, msg_type: "stream" } }),
        )
    }
  }
})

describe("a server that opens a connection before it receives what the kernel sends to all clients", () => {
  for (const format of formats) {
    it.live(`loses no output of the first execution, ${format}`, () =>
      Effect.gen(function* () {
        let requests = 0
        const send = (conversation: Fake.Conversation, messages: ReadonlyArray<Message>) =>
          conversation.send(...messages.filter(({ channel }) => channel === "shell" || requests > 1))
        const { kernel } = yield* Fake.client({
          format,
          info: (conversation) => {
            requests++
            const { message } = conversation
            send(conversation, [
              message("status", { execution_state: "busy" }),
              message("kernel_info_reply", { status: "ok", language_info: { name: "fake" } }),
              message("status", { execution_state: "idle" }),
            ])
          },
          execute: (conversation) => send(conversation, conversation.run("one ", "two")),
        })
        assert.strictEqual((yield* kernel.execute("x")).text, "one two")
      }))
  }
})
