/** The first plot of a new kernel, which has to load the library for it. */
import { Effect } from "effect"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import { temporary } from "../support/kernel.ts"
import { quiet } from "./quiet.ts"
import * as Raw from "./raw.ts"
import * as Stock from "./stock.ts"
import { inTurns, milliseconds, type Row } from "./table.ts"

const preloading: KernelGateway.GatewayOptions = { preload: ["matplotlib.pyplot", "numpy"] }

const code = "import matplotlib.pyplot as plt; plt.plot([1, 2, 3]); plt.show()"

/** Fails unless there is exactly one image: a plot that does not come would be fast. */
const one = (images: number) =>
  images === 1 ? Effect.void : Effect.die(new Error(`${images} images came for one plot`))

/** The rows of the table. */
export const rows = Effect.gen(function* () {
  const stock = yield* Stock.start
  const own = yield* KernelGateway.make(preloading)
  const imagesDir = yield* temporary
  const ours = KernelClient.make({ imagesDir }).pipe(
    Effect.provideService(KernelGateway.KernelGateway, own),
    Effect.flatMap((kernel) => kernel.execute(code)),
    Effect.flatMap(({ images }) => one(images.length)),
  )
  const raw = Effect.flatMap(Raw.make(stock.url), (kernel) => kernel.execute(`%matplotlib inline\n${code}`))
    .pipe(
      Effect.flatMap((outputs) => one(outputs.filter(({ text }) => text === Raw.image).length)),
    )
  const [time = NaN, timeStock = NaN] = yield* inTurns(
    9,
    [Effect.scoped(milliseconds(ours)), Effect.scoped(milliseconds(raw))],
    { before: quiet },
  )
  return [
    {
      what: "first plot with preloads, against stock",
      ours: time,
      theirs: timeStock,
      unit: "ms",
      atMost: 0.25,
    },
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped)
