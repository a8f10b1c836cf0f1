/**
 * The folder of a shared gateway, which programs of the same user find by its name.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as fs from "node:fs"
import process from "node:process"
import * as Platform from "../platform.ts"
import { FolderRefused, type GatewayError, gatewayError } from "./error.ts"
import * as RuntimeDir from "./runtime_dir.ts"

/** Maximum length of the parent's path: that of a socket has 103 bytes at most, of which a name takes 40. */
const maxRootLength = 103 - "/socket".length - 41

/**
 * Returns the parent of all folders: in the runtime directory of the user, which is on this machine and only the user's,
 * or else in a temporary folder.
 */
export const root: Effect.Effect<string, GatewayError, FileSystem.FileSystem> = Effect.suspend(() => {
  const user = process.geteuid?.() ?? 0
  const found = [Platform.variable("XDG_RUNTIME_DIR"), `/run/user/${user}`].find((folder) =>
    folder?.startsWith("/") === true && isOf(user, folder)
  )
  const own = found === undefined ? undefined : `${found.replace(/\/+$/, "")}/effect-jupyter`
  return own !== undefined && own.length <= maxRootLength
    ? Effect.succeed(own)
    : Effect.map(RuntimeDir.findFolder, (folder) => `${folder}/effect-jupyter-${user}`)
})

/** Returns the path of the folder; the supervisor creates it. Fails with `FolderRefused`. */
export const find: (name: string) => Effect.Effect<string, GatewayError, FileSystem.FileSystem> = Effect
  .fnUntraced(function* (name: string) {
    const parent = yield* root
    const folder = `${parent}/${name}`
    yield* check(parent)
    yield* check(folder)
    return folder
  })

const check = (folder: string): Effect.Effect<void, GatewayError> =>
  Effect.suspend(() => {
    const detail = fault(folder)
    return detail === undefined
      ? Effect.void
      : Effect.fail(gatewayError(new FolderRefused({ folder, detail })))
  })

/** Describes why a folder cannot be trusted. One that does not exist can. */
function fault(folder: string): string | undefined {
  const status = fs.lstatSync(folder, { throwIfNoEntry: false })
  if (status === undefined) return undefined
  if (status.isSymbolicLink()) return "It is a link; remove it"
  if (!status.isDirectory()) return "It is not a folder; remove it"
  if (status.uid !== process.geteuid?.()) {
    return `It belongs to the user "${status.uid}"; have it removed, or set XDG_RUNTIME_DIR to a folder of your own`
  }
  return (status.mode & 0o077) === 0
    ? undefined
    : `Other users have access to it; change its mode from "${(status.mode & 0o777).toString(8)}" to "700"`
}

function isOf(user: number, folder: string): boolean {
  try {
    const status = fs.statSync(folder)
    return status.isDirectory() && status.uid === user
  } catch {
    // It does not exist, or belongs to another user.
    return false
  }
}
