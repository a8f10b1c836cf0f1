/**
 * Compares the terminal emulation with xterm.js: the folded text, written to xterm.js, has to show what the text itself
 * shows there. Texts stay within the documented limits: the cursor goes to no row that is not there.
 */
import { assert, describe, it } from "@effect/vitest"
import xterm from "@xterm/headless"
import { Arbitrary, Effect, Schema } from "effect"
import * as TerminalText from "../../../src/output/terminal/terminal_text.ts"

const [width, height] = [1500, 40]

/** Returns the characters that a text shows in xterm.js, each with its colors and weight, line by line. */
const show = (text: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.callback((resume) => {
    const terminal = new xterm.Terminal({
      allowProposedApi: true,
      cols: width,
      rows: height,
      convertEol: true,
    })
    terminal.write(text, () => {
      const { active } = terminal.buffer
      const cell = active.getNullCell()
      const rows = Array.from({ length: height }, (_, y) => {
        const line = active.getLine(y)
        // No character is wider than two columns.
        const columns = 2 * (line?.translateToString(true).length ?? 0)
        const cells = Array.from({ length: Math.min(columns, width) }, (_, x) => {
          line?.getCell(x, cell)
          const character = cell.getChars()
          // Erased cells have the background color of the eraser there, and none here.
          if (character.trim() === "") return cell.getWidth() === 0 ? "" : " "
          const style = [
            ...[cell.getFgColorMode(), cell.getFgColor(), cell.getBgColorMode(), cell.getBgColor()],
            ...[cell.isBold(), cell.isDim(), cell.isItalic(), cell.isUnderline(), cell.isInverse()],
          ]
          return style.every((value) => value <= 0) ? character : `${character}<${style.join()}>`
        })
        return cells.join("").trimEnd()
      })
      terminal.dispose()
      resume(Effect.succeed(rows.slice(0, rows.findLastIndex((row) => row !== "") + 1)))
    })
  })

/** Drops the codes that would move the cursor to a row that is not there. */
const withinRows = (pieces: ReadonlyArray<string>): string => {
  let [row, last] = [0, 0]
  return pieces.filter((piece) => {
    let next = row
    for (const [code, parameter] of piece.matchAll(verticalMoves)) {
      const count = Math.max(1, Number(parameter) || 0)
      if (code === "\n") next++
      else if (/[AF]$/.test(code)) next -= count
      else if (/[BE]$/.test(code)) next += count
      else last = Math.min(last, next)
      if (next < 0 || next >= height || (next > last && code !== "\n")) return false
      last = Math.max(last, next)
    }
    row = next
    return true
  }).join("")
}
const verticalMoves = new RegExp("\n|\x1b\\[(\\d*)[ABEFJ]", "g")

const characters = [
  "a",
  "bc",
  " ",
  "   ",
  "é",
  "e\u0301",
  "█",
  "日",
  "\t",
  "\n",
  "\r",
  "\r\n",
  "\b",
  "\b\b",
  "\x07",
]
const codes = [
  ...["A", "2A", "B", "C", "3C", "D", "4D", "E", "F", "G", "5G", "K", "0K", "1K", "2K", "J"],
  ...["0m", "m", "1m", "2m", "22m", "4;7m", "24m", "31m", "1;32m", "39m", "44m", "49m", "90m", "38;5;12m"],
  ...["48;2;1;2;3m", "?25l", "?25h"],
].map((code) => `\x1b[${code}`)

/** The output of programs that show progress. */
const frames = [
  // tqdm, also nested.
  ...["\r  0%|          | 0/10", "\r 50%|█████     | 5/10", "\r100%|██████████| 10/10\n", "\x1b[A", "\n\r"],
  // rich, and pip with it.
  ...["\r\x1b[2K", "\x1b[1A\x1b[2K", "\x1b[?25l", "   \x1b[38;5;237m━━━━\x1b[0m \x1b[32m0.0/1.2 MB\x1b[0m"],
  "   \x1b[38;2;249;38;114m━━\x1b[0m\x1b[38;5;237m╺━\x1b[0m \x1b[32m0.6/1.2 MB\x1b[0m eta \x1b[36m0:00:01\x1b[0m",
  // apt.
  ...["\rReading package lists... 0%\r\rReading package lists... 100%\r", "\r0% [Working]\r            \r"],
  // npm, and spinners.
  ...["\x1b[1G\x1b[0K⠋", "\x1b[1G\x1b[0K⠙ reify", "|\b/\b-\b", "\x1b[2K\x1b[1G"],
  // git and curl.
  ...["Receiving objects:  42% (42/100)\r", "Receiving objects: 100% (100/100), done.\n", "\r##### 5.0%"],
]

describe("fold", () => {
  for (const [what, pieces] of [["any text", [...characters, ...codes]], ["progress", frames]] as const) {
    it.effect.prop(
      `shows what xterm.js shows of ${what}`,
      [Arbitrary.array(Arbitrary.schema(Schema.Literals(pieces)))],
      ([all]) =>
        Effect.gen(function* () {
          const text = withinRows(all)
          const folded = TerminalText.fold(text)
          assert.deepStrictEqual(yield* show(folded), yield* show(text), JSON.stringify([text, folded]))
        }),
      { arbitrary: { runs: 200, size: 30 } },
    )
  }
})
