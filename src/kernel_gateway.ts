/**
 * A Jupyter server that runs kernels, as a scoped resource: a local Kernel Gateway, or an existing remote server.
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as PubSub from "effect/PubSub"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Cache from "./gateway/cache.ts"
import * as Connection from "./gateway/connection.ts"
import { type GatewayError, gatewayError } from "./gateway/error.ts"
import * as Listing from "./gateway/listing.ts"
import * as Process from "./gateway/process.ts"
import * as Remote from "./gateway/remote.ts"
import * as Span from "./kernel/span.ts"
import * as Options from "./options/check.ts"
import * as Platform from "./platform.ts"
import * as PythonEnvironment from "./python_environment.ts"
import type { SandboxError } from "./sandbox/error.ts"
import * as Host from "./sandbox/host.ts"
import * as Permissions from "./sandbox/permissions.ts"
import * as Rules from "./sandbox/rules.ts"
import { type Violation, violationOf } from "./sandbox/violation.ts"

export { AssetsMissing } from "./assets.ts"
export {
  CredentialsFailed,
  Exited,
  GatewayError,
  GatewayErrorReason,
  isGatewayError,
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
export interface GatewayOptions {
  /** The address to listen on; `"127.0.0.1"` by default. */
  readonly host?: string | undefined
  /** The port to listen on; a free one by default. */
  readonly port?: number | undefined
  /** The working directory of kernels; the current directory by default. */
  readonly workingDir?: string | undefined
  /**
   * Environment variables of the kernels. Of the environment of this process they inherit only PATH, HOME, USER,
   * LOGNAME, SHELL, LANG, LANGUAGE, LC_ALL, LC_CTYPE, TZ and TMPDIR.
   */
  readonly env?: Record<string, string> | undefined
  /**
   * The permissions of sandboxed kernels; kernels have no sandbox by default. `true` allows no network, and writing in
   * `workingDir` only. If this process runs as root, `Sandbox.Permissions.user` is required.
   */
  readonly sandbox?: boolean | Permissions.Permissions | Permissions.SettingsFile | undefined
  /**
   * The interpreter. By default it is that of the service `PythonEnvironment` if one is provided, and otherwise the
   * default of {@link PythonEnvironment.Options}.
   */
  readonly python?: PythonEnvironment.Options | undefined
  /**
   * Python modules that are imported before kernels start, for instance `["matplotlib.pyplot"]`; none by default. Their
   * first import in a kernel takes no time, and kernels share their memory. A module that cannot be imported fails the
   * start of the gateway. The option applies to forked kernels, see {@link GatewayOptions.fork}; others import modules
   * when their code does.
   */
  readonly preload?: ReadonlyArray<string> | undefined
  /**
   * Forks kernels from one process that has imported IPython and {@link GatewayOptions.preload}, so that they start in
   * milliseconds; true by default. It applies to Python kernels on Linux without a sandbox. A kernel is not forked if
   * its own `env` has a variable that Python or a library reads while it is imported, or any variable if modules are
   * preloaded. Forked kernels of one gateway have the same seed of `hash`.
   */
  readonly fork?: boolean | undefined
  /** The minimum level of the gateway's own log, see {@link make}; `"Warn"` by default. */
  readonly logLevel?: "Debug" | "Info" | "Warn" | "Error" | undefined
  /** Maximum time of the start, without the creation of a managed environment; 30 seconds by default. */
  readonly startTimeout?: Duration.Input | undefined
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
    const { env = {}, host = "127.0.0.1", logLevel = "Warn", port = 0, startTimeout = "30 seconds" } = options
    yield* Effect.mapError(Options.check(Options.Gateway, { ...options }), gatewayError)
    const platform = yield* Platform.services
    const variables: Record<string, string> = { ...inherited(), ...env }
    const workspace = yield* Effect.provideContext(findWorkspace(options.workingDir), platform)
    const sandbox = options.sandbox === undefined || options.sandbox === false
      ? undefined
      : yield* Effect.provideContext(
        makeSandbox(options.sandbox, { workspace, path: variables.PATH ?? "", python: options.python }),
        platform,
      )
    const provided = yield* Effect.serviceOption(PythonEnvironment.PythonEnvironment)
    const { python } = options.python === undefined && Option.isSome(provided)
      ? provided.value
      : yield* PythonEnvironment.make(options.python)
    const token = randomSecret("gateway token")
    return yield* Effect.gen(function* () {
      const process = yield* Process.start({
        python,
        host,
        port,
        workingDir: workspace,
        sandbox,
        onViolation: (kernelId, detail) =>
          sandbox === undefined ? Effect.void : report(sandbox.violations, violationOf(kernelId, detail)),
        env: variables,
        // The environment of untrusted code does not apply to processes outside of its sandbox.
        ownEnv: sandbox === undefined ? variables : { ...inherited(), PATH: sandbox.host.path },
        token,
        logLevel,
        startTimeout,
        fork: options.fork ?? true,
        preload: options.preload ?? [],
      })
      const url = `http://${reachable(host)}:${process.port}`
      const { kernelEnv } = process
      const connection = yield* Connection.make({ url, token, join: process.join }, {
        isOwn: true,
        kernelEnv,
        sandbox,
      })
      yield* Effect.raceFirst(answers(connection), Effect.andThen(process.join, Effect.never)).pipe(
        Effect.timeoutOrElse({ duration: startTimeout, orElse: () => process.startTimeoutError }),
      )
      return toGateway(connection, process.join)
    }).pipe(Effect.provideContext(platform))
  },
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

