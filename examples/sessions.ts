/**
 * A service with a kernel for each user, which stays between requests, and a web page to use it.
 *
 * `node --conditions=effect-jupyter-source examples/sessions.ts` serves the page on PORT (3000 by default) until it is
 * interrupted. A user is known by a cookie with a random name.
 *
 * - `POST /execute` runs code and streams server-sent events: chunks, then the result or the failure.
 * - `POST /interrupt` interrupts the code that runs.
 *
 * @module
 */
import { NodeHttpServer, NodeRuntime, NodeServices } from "@effect/platform-node"
import { ByteSize, Config, Effect, FileSystem, Layer, Schema, Stream } from "effect"
import { Execution, KernelGateway, KernelSessions } from "effect-jupyter"
import { HttpIncomingMessage, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { randomUUID } from "node:crypto"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

/** What a client sees of an execution: chunks, and in the end the result or the failure. */
const Event = Schema.fromJsonString(Schema.toCodecJson(Schema.Union([
  Execution.Chunk,
  Execution.ExecutionResult,
  Execution.ExecutionError,
  Execution.ExecutionTimeout,
  Execution.KernelError,
])))

/** Web pages of other sites cannot send this type, and so cannot run code here. */
const headers = Schema.Struct({ "content-type": Schema.Literal("application/json") })
const Execute = Schema.Struct({ headers, body: Schema.Struct({ code: Schema.String }) })
const Interrupt = Schema.Struct({ headers })
/**
 * Browsers take a cookie with this prefix only from this host, so that no other can choose the session of a user. Without
 * TLS, Chrome and Firefox take it from this machine.
 */
const cookie = "__Host-user"
const Cookies = Schema.Struct({
  [cookie]: Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(100)),
})

/** The user of a request. */
const user = Effect.map(HttpServerRequest.schemaCookies(Cookies), (cookies) => cookies[cookie])

/** A page of another site whose name leads to this machine has its own name in the request. */
const guard = HttpRouter.middleware(
  (response) =>
    Effect.flatMap(
      HttpServerRequest.HttpServerRequest,
      ({ headers }) =>
        /^(127\.0\.0\.1|localhost)(:\d+)?$/.test(headers.host ?? "")
          ? Effect.provideService(response, HttpIncomingMessage.MaxBodySize, ByteSize.fromInputUnsafe("1 MB"))
          : Effect.succeed(HttpServerResponse.empty({ status: 403 })),
    ),
  { global: true },
)

const page = HttpRouter.add(
  "GET",
  "/",
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const html = yield* fs.readFileString(fileURLToPath(new URL("sessions.html", import.meta.url)))
    const name = yield* Effect.orElseSucceed(user, () => randomUUID())
    // The page needs nothing of other sites, and no other site may show it in a frame.
    const policy = "default-src 'self' 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
    return yield* HttpServerResponse.html(html).pipe(
      HttpServerResponse.setHeader("content-security-policy", policy),
      HttpServerResponse.setCookie(cookie, name, {
        httpOnly: true,
        secure: true,
        sameSite: "strict",
        path: "/",
      }),
    )
  }),
)

const execute = HttpRouter.add(
  "POST",
  "/execute",
  Effect.gen(function* () {
    const { body } = yield* HttpRouter.schemaJson(Execute)
    const key = yield* user
    const sessions = yield* KernelSessions.KernelSessions
    // The session is in use until the stream ends. A client that goes away interrupts its code, and nothing else.
    const events = Stream.unwrap(
      Effect.map(sessions.get(key), (kernel) => kernel.stream(body.code, { timeout: "5 minutes" })),
    ).pipe(
      Stream.catch(Stream.succeed),
      Stream.mapEffect((event) => Schema.encodeEffect(Event)(event)),
      Stream.map((data) => `data: ${data}\n\n`),
      Stream.encodeText,
    )
    return HttpServerResponse.stream(events, { contentType: "text/event-stream" })
  }),
)

const interrupt = HttpRouter.add(
  "POST",
  "/interrupt",
  Effect.gen(function* () {
    yield* HttpRouter.schemaNoBody(Interrupt)
    const sessions = yield* KernelSessions.KernelSessions
    const kernel = yield* sessions.get(yield* user)
    yield* kernel.interrupt
    return HttpServerResponse.empty()
  }).pipe(Effect.scoped),
)

/** Tells what happens to sessions. */
const log = Layer.effectDiscard(
  Effect.flatMap(
    KernelSessions.KernelSessions,
    ({ events }) =>
      Effect.forkScoped(
        Stream.runForEach(events, ({ _tag, kernelId }) =>
          Effect.logInfo(`${_tag} a session with kernel ${kernelId}`)),
      ),
  ),
)

const Sessions = KernelSessions.layer({
  max: 20,
  idleTimeToLive: "30 minutes",
  images: "bytes",
  setup: "%matplotlib inline",
}).pipe(Layer.provide(KernelGateway.layer()))

HttpRouter.serve(Layer.mergeAll(page, execute, interrupt, guard)).pipe(
  Layer.provide(NodeHttpServer.layerConfig(createServer, {
    // All who reach this port run code as you: not for the world without a sandbox and a login.
    host: Config.succeed("127.0.0.1"),
    port: Config.withDefault(Config.Port("PORT"), 3000),
    gracefulShutdownTimeout: Config.succeed("2 seconds"),
  })),
  Layer.merge(log),
  Layer.provide(Sessions),
  Layer.provide(NodeServices.layer),
  Layer.launch,
  NodeRuntime.runMain,
)
