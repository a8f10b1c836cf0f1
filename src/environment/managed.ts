/**
 * Managed environments: virtual environments in a cache, created on first use and shared by all processes.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Digest from "effect/crypto/Digest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import type * as Scope from "effect/Scope"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Assets from "../assets.ts"
import * as Platform from "../platform.ts"
import * as Cache from "../gateway/cache.ts"
import { type GatewayError, gatewayError, ProvisioningFailed, PythonNotFound } from "../gateway/error.ts"
import * as Tail from "../gateway/tail.ts"
import * as Interpreter from "./interpreter.ts"

/** Packages that are installed besides those of a gateway, so that plots work. */
const included = ["matplotlib>=3.9"]

/** Exit code of `provision.py` if the folder is not writable. */
const notWritable = 73

/** Identifies an environment. */
export interface ManagedOptions {
  readonly packages: ReadonlyArray<string>
  readonly cacheDir: string | undefined
  /** The interpreter to create it with; the newest on the PATH by default. */
  readonly base: string | undefined
}

/** Returns the interpreter of the managed environment with these packages, and creates it if there is none. */
export const get: (options: ManagedOptions) => Effect.Effect<
  string,
  GatewayError,
  | ChildProcessSpawner.ChildProcessSpawner
  | Digest.Digest
  | FileSystem.FileSystem
  | Path.Path
  | Scope.Scope
  | Stdio.Stdio
> = Effect.fnUntraced(function* ({ base, cacheDir, packages }) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const digest = yield* Digest.Digest
  const requirements = [...Interpreter.required, ...included, ...packages].sort()
  // A named interpreter has its own environment.
  const python = base === undefined ? undefined : yield* Interpreter.findBase(base)
  const identity = [...requirements, ...(python === undefined ? [] : [python])].join("\n")
  const key = yield* digest.digestHex(Digest.sha256, new TextEncoder().encode(identity))
  const directory = path.join(cacheDir ?? (yield* Cache.folder), `python-${key.slice(0, 16)}`)
  // The file is there only if the environment is complete; the interpreter may since have been uninstalled.
  const ready = yield* fs.readFileString(path.join(directory, "current")).pipe(
    Effect.tap((python) => fs.access(python)),
    Effect.asSome,
    // A file that cannot be read now, as without free descriptors, is not a reason to install again.
    Effect.catchIf(({ reason }) => reason._tag !== "Unknown", () => Effect.succeedNone),
    Effect.mapError((error) =>
      gatewayError(new ProvisioningFailed({ directory, output: [], detail: Platform.describe(error) }))
    ),
  )
  if (Option.isSome(ready)) return ready.value
  return yield* provision(python ?? (yield* Interpreter.findBase(undefined)), directory, requirements)
})

const provision = Effect.fnUntraced(
  function* (python: string, directory: string, requirements: ReadonlyArray<string>) {
    const tail = Tail.make()
    const script = yield* Effect.mapError(
      Assets.find("python/effect_jupyter/gateway/provision.py"),
      gatewayError,
    )
    const handle = yield* ChildProcess.make(python, ["-I", script, directory, ...requirements], {
      extendEnv: true,
      env: { PIP_PROGRESS_BAR: "off" },
      forceKillAfter: "5 seconds",
    }).pipe(
      Effect.mapError((error) =>
        gatewayError(new PythonNotFound({ python, detail: Platform.describe(error) }))
      ),
    )
    const install = Effect.all([
      handle.stdout.pipe(Stream.decodeText(), Stream.mkString, Effect.orElseSucceed(() => "")),
      tail.follow(handle.stderr, () => Effect.void),
    ], { concurrency: 2 })
    const started = yield* Clock.currentTimeMillis
    const isTerminal = yield* Effect.flatMap(Stdio.Stdio, (stdio) => stdio.stderrIsTerminal)
    const log = (text: string) => isTerminal ? Effect.void : Effect.logInfo(text)
    yield* log(`Installing Python packages into "${directory}" with "${python}", once`)
    const [output] = yield* isTerminal ? Effect.raceFirst(install, showProgress(directory, tail)) : install
    const exitCode = yield* Effect.orElseSucceed(handle.exitCode, () => undefined)
    if (exitCode !== 0) {
      const detail = exitCode === notWritable
        ? 'the folder cannot be written to; name another one by the option "cacheDir"'
        : undefined
      return yield* gatewayError(
        new ProvisioningFailed({
          directory,
          output: tail.lines(),
          ...(detail === undefined ? {} : { detail }),
        }),
      )
    }
    const took = Duration.format(
      Duration.seconds(Math.round(((yield* Clock.currentTimeMillis) - started) / 1000)),
    )
    yield* log(`Installed Python packages into "${directory}" within ${took}`)
    return output.trim()
  },
)

/** Shows the progress in a terminal. Never ends by itself. */
const showProgress = Effect.fnUntraced(function* (directory: string, tail: Tail.Tail) {
  const stdio = yield* Stdio.Stdio
  const show = (text: string) =>
    Stream.make(text).pipe(Stream.run(stdio.stderr({ endOnDone: false })), Effect.ignore)
  yield* Effect.sleep("1 second")
  yield* show(`Installing Python packages into "${directory}", once\n`)
  return yield* Effect.suspend(() => show(`\r\x1b[K${tail.lines().at(-1)?.slice(0, 78) ?? ""}`)).pipe(
    Effect.delay("200 millis"),
    Effect.forever,
    Effect.ensuring(show("\r\x1b[K")),
  )
})
