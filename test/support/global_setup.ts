/** Makes what all tests share before any of them waits for it: the Python environment, and two folders. */
import { Effect } from "effect"
import { chmodSync, existsSync, mkdirSync, rmSync } from "node:fs"
import { PythonEnvironment } from "../../src/mod.ts"

/** A place that the sandbox runtime opens for every command, and the TMPDIR of the tests in sandboxes. */
const folders = ["/tmp/claude", "/tmp/effect-jupyter-sandboxed"]

export default async function setup(): Promise<() => void> {
  const made = folders.filter((folder) => !existsSync(folder))
  for (const folder of made) {
    mkdirSync(folder)
    chmodSync(folder, 0o777)
  }
  await Effect.runPromise(PythonEnvironment.make())
  return () => made.forEach((folder) => rmSync(folder, { recursive: true, force: true }))
}
