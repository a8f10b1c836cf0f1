/**
 * A Jupyter server that runs kernels, as a scoped resource: a local Kernel Gateway, or an existing remote server.
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Connection from "./gateway/connection.ts"
import { type GatewayError, gatewayError } from "./gateway/error.ts"
import * as Listing from "./gateway/listing.ts"
import * as Local from "./gateway/local.ts"
import * as Process from "./gateway/process.ts"
import * as Remote from "./gateway/remote.ts"
import * as Shared from "./gateway/shared.ts"
import * as Span from "./kernel/span.ts"
import * as Options from "./options/check.ts"
import * as Platform from "./platform.ts"
import * as PythonEnvironment from "./python_environment.ts"
import type { SandboxError } from "./sandbox/error.ts"

export { AssetsMissing } from "./assets.ts"
export {
  CredentialsFailed,
  Exited,
  FolderRefused,
  GatewayError,
  GatewayErrorReason,
  isGatewayError,
  OptionsMismatch,
  PortInUse,
  ProvisioningFailed,
  PythonNotFound,
  StartFailed,
  StartTimeout,
  Unauthorized,
  Unreachable,
} from "./gateway/error.ts"
export { Kernelspec, RunningKernel } from "./gateway/listing.ts"
export type { ExpiringToken, RemoteOptions } from "./gateway/remote.ts"
export { InvalidOption } from "./options/check.ts"

/**
 * A running Jupyter server.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const gateway = yield* KernelGateway.KernelGateway
 *   yield* gateway.join.pipe(Effect.tapError((error) => Effect.logError(error.message)), Effect.forkChild)
 *   yield* Effect.log(gateway.url)
 * }).pipe(Effect.provide(KernelGateway.layer()))
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class KernelGateway extends Context.Service<KernelGateway, {
  /** Base URL, for instance `"http://127.0.0.1:8888"`. */
  readonly url: string
  /** The token that requests are authorized with; random for a local gateway. */
  readonly token: Redacted.Redacted<string> | undefined
  /**
   * Waits for the end of the gateway's process. Fails with the reason `Exited` if it ended by itself; never ends
   * for a remote server.
   */
  readonly join: Effect.Effect<void, GatewayError>
  /** Returns the kernelspecs of the server. */
  readonly kernelspecs: Effect.Effect<ReadonlyArray<Listing.Kernelspec>, GatewayError>
  /** Returns the kernels that run on the server, those of other clients included. */
  readonly kernels: Effect.Effect<ReadonlyArray<Listing.RunningKernel>, GatewayError>
}>()("effect-jupyter/KernelGateway") {}

/**
 * Options of a local gateway.
 *
 * @category options
 * @since 0.1.0
 */
export interface GatewayOptions extends Local.LocalOptions {
  /**
   * The interpreter. By default it is that of the service `PythonEnvironment` if one is provided, and otherwise the
   * default of {@link PythonEnvironment.Options}.
   */
  readonly python?: PythonEnvironment.Options | undefined
}

/**
 * Options of a gateway that programs share.
 *
 * @category options
 * @since 0.1.0
 */
export interface SharedOptions extends Omit<GatewayOptions, "tokenFile"> {
  /** The name by which programs of this user find the gateway: letters, digits, dots, hyphens and underscores. */
  readonly name: string
  /**
   * The time after which an unused gateway ends, see {@link makeShared}; 30 minutes by default. If programs give different
   * times, that of the program which connected last applies.
   */
  readonly idleTimeToLive?: Duration.Input | undefined
  /**
   * Maximum bytes of output that the gateway keeps of each kernel for `resume`; 64 MiB by
   * default. While no program is attached to the kernel, older output is dropped and counted.
   */
  readonly outputRetention?: number | undefined
}

