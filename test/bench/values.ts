/** The cost of values: small ones against executions, bytes against base64 and the disk, rows against cells. */
import { Effect, FileSystem, Path, Schema, Stream } from "effect"
import { readFileSync } from "node:fs"
import process from "node:process"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import { inTurns, milliseconds, type Row } from "./table.ts"

const megabytes = 100
const size = megabytes * 1_000_000

/** MB/s, given how long it takes to move all of them. */
const rate = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(milliseconds(effect), (time) => megabytes / time * 1000)

/** A program that exchanges text only. */
const byBase64 = (kernel: KernelClient.Kernel) =>
  Effect.map(
    kernel.execute("print(base64.b64encode(data).decode())"),
    ({ text = "" }) => Buffer.from(text, "base64"),
  )
const asBase64 = (kernel: KernelClient.Kernel, bytes: Uint8Array) =>
  kernel.execute(`data = base64.b64decode("${Buffer.from(bytes).toString("base64")}")`)

function residentMB(): number {
  const [, kB = "0"] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${process.pid}/status`, "utf8")) ?? []
  return Number(kB) / 1024
}

const million = 1_000_000
const SmallRow = Schema.Struct({ id: Schema.Int, name: Schema.String, share: Schema.Finite })
const rowsOf = `({"id": n, "name": f"row {n}", "share": n / 3} for n in range(${million}))`

/** Rows per second, and the highest resident memory of the first tenth and of the rest. */
const iterated = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
  const memory = { early: 0, late: 0 }
  const time = yield* milliseconds(
    kernel.iterate(rowsOf, SmallRow).pipe(
      Stream.runForEachArray((rows) =>
        Effect.sync(() => {
          const part = (rows[0]?.id ?? 0) < million / 10 ? "early" : "late"
          memory[part] = Math.max(memory[part], residentMB())
        })
      ),
    ),
  )
  return { perSecond: million / time * 1000, ...memory }
})

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const kernel = yield* KernelClient.make().pipe(
    Effect.provideService(KernelGateway.KernelGateway, yield* KernelGateway.make()),
  )
  yield* kernel.execute("import base64")
  yield* kernel.execute("def add(a, b): return a + b")
  const [evaluate = NaN, call = NaN, execute = NaN] = yield* inTurns(200, [
    milliseconds(kernel.evaluate("1+1", Schema.Int)),
    milliseconds(kernel.call("add", [1, 1], { returns: Schema.Int })),
    milliseconds(kernel.execute("1+1")),
  ])

  const bytes = new Uint8Array(size).fill(7)
  const file = path.join(yield* fs.makeTempDirectoryScoped(), "bytes")
  yield* fs.writeFile(file, bytes)
  const [set = NaN, setText = NaN, get = NaN, getText = NaN, disk = NaN] = yield* inTurns(3, [
    rate(kernel.set("data", bytes)),
    rate(asBase64(kernel, bytes)),
    rate(kernel.evaluate("data", Schema.Uint8Array)),
    rate(byBase64(kernel)),
    rate(fs.readFile(file)),
  ])

  const { early, late, perSecond } = yield* iterated(kernel)
  const cells = 200
  const perCell = yield* milliseconds(
    Effect.forEach(
      Array.from({ length: cells }),
      (_, n) => kernel.execute(`print(${n}, "row ${n}", ${n} / 3)`),
    ),
  )
  return [
    {
      what: "evaluate a small value against execute of the same",
      ours: evaluate,
      theirs: execute,
      unit: "ms",
      atMost: 0.6,
    },
    {
      what: "call of a small function against execute of 1+1",
      ours: call,
      theirs: execute,
      unit: "ms",
      atMost: 0.6,
    },
    {
      what: `${megabytes} MB to Python against base64 in code`,
      ours: set,
      theirs: setText,
      unit: "MB/s",
      atLeast: 1,
    },
    {
      what: `${megabytes} MB from Python against base64 in text`,
      ours: get,
      theirs: getText,
      unit: "MB/s",
      atLeast: 1,
    },
    {
      what: `${megabytes} MB from Python against the same file from disk`,
      ours: get,
      theirs: disk,
      unit: "MB/s",
    },
    {
      what: "iterate 1,000,000 rows against an execute per row",
      ours: perSecond,
      theirs: cells / perCell * 1000,
      unit: "/s",
      atLeast: 20,
    },
    {
      what: "… resident memory after a tenth of them against before",
      ours: late,
      theirs: early,
      unit: "MB",
      atMost: 1.2,
    },
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped)
