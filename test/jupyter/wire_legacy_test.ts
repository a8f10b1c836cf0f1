import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Result, Schema } from "effect"
import { type Message, WireError } from "../../src/jupyter/message.ts"
import * as WireLegacy from "../../src/jupyter/wire_legacy.ts"
import * as Any from "../support/arbitrary.ts"

const small: Message = {
  channel: "shell",
  header: { msg_id: "1", msg_type: "t" },
  parentHeader: {},
  metadata: {},
  content: { é: 1 },
  buffers: [],
}
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)
const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, false)
  return bytes
}
const join = (...parts: ReadonlyArray<Uint8Array>): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) => [...part]))

const textMessage = Arbitrary.map(Any.message, (message): Message => ({ ...message, buffers: [] }))
const binaryMessage = Arbitrary.map(
  Any.message,
  (message): Message => ({ ...message, buffers: [...message.buffers, Uint8Array.of(1, 2, 3)] }),
)

const refused = Effect.fnUntraced(function* (frame: string | Uint8Array) {
  const error = yield* Effect.flip(Effect.fromResult(WireLegacy.decode(frame)))
  assert.instanceOf(error, WireError)
  return error.detail
})
const encodeText = (message: Message): string => {
  const frame = WireLegacy.encode(message)
  return typeof frame === "string" ? frame : assert.fail("A message without buffers is a text frame")
}
const encodeBinary = (message: Message): Uint8Array => {
  const frame = WireLegacy.encode(message)
  return typeof frame === "string" ? assert.fail("A message with buffers is a binary frame") : frame
}

