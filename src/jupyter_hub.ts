/**
 * The server of a user on a JupyterHub, started when it is needed, as a gateway.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { toGatewayError } from "./gateway/connection.ts"
import { type GatewayError, gatewayError, StartFailed, StartTimeout } from "./gateway/error.ts"
import * as Hub from "./gateway/hub.ts"
import * as Remote from "./gateway/remote.ts"
import type { RestError } from "./jupyter/rest_error.ts"
import * as Server from "./jupyter/server.ts"
import * as Span from "./kernel/span.ts"
import { KernelGateway, layerRemote } from "./kernel_gateway.ts"
import * as Options from "./options/check.ts"
import * as Platform from "./platform.ts"

/**
 * An event of the start of a server.
 *
 * @example
 * ```ts
 * import type { JupyterHub } from "effect-jupyter"
 *
 * export const show = ({ message, percent }: JupyterHub.Progress) => `${percent} %: ${message}`
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class Progress extends Schema.Class<Progress>("effect-jupyter/JupyterHub/Progress")({
  /** From 0 to 100, as the hub estimates it. */
  percent: Schema.Finite,
  message: Schema.String,
  /** True for the last event of a start that has succeeded. */
  ready: Schema.Boolean,
}) {}

/**
 * The server of a user, which may still be starting.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { JupyterHub } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const server = yield* JupyterHub.UserServer
 *   yield* Stream.runForEach(server.progress, ({ message }) => Effect.log(message))
 * }).pipe(Effect.provide(JupyterHub.layer({ hub: "https://hub.example.org", token: "secret" })))
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class UserServer extends Context.Service<UserServer, {
  readonly user: string
  /** The name of the server; empty for the default one. */
  readonly name: string
  /** True if this program has started it; it is stopped when the scope closes, unless it was started again meanwhile. */
  readonly isOwn: boolean
  /**
   * Emits the events of the start from now on, and ends with it; of a server that is ready only the last one. Fails with
   * the reason `StartFailed` if the start fails.
   */
  readonly progress: Stream.Stream<Progress, GatewayError>
  /**
   * Waits until the server is ready, and returns it as a gateway. Fails with `StartFailed` or `StartTimeout`, or as
   * `KernelGateway.layerRemote` does.
   */
  readonly gateway: Effect.Effect<KernelGateway["Service"], GatewayError, Scope.Scope>
}>()("effect-jupyter/JupyterHub/UserServer") {}

/**
 * The hub and the server on it. The token needs the scopes `servers` and `access:servers` of the user.
 *
 * @category options
 * @since 0.1.0
 */
export interface HubOptions extends Pick<Remote.RemoteOptions, "token" | "headers" | "startConcurrency"> {
  /** The address of the hub with its path prefix, if any, or of a page of the hub or of a user's server. */
  readonly hub: string
  /** The user; the owner of the token by default. */
  readonly user?: string | undefined
  /** The name of the server; the user's default server if absent. */
  readonly server?: string | undefined
  /** The options of the spawner, such as its profile; none by default. */
  readonly options?: Readonly<Record<string, unknown>> | undefined
  /** Maximum time of the start; 5 minutes by default. */
  readonly startTimeout?: Duration.Input | undefined
}

