/**
 * The Python interpreter that runs the gateway and, unless a kernelspec says otherwise, the kernels.
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Digest from "effect/crypto/Digest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Assets from "./assets.ts"
import * as Cache from "./gateway/cache.ts"
import { type GatewayError, gatewayError, ProvisioningFailed, PythonNotFound } from "./gateway/error.ts"
import * as Tail from "./gateway/tail.ts"
import * as Platform from "./platform.ts"

/**
 * A Python interpreter that can run a kernel gateway.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PythonEnvironment } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const { python } = yield* PythonEnvironment.PythonEnvironment
 *   yield* Effect.log(python)
 * }).pipe(Effect.provide(PythonEnvironment.layer()))
 * ```
 */
export class PythonEnvironment extends Context.Service<PythonEnvironment, {
  /** Path of the interpreter. */
  readonly python: string
}>()("effect-jupyter/PythonEnvironment") {}

/** Which interpreter to use, or what to install. */
export interface Options {
  /**
   * The interpreter to use. By default: `EFFECT_JUPYTER_PYTHON`, else the active virtual environment if it
   * has the packages, else a managed environment, which is made on first use.
   */
  readonly python?: string | undefined
  /** Requirements besides the gateway, ipykernel and matplotlib, in pip's notation; none by default. */
  readonly packages?: ReadonlyArray<string> | undefined
  /** Where managed environments live; `effect-jupyter` in the user's cache directory by default. */
  readonly cacheDir?: string | undefined
}

/** What every environment needs. The protocol patches of this library are made for these versions. */
const pinned = ["jupyter-kernel-gateway>=3.0.1,<3.1", "ipykernel>=7.0,<8", "matplotlib>=3.9"]

/**
 * Finds the interpreter, or makes a managed environment. Fails with {@link GatewayError} for the reasons
 * `PythonNotFound` and `ProvisioningFailed`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PythonEnvironment } from "effect-jupyter"
 *
 * export const withPandas = Effect.map(
 *   PythonEnvironment.make({ packages: ["pandas>=2"] }),
 *   ({ python }) => python
 * )
 * ```
 */
export const make: (options?: Options) => Effect.Effect<PythonEnvironment["Service"], GatewayError> = Effect
  .fn(
    "PythonEnvironment.make",
  )(
    function* (options: Options = {}) {
      const { packages = [] } = options
      const named = options.python ?? Platform.variable("EFFECT_JUPYTER_PYTHON")
      if (named !== undefined) {
        yield* probe(named, packages)
        return PythonEnvironment.of({ python: named })
      }
      const active = Platform.variable("VIRTUAL_ENV")
      if (active !== undefined) {
        const python = `${active}/bin/python`
        if (Option.isSome(yield* Effect.option(probe(python, packages)))) {
          return PythonEnvironment.of({
            python,
          })
        }
      }
      return PythonEnvironment.of({ python: yield* managed(packages, options.cacheDir) })
    },
    Effect.scoped,
    Effect.provide(Platform.layer),
  )

/**
 * Provides the interpreter, see {@link make}.
 *
 * @example
 * ```ts
 * import { PythonEnvironment } from "effect-jupyter"
 *
 * export const python = PythonEnvironment.layer({ python: "/usr/bin/python3" })
 * ```
 */
export function layer(options?: Options): Layer.Layer<PythonEnvironment, GatewayError> {
  return Layer.effect(PythonEnvironment, make(options))
}

/**
 * Provides the interpreter with options that come from configuration, see {@link make}.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { PythonEnvironment } from "effect-jupyter"
 *
 * export const python = PythonEnvironment.layerConfig({ python: Config.String("PYTHON") })
 * ```
 */
export function layerConfig(
  options: Config.Wrap<Options>,
): Layer.Layer<PythonEnvironment, GatewayError | Config.ConfigError> {
  return Layer.effect(PythonEnvironment, Effect.flatMap(Config.unwrap(options), make))
}

/** Prints which of the requirements are not met; one that is no name and version cannot be checked. */
const probeCode = `
import sys
# What lies in the working directory is no module of ours, and nothing that a kernel can write runs at every start.
del sys.path[0]
sys.modules["sitecustomize"] = sys.modules["usercustomize"] = None
import site
site.main()
import importlib.metadata, json
def load():
    try:
        from packaging import requirements
    except ImportError:
        from pip._vendor.packaging import requirements
    return requirements
def met(requirement):
    try:
        parsed = requirements.Requirement(requirement)
    except requirements.InvalidRequirement:
        return True
    try:
        return parsed.specifier.contains(importlib.metadata.version(parsed.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False
wanted = json.loads(sys.argv[1])
try:
    requirements = load()
    print(json.dumps([requirement for requirement in wanted if not met(requirement)]))
except ImportError:
    print(json.dumps(wanted))
`
const decodeMissing = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Array(Schema.String)))

