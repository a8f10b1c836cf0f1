import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { excerpt, plain } from "../../src/jupyter/control_codes.ts"

const pieces = [
  "\x1b",
  "[",
  "]",
  "P",
  "0;1",
  "m",
  "\\",
  "\x07",
  "\x9b",
  "\x9d",
  "\x9c",
  " ",
  "a",
  "\n",
  "\t",
  "\r",
  "é",
  "😀",
]
const texts = Arbitrary.map(Arbitrary.array(Arbitrary.schema(Schema.Literals(pieces))), (all) => all.join(""))
const controls = new RegExp("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

describe("plain", () => {
  it.prop("leaves only tabs and line feeds of control characters", [texts], ([text]) => {
    const stripped = plain(text)
    assert.notMatch(stripped, controls)
    assert.strictEqual(plain(stripped), stripped)
    if (!controls.test(text)) assert.strictEqual(stripped, text)
  }, { arbitrary: { runs: 2000, size: 40 } })

  for (
    const [what, text, expected] of [
      ["colors", "\x1b[1;31mred\x1b[0m", "red"],
      ["colors by one character", "\x9b31mred\x9bm", "red"],
      ["titles", "\x1b]0;title\x07a\x1b]0;title\x1b\\b\x9dtitle\x9cc", "abc"],
      ["links", "\x1b]8;;http://a\x07link\x1b]8;;\x07", "link"],
      ["device control strings", "\x1bPq#0\x1b\\a", "a"],
      ["other sequences", "\x1bcA\x1b(B\x1b7\x1b=", "A"],
      ["single controls", "a\rb\bc\x07\x00d\x7f", "abcd"],
      ["a sequence without an end", "a\x1b]title", "a]title"],
      ["a string that a line feed ends", "\x1b]title\nnext", "]title\nnext"],
      ["a code that a letter of another language ends", "\x1b[3é", "[3é"],
      ["not line feeds, tabs and marks of direction", "a\n\tb\u202ec", "a\n\tb\u202ec"],
    ] as const
  ) it(`removes ${what}`, () => assert.strictEqual(plain(text), expected))

  it("reads megabytes of unterminated codes in linear time", () => {
    for (const piece of ["\x1b]a;", "\x1b[1", "\x9d", "\x1b", "\x1b ", "\x1bP", "\x1b]a\x9d"]) {
      const started = performance.now()
      plain(piece.repeat(1_000_000 / piece.length))
      assert.isBelow(performance.now() - started, 3000, JSON.stringify(piece))
    }
  })
})

describe("excerpt", () => {
  it("marks a truncated text", () => {
    assert.strictEqual(excerpt("a\x1b[mbc", 10), "abc")
    assert.strictEqual(excerpt("abcdef", 3), "abc…")
  })
})
