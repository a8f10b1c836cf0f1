import { assert, describe, it, vi } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { Buffer } from "node:buffer"
import * as TruncatedText from "../../src/output/truncated_text.ts"
import * as Any from "../support/arbitrary.ts"

const Limit = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 120 }))
const chunks = Arbitrary.array(Any.text)

const keep = (limit: number, texts: ReadonlyArray<string>): TruncatedText.TruncatedText =>
  texts.reduce(TruncatedText.append, TruncatedText.empty(limit))

/** Parses a truncated text: both ends, and the stated number of missing bytes. */
const read = (kept: TruncatedText.TruncatedText) => {
  const [head = "", lost, tail = ""] = TruncatedText.toText(kept).split(
    /\n\[effect-jupyter\] (\d+) bytes left out\n/,
  )
  return { head, tail, lost: lost === undefined ? 0 : Number(lost) }
}
const sizeOf = (text: string): number => Buffer.byteLength(text)

const many = { arbitrary: { runs: 500, size: 12 } }

describe("truncated_text", () => {
  it.prop("changes nothing up to the limit", [chunks], ([texts]) => {
    const whole = texts.join("")
    for (const limit of [sizeOf(whole), sizeOf(whole) + 1, TruncatedText.defaultLimit, Infinity]) {
      assert.strictEqual(TruncatedText.toText(keep(limit, texts)), whole)
    }
    assert.strictEqual(TruncatedText.toText(texts.reduce(TruncatedText.append, TruncatedText.empty())), whole)
  }, many)

  it.prop(
    "keeps both ends beyond the limit and tells how much is lost",
    [Limit, chunks],
    ([limit, texts]) => {
      const whole = texts.join("")
      const { head, lost, tail } = read(keep(limit, texts))
      const size = sizeOf(head) + sizeOf(tail)
      assert.isTrue(whole.startsWith(head))
      assert.isTrue(whole.endsWith(tail))
      assert.strictEqual(size + lost, sizeOf(whole))
      assert.isAtMost(size, limit)
      // A character of four bytes may be too many at either end.
      if (lost > 0) assert.isAtLeast(size, limit - 3)
    },
    many,
  )

  it.prop("never splits a character", [Limit, chunks], ([limit, texts]) => {
    const { head, tail } = read(keep(limit, texts.map((text) => text.replaceAll("\ufffd", ""))))
    assert.notInclude(head + tail, "\ufffd")
    assert.isTrue((head + tail).isWellFormed())
  }, many)

  it.prop("does not depend on how the text came", [Limit, chunks], ([limit, texts]) => {
    const whole = texts.join("")
    const expected = TruncatedText.toText(keep(limit, [whole]))
    assert.strictEqual(TruncatedText.toText(keep(limit, texts)), expected)
    // By characters: a kernel sends whole ones.
    assert.strictEqual(TruncatedText.toText(keep(limit, [...whole])), expected)
  }, many)

  it.prop("never holds much more than the limit", [Limit, chunks], ([limit, texts]) => {
    let kept = TruncatedText.empty(limit)
    let size = 0
    for (const text of texts) {
      kept = TruncatedText.append(kept, text)
      size += sizeOf(text)
      assert.deepStrictEqual([kept.headBytes, kept.tailBytes], [sizeOf(kept.head), sizeOf(kept.tail)])
      assert.isAtMost(kept.headBytes, limit)
      assert.isAtMost(kept.tailBytes, limit)
      assert.strictEqual(kept.headBytes + kept.lost + kept.tailBytes, size)
    }
  }, many)

  it.prop("can be read before the end without an effect on the end", [Limit, chunks], ([limit, texts]) => {
    const kept = keep(limit, texts)
    const first = TruncatedText.toText(kept)
    assert.strictEqual(TruncatedText.toText(kept), first)
    TruncatedText.append(kept, "more")
    assert.strictEqual(TruncatedText.toText(kept), first)
  })

  // Halves of a surrogate pair are no UTF-8: what is left of them when they are cut off is not defined.
  it.prop("stays within the limit on any string", [Limit, Schema.Array(Schema.String)], ([limit, texts]) => {
    const { head, lost, tail } = read(keep(limit, texts))
    if (lost > 0) assert.isAtMost(sizeOf(head) + sizeOf(tail), limit)
    else assert.strictEqual(head, texts.join(""))
  }, many)

  it("takes the default for more than a string can hold", () => {
    for (const limit of [undefined, TruncatedText.defaultLimit + 1, Infinity]) {
      assert.strictEqual(TruncatedText.empty(limit).limit, TruncatedText.defaultLimit)
    }
  })

  it("rounds the limit to whole bytes", () => {
    for (const limit of [6.1, 6.5, 6.9]) {
      assert.strictEqual(
        TruncatedText.toText(keep(limit, ["éééééé"])),
        "é\n[effect-jupyter] 6 bytes left out\néé",
      )
    }
  })

  it("keeps nothing at a limit of zero or less", () => {
    for (const limit of [0, 0.5, -1]) {
      assert.strictEqual(TruncatedText.toText(keep(limit, [])), "")
      assert.strictEqual(
        TruncatedText.toText(keep(limit, ["é", "a"])),
        "\n[effect-jupyter] 3 bytes left out\n",
      )
    }
  })

  it("keeps an odd byte at the beginning", () => {
    assert.strictEqual(TruncatedText.toText(keep(3, ["abcdef"])), "ab\n[effect-jupyter] 3 bytes left out\nf")
  })

  // The default limit is close to the length at which joining strings throws. To exceed that in a test takes
  // gigabytes, so this looks at the strings that are cut instead.
  it.prop(
    "joins no more than fits into the limit, but for a character at either end",
    [chunks],
    ([texts]) => {
      const limit = 2 * Math.max(1, ...texts.map(sizeOf))
      const cut = vi.spyOn(Buffer, "from")
      try {
        const kept = keep(limit, [...texts, "a".repeat(limit), "b", "c".repeat(limit), "d"])
        assert.isAbove(kept.lost, 0)
        const sizes = cut.mock.calls.map(([text]) => sizeOf(String(text)))
        assert.isNotEmpty(sizes)
        for (const size of sizes) assert.isAtMost(size, limit + 6)
      } finally {
        cut.mockRestore()
      }
    },
    many,
  )
})
