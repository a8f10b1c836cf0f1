/** Collects unhandled failures of the process, of which a library must leave none. */
import process from "node:process"

const seen: Array<unknown> = []
process.on("unhandledRejection", (reason) => seen.push(reason))
process.on("uncaughtException", (error) => seen.push(error))

/** Returns the unhandled failures since the last call. */
export function crashes(): ReadonlyArray<unknown> {
  return seen.splice(0)
}
