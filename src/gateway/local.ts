/**
 * Checks the options of a local gateway, and finds everything that its process needs.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as PubSub from "effect/PubSub"
import * as Options from "../options/check.ts"
import * as Platform from "../platform.ts"
import * as Host from "../sandbox/host.ts"
import * as Permissions from "../sandbox/permissions.ts"
import * as Rules from "../sandbox/rules.ts"
import { type Violation, violationOf } from "../sandbox/violation.ts"
import * as Cache from "./cache.ts"
import type * as Connection from "./connection.ts"
import { type GatewayError, gatewayError } from "./error.ts"
import type { ProcessOptions } from "./process.ts"
import * as SharedFolder from "./shared_folder.ts"
import * as TokenFile from "./token_file.ts"

/** The options besides the interpreter. */
export interface LocalOptions {
  /** The address to listen on; `"127.0.0.1"` by default. */
  readonly host?: string | undefined
  /** The port to listen on; a free one by default. */
  readonly port?: number | undefined
  /**
   * A file with the token of the gateway, which is created for its owner alone if it does not exist; a random token that
   * only this program knows by default. With a file, programs on other machines that have the token can use the gateway,
   * by {@link layerRemote}. The command `effect-jupyter serve` starts such a gateway.
   */
  readonly tokenFile?: string | undefined
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

/** The interpreter of a gateway. */
export interface Interpreter<R> {
  /** Finds or makes it. */
  readonly python: Effect.Effect<string, GatewayError, R>
  /** The directory of managed environments. */
  readonly cacheDir: string | undefined
}

/** The parameters of the start of a gateway, and the sandbox of its kernels. */
export interface Prepared {
  readonly process: ProcessOptions
  readonly sandbox: Connection.Sandbox | undefined
}

/** Checks the options first, and finds or makes the interpreter last. */
export const prepare = Effect.fnUntraced(
  function* <R>(options: LocalOptions, { cacheDir, python }: Interpreter<R>) {
    const { env = {}, host = "127.0.0.1", logLevel = "Warn", port = 0, startTimeout = "30 seconds" } = options
    const { tokenFile } = options
    yield* Effect.mapError(Options.check(Options.Gateway, { ...options }), gatewayError)
    const token = tokenFile === undefined
      ? TokenFile.random("gateway token")
      : yield* TokenFile.read(tokenFile)
    const variables: Record<string, string> = { ...inherited(), ...env }
    const workspace = yield* findWorkspace(options.workingDir)
    const sandbox = options.sandbox === undefined || options.sandbox === false
      ? undefined
      : yield* makeSandbox(options.sandbox, {
        workspace,
        path: variables.PATH ?? "",
        cacheDir,
        hidden: tokenFile === undefined ? [] : [tokenFile],
      })
    const process: ProcessOptions = {
      python: yield* python,
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
      isServed: tokenFile !== undefined,
      logLevel,
      startTimeout,
      fork: options.fork ?? true,
      preload: options.preload ?? [],
    }
    const prepared: Prepared = { process, sandbox }
    return prepared
  },
)

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
    { cacheDir, hidden, path, workspace }: {
      readonly workspace: string
      /** Files that no kernel may read. */
      readonly hidden: ReadonlyArray<string>
      readonly path: string
      readonly cacheDir: string | undefined
    },
  ) {
    const fs = yield* FileSystem.FileSystem
    const permitted = yield* Rules.resolve(yield* Permissions.read(input), workspace)
    const files = yield* Effect.forEach(hidden, (file) => Effect.orDie(fs.realPath(file)))
    const rules = { ...permitted, denyRead: [...permitted.denyRead, ...files] }
    const host = yield* Host.settings(rules, {
      path,
      cacheDir: cacheDir ?? (yield* Cache.folder),
      sharedGateways: yield* SharedFolder.root,
    })
    const violations = yield* Effect.acquireRelease(PubSub.sliding<Violation>(1000), PubSub.shutdown)
    return { rules, host, workspace, violations, secret: TokenFile.random("gateway secret") }
  },
)

const report = (violations: PubSub.PubSub<Violation>, violation: Violation) =>
  Effect.andThen(
    PubSub.publish(violations, violation),
    // At Debug: untrusted code decides how many there are.
    Effect.annotateLogs(Effect.logDebug(violation.detail), { kernel: violation.kernelId }),
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
export function reachable(host: string): string {
  return host === "0.0.0.0" || host === ""
    ? "127.0.0.1"
    : host === "::"
    ? "[::1]"
    : host.includes(":")
    ? `[${host}]`
    : host
}
