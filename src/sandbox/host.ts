/**
 * Prepares the settings of the sandbox for the gateway's process. All differences between platforms are in this module,
 * and for Python in `sandbox/macos.py`.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { dirname, join } from "node:path"
import process from "node:process"
import * as Assets from "../assets.ts"
import * as Platform from "../platform.ts"
import {
  RunningAsRoot,
  type SandboxError,
  sandboxError,
  StartFailed,
  ToolMissing,
  UnsupportedPlatform,
} from "./error.ts"
import { invalid } from "./permissions.ts"
import * as Protected from "./protected.ts"
import { isUnder, type Rules } from "./rules.ts"

/** The argument of `sandbox/host.py`. */
export interface HostSettings {
  readonly rules: Rules
  readonly user: { readonly uid: number; readonly gid: number } | null
  /** The command that starts `helper.ts`. */
  readonly helper: ReadonlyArray<string>
  /** The paths of the programs that the sandbox consists of. */
  readonly tools: Readonly<Record<string, string>>
  /** The PATH of the helper, without folders that kernels can write. */
  readonly path: string
  /** Files of this package that a kernel must be able to read. */
  readonly needed: ReadonlyArray<string>
  /** Files that run outside of a sandbox later, which no kernel may write. */
  readonly protected: ReadonlyArray<string>
  /** The folder with the tokens of shared gateways, which no kernel may read. */
  readonly sharedGateways: string
}

/** The programs that the sandbox requires on each platform, and the packages that contain them. */
const packages: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  linux: { bwrap: "bubblewrap", socat: "socat", rg: "ripgrep", bash: "bash" },
  darwin: { rg: "ripgrep", bash: "bash" },
}

/** The paths of a gateway. */
export interface HostOptions {
  /** The PATH of the gateway. */
  readonly path: string
  /** The folder of managed environments of Python. */
  readonly cacheDir: string
  /** The folder of shared gateways. */
  readonly sharedGateways: string
}

/** Checks the platform, determines the user that kernels run as, and finds the programs that the sandbox requires. */
export const settings: (
  rules: Rules,
  options: HostOptions,
) => Effect.Effect<HostSettings, SandboxError, FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function* (rules, { cacheDir, path, sharedGateways }) {
    const needs = packages[process.platform]
    if (needs === undefined || !["x64", "arm64"].includes(process.arch)) {
      const platform = `${process.platform} on ${process.arch}`
      return yield* sandboxError(new UnsupportedPlatform({ platform }))
    }
    const isRoot = process.geteuid?.() === 0
    if (isRoot && rules.user === undefined) return yield* sandboxError(new RunningAsRoot())
    if (!isRoot && rules.user !== undefined && rules.user.uid !== process.geteuid?.()) {
      return yield* invalid("user", `Only root can become the user "${rules.user.uid}"; leave the key out`)
    }
    const isWritable = (place: string) => rules.allowWrite.some((writable) => isUnder(place, writable))
    const named = path.split(":").filter((folder) => folder.startsWith("/"))
    const places = yield* Effect.forEach(
      named,
      (folder) => Effect.map(realPath(folder), (real) => ({ folder, real })),
    )
    const folders = places.flatMap(({ folder, real }) =>
      real === undefined || isWritable(real) ? [] : [folder]
    )
    const tools = yield* find(Object.keys(needs), { folders, isWritable })
    const missing = Object.keys(needs).filter((tool) => tools[tool] === undefined)
    if (missing.length > 0) {
      const reason = { tools: missing, packages: missing.map((tool) => needs[tool] ?? tool) }
      return yield* sandboxError(new ToolMissing(reason))
    }
    const helper = yield* asset("sandbox/helper.js", "sandbox/helper.ts")
    const pythonPackage = yield* asset("python/effect_jupyter")
    const preset = yield* asset("../sandbox/default.json")
    // Python's files are in the same folder, unless they were copied next to a bundle.
    const own = [dirname(dirname(helper)), dirname(pythonPackage)]
    const runtime = yield* runtimeDir(helper)
    const home = Platform.variable("HOME")
    const virtualEnv = Platform.variable("VIRTUAL_ENV")
    return {
      rules,
      sharedGateways,
      user: isRoot ? rules.user ?? null : null,
      helper: command(helper),
      tools,
      path: folders.join(":"),
      needed: [...own, runtime],
      protected: [
        ...own,
        dirname(preset),
        join(dirname(dirname(preset)), "package.json"),
        ...[...own, runtime].flatMap(modulesAbove),
        ...(yield* Effect.forEach(own, modulesResolvedFrom)).flat(),
        process.execPath,
        cacheDir,
        // Writable folders of the PATH, whose programs may be run by name later, by the gateway or by users.
        ...places.flatMap(({ real }) =>
          real !== undefined && isWritable(real) && !rules.allowWrite.includes(real) ? [real] : []
        ),
        ...yield* settingsIn(rules),
        ...(virtualEnv === undefined ? [] : [virtualEnv]),
        ...(home === undefined ? [] : Protected.inHome.map((name) => `${home}/${name}`)),
      ],
    }
  },
)

