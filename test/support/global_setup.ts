/** Makes the Python environment before any test waits for it. */
import { Effect } from "effect"
import { PythonEnvironment } from "../../src/mod.ts"

export default function setup(): Promise<void> {
  return Effect.runPromise(Effect.asVoid(PythonEnvironment.make()))
}
