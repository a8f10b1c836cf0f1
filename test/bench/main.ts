/** Measures us and our peers side by side in one run, and prints the ratios as a table and as JSON. */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import * as Sandbox from "./sandbox.ts"
import { table } from "./table.ts"

Effect.gen(function* () {
  const rows = yield* Sandbox.rows
  yield* Console.log(table(rows))
  yield* Console.log(JSON.stringify(rows))
}).pipe(NodeRuntime.runMain)
