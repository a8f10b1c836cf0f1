/**
 * A Jupyter server that runs kernels, as a scoped resource: one of our own, or any that is there already.
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
import * as Address from "./gateway/address.ts"
import * as Cache from "./gateway/cache.ts"
import * as Connection from "./gateway/connection.ts"
import { type GatewayError, gatewayError, Unauthorized, Unreachable } from "./gateway/error.ts"
import * as Process from "./gateway/process.ts"
import type { RestError } from "./jupyter/rest.ts"
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
 *   yield* Effect.log(gateway.url)
 *   yield* gateway.join
 * }).pipe(Effect.provide(KernelGateway.layer()))
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class KernelGateway extends Context.Service<KernelGateway, {
  /** Base URL, for instance `"http://127.0.0.1:8888"`. */
  readonly url: string
  /** What clients authenticate with; random for a gateway of our own. */
  readonly token: Redacted.Redacted<string> | undefined
  /**
   * Waits for the gateway's process to end. Fails with the reason `Exited` if it ended by itself; never ends
   * for a server that is not ours.
   */
  readonly join: Effect.Effect<void, GatewayError>
}>()("effect-jupyter/KernelGateway") {}

/**
 * How to run a gateway of our own.
 *
 * @category options
 * @since 0.1.0
 */
export interface GatewayOptions {
  /** The address to listen on; `"127.0.0.1"` by default. */
  readonly host?: string | undefined
  /** The port to listen on; a free one by default. */
  readonly port?: number | undefined
  /** Where kernels start; the current directory by default. */
  readonly workingDir?: string | undefined
  /**
   * Environment variables of the kernels. They inherit nothing else but what a program needs to run at all:
   * PATH, HOME, USER, LOGNAME, SHELL, LANG, LANGUAGE, LC_ALL, LC_CTYPE, TZ and TMPDIR.
   */
  readonly env?: Record<string, string> | undefined
  /**
   * The sandbox of every kernel; none by default. `true` stands for no network and writing nowhere but in
   * `workingDir`, see `Sandbox.Permissions` for the rest. A process of root has to say whom kernels run as.
   */
  readonly sandbox?: boolean | Permissions.Permissions | Permissions.SettingsFile | undefined
  /**
   * The interpreter; by default the service `PythonEnvironment` where one is provided, else what
   * {@link PythonEnvironment.Options} says.
   */
  readonly python?: PythonEnvironment.Options | undefined
  /**
   * Python modules that kernels have loaded when they start, for instance `["matplotlib.pyplot"]`: the first use of
   * them takes no time, and kernels share their memory. None by default. A module that cannot be loaded fails the
   * start. Kernels of a sandbox, which share nothing, and those on other systems than Linux load them when asked.
   */
  readonly preload?: ReadonlyArray<string> | undefined
  /**
   * Whether kernels are forked from one process that has everything loaded, which starts them in milliseconds. True
   * by default; possible on Linux, outside of a sandbox, for kernels of Python whose own `env` changes nothing that
   * Python or a library reads when it loads, and nothing at all where modules are preloaded. Kernels of one gateway
   * have the same seed of `hash` then.
   */
  readonly fork?: boolean | undefined
  /** What the gateway logs, see {@link make}; `"Warn"` by default. */
  readonly logLevel?: "Debug" | "Info" | "Warn" | "Error" | undefined
  /** Bound of the start, without the time that a managed environment takes; 30 seconds by default. */
  readonly startTimeout?: Duration.Input | undefined
}

/**
 * Starts a Jupyter Kernel Gateway in a process of its own. When the scope closes, and when this process dies
 * in whatever way, the gateway, its kernels and all that they started are killed and their files removed.
 *
 * What the gateway logs goes to Effect's logger at level Debug, and its last lines into errors. Fails with
 * {@link GatewayError}, and with `SandboxError` if kernels are to be sandboxed and cannot be.
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
        // Nothing that is meant for untrusted code changes what runs outside of its sandbox.
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
      return Connection.attach(KernelGateway.of({ url, token, join: process.join }), connection)
    }).pipe(Effect.provideContext(platform))
  },
  Span.withSpan("KernelGateway.make"),
)

/**
 * Provides a gateway of our own, see {@link make}.
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
 * Provides a gateway of our own with options that come from configuration, see {@link make}.
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
 * Where a server is that others run.
 *
 * @category options
 * @since 0.1.0
 */
