/**
 * Checks Python interpreters for a gateway, and finds the one to create a managed environment with.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import { type GatewayError, gatewayError, PythonNotFound } from "../gateway/error.ts"
import * as Platform from "../platform.ts"
import * as Tail from "../gateway/tail.ts"
import { excerpt } from "../jupyter/control_codes.ts"

/** The packages that a gateway requires, in the versions that the patches of this library support. */
export const required: ReadonlyArray<string> = ["jupyter-kernel-gateway>=3.0.1,<3.1", "ipykernel>=7.0,<8"]

const oldest = [3, 10] as const
const minors = [14, 13, 12, 11, 10]
/** The commands of interpreters, the newest first. */
const commands: ReadonlyArray<string> = [...minors.map((minor) => `python3.${minor}`), "python3", "python"]

const install = `install Python ${oldest.join(".")} or newer`

/**
 * Python code for interpreters of any version. Prints the version and, if it is supported, the requirements that are not
 * met. A requirement that is not a name and a version is not checked.
 */
const probeCode = `
import sys, json
# No modules are imported from the working directory, and no start-up hooks run, which a kernel might have written.
del sys.path[0]
sys.modules["sitecustomize"] = sys.modules["usercustomize"] = None
def missing(wanted):
    if sys.version_info < (${oldest.join(", ")}):
        return []
    import site
    site.main()
    import importlib.metadata
    try:
        from packaging import requirements
    except ImportError:
        try:
            from pip._vendor.packaging import requirements
        except ImportError:
            return wanted
    def met(requirement):
        try:
            parsed = requirements.Requirement(requirement)
        except requirements.InvalidRequirement:
            return True
        try:
            return parsed.specifier.contains(importlib.metadata.version(parsed.name), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            return False
    return [requirement for requirement in wanted if not met(requirement)]
lacks = missing(json.loads(sys.argv[1]))
try:
    import ensurepip, venv
    is_whole = True
except ImportError:
    is_whole = False
version = list(sys.version_info[:3])
print(json.dumps({"version": version, "missing": lacks, "executable": sys.executable, "isWhole": is_whole}))
`

const Probe = Schema.Struct({
  version: Schema.Array(Schema.Int),
  missing: Schema.Array(Schema.String),
  executable: Schema.String,
  /** True if it can create virtual environments, for which some systems have a separate package. */
  isWhole: Schema.Boolean,
})
const decodeProbe = Schema.decodeUnknownEffect(Schema.fromJsonString(Probe))

/** Runs the probe in an interpreter. Fails with `PythonNotFound` unless it runs and its version is supported. */
const probe = Effect.fnUntraced(function* (python: string, requirements: ReadonlyArray<string>) {
  const unfit = (detail: string) => gatewayError(new PythonNotFound({ python, detail }))
  const printed = Tail.make()
  const tail = Tail.make()
  const exitCode = yield* Effect.gen(function* () {
    // With the options of the gateway, which ignore variables and modules of the program.
    const handle = yield* ChildProcess.make(
      python,
      ["-E", "-S", "-c", probeCode, JSON.stringify(requirements)],
      { stdin: "ignore", extendEnv: true, forceKillAfter: "1 second" },
    )
    // The command may be any program, also one that prints without end.
    yield* Effect.all([
      printed.follow(handle.stdout, () => Effect.void),
      tail.follow(handle.stderr, () => Effect.void),
    ], { concurrency: 2 })
    return yield* handle.exitCode
  }).pipe(
    Effect.scoped,
    Effect.timeout("20 seconds"),
    Effect.mapError((error) =>
      unfit(
        `${
          error._tag === "PlatformError" ? Platform.describe(error) : error.message
        }; name another one, or ${install}`,
      )
    ),
  )
  if (exitCode !== 0) {
    return yield* unfit(`It ended with exit code ${exitCode}\n${tail.lines().join("\n")}`)
  }
  const output = printed.lines().join("\n")
  const found = yield* decodeProbe(output).pipe(
    Effect.mapError(() => unfit(`It printed "${excerpt(output)}"; is it Python?`)),
  )
  const [major = 0, minor = 0] = found.version
  if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
    return yield* unfit(`It is Python ${found.version.join(".")}, which is too old; ${install}`)
  }
  return found
})

/** Fails with `PythonNotFound` unless the interpreter runs, is supported, and has the required packages and `packages`. */
export const check: (
  python: string,
  packages: ReadonlyArray<string>,
) => Effect.Effect<void, GatewayError, ChildProcessSpawner.ChildProcessSpawner> = Effect.fnUntraced(
  function* (python, packages) {
    const { missing } = yield* probe(python, [...required, ...packages])
    if (missing.length > 0) {
      const quoted = missing.map((name) => `'${name}'`).join(" ")
      const detail = `It lacks ${missing.join(", ")}; run "${python} -m pip install ${quoted}"`
      return yield* gatewayError(new PythonNotFound({ python, detail }))
    }
  },
)

/** Returns the interpreter to create a managed environment with: the named one, else the newest on the PATH. */
export const findBase: (
  named: string | undefined,
) => Effect.Effect<string, GatewayError, ChildProcessSpawner.ChildProcessSpawner> = Effect.fnUntraced(
  function* (named) {
    if (named !== undefined) return (yield* probe(named, [])).executable
    const failures: Array<PythonNotFound> = []
    let partial: string | undefined
    for (const command of commands) {
      const found = yield* probe(command, []).pipe(
        Effect.tapError(({ reason }) =>
          Effect.sync(() => reason._tag === "PythonNotFound" ? failures.push(reason) : 0)
        ),
        Effect.option,
      )
      if (Option.isNone(found)) continue
      if (found.value.isWhole) return found.value.executable
      partial ??= found.value.executable
    }
    if (partial !== undefined) return partial
    // The error for an old version is more useful than that for a missing command.
    const reason = failures.find(({ detail }) => detail.includes("too old")) ??
      failures.find(({ python }) => python === "python3") ?? failures.at(-1)
    return yield* gatewayError(
      new PythonNotFound({
        python: reason?.python ?? "python3",
        detail: `${reason?.detail ?? install}, or name an interpreter by the option "python" or "base"`,
      }),
    )
  },
)
