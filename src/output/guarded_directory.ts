/**
 * Creates files below folders that untrusted code may write, without following links that it made.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import process from "node:process"
import { isUnder } from "../sandbox/rules.ts"

/** A file that could not be created. */
export class GuardedFileError
  extends Schema.TaggedError<GuardedFileError>("effect-jupyter/kernel/GuardedFileError")("GuardedFileError", {
    code: Schema.UndefinedOr(Schema.String),
    detail: Schema.String,
  }) {
  override get message(): string {
    return this.detail
  }
}

/** A directory below a folder that untrusted code may write. */
export interface GuardedDirectory {
  /** The folder; untrusted code cannot change the path to it. */
  readonly folder: string
  /** The names of the directories below it. */
  readonly names: ReadonlyArray<string>
}

const isLinux = process.platform === "linux"
// Elsewhere no path is relative to a handle; on macOS `O_NOFOLLOW_ANY` holds for all of a path.
const noFollow = isLinux ? constants.O_NOFOLLOW : 0x20000000
const maxLinks = 40

const attempt = <A>(action: () => Promise<A>): Effect.Effect<A, GuardedFileError> =>
  Effect.tryPromise({
    try: action,
    catch: (error) =>
      error instanceof Error
        ? new GuardedFileError({
          code: "code" in error && typeof error.code === "string" ? error.code : undefined,
          detail: error.message,
        })
        : new GuardedFileError({ code: undefined, detail: String(error) }),
  })

/**
 * Finds the folder among `untrusted`, which are paths without links, that a directory is in. Links are followed as long
 * as untrusted code cannot have made them. Returns `undefined` if the directory is in none of the folders.
 */
export const locate: (
  directory: string,
  untrusted: ReadonlyArray<string>,
) => Effect.Effect<GuardedDirectory | undefined, GuardedFileError, Path.Path> = Effect.fnUntraced(
  function* (directory, untrusted) {
    const path = yield* Path.Path
    const names = path.resolve(directory).split("/").filter((name) => name !== "")
    let folder = "/"
    let links = 0
    while (!untrusted.some((place) => isUnder(folder, place))) {
      const name = names.shift()
      if (name === undefined) return undefined
      if (name === "" || name === ".") continue
      const next = path.join(folder, name)
      const target = yield* attempt(() => fs.readlink(next)).pipe(
        // It is not a link, or does not exist.
        Effect.orElseSucceed(() => undefined),
      )
      if (target === undefined) {
        folder = next
        continue
      }
      links += 1
      if (links > maxLinks) {
        return yield* new GuardedFileError({
          code: "ELOOP",
          detail: `"${directory}" has too many links on its way`,
        })
      }
      names.unshift(...target.split("/"))
      if (target.startsWith("/")) folder = "/"
    }
    const inside = names.filter((name) => name !== "" && name !== ".")
    return inside.includes("..")
      ? yield* new GuardedFileError({ code: undefined, detail: `"${directory}" leads out of "${folder}"` })
      : { folder, names: inside }
  },
)

/** Creates a file, and the directories to it. */
export const write: (
  directory: GuardedDirectory,
  name: string,
  bytes: Uint8Array,
) => Effect.Effect<void, GuardedFileError, Path.Path> = Effect.fnUntraced(
  function* ({ folder, names }, name, bytes) {
    const path = yield* Path.Path
    const openDirectory = (place: string) =>
      acquire(place, constants.O_RDONLY | constants.O_DIRECTORY | noFollow)
    const below = (handle: fs.FileHandle, parent: string, child: string) =>
      isLinux ? `/proc/self/fd/${handle.fd}/${child}` : path.join(parent, child)
    let parent = yield* openDirectory(folder)
    let place = folder
    for (const child of names) {
      const at = below(parent, place, child)
      parent = yield* openDirectory(at).pipe(
        Effect.catchIf(
          (error) => error.code === "ENOENT",
          () =>
            attempt(() => fs.mkdir(at)).pipe(
              // Another image made it at the same time.
              Effect.catchIf((error) => error.code === "EEXIST", () => Effect.void),
              Effect.andThen(openDirectory(at)),
            ),
        ),
        Effect.mapError((error) =>
          error.code === "ENOTDIR" || error.code === "ELOOP"
            ? new GuardedFileError({
              ...error,
              detail: `"${path.join(place, child)}" is a link or a file, not a directory`,
            })
            : error
        ),
      )
      place = path.join(place, child)
    }
    const at = below(parent, place, name)
    const file = yield* acquire(at, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | noFollow)
    yield* attempt(() => file.writeFile(bytes)).pipe(
      // A file may be incomplete if the disk is full.
      Effect.tapError(() => Effect.ignore(attempt(() => fs.unlink(at)))),
    )
  },
  Effect.scoped,
)

function acquire(place: string, flags: number): Effect.Effect<fs.FileHandle, GuardedFileError, Scope.Scope> {
  return Effect.acquireRelease(
    attempt(() => fs.open(place, flags, 0o666)),
    (handle) => Effect.ignore(attempt(() => handle.close())),
  )
}
