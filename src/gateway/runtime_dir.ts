/**
 * Creates the directory of a gateway for sockets and connection files.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import process from "node:process"
import * as Platform from "../platform.ts"
import { type GatewayError, gatewayError, StartFailed } from "./error.ts"

/** Maximum length of the folder's path: that of a socket has 107 bytes at most, of which a kernel's name takes 50. */
const maxFolderLength = 56 - "/effect-jupyter-0123456789ab/01234567".length
const registryName = /^effect-jupyter-[0-9a-f]{12}$/
const maxAttempts = 100

const random = (length: number) => SecureRandom.uuidV4Unsafe().replaceAll("-", "").slice(0, length)

/**
 * Creates the directory. The supervisor removes it, and this scope does if the supervisor was killed.
 *
 * Its parent directory is shared by all gateways of this user, so that a sandbox can hide all of them, including those
 * that start later. The name of the parent is random, so that other users cannot predict it.
 */
export const make: Effect.Effect<string, GatewayError, FileSystem.FileSystem | Scope.Scope> = Effect.gen(
  function* () {
    const files = yield* FileSystem.FileSystem
    const folder = yield* findFolder
    return yield* Effect.acquireRelease(
      Effect.try({ try: () => create(folder), catch: notCreated(folder) }),
      (directory) =>
        Effect.andThen(
          Effect.ignore(files.remove(directory, { recursive: true, force: true })),
          Effect.sync(() => removeEmpty(directory.slice(0, directory.lastIndexOf("/")))),
        ),
    )
  },
)

/** Returns the path of a directory that does not exist yet; the supervisor creates it. */
export const choose: Effect.Effect<string, GatewayError, FileSystem.FileSystem> = Effect.gen(function* () {
  const folder = yield* findFolder
  return yield* Effect.try({ try: () => `${registry(folder)}/${random(8)}`, catch: notCreated(folder) })
})

const notCreated = (folder: string) => (error: unknown) =>
  gatewayError(
    new StartFailed({
      detail: `No directory could be created below "${folder}": ${
        error instanceof Error ? error.message : String(error)
      }`,
      output: [],
    }),
  )

/** Finds a temporary folder: `/tmp` if it is writable, because its paths are short and no sandbox allows access to it. */
export const findFolder: Effect.Effect<string, GatewayError, FileSystem.FileSystem> = Effect.gen(
  function* () {
    const files = yield* FileSystem.FileSystem
    const named = Platform.variable("TMPDIR")?.replace(/\/+$/, "")
    const folders = ["/tmp", ...(named?.startsWith("/") && named.length <= maxFolderLength ? [named] : [])]
    const folder = yield* Effect.findFirst(
      folders,
      (folder) => Effect.isSuccess(files.access(folder, { writable: true })),
    )
    if (Option.isSome(folder)) return folder.value
    const names = folders.map((folder) => `"${folder}"`).join(" and ")
    const detail =
      `The temporary folders ${names} cannot be written to; set TMPDIR to another, whose path has at ` +
      `most ${maxFolderLength} characters`
    return yield* gatewayError(new StartFailed({ detail, output: [] }))
  },
)

function create(folder: string): string {
  for (let attempt = 0;; attempt++) {
    const directory = `${registry(folder)}/${random(8)}`
    try {
      fs.mkdirSync(directory, { mode: 0o700 })
      return directory
    } catch (error) {
      // The last gateway in it has ended and removed it.
      if (codeOf(error) !== "ENOENT" || attempt >= maxAttempts) throw error
    }
  }
}

/** Returns the directory that gateways of this user share. If several are created at once, all use the first. */
function registry(folder: string): string {
  const existing = registries(folder)[0]
  if (existing !== undefined) return existing
  const created = `${folder}/effect-jupyter-${random(12)}`
  fs.mkdirSync(created, { mode: 0o700 })
  const first = registries(folder)[0] ?? created
  if (first !== created) removeEmpty(created)
  return first
}

function removeEmpty(directory: string): void {
  try {
    fs.rmdirSync(directory)
  } catch {
    // It is not empty, or another gateway has removed it.
  }
}

/** Returns the shared directories of this user, without links and directories of other users. */
function registries(folder: string): ReadonlyArray<string> {
  return fs.readdirSync(folder).filter((name) => registryName.test(name)).sort().flatMap((name) => {
    const status = fs.lstatSync(`${folder}/${name}`, { throwIfNoEntry: false })
    const isOurs = status?.isDirectory() === true && status.uid === process.geteuid?.() &&
      (status.mode & 0o022) === 0
    return isOurs ? [`${folder}/${name}`] : []
  })
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined
}
