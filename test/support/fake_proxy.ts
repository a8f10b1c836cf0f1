/** An HTTP proxy that answers in the name of every host: what reaches it would have reached the internet. */
import { Effect, type Scope } from "effect"
import { createServer } from "node:http"

/** A proxy that listens. */
export interface FakeProxy {
  readonly url: string
  readonly port: number
  /** All requests since the start, for instance `"GET http://example.org/"` and `"CONNECT example.org:443"`. */
  readonly requests: ReadonlyArray<string>
}

/** Starts a proxy on this machine that goes with the scope. */
export const fakeProxy: Effect.Effect<FakeProxy, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.callback<{ readonly server: ReturnType<typeof createServer>; readonly requests: Array<string> }>(
      (resume) => {
        const requests: Array<string> = []
        const server = createServer((request, response) => {
          requests.push(`${request.method} ${request.url}`)
          response.setHeader("connection", "close")
          response.end(`${request.headers.host} through the proxy`)
        })
        server.on("connect", (request, socket) => {
          requests.push(`CONNECT ${request.url}`)
          socket.write("HTTP/1.1 200 Connection Established\r\n\r\n")
          // The data in the tunnel is for the host, which is this server as well.
          server.emit("connection", socket)
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed({ server, requests })))
      },
    ),
    ({ server }) =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      }),
  ),
  ({ requests, server }) => {
    const address = server.address()
    const port = typeof address === "object" ? address?.port ?? 0 : 0
    return { url: `http://127.0.0.1:${port}`, port, requests }
  },
)