export interface RemoteOptions {
  /**
   * Base URL, with the path under which the server lives, if any; or the address that Jupyter prints, with its page and
   * token. A name and a password in it are sent as basic authentication unless there is a token.
   */
  readonly url: string
  /** What the server asks clients for; that of the address by default. */
  readonly token?: Redacted.Redacted<string> | string | undefined
  /** Sent with every request; none by default. */
  readonly headers?: Record<string, string> | undefined
}

/**
 * Provides a server of the Jupyter kernels REST API that is there already: a Kernel Gateway, a Jupyter Server,
 * an Enterprise Gateway or a JupyterHub server. Fails with the reasons `Unreachable` and `Unauthorized`.
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
export function layerRemote(options: RemoteOptions): Layer.Layer<KernelGateway, GatewayError> {
  return Layer.effect(KernelGateway, makeRemote(options))
}

const makeRemote = Effect.fn("KernelGateway.makeRemote")(function* (options: RemoteOptions) {
  yield* Effect.mapError(Options.check(Options.Remote, { ...options }), gatewayError)
  const address = Address.parse(options.url)
  if (address === undefined) {
    const url = Address.withoutSecrets(options.url)
    return yield* gatewayError(new Unreachable({ url, detail: "It is no http or https URL" }))
  }
  const given = Redacted.isRedacted(options.token) ? Redacted.value(options.token) : options.token
  const token = given?.trim() ? Redacted.make(given.trim()) : address.token
  const headers = address.authorization === undefined
    ? options.headers
    : { authorization: address.authorization, ...options.headers }
  const platform = yield* Platform.services
  const connectTo = (url: string) =>
    Connection.make({ url, token, join: Effect.never }, { headers }).pipe(
      Effect.tap(({ rest }) => rest.check),
      Effect.map((connection) => ({ connection, url })),
      Effect.mapError((error) => gatewayError(unfit(url, error))),
      Effect.provideContext(platform),
    )
  const [first = address.url, ...others] = Address.candidates(address.url)
  const { connection, url } = yield* others.reduce(
    (found, next) =>
      Effect.catchIf(
        found,
        // A server that is there and knows no kernels here may know some above.
        (error) => isThere(error),
        (error) =>
          Effect.mapError(connectTo(next), (other) => other.reason._tag === "Unauthorized" ? other : error),
      ),
    connectTo(first),
  )
  return Connection.attach(KernelGateway.of({ url, token, join: Effect.never }), connection)
})

/** Whether something answered that is no Jupyter server. */
const isThere = ({ reason }: GatewayError): boolean =>
  reason._tag === "Unauthorized" || (reason._tag === "Unreachable" && reason.status !== undefined)

const randomSecret = (label: string): Redacted.Redacted<string> =>
  Redacted.make(Hex.encode(SecureRandom.randomBytesUnsafe(32)), { label })

/** The option `workingDir` without links on the way, which a sandbox does not follow. */
const findWorkspace = Effect.fnUntraced(function* (workingDir: string | undefined) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const absolute = yield* Effect.mapError(Options.resolve(path, "workingDir", workingDir), gatewayError)
  return yield* Effect.orElseSucceed(fs.realPath(absolute), () => absolute)
})

/** Checks what sandboxed kernels may do and whether they can be sandboxed, before anything is started. */
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
    // Untrusted code decides how many there are.
    Effect.annotateLogs(Effect.logDebug(violation.detail), { kernel: violation.kernelId }),
  )

/** Asks until the server answers: it listens a moment before it does. */
const answers = (connection: Connection.Connection) =>
  connection.rest.check.pipe(
    Effect.retry({
      schedule: Schedule.spaced("10 millis"),
      while: (error) => error.kind === "Unreachable" || error.kind === "Timeout",
    }),
    Effect.mapError((error) => gatewayError(unfit(connection.url, error))),
    // It is asked again and again until it listens.
    Effect.withTracerEnabled(false),
  )

function unfit(url: string, error: RestError): Unauthorized | Unreachable {
  return error.kind === "Unauthorized"
    ? new Unauthorized({ url, status: error.status ?? 0 })
    : new Unreachable({
      url,
      detail: error.message,
      ...(error.status === undefined ? {} : { status: error.status }),
    })
}

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

/** What kernels get of our own environment. */
function inherited(): Record<string, string> {
  return Object.fromEntries(inheritedNames.flatMap((name) => {
    const value = Platform.variable(name)
    return value === undefined ? [] : [[name, value]]
  }))
}

/** The host to connect to: one that stands for all addresses is no address itself. */
function reachable(host: string): string {
  return host === "0.0.0.0" || host === ""
    ? "127.0.0.1"
    : host === "::"
    ? "[::1]"
    : host.includes(":")
    ? `[${host}]`
    : host
}
