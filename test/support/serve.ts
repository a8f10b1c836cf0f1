/** Processes of `effect-jupyter serve`, as another machine would run them. */
import { Context, Effect, FileSystem, Layer, Redacted, Schema, Stream } from "effect"
import type { ChildProcess } from "effect/process"
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http"
import type { Duplex } from "node:stream"
import { fileURLToPath } from "node:url"
import { KernelGateway } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"
import { temporary } from "./kernel.ts"
import { tied } from "./tied.ts"

const pathOf = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url))

/** The command with these arguments. */
export const command = (...args: ReadonlyArray<string>): ChildProcess.Command =>
  tied(
    pathOf("node_modules/.bin/node"),
    ["--conditions=effect-jupyter-source", pathOf("src/cli/main.ts"), ...args],
    { extendEnv: true, forceKillAfter: "10 seconds" },
  )

const decodeReady = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Struct({
  ready: Schema.Literal(true),
  url: Schema.String,
  tokenFile: Schema.String,
  pid: Schema.Int,
})))

/** Starts a server and waits until it is ready; gives its address, its token and its process. */
export const start = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  const fs = yield* FileSystem.FileSystem
  const tokenFile = args.includes("--token-file") ? [] : ["--token-file", `${yield* temporary}/token`]
  const handle = yield* command("serve", "--port", "0", ...tokenFile, ...args)
  const log: Array<string> = []
  yield* handle.stderr.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => Effect.sync(() => void log.push(line))),
    Effect.forkScoped,
  )
  const lines: Array<string> = []
  yield* handle.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.takeUntil((line) => lines.push(line) > 0),
    Stream.runDrain,
  )
  const ready = yield* decodeReady(lines[0] ?? log.join("\n"))
  const token = Redacted.make((yield* fs.readFileString(ready.tokenFile)).trim())
  return { ...ready, token, handle, log, lines }
})

export type Served = Effect.Success<ReturnType<typeof start>>

/** The gateway of a server, at its own address or at that of a proxy. */
export const connect = (
  { token, url }: Pick<Served, "token" | "url">,
  options: Partial<KernelGateway.RemoteOptions> = {},
) =>
  Effect.map(
    Layer.build(KernelGateway.layerRemote({ url, token, ...options })),
    (context) => Context.get(context, KernelGateway.KernelGateway),
  )

/** A server, as the gateway of tests. */
export const layer = (...args: ReadonlyArray<string>) =>
  Layer.unwrap(Effect.map(start(...args), ({ token, url }) => KernelGateway.layerRemote({ url, token })))
    .pipe(
      Layer.provideMerge(Platform.layer),
    )

/** A proxy of HTTP that serves a server below a path, and changes headers of its answers. */
export const httpProxy = Effect.fnUntraced(function* (
  target: string,
  { headers = {}, prefix = "" }: {
    readonly prefix?: string
    readonly headers?: Readonly<Record<string, string>>
  },
) {
  const forward = ({ headers, method, url = "" }: IncomingMessage) =>
    request(new URL(url.slice(prefix.length), target), { method, headers })
  const handle = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    if (!incoming.url?.startsWith(prefix)) return void outgoing.writeHead(404).end()
    const asked = forward(incoming).on("response", (answer) => {
      outgoing.writeHead(answer.statusCode ?? 0, { ...answer.headers, ...headers })
      answer.pipe(outgoing)
    }).on("error", () => void outgoing.destroy())
    incoming.pipe(asked)
  }
  const upgrade = (incoming: IncomingMessage, client: Duplex): void => {
    const asked = forward(incoming).on("upgrade", ({ rawHeaders }, server, head) => {
      const fields = rawHeaders.flatMap((name, index) =>
        index % 2 ? [] : [`${name}: ${rawHeaders[index + 1]}`]
      )
      client.write(["HTTP/1.1 101 Switching Protocols", ...fields, "", ""].join("\r\n"))
      client.write(head)
      server.pipe(client)
      client.pipe(server)
      server.on("error", () => void client.destroy())
      client.on("error", () => void server.destroy())
    }).on("response", ({ statusCode }) => void client.end(`HTTP/1.1 ${statusCode} Refused\r\n\r\n`))
    asked.on("error", () => void client.destroy()).end()
  }
  const server = yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer(handle).on("upgrade", upgrade).listen(
        0,
        "127.0.0.1",
        () => resume(Effect.succeed(server)),
      )
    }),
    (server) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      }),
  )
  const address = server.address()
  return `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}${prefix}`
})
