/**
 * Managed environments: virtual ones in a cache, which are made on first use and shared by all processes.
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

/** What is installed besides what a gateway needs: plots work from the start. */
const included = ["matplotlib>=3.9"]

/** The status with which `provision.py` ends if the folder cannot be written to. */
const unwritable = 73

/** Which environment. */
export interface ManagedOptions {
  readonly packages: ReadonlyArray<string>
  readonly cacheDir: string | undefined
  /** The interpreter to make it with; the newest of the machine by default. */
  readonly base: string | undefined
}

/** The interpreter of the managed environment with these packages, which is made if there is none yet. */
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
  // One that is named makes an environment of its own.
  const python = base === undefined ? undefined : yield* Interpreter.findBase(base)
  const identity = [...requirements, ...(python === undefined ? [] : [python])].join("\n")
  const key = yield* digest.digestHex(Digest.sha256, new TextEncoder().encode(identity))
  const directory = path.join(cacheDir ?? (yield* Cache.folder), `python-${key.slice(0, 16)}`)
  // The file is there only if the environment is complete; the interpreter may since have been uninstalled.
  const ready = yield* fs.readFileString(path.join(directory, "current")).pipe(
    Effect.tap((python) => fs.access(python)),
    Effect.asSome,
    // One that cannot be read now, as without descriptors, is no reason to install all of it again.
    Effect.catchIf(({ reason }) => reason._tag !== "Unknown", () => Effect.succeedNone),
    Effect.mapError((error) =>
      gatewayError(new ProvisioningFailed({ directory, output: [], detail: Platform.inWords(error) }))
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
        gatewayError(new PythonNotFound({ python, detail: Platform.inWords(error) }))
      ),
    )
    const install = Effect.all([
      handle.stdout.pipe(Stream.decodeText(), Stream.mkString, Effect.orElseSucceed(() => "")),
      tail.follow(handle.stderr, () => Effect.void),
    ], { concurrency: 2 })
    const started = yield* Clock.currentTimeMillis
    const isWatched = yield* Effect.flatMap(Stdio.Stdio, (stdio) => stdio.stderrIsTerminal)
    const say = (text: string) => isWatched ? Effect.void : Effect.logInfo(text)
    yield* say(`Installing Python packages into "${directory}" with "${python}", once`)
    const [output] = yield* isWatched ? Effect.raceFirst(install, showProgress(directory, tail)) : install
    const exitCode = yield* Effect.orElseSucceed(handle.exitCode, () => undefined)
    if (exitCode !== 0) {
      const detail = exitCode === unwritable
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
    yield* say(`Installed Python packages into "${directory}" within ${took}`)
    return output.trim()
  },
)

/** Tells a person who watches what takes so long. Never ends by itself. */
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
