import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema, Stream } from "effect"
import * as Tail from "../../src/gateway/tail.ts"
import * as Any from "../support/arbitrary.ts"

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)
// Never empty, and never with a byte order mark at the very start, which decoders drop.
const line = Arbitrary.map(Any.text, (text) => `.${text.replaceAll("\n", "")}`)

/** Follows an output and gives the lines as they were told. */
const follow = Effect.fnUntraced(function* (tail: Tail.Tail, output: Stream.Stream<Uint8Array, string>) {
  const told: Array<string> = []
  yield* tail.follow(output, (line) => Effect.sync(() => told.push(line)))
  return told
})

describe("tail", () => {
  it("is empty at first", () => {
    assert.deepStrictEqual(Tail.make().lines(), [])
  })

  it.effect.prop(
    "keeps lines, however their bytes come",
    [Arbitrary.array(line), Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 }))],
    ([lines, size]) =>
      Effect.gen(function* () {
        const bytes = utf8(lines.join("\n"))
        const pieces = Array.from(
          { length: Math.ceil(bytes.byteLength / size) },
          (_, index) => bytes.subarray(index * size, (index + 1) * size),
        )
        const tail = Tail.make()
        assert.deepStrictEqual(yield* follow(tail, Stream.fromIterable(pieces)), lines)
        assert.deepStrictEqual(tail.lines(), lines)
      }),
  )

  it.effect("keeps the last 50 lines and tells all", () =>
    Effect.gen(function* () {
      const lines = Array.from({ length: 120 }, (_, index) => `line ${index}`)
      const tail = Tail.make()
      const told = yield* follow(tail, Stream.make(utf8(`${lines.join("\n")}\n`)))
      assert.deepStrictEqual(told, lines)
      assert.deepStrictEqual(tail.lines(), lines.slice(-50))
    }))

  it.effect("keeps what came before the output broke", () =>
    Effect.gen(function* () {
      const tail = Tail.make()
      const output = Stream.concat(Stream.make(utf8("a\nb\n")), Stream.fail("killed"))
      assert.deepStrictEqual(yield* follow(tail, output), ["a", "b"])
      assert.deepStrictEqual(tail.lines(), ["a", "b"])
    }))

  it.effect("joins several outputs", () =>
    Effect.gen(function* () {
      const tail = Tail.make()
      yield* follow(tail, Stream.make(utf8("a\n")))
      const before = tail.lines()
      yield* follow(tail, Stream.make(utf8("b\n")))
      assert.deepStrictEqual(tail.lines(), ["a", "b"])
      assert.deepStrictEqual(before, ["a"], "What was read does not change")
    }))
})