/** Returns the settings files of tools at the top of every writable folder. srt protects only those of the workspace. */
const settingsIn = Effect.fnUntraced(function* ({ allowWrite, strict }: Rules) {
  const fs = yield* FileSystem.FileSystem
  const folders = yield* Effect.filter(
    allowWrite,
    (place) =>
      Effect.match(fs.stat(place), { onFailure: () => false, onSuccess: ({ type }) => type === "Directory" }),
  )
  // In a strict sandbox srt makes parts of this one itself.
  const names = Protected.inWorkspace.filter((name) => !strict || name !== ".claude")
  return folders.flatMap((folder) => names.map((name) => `${folder}/${name}`))
})

/** Resolves the links of a path; `undefined` if it does not exist. */
const realPath = (path: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => Effect.orElseSucceed(fs.realPath(path), () => undefined))

/** Finds the paths of programs, without those that do not exist or that a kernel may write. */
const find = Effect.fnUntraced(function* (
  names: ReadonlyArray<string>,
  { folders, isWritable }: {
    readonly folders: ReadonlyArray<string>
    readonly isWritable: (place: string) => boolean
  },
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const found: Record<string, string> = {}
  for (const name of names) {
    for (const file of folders.map((folder) => path.join(folder, name))) {
      const real = yield* realPath(file)
      const isSafe = real !== undefined && !isWritable(real)
      if (found[name] === undefined && isSafe && (yield* Effect.isSuccess(fs.access(file, { ok: true })))) {
        found[name] = file
      }
    }
  }
  return found
})

/** Finds a file of this package. */
const asset = (...names: readonly [string, ...ReadonlyArray<string>]) =>
  Effect.mapError(
    Assets.find(...names),
    ({ message }) => sandboxError(new StartFailed({ detail: message, output: [] })),
  )

/** The package of the sandbox runtime. */
const runtimePackage = "@anthropic-ai/sandbox-runtime"

/** Returns the folder of that package as resolved from the helper. It is an optional peer dependency. */
const runtimeDir = (helper: string) =>
  Effect.mapError(
    Assets.packageDir(runtimePackage, helper),
    () =>
      sandboxError(
        new ToolMissing({
          tools: [runtimePackage],
          packages: [runtimePackage],
          command: `npm install ${runtimePackage}@0.0.83`,
        }),
      ),
  )

/** Returns the folders of modules that are resolved from a folder. Their entries may be links to other places. */
const modulesResolvedFrom = Effect.fnUntraced(function* (folder: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const above = folder.split("/").map((_, depth, names) =>
    path.join("/", ...names.slice(0, depth), "node_modules")
  )
  return yield* Effect.filter(above, (modules) => Effect.orElseSucceed(fs.exists(modules), () => false))
})

/** Returns the outermost folder of modules that contains a path, and so all imports of the library's processes. */
function modulesAbove(path: string): ReadonlyArray<string> {
  const [above] = path.split("/node_modules/")
  return above === undefined || above === path ? [] : [`${above}/node_modules`]
}

/** Returns the command that starts the helper. */
function command(helper: string): ReadonlyArray<string> {
  return "deno" in process.versions
    ? [process.execPath, "run", "--allow-all", "--no-config", "--node-modules-dir=manual", helper]
    : [process.execPath, "--no-warnings", helper]
}