/**
 * Asks a hub to start the server of a user, unless it runs already. A server that was started is stopped when the scope
 * closes, which waits for it for 10 seconds at most. Of programs that start it at the same time, one owns it.
 *
 * Fails with `Unauthorized` if the hub refuses the token, `StartFailed` if it does not start the server, `StartTimeout`,
 * `Unreachable`, `CredentialsFailed` or `InvalidOption`.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { JupyterHub, KernelClient, KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const server = yield* JupyterHub.make({ hub: "https://hub.example.org", token: "secret", user: "ada" })
 *   yield* Effect.forkScoped(Stream.runForEach(server.progress, ({ message }) => Effect.log(message)))
 *   const gateway = yield* server.gateway
 *   return yield* KernelClient.make().pipe(Effect.provideService(KernelGateway.KernelGateway, gateway))
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options: HubOptions,
) => Effect.Effect<UserServer["Service"], GatewayError, Scope.Scope> = Effect.fnUntraced(
  function* (options: HubOptions) {
    const { headers, server: name = "", startConcurrency, startTimeout = "5 minutes", token } = options
    const { address, ...credentials } = yield* Remote.authorize(Options.Hub, { ...options, url: options.hub })
    const url = baseUrl(address.url)
    const failed = (error: RestError) => toGatewayError(url, error)
    const connection = yield* Platform.provide(Server.make({ url, headers: credentials.headers }))
    const user = options.user ?? (yield* Effect.mapError(Hub.whoami(connection), failed))
    const server = Hub.userServer(connection, user, name)
    const withinTimeout = Effect.timeoutOrElse({
      duration: startTimeout,
      orElse: () =>
        Effect.fail(
          gatewayError(new StartTimeout({ timeout: Duration.fromInputUnsafe(startTimeout), output: [] })),
        ),
    })
    const isOwn = yield* start(server, options.options ?? {}).pipe(
      Effect.mapError((error) =>
        error.kind === "Refused" || error.kind === "NotFound" ? startFailed(error.message) : failed(error)
      ),
      withinTimeout,
    )
    const progress = Stream.mapError(
      progressOf(server),
      (error) => error._tag === "RestError" ? failed(error) : error,
    )
    return UserServer.of({
      user,
      name,
      isOwn,
      progress,
      gateway: Stream.runDrain(progress).pipe(
        Effect.andThen(Effect.mapError(server.state, failed)),
        Effect.filterOrFail((state) => state !== undefined, () => startFailed(stopped)),
        withinTimeout,
        Effect.flatMap((state) =>
          Layer.build(layerRemote({
            // One that is not valid fails as any other address.
            url: state.full_url ?? (URL.canParse(state.url, url) ? new URL(state.url, url).href : state.url),
            token: token ?? credentials.token,
            headers,
            startConcurrency,
          }))
        ),
        Effect.map(Context.get(KernelGateway)),
      ),
    })
  },
  Span.withSpan("JupyterHub.make"),
)

/**
 * Provides the server of a user as the gateway, and the server itself. Fails as {@link make} does, and as
 * `KernelGateway.layerRemote` does.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { JupyterHub, KernelClient } from "effect-jupyter"
 *
 * export const kernel = KernelClient.layer().pipe(
 *   Layer.provide(JupyterHub.layer({
 *     hub: "https://hub.example.org",
 *     token: Effect.succeed("secret"),
 *     server: "analysis",
 *     options: { profile: "large" }
 *   }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layer(options: HubOptions): Layer.Layer<KernelGateway | UserServer, GatewayError> {
  return Layer.effect(KernelGateway, Effect.flatMap(UserServer, ({ gateway }) => gateway)).pipe(
    Layer.provideMerge(Layer.effect(UserServer, make(options))),
  )
}

/** Returns the address of a hub with its path prefix; that of a page has the path of the hub or of a user's server. */
function baseUrl(url: string): string {
  const [, base = url] = /^(.*?)\/hub(?:\/.*)?$/.exec(url) ?? /^(.*?)\/user\/[^/]+(?:\/.*)?$/.exec(url) ?? []
  return base
}

/** Maximum time that closing waits until the server has stopped. */
const stopTimeout = "10 seconds"

/** Maximum time of attempts to stop a server, which a hub refuses while the server starts. */
const maxStopTime = Duration.minutes(2)

/** Interval of requests while a server starts or stops. */
const pollInterval = Duration.millis(500)

const startFailed = (detail: string, output: ReadonlyArray<string> = []): GatewayError =>
  gatewayError(new StartFailed({ detail, output }))

/** The detail of a server that is gone before it is ready. */
const stopped = "The hub has stopped the server"

/** The member of the options of a start by which programs that start a server at the same time know whose it is. */
const claimName = "effect_jupyter"

/** Starts a server that is not running, and stops it when the scope closes. Returns whether it was started. */
const start = (
  server: Hub.UserServer,
  options: Readonly<Record<string, unknown>>,
): Effect.Effect<boolean, RestError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) => {
    const claim = SecureRandom.uuidV4Unsafe()
    let startedAt: string | null | undefined
    // A hub may not show the options of a start, or replace them.
    const isClaimed = (state: Hub.State) =>
      state !== undefined && (state.user_options?.[claimName] ?? claim) === claim
    // Another client may have started it again.
    const isOwn = (state: Hub.State) =>
      isClaimed(state) && (startedAt === undefined || state?.started === startedAt)
    const attempt: Effect.Effect<boolean, RestError, Scope.Scope> = Effect.gen(function* () {
      const before = yield* restore(server.state)
      if (isStarted(before)) return false
      if (before !== undefined && before.pending !== null) return yield* again(pollInterval)
      // It is not interrupted: the server would run without being stopped.
      const starting = yield* Effect.forkDetach(server.start({ ...options, [claimName]: claim }), {
        startImmediately: true,
      })
      yield* Effect.addFinalizer(() => stop(server, starting, isOwn))
      const begun = yield* Effect.result(restore(awaitStarted(server, starting)))
      if (Result.isSuccess(begun)) {
        const isMine = begun.success === undefined || isClaimed(begun.success)
        if (isMine) startedAt = begun.success?.started
        return isMine
      }
      const { retryAfter, status } = begun.failure
      // The hub starts a limited number of servers at the same time.
      if (status === 429) return yield* again(retryAfter ?? Duration.seconds(1))
      // Another client was faster.
      const current = status === 400 ? yield* restore(server.state) : undefined
      return current === undefined ? yield* begun.failure : yield* again(pollInterval)
    })
    const again = (delay: Duration.Duration) => Effect.andThen(restore(Effect.sleep(delay)), attempt)
    return attempt
  })

