/** The memory of a flood of output, and the time until the death of a kernel is known. */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import { quiet } from "./quiet.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"
import { inTurns, type Row } from "./table.ts"

const script = fileURLToPath(new URL("./flood_client.ts", import.meta.url))

/** The peak memory of a client that reads a flood, in MB. */
const peak = (contender: "ours" | "stock") =>
  Effect.callback<number>((resume) => {
    const args = ["--conditions=effect-jupyter-source", script, contender]
    execFile(process.execPath, args, (error, output) => {
      resume(error === null ? Effect.succeed(Number(output.trim().split("\n").at(-1))) : Effect.die(error))
    })
  })

/** Prints the clock that processes share, and ends the kernel. */
const death = "import os, time\nprint(time.monotonic(), flush=True)\ntime.sleep(0.1)\nos.kill(os.getpid(), 9)"

/** Milliseconds since the kernel ended, which it did a tenth of a second after it had printed. */
const since = (printed: string | undefined) => Raw.clock() - Number(printed) * 1000 - 100

const ourDeath = (gateway: KernelGateway.KernelGateway["Service"]) =>
  Effect.scoped(
    KernelClient.make().pipe(
      Effect.flatMap((kernel) => Effect.flip(kernel.execute(death))),
      Effect.flatMap((error) => {
        if (error._tag !== "KernelError" || error.reason._tag !== "KernelDied") return Effect.die(error)
        return Effect.succeed(since(error.partial?.text))
      }),
      Effect.provideService(KernelGateway.KernelGateway, gateway),
    ),
  )

const theirDeath = ({ url }: Stock.Stock) =>
  Effect.scoped(Effect.gen(function* () {
    const kernel = yield* Raw.make(url)
    let printed: string | undefined
    yield* Effect.raceFirst(
      kernel.execute(death, {
        onOutput: ({ text }) => {
          printed = text
        },
      }),
      kernel.restarting,
    )
    return since(printed)
  }))

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const [flood = NaN, floodStock = NaN] = yield* inTurns(3, [peak("ours"), peak("stock")])
  const own = yield* KernelGateway.make()
  const stock = yield* Stock.start
  const [died = NaN, diedStock = NaN] = yield* inTurns(5, [ourDeath(own), theirDeath(stock)], {
    before: quiet,
  })
  return [
    {
      what: "100 MB in prints of 1 kB: peak memory of client, gateway and kernel, against stock",
      ours: flood,
      theirs: floodStock,
      unit: "MB",
      atMost: 0.25,
    },
    {
      what: "death of a kernel → KernelDied, against stock's first sign",
      ours: died,
      theirs: diedStock,
      unit: "ms",
      atMost: 0.05,
    },
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped)