describe("wire_legacy", () => {
  it.effect.prop("decode inverts encode", [Any.message], ([message]) =>
    Effect.gen(function* () {
      const frame = WireLegacy.encode(message)
      assert.strictEqual(typeof frame === "string", message.buffers.length === 0)
      assert.deepStrictEqual(yield* Effect.fromResult(WireLegacy.decode(frame)), message)
    }))

  it.effect("decode keeps byte order marks, surrogates and other text that decoders change", () =>
    Effect.gen(function* () {
      for (const text of ["\ufeff", "\ufeffa", "a\ufeff", "😀", "\ud83d", "\0", "\u2028", "é"]) {
        for (const buffers of [[], [Uint8Array.of(1)]]) {
          const message = { ...small, channel: "\ufeff", content: { text }, buffers }
          const decoded = yield* Effect.fromResult(WireLegacy.decode(WireLegacy.encode(message)))
          assert.deepStrictEqual(decoded, message)
        }
      }
    }))

  it("encode writes a text frame as Jupyter Server reads it", () => {
    assert.deepStrictEqual(JSON.parse(encodeText(small)), {
      channel: "shell",
      header: { msg_id: "1", msg_type: "t" },
      msg_id: "1",
      msg_type: "t",
      parent_header: {},
      metadata: {},
      content: { é: 1 },
      buffers: [],
    })
  })

  it("encode writes a binary frame with a table of offsets", () => {
    const json = utf8(encodeText(small))
    assert.deepStrictEqual(
      encodeBinary({ ...small, buffers: [Uint8Array.of(1, 2), new Uint8Array(), Uint8Array.of(3)] }),
      join(
        // The number of parts and where each starts.
        ...[4, 20, 20 + json.byteLength, 22 + json.byteLength, 22 + json.byteLength].map(u32),
        json,
        Uint8Array.of(1, 2, 3),
      ),
    )
  })

  it.effect("decode reads frames of Jupyter Server", () =>
    Effect.gen(function* () {
      // By serialize_binary_message of jupyter_server 2.21, which escapes what is not ASCII.
      const json = `{"header": {"msg_id": "a_1", "msg_type": "stream"}, "parent_header": {"msg_id": "b"}, ` +
        `"metadata": {}, "content": {"name": "stdout", "text": "h\\u00e9"}, "channel": "iopub"}`
      const expected: Message = {
        channel: "iopub",
        header: { msg_id: "a_1", msg_type: "stream" },
        parentHeader: { msg_id: "b" },
        metadata: {},
        content: { name: "stdout", text: "hé" },
        buffers: [],
      }
      const table = Uint8Array.of(0, 0, 0, 2, 0, 0, 0, 0x0c, 0, 0, 0, 0xb7)
      const frame = join(table, utf8(json), Uint8Array.of(1, 2))
      assert.deepStrictEqual(yield* Effect.fromResult(WireLegacy.decode(json)), expected)
      assert.deepStrictEqual(yield* Effect.fromResult(WireLegacy.decode(frame)), {
        ...expected,
        buffers: [Uint8Array.of(1, 2)],
      })
    }))

  it.effect("decode reads a frame in a larger buffer", () =>
    Effect.gen(function* () {
      const message = { ...small, buffers: [Uint8Array.of(7)] }
      const memory = join(Uint8Array.of(255, 255, 255), encodeBinary(message), Uint8Array.of(255))
      const decoded = yield* Effect.fromResult(WireLegacy.decode(memory.subarray(3, -1)))
      assert.deepStrictEqual(decoded, message)
      assert.strictEqual(decoded.buffers[0]?.buffer, memory.buffer, "Buffers are views, not copies")
    }))

  it.effect.prop(
    "decode refuses a truncated text frame",
    [textMessage],
    ([message]) =>
      Effect.gen(function* () {
        const frame = encodeText(message)
        for (let length = 0; length < frame.length; length++) yield* refused(frame.slice(0, length))
      }),
    { arbitrary: { runs: 20 } },
  )

  // The format has no mark for the end of the last buffer: only cuts before its start can be noticed.
  it.effect.prop(
    "decode refuses a binary frame that ends before its last buffer",
    [binaryMessage],
    ([message]) =>
      Effect.gen(function* () {
        const frame = encodeBinary(message)
        const lastStart = frame.byteLength - (message.buffers.at(-1)?.byteLength ?? 0)
        for (let length = 0; length < lastStart; length++) yield* refused(frame.subarray(0, length))
      }),
    { arbitrary: { runs: 20 } },
  )

  it.prop(
    "decode never throws on any frame",
    [Schema.Union([Schema.Uint8Array, Schema.String])],
    ([frame]) => {
      assert.isTrue(Result.isResult(WireLegacy.decode(frame)))
    },
    { arbitrary: { runs: 500, size: 100 } },
  )

  it.prop("decode never throws on any JSON", [Schema.Json], ([value]) => {
    assert.isTrue(Result.isResult(WireLegacy.decode(JSON.stringify(value))))
  }, { arbitrary: { runs: 200 } })

  it.prop(
    "decode never throws on a damaged frame",
    [binaryMessage, Schema.Array(Schema.Struct({ place: Schema.Natural, byte: Schema.Natural }))],
    ([message, damages]) => {
      const frame = encodeBinary(message)
      for (const { byte, place } of damages) frame[place % frame.byteLength] = byte
      assert.isTrue(Result.isResult(WireLegacy.decode(frame)))
    },
    { arbitrary: { runs: 500 } },
  )

  it.effect("decode refuses offsets outside of the frame", () =>
    Effect.gen(function* () {
      const tables: ReadonlyArray<ReadonlyArray<number>> = [
        [],
        [0],
        [1],
        [2 ** 32 - 1, 8],
        // Into the table, backwards, and past the end.
        [1, 4],
        [2, 13, 12],
        [1, 9],
        [1, 2 ** 32 - 1],
      ]
      for (const table of tables) {
        assert.match(yield* refused(join(...table.map(u32))), /^Its table|^Its offset/)
      }
    }))

  it.effect("decode refuses JSON that is not a message", () =>
    Effect.gen(function* () {
      const good = { channel: "shell", header: small.header, content: {} }
      yield* Effect.fromResult(WireLegacy.decode(JSON.stringify(good)))
      for (const bad of [null, [], 1, "x"]) {
        assert.strictEqual(yield* refused(JSON.stringify(bad)), "It is not a JSON object")
        assert.strictEqual(
          yield* refused(JSON.stringify({ ...good, header: bad })),
          `Its header has no "msg_id" and "msg_type"`,
        )
        assert.strictEqual(
          yield* refused(JSON.stringify({ ...good, content: bad })),
          "Its content is not an object",
        )
      }
      for (const bad of [{ msg_id: "1" }, { msg_type: "t" }, { msg_id: null, msg_type: "t" }]) {
        assert.match(yield* refused(JSON.stringify({ ...good, header: bad })), /^Its header/)
      }
      assert.strictEqual(yield* refused(JSON.stringify({ ...good, channel: 1 })), "It names no channel")
      for (const bad of ["", "{", "{} {}", `\ufeff${JSON.stringify(good)}`]) {
        assert.match(yield* refused(bad), /^SyntaxError/)
        assert.match(yield* refused(join(u32(1), u32(8), utf8(bad))), /^SyntaxError/)
      }
    }))

  it.effect("decode accepts absent parent headers and metadata, which servers send as null", () =>
    Effect.gen(function* () {
      const frame = JSON.stringify({
        channel: "iopub",
        header: small.header,
        parent_header: null,
        content: {},
      })
      const { metadata, parentHeader } = yield* Effect.fromResult(WireLegacy.decode(frame))
      assert.deepStrictEqual([parentHeader, metadata], [{}, {}])
    }))
})
