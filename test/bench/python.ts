/** Clients in Python, each a program of its own that answers a line with the milliseconds that it took. */
import { Effect, Scope } from "effect"
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import process from "node:process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { PythonEnvironment } from "../../src/mod.ts"

/** Milliseconds by the program's own clock. */
export type Client = (line: string) => Effect.Effect<number>

const start = Effect.fnUntraced(function* (python: string, script: string) {
  const program = yield* Effect.acquireRelease(
    Effect.sync((): ChildProcessWithoutNullStreams =>
      spawn(python, [fileURLToPath(new URL(script, import.meta.url))], {
        env: process.env,
        stdio: ["pipe", "pipe", "pipe"],
      })
    ),
    (program) =>
      Effect.callback<void>((resume) => {
        if (program.exitCode !== null) return resume(Effect.void)
        program.once("exit", () => resume(Effect.void))
        program.stdin.end()
      }),
  )
  let errors = ""
  program.stderr.setEncoding("utf8").on("data", (text: string) => {
    errors = (errors + text).slice(-4000)
  })
  // A program that has ended does not read: what it said is in the answer that does not come.
  program.stdin.on("error", () => {})
  const answers = createInterface({ input: program.stdout })[Symbol.asyncIterator]()
  const client: Client = (line) =>
    Effect.promise(async () => {
      program.stdin.write(`${line}\n`)
      const { done, value } = await answers.next()
      if (done === true) throw new Error(`The program "${script}" ended: ${errors}`)
      return Number(value)
    })
  return client
})

/** Jupyter's `jupyter_client` with a kernel of its own and no gateway: runs each line as code. */
export const direct = Effect.gen(function* () {
  const { python } = yield* PythonEnvironment.make()
  const client = yield* start(python, "./direct.py")
  yield* client("1")
  return client
})

/** IPython in a process of its own, without messages: runs each line as a cell. */
export const inProcess = Effect.gen(function* () {
  const { python } = yield* PythonEnvironment.make()
  const client = yield* start(python, "./in_process.py")
  yield* client("1")
  return client
})

/** The requests to ipybox. */
export type Task = "nothing" | "execute" | "reset" | "timeout"

/**
 * The ipybox whose checkout the environment variable IPYBOX names, with its gateway and a kernel; installed with what
 * it needs into an environment of its own. Without the variable there is none, and its times are no numbers.
 */
export const ipybox: Effect.Effect<(task: Task) => Effect.Effect<number>, unknown, Scope.Scope> = Effect.gen(
  function* () {
    const checkout = process.env["IPYBOX"]
    if (checkout === undefined) return () => Effect.succeed(NaN)
    const { python } = yield* PythonEnvironment.make({
      // Its dependency does not work with mcp 2, without declaring that.
      packages: [`ipybox @ file://${checkout}`, "mcp<2"],
    })
    const client = yield* start(python, "./ipybox_client.py")
    yield* client("execute")
    return client
  },
)
