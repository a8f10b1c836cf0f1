/**
 * What runs outside of a sandbox without anybody asking for it, and so is written by no kernel. `sandbox/git.py` has
 * the rule for git.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { homedir } from "node:os"
import process from "node:process"
import * as Platform from "../platform.ts"

/**
 * At the top of the workspace: what srt protects there (`DANGEROUS_FILES` and `getDangerousDirectories` of its
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

/** Below the user's home, in whatever is writable there: what shells, editors, git and Python run or follow later. */
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

/** Why a folder is not to be written, if so. */
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
      const what = home === folder ? "is a home directory" : `has the home directory "${home}" in it`
      return `"${folder}" ${what}, where shells, editors and tools run many files; choose another "workingDir", ` +
        'name a folder in it in "allowWrite", or set "allowHome"'
    }
    return allowGit ? undefined : yield* gitProblem(folder)
  },
)

/** A home that is a folder or below it. */
const homeIn = Effect.fnUntraced(function* (folder: string, uid: number | undefined) {
  const fs = yield* FileSystem.FileSystem
  // Accounts of a directory service are not in there; their homes are where those of others are.
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

/** Why a folder cannot be written without its git directory, if so. */
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
