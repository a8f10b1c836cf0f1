/**
 * A pandas pipeline as a Stream of decoded rows. Its environment, with pandas in it, is made on first use.
 *
 * `node --conditions=effect-jupyter-source examples/dataframe.ts` runs it.
 *
 * @module
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, DateTime, Effect, Layer, Schema, Stream } from "effect"
import { KernelClient, KernelGateway } from "effect-jupyter"

const definitions = `
import pandas as pd
from pydantic import BaseModel

class Summary(BaseModel):
    days: int
    warmest: str

readings = pd.DataFrame({
    "at": pd.date_range("2026-01-01", periods=20_000, freq="15min", tz="UTC"),
    "station": [("north", "south")[n % 2] for n in range(20_000)],
    "celsius": [(n * 37 % 400) / 10 - 10 for n in range(20_000)],
}).assign(celsius=lambda frame: frame["celsius"].where(frame["celsius"] < 29.5))

daily = (
    readings
    .groupby([pd.Grouper(key="at", freq="D"), "station"])["celsius"]
    .agg(["mean", "max", "count"])
    .reset_index()
    .rename(columns={"count": "readings"})
)

def summarise(frame):
    days = frame["at"].nunique()
    return Summary(days=days, warmest=frame.groupby("station")["mean"].mean().idxmax())
`

const Day = Schema.Struct({
  at: Schema.DateTimeUtc,
  station: Schema.Literals(["north", "south"]),
  mean: Schema.Finite,
  max: Schema.Finite,
  readings: Schema.Int,
})

const Summary = Schema.Struct({ days: Schema.Int, warmest: Schema.String })

const program = Effect.gen(function* () {
  const kernel = yield* KernelClient.KernelClient
  yield* kernel.execute(definitions)

  yield* Console.log("The first days, row by row; pandas is asked for a slice at a time:")
  yield* kernel.iterate("daily", Day, { batchSize: 100 }).pipe(
    Stream.filter(({ station }) => station === "north"),
    Stream.take(3),
    Stream.runForEach(({ at, max, mean, readings }) =>
      Console.log(
        `  ${DateTime.formatIsoDateUtc(at)}: ${mean.toFixed(1)} °C, at most ${
          max.toFixed(1)
        }, of ${readings} readings`,
      )
    ),
  )

  yield* Console.log("All rows, as a Stream:")
  const rows = yield* kernel.iterate("readings", Schema.Struct({ station: Schema.String })).pipe(
    Stream.runCount,
  )
  yield* Console.log(`  ${rows} rows`)

  yield* Console.log("Columns, by their names, and a model of pydantic:")
  const { mean } = yield* kernel.evaluate("daily", Schema.Struct({ mean: Schema.Array(Schema.Finite) }))
  const { days, warmest } = yield* kernel.evaluate("summarise(daily)", Summary)
  yield* Console.log(`  ${mean.length} means of ${days} days, ${warmest} is the warmest`)

  yield* Console.log("The same table as Arrow, there and back:")
  const arrow = yield* kernel.evaluate("daily", Schema.Uint8Array, { tables: "arrow" })
  yield* kernel.set("arrow", arrow)
  yield* kernel.execute("import pyarrow as pa\nback = pa.ipc.open_stream(arrow).read_pandas()")
  yield* Console.log(`  ${yield* kernel.evaluate("back.equals(daily)", Schema.Boolean)}`)
})

const Gateway = KernelGateway.layer({ python: { packages: ["pandas", "pydantic", "pyarrow"] } })

program.pipe(
  Effect.provide(KernelClient.layer().pipe(Layer.provide(Gateway))),
  NodeRuntime.runMain,
)
