/** Outputs that arrive of those that were sent: cells of all kinds, most of them short. */
import { Effect } from "effect"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import type { Row } from "./table.ts"

const cells = 10_000

/** Kinds of cells, each with the text that has to come. */
const kinds: ReadonlyArray<(cell: number) => readonly [code: string, text: string]> = [
  (cell) => [`print(${cell})`, `${cell}`],
  (cell) => [`${cell} + 1`, `${cell + 1}`],
  (
    cell,
  ) => [
    `for i in range(20): print(${cell}, i, flush=True)`,
    Array.from({ length: 20 }, (_, i) => `${cell} ${i}`).join("\n"),
  ],
  (cell) => [`print("x" * 20_000, ${cell})`, `${"x".repeat(20_000)} ${cell}`],
  (cell) => [`import sys; print(${cell}); sys.stdout.flush(); print("end")`, `${cell}\nend`],
]

/** The row of the table: what we lost, of what was sent. */
export const rows = Effect.gen(function* () {
  const kernel = yield* KernelClient.make()
  let lost = 0
  for (let cell = 0; cell < cells; cell++) {
    const [code, expected] = kinds[cell % kinds.length]?.(cell) ?? ["", ""]
    const { text } = yield* kernel.execute(code)
    if (text !== expected) lost++
  }
  return [
    {
      what: "cells whose output was not what they sent, of all",
      ours: lost,
      theirs: cells,
      unit: "",
      atMost: 0,
    },
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped, Effect.provide(KernelGateway.layer()))
