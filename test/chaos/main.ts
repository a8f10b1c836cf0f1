/**
 * The chaos run: random operations against a model of what a kernel has to do. Prints what the model does not allow,
 * with the seed that shows it again, and ends with status 1 if there was anything.
 *
 * Usage: npm run chaos -- [--seed N] [--seconds N] [--mode plain|pooled|proxy|sandboxed|all] [--verbose]
 *
 * The seed alone decides which operations there are; `--seconds`, which is of each mode, how many of them.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import { parseArgs } from "node:util"
import { modes } from "./kind.ts"
import { run } from "./run.ts"

class ChaosFailed extends Schema.TaggedError<ChaosFailed>()("ChaosFailed", { violations: Schema.Int }) {}

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 32)) },
    seconds: { type: "string", default: "60" },
    mode: { type: "string", default: "all" },
    verbose: { type: "boolean", default: false },
  },
})
const seed = Number(values.seed)
const chosen = modes.filter((mode) => values.mode === "all" || values.mode === mode)

Effect.gen(function* () {
  yield* Console.log(`Seed ${seed}, ${chosen.join(", ")}, ${values.seconds} seconds each`)
  let violations = chosen.length === 0 ? 1 : 0
  let operations = 0
  for (const mode of chosen) {
    const report = yield* run({
      seed,
      mode,
      duration: `${Number(values.seconds)} seconds`,
      ...(values.verbose ? { onOperation: Console.log } : {}),
    })
    violations += report.violations.length
    operations += report.operations
    const outcomes = [...report.outcomes].toSorted(([a], [b]) => a.localeCompare(b))
    yield* Console.log(`\n${mode}: ${report.operations} operations`)
    yield* Console.log(outcomes.map(([outcome, count]) => `  ${outcome} ${count}`).join("\n"))
    yield* Console.log(`Slowest: ${report.slowest}\nMemory: ${report.memory}`)
    for (const violation of report.violations) yield* Console.error(`VIOLATION in ${violation}`)
  }
  yield* Console.log(`\nSeed ${seed}: ${operations} operations, ${violations} violations`)
  if (violations > 0) return yield* new ChaosFailed({ violations })
}).pipe(NodeRuntime.runMain)
