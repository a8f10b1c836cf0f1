import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import process from "node:process"
import { stripVTControlCharacters } from "node:util"
import * as TerminalText from "../../../src/output/terminal/terminal_text.ts"
import * as TruncatedText from "../../../src/output/truncated_text.ts"

const many = { arbitrary: { runs: 1000, size: 30 } }

/** Text of a terminal, in which lines are written over all the time. */
const pieces = [
  "a",
  "b",
  "c",
  " ",
  "  ",
  "é",
  "\u0301",
  "█",
  "😀",
  "\n",
  "\r",
  "\r\n",
  "\b",
  "\b\b",
  "\x1b[0m",
  "\x1b[31m",
  "\t",
  "\x1b[A",
  "\x1b[2A",
  "\x1b[K",
  "\x1b[2K",
  "\x1b[3D",
  "\x1b[C",
  "\x1b[?25l",
]
const piece = Arbitrary.schema(Schema.Literals(pieces))
const terminal = Arbitrary.map(Arbitrary.array(piece), (all) => all.join(""))
const moves = new RegExp("[\b]|\r+(?!\n)|\x1b\\[\\d*[ACDK]", "g")
const plain = Arbitrary.map(
  Arbitrary.array(piece),
  (all) => all.join("").replace(moves, ""),
)
const chunks = Arbitrary.array(terminal)

const write = (texts: ReadonlyArray<string>, limit?: number): TerminalText.TerminalText =>
  texts.reduce(TerminalText.append, TerminalText.empty(limit))

const colourless = (text: string): string => text.replaceAll("\x1b[31m", "")

describe("fold", () => {
  it.prop("leaves text alone of which nothing is written over", [plain], ([text]) => {
    assert.strictEqual(TerminalText.fold(text), text)
    assert.strictEqual(TerminalText.toText(write([text])), text)
  }, many)

  it.prop("has nothing to do the second time", [terminal], ([text]) => {
    const folded = TerminalText.fold(text)
    assert.strictEqual(TerminalText.fold(folded), folded)
  }, many)

  it("keeps the last state of a progress bar", () => {
    assert.strictEqual(
      TerminalText.fold("  0%|     |\r 50%|██   |\r100%|█████|\ndone\n"),
      "100%|█████|\ndone\n",
    )
    assert.strictEqual(TerminalText.fold("working...\rok        \nnext"), "ok\nnext")
    assert.strictEqual(TerminalText.fold("|\b/\b-\b\\\b"), "\\")
  })

  it("writes over no more than it has characters for", () => {
    assert.strictEqual(TerminalText.fold("abcdef\rxy"), "xycdef")
    assert.strictEqual(TerminalText.fold("abc\b\bX"), "aXc")
    assert.strictEqual(TerminalText.fold("😀é\rx"), "x é")
  })

  it("takes line ends for line ends", () => {
    for (const text of ["a\r\nb\r\n", "a\r", "\r\n\r\n", "a \r\n b \r"]) {
      assert.strictEqual(TerminalText.fold(text), text)
    }
    assert.strictEqual(TerminalText.fold("1\r2\r\n3"), "2\r\n3")
  })
})

