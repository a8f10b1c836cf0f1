/**
 * The files that this package has besides its modules: Python's, and what a sandbox is started with.
 *
 * @module
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { createRequire } from "node:module"
import { dirname, join, resolve } from "node:path"
import process from "node:process"
import { fileURLToPath, pathToFileURL } from "node:url"
import * as Platform from "./platform.ts"

/**
 * A file of this package is not where it could be: a bundle leaves all of them out that are no modules.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make()).pipe(
 *   Effect.catchReason("GatewayError", "AssetsMissing", (reason) => Effect.logError(reason.folders.join("\n")))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class AssetsMissing
  extends Schema.TaggedError<AssetsMissing>("effect-jupyter/AssetsMissing")("AssetsMissing", {
    /** The file, relative to where it was looked for. */
    file: Schema.String,
    /** The folders that were searched. */
    folders: Schema.Array(Schema.String),
    /** The reason it could not be read, if it exists. */
    detail: Schema.optionalKey(Schema.String),
  }) {
  override get message(): string {
    if (this.detail !== undefined) {
      return `The file "${this.file}" of effect-jupyter in "${
        this.folders.join('", "')
      }" cannot be read: ${this.detail}`
    }
    return `The file "${this.file}" of effect-jupyter is not in "${this.folders.join('", nor in "')}"; ` +
      `if the program is bundled, make effect-jupyter external, or copy "node_modules/effect-jupyter/dist/python" ` +
      `next to the bundle, or name the folder that has "python" by the environment variable EFFECT_JUPYTER_ASSETS`
  }
}

/** The URL of the running module: one of this package, or the bundle that it is in. */
function here(): string {
  // Nothing is left of it in a bundle that is CommonJS, whatever its type says.
  const url: string | undefined = import.meta.url
  return url ?? pathToFileURL(process.argv[1] ?? "./main.js").href
}

/**
 * The folder of a package, as it is found from a module. Fails if it is not installed there.
 */
export const packageDir = (name: string, from: string): Effect.Effect<string, Cause.UnknownError> =>
  Effect.try(() => dirname(createRequire(from).resolve(`${name}/package.json`)))

/**
 * Finds the first of some files of this package: in the folder that `EFFECT_JUPYTER_ASSETS` names, next to the running
 * module, or where the package is installed. Fails with {@link AssetsMissing}.
 */
export const find: (
  ...names: readonly [string, ...ReadonlyArray<string>]
) => Effect.Effect<string, AssetsMissing, FileSystem.FileSystem> = Effect.fnUntraced(
  function* (...names: readonly [string, ...ReadonlyArray<string>]) {
    const fs = yield* FileSystem.FileSystem
    const named = Platform.variable("EFFECT_JUPYTER_ASSETS")
    const installed = yield* Effect.match(packageDir("effect-jupyter", here()), {
      onFailure: () => [],
      onSuccess: (folder) => [join(folder, "dist")],
    })
    const folders = [
      ...(named === undefined ? [] : [resolve(named)]),
      dirname(fileURLToPath(here())),
      ...installed,
    ]
    for (const folder of folders) {
      for (const name of names) {
        const file = join(folder, name)
        if (yield* Effect.orElseSucceed(fs.exists(file), () => false)) return file
      }
    }
    return yield* new AssetsMissing({ file: names[0], folders })
  },
)

/** What was read, by the folder that was named and the file: no file is read twice, nor needed again. */
const sources = new Map<string, string>()

/**
 * Reads a file of this package as text, see {@link find}; once for all who need it. Fails with {@link AssetsMissing},
 * and may succeed when it is tried again.
 */
export const read: (name: string) => Effect.Effect<string, AssetsMissing, FileSystem.FileSystem> = Effect
  .fnUntraced(function* (name: string) {
    const key = `${Platform.variable("EFFECT_JUPYTER_ASSETS") ?? ""}\0${name}`
    const known = sources.get(key)
    if (known !== undefined) return known
    const fs = yield* FileSystem.FileSystem
    const file = yield* find(name)
    const source = yield* Effect.mapError(
      fs.readFileString(file),
      (error) => new AssetsMissing({ file: name, folders: [dirname(file)], detail: Platform.inWords(error) }),
    )
    sources.set(key, source)
    return source
  })
