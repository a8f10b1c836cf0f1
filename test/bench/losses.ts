/** Outputs that arrive of those that were sent: cells of all kinds, most of them short. */
import { Console, Effect } from "effect"
import { type Execution, KernelClient, KernelGateway } from "../../src/mod.ts"
import { temporary } from "../support/kernel.ts"
import * as IpyboxWay from "./ipybox_way.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"
import type { Row } from "./table.ts"

const cells = 10_000
/** At a twentieth of a second each, these take a minute. */
const cellsOfIpybox = 1000

/** Code and the outputs that it sends, without spaces. Each is told from all others by the number of its cell. */
interface Cell {
  readonly code: string
  readonly outputs: ReadonlyArray<string>
}

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
const big = 200_000

const kinds: ReadonlyArray<(id: string) => Cell> = [
  (id) => ({ code: `print("${id}")`, outputs: [id] }),
  (id) => ({
    code: `for i in range(20): print(f"${id}{i};", flush=True)`,
    outputs: Array.from({ length: 20 }, (_, i) => `${id}${i};`),
  }),
  (id) => ({ code: `"${id}"`, outputs: [`'${id}'`] }),
  (id) => ({ code: `import sys; print("${id}", file=sys.stderr)`, outputs: [id] }),
  (id) => ({
    code: `display({"text/plain": "${id}"}, raw=True); display({"image/png": "${png}"}, raw=True)`,
    outputs: [id, Raw.image],
  }),
  (id) => ({ code: `print("${id}" + "x" * ${big})`, outputs: [id + "x".repeat(big)] }),
  (id) => ({
    code: `print("${id}before", flush=True); raise ValueError("${id}raised")`,
    outputs: [`${id}before`, `${id}raised`],
  }),
  (id) => ({
    code:
      `import sys\nprint("${id}out", flush=True); print("${id}err", file=sys.stderr, flush=True)\n"${id}value"`,
    outputs: [`${id}out`, `${id}err`, `'${id}value'`],
  }),
]

const cellOf = (index: number): Cell =>
  kinds[index % kinds.length]?.(`c${index};`) ?? { code: "", outputs: [] }

/** The output of one execution: all texts in order, then each image. */
const oursOf = ({ images, text = "" }: Execution.ExecutionResult): ReadonlyArray<string> => [
  text,
  ...images.map(() => Raw.image),
]
const ours = (kernel: KernelClient.Kernel) => (code: string) =>
  kernel.execute(code).pipe(
    Effect.map(oursOf),
    Effect.catchTag("ExecutionError", ({ evalue, partial }) => Effect.succeed([...oursOf(partial), evalue])),
  )
const inIpyboxWay = (kernel: Raw.RawKernel) => (code: string) =>
  Effect.map(kernel.execute(code), (outputs) => outputs.map(({ text }) => text))

/** The number of outputs that arrived in order. */
function received({ outputs }: Cell, came: string): number {
  let position = 0
  let count = 0
  for (const output of outputs) {
    const found = came.indexOf(output, position)
    if (found < 0) continue
    position = found + output.length
    count++
  }
  return count
}

/** IPython itself warns, within the output of a cell, when it has kept a thousand results. */
const calm = `import warnings; warnings.filterwarnings("ignore", "Output cache limit")`

/** Runs cells one after the other and counts. What comes besides the outputs of a cell makes it a wrong one. */
const run = Effect.fnUntraced(function* <E>(
  execute: (code: string) => Effect.Effect<ReadonlyArray<string>, E>,
  count: number,
) {
  const total = { sent: 0, received: 0, wrong: 0 }
  yield* execute(calm)
  for (let index = 0; index < count; index++) {
    const cell = cellOf(index)
    const came = (yield* execute(cell.code)).join("").replaceAll(/\s/g, "")
    const got = received(cell, came)
    total.sent += cell.outputs.length
    total.received += got
    if (got < cell.outputs.length || came === cell.outputs.join("")) continue
    total.wrong++
    yield* Console.error(`All of cell ${index} came, and more: ${cell.code}\n${came.slice(0, 2000)}`)
  }
  return total
})

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const imagesDir = yield* temporary
  const gateway = yield* KernelGateway.make()
  const kernel = yield* Effect.provideService(
    KernelClient.make({ imagesDir }),
    KernelGateway.KernelGateway,
    gateway,
  )
  const all = yield* run(ours(kernel), cells)
  const stock = yield* Stock.start
  const theirs = yield* run(inIpyboxWay(yield* IpyboxWay.make(stock.url)), cellsOfIpybox)
  return [
    {
      what: `lost outputs in ${cells.toLocaleString("en")} mixed cells, of those sent`,
      ours: all.sent - all.received,
      theirs: all.sent,
      unit: "",
      atMost: 0,
    },
    {
      what: `cells of ${cells.toLocaleString("en")} with anything but what they sent`,
      ours: all.wrong,
      theirs: cells,
      unit: "",
      atMost: 0,
    },
    {
      what: `outputs received of ${all.sent} sent in ${cells.toLocaleString("en")} cells, by us`,
      ours: all.received,
      theirs: all.sent,
      unit: "",
      atLeast: 1,
    },
    {
      what: `outputs received of ${theirs.sent} sent in ${
        cellsOfIpybox.toLocaleString("en")
      } cells, in ipybox's way`,
      ours: theirs.received,
      theirs: theirs.sent,
      unit: "",
    },
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped)