const isStarted = (state: Hub.State): boolean =>
  state !== undefined && (state.ready || state.pending === "spawn")

/** Waits until the hub has begun to start a server, and returns its state; `undefined` if it has ended again. */
const awaitStarted = (server: Hub.UserServer, starting: Fiber.Fiber<void, RestError>) => {
  const begun = server.state.pipe(
    Effect.repeat({
      schedule: Schedule.spaced(pollInterval),
      until: (state) =>
        state === undefined
          ? starting.pollUnsafe() !== undefined
          : isStarted(state) && state.started !== null,
    }),
    Effect.withTracerEnabled(false),
  )
  // The hub answers when the server is ready, or after 10 seconds.
  const answered = Effect.catchIf(Fiber.join(starting), ({ kind }) => kind === "Timeout", () => Effect.void)
  return Effect.raceFirst(begun, Effect.andThen(answered, begun))
}

/**
 * Stops a server for as long as it is the one that was started. The hub refuses that while the server starts; then it is
 * stopped in the background.
 */
const stop = (
  server: Hub.UserServer,
  starting: Fiber.Fiber<void, RestError>,
  isOwn: (state: Hub.State) => boolean,
): Effect.Effect<void> =>
  Effect.gen(function* () {
    if (!isOwn(yield* server.state)) return
    yield* server.stop
    if (isOwn(yield* server.state)) return yield* startFailed("It still runs")
  }).pipe(
    Effect.retry({
      schedule: Schedule.spaced(pollInterval).pipe(Schedule.upTo({ duration: maxStopTime })),
      // Without credentials nothing would change.
      while: (error) =>
        error._tag === "GatewayError" || !["Unauthorized", "NoCredentials"].includes(error.kind),
    }),
    Effect.mapError(({ message }) => `The hub did not stop the server: ${message}`),
    Effect.ignore({ log: "Warn" }),
    (stopping) => Effect.andThen(Fiber.await(starting), stopping),
    Effect.withTracerEnabled(false),
    Effect.forkDetach({ startImmediately: true }),
    Effect.flatMap((stopping) => Effect.timeoutOption(Fiber.await(stopping), stopTimeout)),
    Effect.asVoid,
  )

/** Maximum number of messages of a start that an error has. */
const maxMessages = 20

/** Emits the events of a start until the server is ready, again if the connection was cut. */
const progressOf = (server: Hub.UserServer): Stream.Stream<Progress, GatewayError | RestError> =>
  Stream.suspend(() => {
    const messages: Array<string> = []
    let last = 0
    const follow = (delay: Duration.Duration): Stream.Stream<Progress, GatewayError | RestError> =>
      Stream.unwrap(Effect.gen(function* () {
        const state = yield* server.state
        if (state === undefined) return yield* startFailed(stopped, messages)
        if (state.ready) {
          return Stream.make(
            new Progress({ percent: 100, message: `Server ready at ${state.url}`, ready: true }),
          )
        }
        yield* Effect.sleep(delay)
        return server.progress.pipe(
          // A connection that was cut says nothing about the server.
          Stream.catchTag("RestError", () => Stream.empty),
          Stream.mapEffect((event) =>
            event.failed === true ? startFailed(event.message, messages) : Effect.succeed(event)
          ),
          Stream.filter(({ message, progress = last, ready }) => {
            // The hub repeats the events on each connection.
            const isNew = progress > last || (progress === last && !messages.includes(message))
            if (ready === true || !isNew) return false
            last = progress
            messages.push(message)
            if (messages.length > maxMessages) messages.shift()
            return true
          }),
          Stream.map(({ message }) => new Progress({ percent: last, message, ready: false })),
          Stream.concat(Stream.suspend(() => follow(pollInterval))),
        )
      }))
    return follow(Duration.zero)
  })
