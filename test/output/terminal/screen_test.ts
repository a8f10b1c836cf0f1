/** A reference terminal with one line. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import * as TerminalText from "../../../src/output/terminal/terminal_text.ts"
import * as Screen from "../../../src/output/terminal/screen.ts"

const many = { arbitrary: { runs: 3000, size: 30 } }

const pieces = [
  ...["a", "bc", " ", "é", "\u0301", "█", "😀", "日", "\t", "\n", "\r", "\r\n", "\b", "\x07"],
  ...["0m", "m", "31m", "1;32m", "38;5;12m", "48;2;1;2;3m", "22m", "39m", "?25l"].map((code) =>
    `\x1b[${code}`
  ),
  ...["A", "2A", "B", "C", "3C", "D", "E", "F", "G", "5G", "K", "1K", "2K", "J"].map((code) =>
    `\x1b[${code}`
  ),
]
const writes = Arbitrary.array(Arbitrary.schema(Schema.Literals(pieces)))

/** Writes texts one by one; all that comes of it. */
const write = (texts: ReadonlyArray<string>): string => {
  let screen = Screen.empty("")
  const done: Array<string> = []
  for (const text of texts) {
    const [before, next] = Screen.write(screen, text)
    done.push(before)
    screen = next
  }
  return done.join("") + Screen.toText(screen) + Screen.ending(screen)
}

/** Codes and text of a hostile kernel: far moves, erasing, and runs of anything. */
const hostile = [
  ...pieces,
  ...["999C", "999999D", "999G", "99A", "99B", "1K", "2K", "K", "J", "E"].map((code) => `\x1b[${code}`),
]
const runs = Arbitrary.array(
  Arbitrary.schema(Schema.Tuple([
    Schema.Literals([...hostile, "x".repeat(1000), "\n".repeat(50)]),
    Schema.Literals(hostile),
    Schema.Literals([1, 10, 100]),
  ])),
)

/** The number of characters and cells that are processed for a text that is written in pieces. */
const stepsFor = (text: string): number => {
  let screen = Screen.empty("")
  for (let start = 0; start < text.length; start += 100_000) {
    screen = Screen.write(screen, text.slice(start, start + 100_000))[1]
  }
  return screen.steps
}

describe("steps", () => {
  it.prop("grow as the text does, whatever it is", [runs], ([all]) => {
    const text = all.map(([one, other, count]) => (one + other).repeat(count)).join("")
    if (text === "") return
    // The dearest is a character at the far end of a line: eight characters that touch a thousand cells.
    const whole = text.repeat(Math.ceil(100_000 / text.length))
    assert.isAtMost(stepsFor(whole), 300 * whole.length)
  }, { arbitrary: { runs: 100, size: 8 } })

  for (
    const [what, start, rest] of [
      ["erasing the beginning of a long line", "x".repeat(1_000_000), "\x1b[1K"],
      ["characters far to the right", "", "\x1b[999Gx\n"],
      ["characters far to the right of nothing", "x".repeat(1_000_000), "\x1b[2Kx"],
      ["rows above a long line", `${"\n".repeat(99)}${"x".repeat(1_000_000)}`, "\x1b[Ax\x1b[2K"],
      ["backspaces and line feeds", "", "x\b\n"],
      ["returns over a long line", "x".repeat(1_000_000), "\rx\x1b[1K"],
      ["tabs and erasing", "", "\t\x1b[2K"],
      ["going up and down", "\n".repeat(99), "\x1b[99A\x1b[99B"],
      ["erasing below", "\n".repeat(99), "\x1b[99A\x1b[J\n\n"],
      ["marks", "e", "\u0301"],
    ] as const
  ) {
    it(`grow as the text does: ${what}`, () => {
      const steps = (count: number): number => stepsFor(start + rest.repeat(count)) - stepsFor(start)
      // At most what the right margin is away, for each code.
      assert.isAtMost(steps(20_000), 2100 * 20_000 + 5_000_000)
      assert.isAtMost(steps(40_000), 2.2 * steps(20_000) + 5_000_000)
    })
  }
})

