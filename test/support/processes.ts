/** Facts about processes, read from /proc. */
import { Effect, Schedule, Schema } from "effect"
import { readdirSync, readFileSync } from "node:fs"

interface Process {
  readonly pid: number
  readonly parent: number
  readonly group: number
  readonly command: ReadonlyArray<string>
}

function read(pid: number): Process | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const [state, parent, group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    if (state === "Z") return undefined
    const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")
    return { pid, parent: Number(parent), group: Number(group), command }
  } catch {
    // It ended while it was looked at.
    return undefined
  }
}

/** All processes that run; dead ones that wait for their parent do not count. */
export function processes(): ReadonlyArray<Process> {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((name) => read(Number(name)) ?? [])
}

/** The processes below one, parents first. */
export function descendants(pid: number): ReadonlyArray<Process> {
  const all = processes()
  const below = (parent: number): ReadonlyArray<Process> =>
    all.filter((process) => process.parent === parent).flatMap((process) => [process, ...below(process.pid)])
  return below(pid)
}

/** The supervisors among the children of a process, each with its runtime directory. */
export function supervisors(pid: number): ReadonlyArray<Process & { readonly runtimeDir: string }> {
  return processes().filter((process) => process.parent === pid).flatMap((process) => {
    const index = process.command.findIndex((argument) => argument.endsWith("supervisor.py"))
    const runtimeDir = process.command[index + 1]
    return index < 0 || runtimeDir === undefined ? [] : [{ ...process, runtimeDir }]
  })
}

class StillThere extends Schema.TaggedError<StillThere>()("StillThere", { what: Schema.String }) {}

/** Waits until something is so, and fails with what is in the way if it does not become so in time. */
export const eventually = (what: () => string | undefined, seconds = 10): Effect.Effect<void, StillThere> =>
  Effect.suspend(() => {
    const obstacle = what()
    return obstacle === undefined ? Effect.void : Effect.fail(new StillThere({ what: obstacle }))
  }).pipe(
    Effect.retry({
      schedule: Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: `${seconds} seconds` })),
    }),
  )

/** Names the processes among these that still run. */
export function survivors(pids: ReadonlyArray<number>): string | undefined {
  const alive = pids.flatMap((pid) => read(pid) ?? [])
  return alive.length === 0
    ? undefined
    : alive.map(({ command, pid }) => `${pid} ${command.join(" ")}`).join("\n")
}
