/**
 * What the gateway's process has to know in order to sandbox its kernels on this platform. What differs between
 * platforms is in here, and on Python's side in `sandbox/macos.py`.
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
  /** How to start `helper.ts`. */
  readonly helper: ReadonlyArray<string>
  /** Where the programs are that the sandbox is built with. */
  readonly tools: Readonly<Record<string, string>>
  /** The PATH of the helper: nothing that a kernel could have put there. */
  readonly path: string
  /** Our own files, which a kernel has to read. */
  readonly needed: ReadonlyArray<string>
  /** What runs outside of a sandbox later: no kernel may write there, whatever else it may write. */
  readonly protected: ReadonlyArray<string>
}

/** The programs that the sandbox is built with on a platform, by the packages that have them. */
const packages: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  linux: { bwrap: "bubblewrap", socat: "socat", rg: "ripgrep", bash: "bash" },
  darwin: { rg: "ripgrep", bash: "bash" },
}

/** What a gateway says of itself. */
export interface HostOptions {
  /** The PATH of the gateway. */
  readonly path: string
  /** Where managed environments of Python are. */
  readonly cacheDir: string
}

/** Checks the platform, decides whom kernels run as, and finds what the sandbox is built with. */
export const settings: (
  rules: Rules,
  options: HostOptions,
) => Effect.Effect<HostSettings, SandboxError, FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function* (rules, { cacheDir, path }) {
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
        ...(yield* Effect.forEach(own, modulesSeenFrom)).flat(),
        process.execPath,
        cacheDir,
        // Programs that are looked for by their name, here or by whoever works with the workspace later.
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

/** The settings of tools at the top of every folder that may be written. srt has those of the workspace alone. */
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

/** Where a path leads; `undefined` if nothing is there. */
const realPath = (path: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => Effect.orElseSucceed(fs.realPath(path), () => undefined))

/** The paths of programs; those that are nowhere, or where a kernel may write, are left out. */
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

/** A file of this package. */
const asset = (...names: readonly [string, ...ReadonlyArray<string>]) =>
  Effect.mapError(
    Assets.find(...names),
    ({ message }) => sandboxError(new StartFailed({ detail: message, output: [] })),
  )

/** The package that the sandbox comes from, in the version that the helper is made for. */
const runtimePackage = "@anthropic-ai/sandbox-runtime"

/** The folder of that package, seen from the helper. It is an optional peer dependency. */
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

/** The folders of modules that are there for a folder; what is in them may be links to elsewhere. */
const modulesSeenFrom = Effect.fnUntraced(function* (folder: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const above = folder.split("/").map((_, depth, names) =>
    path.join("/", ...names.slice(0, depth), "node_modules")
  )
  return yield* Effect.filter(above, (modules) => Effect.orElseSucceed(fs.exists(modules), () => false))
})

/** The outermost folder of modules that a path is in: all that our processes import is below it. */
function modulesAbove(path: string): ReadonlyArray<string> {
  const [above] = path.split("/node_modules/")
  return above === undefined || above === path ? [] : [`${above}/node_modules`]
}

/** The command that starts the helper. */
function command(helper: string): ReadonlyArray<string> {
  return "deno" in process.versions
    ? [process.execPath, "run", "--allow-all", "--no-config", "--node-modules-dir=manual", helper]
    : [process.execPath, "--no-warnings", helper]
}