describe("write", () => {
  it.prop("does not depend on how the text came", [writes], ([texts]) => {
    assert.strictEqual(write(texts), write([texts.join("")]))
  }, many)

  it.prop("leaves nothing to fold", [writes], ([texts]) => {
    const folded = TerminalText.fold(texts.join(""))
    assert.strictEqual(TerminalText.fold(folded), folded)
    assert.notMatch(folded, new RegExp("[\b]|\r(?!\n|$)|\x1b\\[\\d*[A-K]"))
  }, many)

  for (
    const [what, text, expected] of [
      ["the cursor goes up and down", "a\nb\x1b[Ac\x1b[BD", "ac\nb D"],
      ["no further than there are lines", "a\nb\x1b[9A\rX\x1b[9B\rY", "X\nY"],
      ["forward and back, over nothing", "ab\r\x1b[CX\x1b[9DY\x1b[4CZ", "YX   Z"],
      ["to a column", "abcdef\x1b[3GX\x1b[GY", "YbXdef"],
      ["to the beginning of other lines", "ab\ncd\x1b[FX\x1b[EY", "Xb\nYd"],
      ["erases to the end of the line", "abcdef\rxy\x1b[K", "xy"],
      ["up to the cursor", "abcdef\x1b[3G\x1b[1K", "   def"],
      ["all of it, as clear_output does outside of notebooks", "abc\x1b[2K\rx", "x"],
      ["and the lines below", "a\nb\nc\x1b[2A\r\x1b[Jx", "x"],
      ["a tab writes over nothing", "abcdefghij\r\tX", "abcdefghXj"],
      ["what writes over a tab leaves blanks of it", "a\tb\rxyz", "xyz     b"],
      ["a tab that nothing writes over stays", "a\tb\rx", "x\tb"],
      ["a tab beyond the end goes to the next stop", "ab\x1b[CX\r\x1b[5C\tY", "ab X    Y"],
      ["no further than other moves", `\x1b[5C${"\t".repeat(100_000)}X`, `${" ".repeat(1000)}X`],
      ["a colour that no terminal knows is let go", "\x1b[31m\x1b[5000mab\rX", "\x1b[31mXb"],
      ["half of a wide character is blank", "日本\rx", "x 本"],
      ["a wide character covers two", "abc\r日", "日c"],
      ["marks go with their characters", "e\u0301x\by", "e\u0301y"],
      ["colours stay with what they coloured", "\x1b[31mred\x1b[0m plain\rR", "R\x1b[31med\x1b[0m plain"],
      ["a colour that is left goes on", "ab\r\x1b[32mx\ny", "\x1b[32mx\x1b[0mb\x1b[32m\ny"],
      ["blanks that have a colour are seen", "abc\r\x1b[41m   \x1b[0m", "\x1b[41m   "],
      ["hidden cursors are not", "\x1b[?25l1%\r\x1b[?25l2%\x1b[?25h", "2%"],
      [
        "codes that move nothing are left alone",
        "\x1b[2J\x1b[Ha\x1b]8;;x\x07b",
        "\x1b[2J\x1b[Ha\x1b]8;;x\x07b",
      ],
      ["a code without an end", "a\rb\x1b[3", "b\x1b[3"],
    ] as const
  ) {
    it(what, () => {
      const end = new RegExp("\x1b\\[0m$")
      assert.strictEqual(TerminalText.fold(text).replace(end, ""), expected.replace(end, ""))
    })
  }

  it("puts a code together that came in parts", () => {
    const texts = [..."1\n2\x1b[A\x1b[31m3"]
    const folded = texts.reduce(TerminalText.append, TerminalText.empty())
    assert.strictEqual(TerminalText.toText(folded), TerminalText.fold(texts.join("")))
    // Also if the text is written to the screen in the middle of one.
    const filler = Array.from({ length: 2 ** 16 - 1 }, (_, index) => index % 16 === 0 ? "\r" : "x").join("")
    for (const [before, after] of [["\x1b", "[Ab"], ["\x1b[", "Ab"], ["\x1b[1", "Ab"]] as const) {
      const parts = [`top\n${filler}`, before, after]
      assert.strictEqual(
        TerminalText.toText(parts.reduce(TerminalText.append, TerminalText.empty())),
        TerminalText.fold(parts.join("")),
      )
    }
  })

  it("leads back no more than a hundred lines", () => {
    const lines = Array.from({ length: 1000 }, (_, index) => `${index}\n`)
    const [all, last] = [`${lines.join("")}\x1b[1000A`, lines.slice(900 + 1).join("")]
    const expected = `${lines.slice(0, 901).join("")}X${last.slice(1)}`
    assert.strictEqual(TerminalText.fold(`${all}X`), expected)
    assert.strictEqual(write([...lines, "\x1b[1000AX"]), expected)
  })

  it("and no more than a million characters", () => {
    const lines = Array.from({ length: 8 }, (_, index) => `${index}${"x".repeat(200_000)}\n`)
    const expected = lines.map((line, index) => index === 3 ? `X${line.slice(1)}` : line).join("")
    for (const texts of [[`${lines.join("")}\x1b[100AX`], [...lines, "\x1b[100AX"]]) {
      assert.strictEqual(write(texts), expected)
      assert.strictEqual(
        TerminalText.toText(texts.reduce(TerminalText.append, TerminalText.empty())),
        expected,
      )
    }
  })

  it("goes nowhere far beyond the end of a line", () => {
    assert.isBelow(TerminalText.fold("\x1b[999999999Cx\x1b[999999999Gy").length, 2100)
  })

  it("keeps nested progress bars in their lines", () => {
    const bar = (name: string, percent: number) =>
      `\r${name}: ${percent}%|${"█".repeat(percent / 10).padEnd(10)}|`
    let text = bar("outer", 0)
    for (let outer = 10; outer <= 100; outer += 10) {
      for (let inner = 0; inner <= 100; inner += 10) text += `\n${bar("inner", inner)}\x1b[A`
      text += `\n\r${" ".repeat(24)}\r\x1b[A${bar("outer", outer)}`
    }
    assert.strictEqual(TerminalText.fold(`${text}\n`).trim(), "outer: 100%|██████████|")
  })
})
