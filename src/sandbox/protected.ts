/**
 * Lists the files that tools run outside of a sandbox by themselves, which no kernel may write. `sandbox/git.py` has the
 * rule for git.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { homedir } from "node:os"
import process from "node:process"
import * as Platform from "../platform.ts"

/**
 * Files at the top of the workspace: those that srt protects (`DANGEROUS_FILES` and `getDangerousDirectories` of its
 * `sandbox-utils.js`, which a test compares), and the folder of agents' settings as a whole.
 */
export const inWorkspace: ReadonlyArray<string> = [
  ".bash_profile",
  ".bashrc",
  ".claude",
  ".gitconfig",
  ".gitmodules",
  ".idea",
  ".mcp.json",
  ".profile",
  ".ripgreprc",
  ".vscode",
  ".zprofile",
  ".zshrc",
]

/** Files in the user's home that shells, editors, git and Python run or read later. */
export const inHome: ReadonlyArray<string> = [
  ...inWorkspace,
  ".bash_login",
  ".bash_logout",
  ".config",
  ".ipython",
  ".jupyter",
  ".local/bin",
  ".local/share/jupyter",
  ".npmrc",
  ".ssh",
  ".zlogin",
  ".zshenv",
]

/** Returns the reason why a folder must not be writable; `undefined` if it may be. */
export const problem: (
  folder: string,
  options: {
    readonly allowHome?: boolean | undefined
    readonly allowGit?: boolean | undefined
    readonly user?: { readonly uid: number } | undefined
  },
) => Effect.Effect<string | undefined, never, FileSystem.FileSystem> = Effect.fnUntraced(
  function* (folder, { allowGit = false, allowHome = false, user }) {
    const home = allowHome ? undefined : yield* homeIn(folder, user?.uid ?? process.geteuid?.())
    if (home !== undefined) {
      const relation = home === folder ? "is a home directory" : `has the home directory "${home}" in it`
      return `"${folder}" ${relation}, where shells, editors and tools run many files; choose another "workingDir", ` +
        'name a folder in it in "allowWrite", or set "allowHome"'
    }
    return allowGit ? undefined : yield* gitProblem(folder)
  },
)

/** Returns a home directory that is a folder or in it. */
const homeIn = Effect.fnUntraced(function* (folder: string, uid: number | undefined) {
  const fs = yield* FileSystem.FileSystem
  // Accounts of a directory service are not in this file; their homes are in the usual places.
  const accounts = yield* Effect.orElseSucceed(fs.readFileString("/etc/passwd"), () => "")
  const isHome = /^\/(home|Users)(\/[^/]+)?$/.test(folder) || folder === "/"
  if (isHome) return folder
  const homes = accounts.split("\n").map((line) => line.split(":")).flatMap((
    [, , id, , , home = "", shell = ""],
  ) =>
    home.startsWith("/") && home !== "/" && (Number(id) === uid || !/\/(nologin|false)$/.test(shell))
      ? [home]
      : []
  )
  for (const home of [Platform.variable("HOME") ?? homedir(), homedir(), ...homes]) {
    const real = yield* Effect.orElseSucceed(fs.realPath(home), () => home)
    if (`${real}/`.startsWith(`${folder}/`)) return real
  }
  return undefined
})

/** Returns the reason why a git directory in a folder cannot be protected; `undefined` if it can be. */
const gitProblem = Effect.fnUntraced(function* (folder: string) {
  const fs = yield* FileSystem.FileSystem
  const isThere = (name: string) => Effect.orElseSucceed(fs.exists(`${folder}/${name}`), () => false)
  const instead = 'choose another folder, or set "allowGit"'
  if ((yield* isThere("HEAD")) && (yield* isThere("objects")) && (yield* isThere("refs"))) {
    return `"${folder}" is a git directory; ${instead}`
  }
  const link = yield* Effect.orElseSucceed(fs.readLink(`${folder}/.git`), () => undefined)
  return link === undefined ? undefined : `"${folder}/.git" is a link, which cannot be protected; ${instead}`
})
