/**
 * Measures us and our peers side by side in one run, and prints the ratios as a table and as JSON.
 *
 * Usage: npm run bench [-- SECTION ...], where a section is one of those below; all of them by default.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import process from "node:process"
import * as Platform from "../../src/platform.ts"
import * as Client from "./client.ts"
import * as Execute from "./execute.ts"
import * as Faults from "./faults.ts"
import * as Losses from "./losses.ts"
import * as Many from "./many.ts"
import * as Plot from "./plot.ts"
import * as Sandbox from "./sandbox.ts"
import * as Scale from "./scale.ts"
import * as Serve from "./serve.ts"
import * as Start from "./start.ts"
import { json, type Row, table } from "./table.ts"
import * as Values from "./values.ts"

const sections: Readonly<Record<string, Effect.Effect<ReadonlyArray<Row>, unknown, Platform.Platform>>> = {
  execute: Execute.rows,
  client: Client.rows,
  start: Start.rows,
  plot: Plot.rows,
  many: Many.rows,
  sandbox: Sandbox.rows,
  serve: Serve.rows,
  losses: Losses.rows,
  faults: Faults.rows,
  values: Values.rows,
  scale: Scale.rows,
}

Effect.gen(function* () {
  const asked = process.argv.slice(2)
  const chosen = Object.entries(sections).filter(([name]) => asked.length === 0 || asked.includes(name))
  const rows = (yield* Effect.forEach(chosen, ([, rows]) => rows)).flat()
  yield* Console.log(table(rows))
  yield* Console.log(json(rows))
}).pipe(Effect.provide(Layer.fresh(Platform.layer)), NodeRuntime.runMain)