/**
 * Starts a Jupyter Kernel Gateway in a child process. When the scope closes, or when this process dies, the gateway, its
 * kernels and their descendants are killed, and their files removed.
 *
 * The log of the gateway is passed to Effect's logger at level Debug, and its last lines become part of errors. Fails
 * with {@link GatewayError} if the gateway cannot be started, and with `SandboxError` if kernels cannot be sandboxed.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient, KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const gateway = yield* KernelGateway.make({ env: { DATASET: "iris" } })
 *   const kernel = yield* KernelClient.make().pipe(
 *     Effect.provideService(KernelGateway.KernelGateway, gateway)
 *   )
 *   return yield* kernel.execute("import os; print(os.environ['DATASET'])")
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options?: GatewayOptions,
) => Effect.Effect<KernelGateway["Service"], GatewayError | SandboxError, Scope.Scope> = Effect.fnUntraced(
  function* (options: GatewayOptions = {}) {
    const { process, sandbox } = yield* prepare(options)
    const started = yield* Process.start(process)
    return yield* connect(process, { ...started, token: process.token, sandbox })
  },
  Platform.provide,
  Span.withSpan("KernelGateway.make"),
)

/**
 * Provides a local gateway. Fails as {@link make} does.
 *
 * @example
 * ```ts
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const gateway = KernelGateway.layer({ workingDir: "notebooks", python: { packages: ["pandas"] } })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layer(options?: GatewayOptions): Layer.Layer<KernelGateway, GatewayError | SandboxError> {
  return Layer.effect(KernelGateway, make(options))
}

/**
 * Finds the gateway of a name that another program of this user has started, or starts it. It outlives this program, also
 * if that is killed, and ends with its kernels when it has been unused for `idleTimeToLive`. It is used while a program
 * holds it, which means that its scope is open, while a kernel has a connection or runs code, and while it answers a
 * request.
 *
 * When the scope closes, or this program dies, the kernels of this program end, and the gateway and the kernels of others
 * stay. Every program gives its kernels its own `env`; the other options have to be those of the program that started the
 * gateway, except `logLevel` and `startTimeout`, which that one decides. Fails as {@link make} does, with the reason
 * `OptionsMismatch` if the options differ, and with `FolderRefused` if another user has access to the folder of the
 * gateway.
 *
 * The folder is `effect-jupyter` in XDG_RUNTIME_DIR, or else in the temporary folder. A service manager that ends all
 * processes of a program ends a gateway that it started as well; for systemd, use a unit of its own or
 * `KillMode=process`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const gateway = yield* KernelGateway.makeShared({ name: "analysis", idleTimeToLive: "1 hour" })
 *   return (yield* gateway.kernels).length
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeShared: (
  options: SharedOptions,
) => Effect.Effect<KernelGateway["Service"], GatewayError | SandboxError, Scope.Scope> = Effect.fnUntraced(
  function* (
    { idleTimeToLive = "30 minutes", name, outputRetention = defaultRetention, ...options }: SharedOptions,
  ) {
    yield* Effect.mapError(
      Options.check(Options.Shared, { idleTimeToLive, name, outputRetention }),
      gatewayError,
    )
    const { process, sandbox } = yield* prepare(options)
    const { secret, ...shared } = yield* Shared.connect({
      name,
      idleTimeToLive,
      process: { ...process, outputRetention },
    })
    return yield* connect(process, {
      ...shared,
      sandbox: sandbox === undefined || secret === undefined ? undefined : { ...sandbox, secret },
    })
  },
  Platform.provide,
  Span.withSpan("KernelGateway.makeShared"),
)

/**
 * Provides a gateway that programs share. Fails as {@link makeShared} does.
 *
 * @example
 * ```ts
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const gateway = KernelGateway.layerShared({ name: "notebooks", workingDir: "notebooks" })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layerShared(options: SharedOptions): Layer.Layer<KernelGateway, GatewayError | SandboxError> {
  return Layer.effect(KernelGateway, makeShared(options))
}

/**
 * Ends the shared gateway of a name with all its kernels, whether programs use it or not, and waits until its processes
 * and its files are gone. Succeeds if none runs.
 *
 * @example
 * ```ts
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const stop = KernelGateway.stopShared("fresh")
 * ```
 *
 * @category destructors
 * @since 0.1.0
 */
