/**
 * The files of this package other than its modules: Python code, and settings of the sandbox.
 *
 * @module
 */
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { createRequire } from "node:module"
import { dirname, join, resolve } from "node:path"
import process from "node:process"
import { fileURLToPath, pathToFileURL } from "node:url"
import * as Platform from "./platform.ts"

/**
 * A file of this package is missing or unreadable, as in a bundle, which has modules only.
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
    /** The path of the file in the folders. */
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

/** Returns the URL of the running module: one of this package, or the bundle that contains it. */
function here(): string {
  // Despite its type it is undefined in a CommonJS bundle.
  const url: string | undefined = import.meta.url
  return url ?? pathToFileURL(process.argv[1] ?? "./main.js").href
}

/**
 * Returns the folder of a package as resolved from a module. Fails if the package is not installed.
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

/** The contents of files that were read, by the folder and the file. */
const sources = new Map<string, string>()

/**
 * Reads a file of this package as text, see {@link find}. The result is cached. Fails with {@link AssetsMissing}, which
 * is not cached.
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
      (error) =>
        new AssetsMissing({ file: name, folders: [dirname(file)], detail: Platform.describe(error) }),
    )
    sources.set(key, source)
    return source
  })

/**
 * Reads a file of this package in advance, because there may be no free file descriptor later. Returns the effect of
 * {@link read}, which reads the file if it was not readable before.
 */
export const prefetch = (
  name: string,
): Effect.Effect<Effect.Effect<string, AssetsMissing>, never, FileSystem.FileSystem> =>
  Effect.contextWith((context: Context.Context<FileSystem.FileSystem>) => {
    const source = Effect.provideContext(read(name), context)
    return Effect.as(Effect.ignore(source), source)
  })
