import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { Hex } from "effect/encoding"
import { type Message, WireError } from "../../src/jupyter/message.ts"
import * as WireV1 from "../../src/jupyter/wire_v1.ts"
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
const u64 = (value: bigint): Uint8Array => {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, value, true)
  return bytes
}
const join = (...parts: ReadonlyArray<Uint8Array>): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) => [...part]))

/** A frame of parts that are given as bytes, so that it may hold what no message is made of. */
const frameOf = (...parts: ReadonlyArray<string | Uint8Array>): Uint8Array => {
  const bytes = parts.map((part) => typeof part === "string" ? utf8(part) : part)
  const offsets = [8 * (parts.length + 2)]
  for (const part of bytes) offsets.push((offsets.at(-1) ?? 0) + part.byteLength)
  return join(u64(BigInt(offsets.length)), ...offsets.map((offset) => u64(BigInt(offset))), ...bytes)
}
const header = `{"msg_id":"1","msg_type":"t"}`

const refused = Effect.fnUntraced(function* (frame: Uint8Array) {
  const error = yield* Effect.flip(Effect.fromResult(WireV1.decode(frame)))
  assert.instanceOf(error, WireError)
  return error.detail
})

describe("wire_v1", () => {
  it.effect.prop("decode inverts encode", [Any.message], ([message]) =>
    Effect.gen(function* () {
      const decoded = yield* Effect.fromResult(WireV1.decode(WireV1.encode(message)))
      assert.deepStrictEqual(decoded, message)
    }))

  it.effect("decode keeps byte order marks, surrogates and other text that decoders change", () =>
    Effect.gen(function* () {
      for (const text of ["\ufeff", "\ufeffa", "a\ufeff", "😀", "\ud83d", "\0", "\u2028", "é"]) {
        const message = { ...small, content: { text } }
        const decoded = yield* Effect.fromResult(WireV1.decode(WireV1.encode(message)))
        assert.deepStrictEqual(decoded, message)
      }
      const channel = { ...small, channel: "\ufeff" }
      assert.deepStrictEqual(yield* Effect.fromResult(WireV1.decode(WireV1.encode(channel))), channel)
    }))

  it("encode writes the table of offsets of the protocol", () => {
    const parts = [utf8("shell"), utf8(header), utf8("{}"), utf8("{}"), utf8(`{"é":1}`)]
    assert.deepStrictEqual(parts.map((part) => part.byteLength), [5, 29, 2, 2, 8])
    assert.deepStrictEqual(
      WireV1.encode(small),
      // The number of offsets, where each part starts, and where the last one ends.
      join(...[6n, 56n, 61n, 90n, 92n, 94n, 102n].map(u64), ...parts),
    )
    assert.deepStrictEqual(
      WireV1.encode({ ...small, buffers: [Uint8Array.of(1, 2), new Uint8Array(), Uint8Array.of(3)] }),
      join(
        ...[9n, 80n, 85n, 114n, 116n, 118n, 126n, 128n, 128n, 129n].map(u64),
        ...parts,
        Uint8Array.of(1, 2, 3),
      ),
    )
  })

  it.effect("decode reads frames of Jupyter Server", () =>
    Effect.gen(function* () {
      // By serialize_msg_to_ws_v1 of jupyter_server 2.21, with a buffer of the bytes 1 and 2.
      const frame = yield* Effect.fromResult(Hex.decode(
        "0700000000000000400000000000000045000000000000006c000000000000007b00000000000000" +
          "7d000000000000009e00000000000000a000000000000000" +
          "696f707562" +
          "7b226d73675f6964223a2022615f31222c20226d73675f74797065223a202273747265616d227d" +
          "7b226d73675f6964223a202262227d" +
          "7b7d" +
          "7b226e616d65223a20227374646f7574222c202274657874223a202268c3a9227d" +
          "0102",
      ))
      assert.deepStrictEqual(yield* Effect.fromResult(WireV1.decode(frame)), {
        channel: "iopub",
        header: { msg_id: "a_1", msg_type: "stream" },
        parentHeader: { msg_id: "b" },
        metadata: {},
        content: { name: "stdout", text: "hé" },
        buffers: [Uint8Array.of(1, 2)],
      })
    }))

  it.effect("decode reads a frame in a larger buffer", () =>
    Effect.gen(function* () {
      const message = { ...small, buffers: [Uint8Array.of(7)] }
      const memory = join(Uint8Array.of(255, 255, 255), WireV1.encode(message), Uint8Array.of(255))
      const decoded = yield* Effect.fromResult(WireV1.decode(memory.subarray(3, -1)))
      assert.deepStrictEqual(decoded, message)
      assert.strictEqual(decoded.buffers[0]?.buffer, memory.buffer, "Buffers are views, not copies")
    }))

  it.effect.prop(
    "decode refuses a frame that is truncated or has extra bytes",
    [Any.message],
    ([message]) =>
      Effect.gen(function* () {
        const frame = WireV1.encode(message)
        for (let length = 0; length < frame.byteLength; length++) yield* refused(frame.subarray(0, length))
        yield* refused(join(frame, Uint8Array.of(0)))
      }),
    { arbitrary: { runs: 20 } },
  )

  it.prop("decode never throws on any bytes", [Schema.Uint8Array], ([bytes]) => {
    assert.isTrue(Result.isResult(WireV1.decode(bytes)))
  }, { arbitrary: { runs: 500, size: 100 } })

  it.prop(
    "decode never throws on a damaged frame",
    [Any.message, Schema.Array(Schema.Struct({ place: Schema.Natural, byte: Schema.Natural }))],
    ([message, damages]) => {
      const frame = WireV1.encode(message)
      for (const { byte, place } of damages) frame[place % frame.byteLength] = byte
      assert.isTrue(Result.isResult(WireV1.decode(frame)))
    },
    { arbitrary: { runs: 500 } },
  )

  it.effect("decode refuses offsets outside of the frame", () =>
    Effect.gen(function* () {
      const tables: ReadonlyArray<ReadonlyArray<bigint>> = [
        [],
        [0n],
        [1n, 16n],
        [2n ** 64n - 1n],
        [2n ** 53n, 56n],
        // Too few parts.
        [5n, 48n, 48n, 48n, 48n, 48n],
        // Into the table, backwards, past the end, and past what a number can hold.
        [6n, 48n, 56n, 56n, 56n, 56n, 56n],
        [6n, 56n, 57n, 56n, 56n, 56n, 56n],
        [6n, 56n, 56n, 56n, 56n, 56n, 57n],
        [6n, 56n, 56n, 56n, 56n, 56n, 2n ** 64n - 1n],
      ]
      for (const table of tables) {
        assert.match(yield* refused(join(...table.map(u64))), /^It has|^Its table|^Its offset/)
      }
    }))

  it.effect("decode refuses parts that are not a message", () =>
    Effect.gen(function* () {
      yield* Effect.fromResult(WireV1.decode(frameOf("shell", header, "{}", "{}", "{}")))
      const noHeader = `Its header has no "msg_id" and "msg_type"`
      for (const bad of ["[]", "null", "1", `"x"`, "{}", `{"msg_id":"1"}`, `{"msg_id":1,"msg_type":"t"}`]) {
        assert.strictEqual(yield* refused(frameOf("shell", bad, "{}", "{}", "{}")), noHeader)
      }
      for (const bad of ["[]", "null", "1", `"x"`]) {
        assert.strictEqual(
          yield* refused(frameOf("shell", header, "{}", "{}", bad)),
          "Its content is not an object",
        )
      }
      for (const bad of ["", "{", "nul", "{} {}", "\ufeff{}"]) {
        assert.match(yield* refused(frameOf("shell", header, "{}", "{}", bad)), /^SyntaxError/)
      }
    }))

  it.prop(
    "makeDecoder decodes a frame independently of earlier ones",
    [Schema.Array(Schema.Natural), Any.message, Any.message],
    ([choices, one, other]) => {
      // Parents and metadata change now and then, and come back.
      const messages = choices.map((choice, index): Message => ({
        ...(choice % 2 === 0 ? one : other),
        parentHeader: choice % 3 === 0 ? one.parentHeader : other.parentHeader,
        metadata: choice % 5 === 0 ? one.metadata : other.metadata,
        content: { index },
      }))
      const decode = WireV1.makeDecoder()
      for (const message of messages) {
        assert.deepStrictEqual(Result.getOrThrow(decode(WireV1.encode(message))), message)
      }
    },
  )

  it.prop(
    "makeDecoder decodes frames after damaged ones",
    [Any.message, Schema.Array(Schema.Struct({ place: Schema.Natural, byte: Schema.Natural }))],
    ([message, damages]) => {
      const decode = WireV1.makeDecoder()
      for (const { byte, place } of damages) {
        const frame = WireV1.encode(message)
        frame[place % frame.byteLength] = byte
        assert.deepStrictEqual(decode(frame), WireV1.decode(frame))
        assert.deepStrictEqual(Result.getOrThrow(decode(WireV1.encode(message))), message)
      }
    },
    { arbitrary: { runs: 200 } },
  )

  it.effect("makeDecoder distinguishes parts with the same bytes at other offsets", () =>
    Effect.gen(function* () {
      const decode = WireV1.makeDecoder()
      assert.isTrue(Result.isSuccess(decode(frameOf("shell", header, "{}", "{}", "{}"))))
      for (const [parent, metadata] of [["", "{}{}"], ["{}{}", ""], ["{", "}{}"], ["{}{", "}"]] as const) {
        const frame = frameOf("shell", header, parent, metadata, "{}")
        assert.isTrue(Result.isFailure(decode(frame)))
        yield* refused(frame)
      }
    }))

  it.effect("makeDecoder reads headers of ipykernel like others", () =>
    Effect.gen(function* () {
      const usual =
        '{"msg_id": "a_1", "msg_type": "stream", "username": "é", "session": "", "date": "d", "version": "5"}'
      const good = [
        usual,
        usual.replaceAll(": ", ":").replaceAll(", ", ","),
        usual.replaceAll(" ", "  "),
        usual.replace("a_1", String.raw`\u0061\"_1`),
        usual.replace('"d"', '"\u007f\u2028\ufeff😀"'),
        usual.replace("}", ', "msg_id": "later"}'),
        usual.replace("}", ', "__proto__": 1}'),
        usual.replace('"username"', '"msg_type"'),
        usual.replace('"date": "d"', '"date": null'),
      ]
      for (const json of good) {
        const decoded = yield* Effect.fromResult(WireV1.decode(frameOf("iopub", json, "{}", "{}", "{}")))
        assert.deepStrictEqual(decoded.header, JSON.parse(json))
      }
      const bad = [
        usual.slice(0, -1),
        `${usual}}`,
        `x${usual}`,
        usual.replace("}", ",}"),
        usual.replace(", ", ",, "),
        usual.replace("a_1", String.raw`\x`),
        usual.replace("a_1", "\n"),
        usual.replace("a_1", "\0"),
      ]
      for (const json of bad) {
        assert.match(yield* refused(frameOf("iopub", json, "{}", "{}", "{}")), /^SyntaxError/)
      }
    }))

  it.effect("decode accepts any parent header and metadata, which servers send as null", () =>
    Effect.gen(function* () {
      for (const nothing of ["null", "[]", `""`, "0"]) {
        const frame = frameOf("shell", header, nothing, nothing, "{}")
        const { metadata, parentHeader } = yield* Effect.fromResult(WireV1.decode(frame))
        assert.deepStrictEqual([parentHeader, metadata], [{}, {}])
      }
    }))

  it.effect("decode replaces invalid UTF-8", () =>
    Effect.gen(function* () {
      const content = join(utf8(`{"text":"a`), Uint8Array.of(0xff), utf8(`b"}`))
      const decoded = yield* Effect.fromResult(WireV1.decode(frameOf("iopub", header, "{}", "{}", content)))
      assert.deepStrictEqual(decoded.content, { text: "a\ufffdb" })
    }))
})
