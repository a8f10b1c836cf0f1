/**
 * The directory of a gateway for sockets and connection files.
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

/** The path of a socket has 107 bytes at most, of which a kernel's name takes 50. */
const longestFolder = 56 - "/effect-jupyter-0123456789ab/01234567".length
const registryName = /^effect-jupyter-[0-9a-f]{12}$/
const maxAttempts = 100

const random = (length: number) => SecureRandom.uuidV4Unsafe().replaceAll("-", "").slice(0, length)

/**
 * Creates the directory. It is removed by the supervisor, and here for the case that the supervisor was killed.
 *
 * It lies in one that all gateways of this user share, so that a sandbox can hide them all, those that start later
 * among them. Nobody else can foresee the name of that one.
 */
export const make: Effect.Effect<string, GatewayError, FileSystem.FileSystem | Scope.Scope> = Effect.gen(
  function* () {
    const files = yield* FileSystem.FileSystem
    const folder = yield* findFolder
    return yield* Effect.acquireRelease(
      Effect.try({
        try: () => create(folder),
        catch: (error) =>
          gatewayError(
            new StartFailed({
              detail: `No directory could be created below "${folder}": ${
                error instanceof Error ? error.message : String(error)
              }`,
              output: [],
            }),
          ),
      }),
      (directory) =>
        Effect.andThen(
          Effect.ignore(files.remove(directory, { recursive: true, force: true })),
          Effect.sync(() => removeEmpty(directory.slice(0, directory.lastIndexOf("/")))),
        ),
    )
  },
)

/** `/tmp` if that can be written to: paths are short there, and no sandbox opens it. */
const findFolder = Effect.gen(function* () {
  const files = yield* FileSystem.FileSystem
  const named = Platform.variable("TMPDIR")?.replace(/\/+$/, "")
  const folders = ["/tmp", ...(named?.startsWith("/") && named.length <= longestFolder ? [named] : [])]
  const folder = yield* Effect.findFirst(
    folders,
    (folder) => Effect.isSuccess(files.access(folder, { writable: true })),
  )
  if (Option.isSome(folder)) return folder.value
  const names = folders.map((folder) => `"${folder}"`).join(" and ")
  const detail =
    `The temporary folders ${names} cannot be written to; set TMPDIR to another, whose path has at ` +
    `most ${longestFolder} characters`
  return yield* gatewayError(new StartFailed({ detail, output: [] }))
})

function create(folder: string): string {
  for (let attempt = 0;; attempt++) {
    const directory = `${registry(folder)}/${random(8)}`
    try {
      fs.mkdirSync(directory, { mode: 0o700 })
      return directory
    } catch (error) {
      // The last gateway in there ended, and took it away.
      if (codeOf(error) !== "ENOENT" || attempt >= maxAttempts) throw error
    }
  }
}

/** The directory that gateways of this user share. Of several that were created at once, all take the first. */
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
    // Others are in there, or were and removed it.
  }
}

/** Links and directories of others do not count, whatever their names. */
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
