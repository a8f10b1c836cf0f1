/** A Jupyter Kernel Gateway with its defaults, as everybody starts it who has no library for that. */
import { Effect, Schedule } from "effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { createServer } from "node:net"
import process from "node:process"
import { PythonEnvironment } from "../../src/mod.ts"

/** A gateway that answers. */
export interface Stock {
  readonly url: string
  readonly pid: number
}

const freePort = Effect.callback<number>((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** Starts one and asks every few milliseconds whether it answers. */
export const start = Effect.fnUntraced(function* () {
  const { python } = yield* PythonEnvironment.make()
  const port = yield* freePort
  const handle = yield* ChildProcess.make(
    python,
    ["-m", "kernel_gateway", `--KernelGatewayApp.port=${port}`, "--KernelGatewayApp.ip=127.0.0.1"],
    {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
      env: { PATH: process.env["PATH"] },
      extendEnv: true,
    },
  )
  const url = `http://127.0.0.1:${port}`
  yield* Effect.tryPromise(() => fetch(`${url}/api`)).pipe(Effect.retry(Schedule.spaced("5 millis")))
  const stock: Stock = { url, pid: handle.pid }
  return stock
})
