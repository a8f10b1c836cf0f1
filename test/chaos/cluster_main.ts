/**
 * The chaos run of a cluster. Prints what its model does not allow, and ends with status 1 if there was anything.
 *
 * Usage: npm run chaos:cluster -- [--seed N] [--kills N] [--shared]
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect, Schema } from "effect"
import { parseArgs } from "node:util"
import { run } from "./cluster.ts"

class ChaosFailed extends Schema.TaggedError<ChaosFailed>()("ChaosFailed", { violations: Schema.Int }) {}

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 32)) },
    kills: { type: "string", default: "20" },
    shared: { type: "boolean", default: false },
  },
})
const seed = Number(values.seed)

Effect.gen(function* () {
  yield* Console.log(`Seed ${seed}, ${values.kills} kills`)
  const { executions, failures, slowest, violations } = yield* run({
    seed,
    kills: Number(values.kills),
    isShared: values.shared,
    onEvent: Console.log,
  })
  yield* Console.log(`${executions} executions; those that failed:`, Object.fromEntries(failures))
  yield* Console.log(`After a kill all keys answered within ${Duration.format(slowest)}`)
  for (const violation of violations) yield* Console.error(`VIOLATION: ${violation}`)
  if (violations.length > 0) return yield* new ChaosFailed({ violations: violations.length })
}).pipe(NodeRuntime.runMain)