describe("append", () => {
  it.prop("does not depend on how the text came", [chunks], ([texts]) => {
    const whole = texts.join("")
    const expected = TerminalText.fold(whole)
    assert.strictEqual(TerminalText.toText(write(texts)), expected)
    assert.strictEqual(TerminalText.toText(write([...whole])), expected)
  }, many)

  // All lines that can be overwritten, in a text that is long enough to be written at once.
  const long = `${"x".repeat(800)}\n`.repeat(100)
  const Width = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }))
  it.prop(
    "does not depend on how long text came",
    [Width, terminal, terminal, terminal],
    ([limit, ...texts]) => {
      const [before = "", within = "", after = ""] = texts
      const all = [
        before,
        long + within,
        long,
        within + long + after,
        `${long}${before}\x1b`,
        `[A${long}`,
        after,
      ]
      const expected = TruncatedText.toText(
        TruncatedText.append(TruncatedText.empty(limit), TerminalText.fold(all.join(""))),
      )
      assert.strictEqual(TerminalText.toText(write(all, limit)), expected)
    },
    { arbitrary: { runs: 100, size: 12 } },
  )

  const Limit = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 60 }))
  it.prop("keeps both ends of what is left", [Limit, chunks], ([limit, texts]) => {
    const folded = TerminalText.fold(texts.join(""))
    const expected = TruncatedText.toText(TruncatedText.append(TruncatedText.empty(limit), folded))
    assert.strictEqual(TerminalText.toText(write(texts, limit)), expected)
  }, many)

  it.prop("can be read before the end without an effect on the end", [chunks, terminal], ([texts, more]) => {
    const folded = write(texts)
    const first = TerminalText.toText(folded)
    TerminalText.append(folded, more)
    assert.strictEqual(TerminalText.toText(folded), first)
    assert.strictEqual(
      TerminalText.toText(TerminalText.append(folded, more)),
      TerminalText.fold(texts.join("") + more),
    )
  }, many)

  it.prop("writes over nothing that was shown", [chunks, plain, terminal], (all) => {
    // A colour goes on behind what is shown, as on a terminal.
    const [texts, shown, more] = [all[0].map(colourless), all[1], colourless(all[2])]
    const folded = TerminalText.append(TerminalText.appendBlock(write(texts), shown), more)
    const before = TerminalText.fold(texts.join("")).replace(/\r$/, "")
    const isEnded = stripVTControlCharacters(before.slice(before.lastIndexOf("\n") + 1)) === ""
    const line = isEnded ? before : `${before}\n`
    assert.strictEqual(TerminalText.toText(folded), line + shown + TerminalText.fold(more))
  }, many)

  it("begins a new line after a million characters, wherever the chunks end", () => {
    const line = "a".repeat(2 ** 20)
    for (const last of ["😀", "\u0301"]) {
      const whole = `${line}${last}c\rX`
      for (const texts of [[whole], [line, `${last}c\rX`], [`${line}${last}`, "c", "\r", "X"]]) {
        assert.strictEqual(TerminalText.toText(write(texts)), TerminalText.fold(whole))
      }
    }
    assert.strictEqual(TerminalText.fold(`${line}bc\rX`), `${line}Xc`)
    assert.strictEqual(TerminalText.fold(`${"a".repeat(2 ** 20 - 1)}\r😀`), `😀${"a".repeat(2 ** 20 - 3)}`)
    // A character is in one line or the other.
    const pair = `${"a".repeat(2 ** 20 - 1)}😀`
    assert.strictEqual(TerminalText.fold(`${pair}b\rX`), `${pair}X`)
  })
})

/** Processor time in milliseconds: other processes take turns with this one. */
function timeOf(action: () => void): number {
  const started = process.threadCpuUsage()
  action()
  const { system, user } = process.threadCpuUsage(started)
  return (system + user) / 1000
}

describe("time", () => {
  /** The ratio of the times for eight times the text; the clock is too coarse for less than a few milliseconds. */
  const growth = (texts: (count: number) => ReadonlyArray<string>) => {
    const small = texts(20_000)
    const large = texts(160_000)
    write(small)
    const some = Math.min(...[1, 2, 3].map(() => timeOf(() => TerminalText.toText(write(small)))))
    const all = Math.min(...[1, 2, 3].map(() => timeOf(() => TerminalText.toText(write(large)))))
    return all / Math.max(some, 5)
  }
  const long = "x".repeat(100_000)

  for (
    const [what, texts] of [
      [
        "many updates of one line, chunk by chunk",
        (count: number) => Array.from({ length: count }, (_, index) => `\r${index}%`),
      ],
      ["many updates of one line at once", (count: number) => [
        Array.from({ length: count }, (_, index) => `\r${index}%`).join(""),
      ]],
      ["many changes of a long line", (count: number) => [long, ...Array<string>(count).fill("\rab")]],
      ["a long line without end", (count: number) => ["a\rb", ...Array<string>(count).fill("abcdefgh")]],
      ["blanks in a long line", (count: number) => ["a\rb", ...Array<string>(count).fill("   "), "c\n"]],
      ["codes that no terminal knows", (count: number) => [
        ...Array.from({ length: count }, (_, index) => `\x1b[${index}mx`),
        "\ry",
      ]],
      [
        "codes that no terminal knows, and nothing to fold",
        (count: number) => Array.from({ length: count }, (_, index) => `\x1b[${index}mx\n`),
      ],
      ["one line of many megabytes in one piece", (count: number) => ["x".repeat(count * 500)]],
      ["the same after a fold", (count: number) => ["a\rb", "x".repeat(count * 500)]],
      ["many lines", (count: number) => Array<string>(count).fill("1%\r2%\n")],
    ] as const
  ) {
    it(`${what} takes time in proportion`, () => {
      assert.isBelow(growth(texts), 30)
    })
  }

  it("text with nothing to fold takes little longer than keeping it", () => {
    const chunk = `${"0123456789".repeat(8)}\n`.repeat(100)
    const texts = Array<string>(20_000).fill(chunk)
    const keep = () => TruncatedText.toText(texts.reduce(TruncatedText.append, TruncatedText.empty()))
    const fold = () => TerminalText.toText(write(texts))
    keep()
    fold()
    const kept = Math.min(...[1, 2, 3].map(() => timeOf(keep)))
    const folded = Math.min(...[1, 2, 3].map(() => timeOf(fold)))
    // 160 MB: what a kernel takes a second to print.
    assert.isBelow(folded - kept, 300)
  })
})
