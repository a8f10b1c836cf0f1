/** Waits until what one contender left to do is done, so that it does not fall into the next one's turn. */
import { Effect, Schedule, Schema } from "effect"
import { readFileSync } from "node:fs"
import process from "node:process"
import { descendants } from "../support/processes.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", { ticks: Schema.Finite }) {}

/** The CPU time of a process in hundredths of a second. */
function ticks(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const [user = "0", system = "0"] = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 13)
    return Number(user) + Number(system)
  } catch {
    // It ended while it was looked at.
    return 0
  }
}

/** The CPU time of all descendants by process id; that of ended ones is lost. */
const used = Effect.sync(() => new Map(descendants(process.pid).map(({ pid }) => [pid, ticks(pid)])))

/** Fails while kernels and gateways work, start or end: they are others than before, or used more of a CPU. */
const still = Effect.gen(function* () {
  const before = yield* used
  yield* Effect.sleep(60)
  const after = yield* used
  const busy = [...after].reduce((sum, [pid, now]) => sum + now - (before.get(pid) ?? -100), 0)
  const gone = [...before.keys()].filter((pid) => !after.has(pid)).length
  // Many idle kernels look after their connections now and then.
  if (gone > 0 || busy > 2) return yield* new Busy({ ticks: busy })
})

/** Waits until nothing below us works any more; what never rests is an error of the benchmark. */
export const quiet: Effect.Effect<void> = still.pipe(
  Effect.retry(Schedule.upTo(Schedule.forever, { duration: "30 seconds" })),
  Effect.orDie,
)
