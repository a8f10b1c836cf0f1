/**
 * A small HTTP service: `POST /execute` runs code in a kernel and streams what it puts out, as JSON lines.
 *
 * `node --conditions=effect-jupyter-source examples/service.ts` serves on PORT (3000 by default) until it is interrupted:
 *
 * ```sh
 * curl --no-buffer --json '{"code": "print(6 * 7)"}' http://127.0.0.1:3000/execute
 * ```
 *
 * With the argument `--demo` it serves on a free port, talks to itself and ends.
 *
 * @module
 */
import { NodeHttpServer, NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Console, Effect, Layer, References, Schema, Stdio, Stream } from "effect"
import { Execution, KernelClient, KernelGateway } from "effect-jupyter"
import { Ndjson } from "effect/encoding"
import {
  FetchHttpClient,
  HttpClient,
  HttpClientRequest,
  HttpClientResponse,
  HttpRouter,
  HttpServer,
  HttpServerResponse,
} from "effect/http"
import { createServer } from "node:http"

/** Chunks, then how it ended: the result or the failure. Clients read lines with the same schema. */
const Line = Schema.toCodecJson(Schema.Union([
  Execution.Chunk,
  Execution.ExecutionResult,
  Execution.ExecutionError,
  Execution.ExecutionTimeout,
  Execution.KernelError,
]))
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Line))

const ExecuteRequest = Schema.Struct({
  // Web pages cannot send this type to other sites, and so cannot run code here.
  headers: Schema.Struct({ "content-type": Schema.Literal("application/json") }),
  body: Schema.Struct({ code: Schema.String }),
})

/** All requests share a kernel and its state. A client that goes away interrupts its code, and nothing else. */
const routes = HttpRouter.add(
  "POST",
  "/execute",
  Effect.gen(function* () {
    const { body } = yield* HttpRouter.schemaJson(ExecuteRequest)
    const kernel = yield* KernelClient.KernelClient
    const lines = kernel.stream(body.code, { timeout: "30 seconds" }).pipe(
      // The next request finds a new kernel.
      Stream.catchReason(
        "KernelError",
        "KernelDied",
        (_, error) => Stream.fromEffect(Effect.as(kernel.reset, error)),
      ),
      Stream.catch(Stream.succeed),
      Stream.pipeThroughChannel(Ndjson.encodeSchema(Line)()),
    )
    return HttpServerResponse.stream(lines, { contentType: "application/x-ndjson" })
  }),
)

// Provided last, the kernel is ready before the server listens.
const kernelLayer = KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))

const serve = HttpRouter.serve(routes).pipe(
  Layer.provide(NodeHttpServer.layerConfig(createServer, {
    // All clients of this port run code as your user: add a sandbox and a login before you expose it.
    host: Config.succeed("127.0.0.1"),
    port: Config.withDefault(Config.Port("PORT"), 3000),
    // Then running code is interrupted.
    gracefulShutdownTimeout: Config.succeed("2 seconds"),
  })),
  Layer.provide(kernelLayer),
  Layer.launch,
)

const endless = `
import time
while True:
    x += 1
    print("x is", x, flush=True)
    time.sleep(0.2)
`

const demo = Effect.gen(function* () {
  const client = yield* HttpClient.HttpClient
  const post = (code: string) =>
    HttpClientRequest.post("/execute").pipe(
      HttpClientRequest.bodyJsonUnsafe({ code }),
      client.execute,
      HttpClientResponse.stream,
      Stream.decodeText(),
      Stream.splitLines,
    )
  const show = (line: string) => Console.log(`  ${line}`)

  yield* Console.log("Chunks, and the result as the last line:")
  yield* Stream.runForEach(post("x = 6\nprint('hello')\nx * 7"), show)

  yield* Console.log("A failure is a last line too:")
  yield* Stream.runForEach(post("print(x)\nx / 0"), show)

  yield* Console.log("A client that has seen enough hangs up, which interrupts the code:")
  yield* post(endless).pipe(
    Stream.take(2),
    Stream.runForEach(show),
  )

  yield* Console.log("A kernel that dies is replaced:")
  yield* Stream.runForEach(post("import os\nos._exit(1)"), show)

  yield* Console.log("Lines are typed values again for a client that decodes them:")
  yield* post("print('x' in globals())").pipe(
    Stream.mapEffect((line) => decode(line)),
    Stream.runForEach((line) => Console.log(`  ${line._tag}: ${"text" in line ? line.text?.trim() : ""}`)),
  )
}).pipe(
  Effect.provide(
    Layer.merge(
      HttpRouter.serve(routes),
      HttpServer.layerTestClient.pipe(Layer.provide(FetchHttpClient.layer)),
    ).pipe(
      Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })),
      Layer.provide(kernelLayer),
    ),
  ),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
)

const main = Effect.gen(function* () {
  const stdio = yield* Stdio.Stdio
  const args = yield* stdio.args
  return yield* args.includes("--demo") ? demo : serve
})

main.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
