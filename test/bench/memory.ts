/** The memory of processes. */
import { readFileSync } from "node:fs"
import { descendants } from "../support/processes.ts"

/** The private memory of a process, and its part of the shared memory, in MB. */
function pss(pid: number): number {
  try {
    const kilobytes = /^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? "0"
    return Number(kilobytes) / 1024
  } catch {
    return 0
  }
}

/** The memory of a process and of all below it, in MB. */
export function memoryOf(pid: number): number {
  return descendants(pid).reduce((sum, process) => sum + pss(process.pid), pss(pid))
}

/** The memory of all below a process, in MB; the gateway itself, below its supervisor, does not count. */
export function memoryBelow(pid: number): number {
  return descendants(pid)
    .filter(({ command }) => !command.some((argument) => argument.endsWith("/gateway/main.py")))
    .reduce((sum, process) => sum + pss(process.pid), 0)
}