/** Fails unless the interpreter runs and has the packages. */
const probe = Effect.fnUntraced(function* (python: string, packages: ReadonlyArray<string>) {
  const requirements = [...pinned, ...packages]
  const unfit = (detail: string) => gatewayError(new PythonNotFound({ python, detail }))
  const tail = Tail.make()
  const found = yield* Effect.gen(function* () {
    const handle = yield* ChildProcess.make(python, ["-S", "-c", probeCode, JSON.stringify(requirements)], {
      stdin: "ignore",
      env: { PYTHONPATH: undefined },
      extendEnv: true,
      forceKillAfter: "1 second",
    })
    const [output] = yield* Effect.all([
      handle.stdout.pipe(Stream.decodeText(), Stream.mkString),
      tail.follow(handle.stderr, () => Effect.void),
    ], { concurrency: 2 })
    return { output, exitCode: yield* handle.exitCode }
  }).pipe(
    Effect.scoped,
    Effect.timeout("20 seconds"),
    Effect.mapError((error) => unfit(`${error.message}; name another one, or install Python 3.10 or newer`)),
  )
  if (found.exitCode !== 0) {
    return yield* unfit(`It ended with exit code ${found.exitCode}\n${tail.lines().join("\n")}`)
  }
  const missing = yield* decodeMissing(found.output).pipe(
    Effect.mapError(() => unfit(`It printed "${found.output}"; is it Python?`)),
  )
  if (missing.length > 0) {
    return yield* unfit(
      `It lacks ${missing.join(", ")}; run "${python} -m pip install ${
        missing.map((name) => `'${name}'`).join(" ")
      }"`,
    )
  }
})

/** The interpreter of the managed environment with these packages, which is made if there is none yet. */
const managed = Effect.fnUntraced(function* (packages: ReadonlyArray<string>, cacheDir: string | undefined) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const digest = yield* Digest.Digest
  const requirements = [...pinned, ...packages].sort()
  const key = yield* digest.digestHex(Digest.sha256, new TextEncoder().encode(requirements.join("\n")))
  const directory = path.join(cacheDir ?? (yield* Cache.folder), `python-${key.slice(0, 16)}`)
  // The file is there only if the environment is complete; the interpreter may since have been uninstalled.
  const ready = yield* fs.readFileString(path.join(directory, "current")).pipe(
    Effect.tap((python) => fs.access(python)),
    Effect.option,
  )
  return Option.isSome(ready) ? ready.value : yield* provision(directory, requirements)
})

const provision = Effect.fnUntraced(function* (directory: string, requirements: ReadonlyArray<string>) {
  const python = "python3"
  const tail = Tail.make()
  const script = yield* Effect.mapError(Assets.find("python/provision.py"), gatewayError)
  const handle = yield* ChildProcess.make(python, [script, directory, ...requirements], {
    extendEnv: true,
    env: { PYTHONPATH: undefined, PYTHONHOME: undefined, PIP_PROGRESS_BAR: "off" },
    forceKillAfter: "5 seconds",
  }).pipe(
    Effect.mapError((error) =>
      gatewayError(
        new PythonNotFound({
          python,
          detail:
            `${error.message}; install Python 3.10 or newer, or name an interpreter by the option "python"`,
        }),
      )
    ),
  )
  const install = Effect.all([
    handle.stdout.pipe(Stream.decodeText(), Stream.mkString, Effect.orElseSucceed(() => "")),
    tail.follow(handle.stderr, () => Effect.void),
  ], { concurrency: 2 })
  const [output] = yield* Effect.raceFirst(install, showProgress(directory, tail))
  const exitCode = yield* Effect.orElseSucceed(handle.exitCode, () => undefined)
  if (exitCode !== 0) return yield* gatewayError(new ProvisioningFailed({ directory, output: tail.lines() }))
  return output.trim()
})

/** Tells a person who watches what takes so long. Never ends by itself. */
const showProgress = Effect.fnUntraced(function* (directory: string, tail: Tail.Tail) {
  const stdio = yield* Stdio.Stdio
  if (!(yield* stdio.stderrIsTerminal)) return yield* Effect.never
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
