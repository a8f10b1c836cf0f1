/** A Jupyter Kernel Gateway with its defaults, as started without a library. */
import { Effect, Schedule } from "effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { createServer } from "node:net"
import { dirname, join } from "node:path"
import process from "node:process"
import { PythonEnvironment } from "../../src/mod.ts"

/** A gateway. */
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

/** Starts one, which does not answer yet: by its module, or by the command, which starts Python once more. */
export const spawn = Effect.fnUntraced(
  function* (by: "module" | "command", options: ReadonlyArray<string> = []) {
    const { python } = yield* PythonEnvironment.make()
    const port = yield* freePort
    const handle = yield* ChildProcess.make(
      by === "module" ? python : join(dirname(python), "jupyter"),
      [
        ...by === "module" ? ["-m", "kernel_gateway"] : ["kernelgateway"],
        `--KernelGatewayApp.port=${port}`,
        "--KernelGatewayApp.ip=127.0.0.1",
        "--KernelGatewayApp.port_retries=0",
        ...options,
      ],
      {
        stdin: "ignore",
        stdout: "ignore",
        stderr: "ignore",
        env: { PATH: process.env["PATH"] },
        extendEnv: true,
      },
    )
    const stock: Stock = { url: `http://127.0.0.1:${port}`, pid: handle.pid }
    return stock
  },
)

/** Asks every few milliseconds whether a gateway answers. */
const ready = ({ url }: Stock) =>
  Effect.tryPromise(() => fetch(`${url}/api`)).pipe(
    Effect.retry(Schedule.spaced("5 millis")),
    Effect.timeout("30 seconds"),
  )

/** Starts one that answers. */
export const start = Effect.tap(spawn("module"), ready)

/** Starts one that drops no output, which Jupyter Server does to protect a browser. */
export const unlimited = Effect.tap(
  spawn("module", ["--ZMQChannelsWebsocketConnection.limit_rate=False"]),
  ready,
)