export const stopShared: (name: string) => Effect.Effect<void, GatewayError> = Effect.fnUntraced(
  function* (name: string) {
    yield* Effect.mapError(Options.check(Options.Shared, { name }), gatewayError)
    yield* Shared.stop(name)
  },
  Platform.provide,
  Effect.scoped,
)

/**
 * Provides a local gateway with options from configuration. Fails as {@link make} does, and with `ConfigError` if an
 * option is missing or invalid.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const gateway = KernelGateway.layerConfig({ port: Config.Port("GATEWAY_PORT") })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layerConfig(
  options: Config.Wrap<GatewayOptions>,
): Layer.Layer<KernelGateway, GatewayError | SandboxError | Config.ConfigError> {
  return Layer.effect(KernelGateway, Effect.flatMap(Config.unwrap(options), make))
}

/**
 * Provides an existing server of the Jupyter kernels REST API: Kernel Gateway, Jupyter Server, Enterprise Gateway or
 * JupyterHub. Fails with the reason `Unreachable` if no such server answers, `Unauthorized` if it refuses the
 * credentials, `CredentialsFailed` if an Effect that was given for them fails, and `InvalidOption`.
 *
 * If the context has an `HttpClient`, it sends all requests and opens the WebSockets, with its certificates and its
 * proxy. A client over `fetch` cannot open WebSockets, which are then opened without it.
 *
 * @example
 * ```ts
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const gateway = KernelGateway.layerRemote({ url: "https://hub.example.org/user/ada", token: "secret" })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layerRemote(options: Remote.RemoteOptions): Layer.Layer<KernelGateway, GatewayError> {
  return Layer.effect(
    KernelGateway,
    Remote.connect(options).pipe(
      Effect.map((connection) => toGateway(connection, Effect.never)),
      Span.withSpan("KernelGateway.makeRemote"),
    ),
  )
}

/** The default of {@link SharedOptions.outputRetention}. */
const defaultRetention = 64 * 1024 * 1024

const toGateway = (
  connection: Connection.Connection,
  join: KernelGateway["Service"]["join"],
): KernelGateway["Service"] =>
  Connection.attach(
    KernelGateway.of({ url: connection.url, token: connection.token, join, ...Listing.make(connection) }),
    connection,
  )

/** Checks options, and finds everything that the process of a gateway needs. */
const prepare = (options: GatewayOptions) =>
  Local.prepare(options, {
    cacheDir: options.python?.cacheDir,
    python: Effect.gen(function* () {
      const provided = yield* Effect.serviceOption(PythonEnvironment.PythonEnvironment)
      const { python } = options.python === undefined && Option.isSome(provided)
        ? provided.value
        : yield* PythonEnvironment.make(options.python)
      return python
    }),
  })

/** Connects to a gateway that listens, and waits until it answers. */
const connect = Effect.fnUntraced(function* (
  { host, isServed, startTimeout }: Process.ProcessOptions,
  { join, port, startTimeoutError, token, ...options }: Process.GatewayProcess & {
    readonly token: Redacted.Redacted<string>
    readonly sandbox: Connection.Sandbox | undefined
    readonly serverId?: string
  },
) {
  const url = `http://${Local.reachable(host)}:${port}`
  const connection = yield* Connection.make({ url, token, join }, {
    ...options,
    isOwn: true,
    ownConnection: isServed ? "joined" : "direct",
  })
  yield* Effect.raceFirst(answers(connection), Effect.andThen(join, Effect.never)).pipe(
    Effect.timeoutOrElse({ duration: startTimeout, orElse: () => startTimeoutError }),
  )
  return toGateway(connection, join)
})

/** Waits until the server answers, which it does shortly after it listens. */
const answers = (connection: Connection.Connection) =>
  connection.rest.check.pipe(
    Effect.retry({
      schedule: Schedule.spaced("10 millis"),
      while: (error) => error.kind === "Unreachable" || error.kind === "Timeout",
    }),
    Effect.mapError((error) => Connection.toGatewayError(connection.url, error)),
    // Every attempt would be a span.
    Effect.withTracerEnabled(false),
  )
