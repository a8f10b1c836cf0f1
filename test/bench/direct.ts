/** Jupyter's Python client, `jupyter_client`, in a process of its own. */
import { Effect } from "effect"
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import process from "node:process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { PythonEnvironment } from "../../src/mod.ts"

const script = fileURLToPath(new URL("./direct.py", import.meta.url))

/** Milliseconds that `jupyter_client` takes to run a line of code. */
export type Direct = (code: string) => Effect.Effect<number>

/** Starts the client with a kernel, which ends with the scope. */
export const make = Effect.fnUntraced(function* () {
  const { python } = yield* PythonEnvironment.make()
  const client = yield* Effect.acquireRelease(
    Effect.sync((): ChildProcessWithoutNullStreams =>
      spawn(python, [script], { env: process.env, stdio: ["pipe", "pipe", "pipe"] })
    ),
    (client) =>
      Effect.callback<void>((resume) => {
        client.once("exit", () => resume(Effect.void))
        client.stdin.end()
      }),
  )
  client.stderr.resume()
  const answers = createInterface({ input: client.stdout })[Symbol.asyncIterator]()
  const direct: Direct = (code) =>
    Effect.promise(async () => {
      client.stdin.write(`${code}\n`)
      const { value } = await answers.next()
      return Number(value)
    })
  yield* direct("1")
  return direct
})