const toGateway = (
  connection: Connection.Connection,
  join: KernelGateway["Service"]["join"],
): KernelGateway["Service"] =>
  Connection.attach(
    KernelGateway.of({ url: connection.url, token: connection.token, join, ...Listing.make(connection) }),
    connection,
  )

const randomSecret = (label: string): Redacted.Redacted<string> =>
  Redacted.make(Hex.encode(SecureRandom.randomBytesUnsafe(32)), { label })

/** Returns the absolute path of the option `workingDir` without links, which a sandbox does not follow. */
const findWorkspace = Effect.fnUntraced(function* (workingDir: string | undefined) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const absolute = yield* Effect.mapError(Options.resolve(path, "workingDir", workingDir), gatewayError)
  return yield* Effect.orElseSucceed(fs.realPath(absolute), () => absolute)
})

/** Resolves the permissions of sandboxed kernels and finds the programs of the sandbox, before anything is started. */
const makeSandbox = Effect.fnUntraced(
  function* (
    input: true | Permissions.Permissions | Permissions.SettingsFile,
    { path, python, workspace }: {
      readonly workspace: string
      readonly path: string
      readonly python: PythonEnvironment.Options | undefined
    },
  ) {
    const rules = yield* Rules.resolve(yield* Permissions.read(input), workspace)
    const cacheDir = python?.cacheDir ?? (yield* Cache.folder)
    const host = yield* Host.settings(rules, { path, cacheDir })
    const violations = yield* Effect.acquireRelease(PubSub.sliding<Violation>(1000), PubSub.shutdown)
    return { rules, host, workspace, violations, secret: randomSecret("gateway secret") }
  },
)

const report = (violations: PubSub.PubSub<Violation>, violation: Violation) =>
  Effect.andThen(
    PubSub.publish(violations, violation),
    // At Debug: untrusted code decides how many there are.
    Effect.annotateLogs(Effect.logDebug(violation.detail), { kernel: violation.kernelId }),
  )

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

/** The environment variables that kernels inherit from this process. */
const inheritedNames = [
  "PATH",
  "HOME",
  "USER",
  "LOGNAME",
  "SHELL",
  "LANG",
  "LANGUAGE",
  "LC_ALL",
  "LC_CTYPE",
  "TZ",
  "TMPDIR",
]

/** Returns the part of this process's environment that kernels inherit. */
function inherited(): Record<string, string> {
  return Object.fromEntries(inheritedNames.flatMap((name) => {
    const value = Platform.variable(name)
    return value === undefined ? [] : [[name, value]]
  }))
}

/** Returns the host to connect to: a server that listens on all addresses is reached at the loopback address. */
function reachable(host: string): string {
  return host === "0.0.0.0" || host === ""
    ? "127.0.0.1"
    : host === "::"
    ? "[::1]"
    : host.includes(":")
    ? `[${host}]`
    : host
}
