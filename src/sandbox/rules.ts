/**
 * Resolves permissions to complete rules with absolute paths.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Platform from "../platform.ts"
import type { SandboxError } from "./error.ts"
import * as Hosts from "./hosts.ts"
import { type Given, invalid, type ParentProxy, type User } from "./permissions.ts"
import * as Protected from "./protected.ts"

/** The rules of one kernel. Paths are absolute. */
export interface Rules {
  readonly allowNet: ReadonlyArray<string>
  readonly denyNet: ReadonlyArray<string>
  readonly allowWrite: ReadonlyArray<string>
  readonly denyWrite: ReadonlyArray<string>
  readonly denyRead: ReadonlyArray<string>
  readonly allowRead: ReadonlyArray<string>
  /** True if git directories can be written. */
  readonly allowGit: boolean
  /** True if only files of the workspace and of Python can be read. */
  readonly strict: boolean
  readonly limits: Limits
  readonly user: User | undefined
  readonly parentProxy: ParentProxy | undefined
}

/** Resource limits of a kernel in bytes, numbers and seconds. */
export interface Limits {
  readonly memory?: number | undefined
  readonly processes?: number | undefined
  readonly fileSize?: number | undefined
  readonly cpuTime?: number | undefined
}

/** The names of keys in a settings file, if they differ. */
const inFile: Readonly<Record<string, string>> = {
  allowNet: "network.allowedDomains",
  denyNet: "network.deniedDomains",
  allowWrite: "filesystem.allowWrite",
  denyWrite: "filesystem.denyWrite",
  denyRead: "filesystem.denyRead",
  allowRead: "filesystem.allowRead",
}
const named = (given: Given, key: string): string => given.file === undefined ? key : inFile[key] ?? key

/** Resolves the paths of a list of permissions. Fails if a relative path is outside of the workspace. */
const absolute = Effect.fnUntraced(function* (given: Given, key: PathKey, workspace: string) {
  const path = yield* Path.Path
  const home = Platform.variable("HOME")
  return yield* Effect.forEach(given[key] ?? defaults[key], (name, index) => {
    if (home !== undefined && /^~(\/|$)/.test(name)) return Effect.succeed(path.join(home, name.slice(1)))
    const resolved = path.resolve(workspace, name)
    return path.isAbsolute(name) || isUnder(resolved, workspace) ? Effect.succeed(resolved) : invalidElement(
      given,
      { key, index },
      `"${name}" leads out of the workspace "${workspace}"; give an absolute path`,
    )
  })
})

/** The folder that contains the directories of gateways. */
const runtimeDirs = "/tmp"

type PathKey = "allowWrite" | "denyWrite" | "denyRead" | "allowRead"

const defaults: Readonly<Record<PathKey, ReadonlyArray<string>>> = {
  allowWrite: ["."],
  denyWrite: [],
  denyRead: [".env", "**/.env"],
  allowRead: [],
}

/** Makes the error of one element of a list. */
function invalidElement(
  given: Given,
  at: { readonly key: string; readonly index: number },
  detail: string,
): SandboxError {
  return invalid(`${named(given, at.key)}[${at.index}]`, detail, given.file)
}

/** Resolves permissions in a workspace. */
export const resolve: (
  given: Given,
  workspace: string,
) => Effect.Effect<Rules, SandboxError, FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function* (given, workspace) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const allowWrite = yield* absolute(given, "allowWrite", workspace)
    const writable: Array<string> = []
    for (const [index, file] of allowWrite.entries()) {
      // The sandbox would silently skip paths that do not exist, and links.
      const real = yield* Effect.mapError(
        fs.realPath(file),
        () =>
          invalidElement(
            given,
            { key: "allowWrite", index },
            `"${file}" does not exist; create it before the gateway starts`,
          ),
      )
      // Code of an earlier kernel may have created the link.
      if (isUnder(file, workspace) && !isUnder(real, workspace)) {
        const detail = `"${file}" leads out of the workspace to "${real}"; give that path if it is meant`
        return yield* invalidElement(given, { key: "allowWrite", index }, detail)
      }
      const detail = yield* Protected.problem(real, given)
      if (detail !== undefined) return yield* invalidElement(given, { key: "allowWrite", index }, detail)
      if (isUnder(runtimeDirs, real)) {
        const detail = `"${file}" holds the files of gateways; name a folder in it`
        return yield* invalidElement(given, { key: "allowWrite", index }, detail)
      }
      writable.push(real)
    }
    const denyRead = yield* absolute(given, "denyRead", workspace)
    const allowRead = yield* absolute(given, "allowRead", workspace)
    const { allowNet = [], denyNet = [], parentProxy, upstreamProxy, user } = given
    return {
      allowNet,
      denyNet,
      allowWrite: writable,
      denyWrite: [
        ...yield* absolute(given, "denyWrite", workspace),
        // A kernel that writes it could extend the permissions of later ones.
        ...(given.file === undefined ? [] : [path.resolve(given.file)]),
      ],
      denyRead: given.strict ? [...denyRead, "/"] : denyRead,
      allowRead: given.strict ? [...allowRead, workspace] : allowRead,
      allowGit: given.allowGit ?? false,
      strict: given.strict ?? denyRead.includes("/"),
      limits: limitsOf(given),
      user,
      parentProxy: upstreamProxy === undefined
        ? parentProxy
        : { http: upstreamProxy, https: upstreamProxy, noProxy: "" },
    }
  },
)

function limitsOf({ limits: { cpuTime, ...limits } = {} }: Given): Limits {
  return cpuTime === undefined
    ? limits
    : { ...limits, cpuTime: Math.ceil(Duration.toSeconds(Duration.fromInputUnsafe(cpuTime))) }
}

/** Tells whether a path is a folder or in it. */
export function isUnder(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith("/") ? folder : `${folder}/`)
}

/**
 * Resolves the permissions of a client for its kernel, which may only restrict the rules of the gateway. Permissions
 * that are not given are denied, as for a gateway, except those for writing and reading.
 */
export const narrow: (
  wide: Rules,
  given: Given,
  workspace: string,
) => Effect.Effect<Rules, SandboxError, FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function* (wide, given, workspace) {
    // A home that the gateway may write is allowed.
    const requested = yield* resolve(
      { ...given, allowWrite: given.allowWrite ?? [], allowHome: true },
      workspace,
    )
    const refuse = (key: string, detail: string) =>
      invalid(key, `${detail}; a kernel may not do more than its gateway allows`, given.file)
    const first = (
      key: PathKey | "allowNet",
      names: ReadonlyArray<string>,
      isAllowed: (name: string) => boolean,
    ) => {
      const index = names.findIndex((name) => !isAllowed(name))
      return index < 0
        ? Effect.void
        : refuse(`${named(given, key)}[${index}]`, `"${names[index]}" is not allowed`)
    }

    yield* first(
      "allowNet",
      requested.allowNet,
      (host) => wide.allowNet.some((pattern) => Hosts.covers(pattern, host)),
    )
    yield* first(
      "allowWrite",
      requested.allowWrite,
      (path) => wide.allowWrite.some((folder) => isUnder(path, folder)),
    )
    yield* first(
      "allowRead",
      yield* absolute(given, "allowRead", workspace),
      (path) =>
        wide.allowRead.some((folder) => isUnder(fixedPart(path), folder)) ||
        !wide.denyRead.some((pattern) => overlaps(fixedPart(pattern), fixedPart(path))),
    )
    if (!requested.denyNet.every((host) => wide.denyNet.includes(host))) {
      return yield* refuse(named(given, "denyNet"), "Only a gateway can deny hosts")
    }
    if (requested.allowGit && !wide.allowGit) {
      return yield* refuse("allowGit", "The gateway denies git directories")
    }
    if (given.strict === false && wide.strict) return yield* refuse("strict", "The gateway is strict")
    if (given.user !== undefined && !sameUser(given.user, wide.user)) {
      return yield* refuse("user", `"${given.user.uid}" is not the user of the gateway's kernels`)
    }
    if (requested.parentProxy !== undefined && !Equal.equals(requested.parentProxy, wide.parentProxy)) {
      return yield* refuse(
        "upstreamProxy",
        `"${
          requested.parentProxy.http ?? requested.parentProxy.https ?? ""
        }" is not the proxy of the gateway`,
      )
    }
    for (const key of ["memory", "processes", "fileSize", "cpuTime"] as const) {
      const [own, limit] = [requested.limits[key], wide.limits[key]]
      if (own !== undefined && limit !== undefined && own > limit) {
        return yield* refuse(`limits.${key}`, `"${own}" is more than "${limit}"`)
      }
    }
    return {
      allowNet: requested.allowNet,
      denyNet: [...wide.denyNet, ...requested.denyNet],
      allowWrite: given.allowWrite === undefined ? wide.allowWrite : requested.allowWrite,
      denyWrite: [...wide.denyWrite, ...requested.denyWrite],
      denyRead: [...wide.denyRead, ...requested.denyRead],
      allowRead: [...wide.allowRead, ...requested.allowRead],
      allowGit: requested.allowGit,
      strict: wide.strict || requested.strict,
      limits: { ...wide.limits, ...requested.limits },
      user: wide.user,
      parentProxy: wide.parentProxy,
    }
  },
)

const sameUser = (one: User, other: User | undefined): boolean =>
  one.uid === other?.uid && one.gid === other.gid

/** Tells whether one path is in the other. */
function overlaps(one: string, other: string): boolean {
  return isUnder(one, other) || isUnder(other, one)
}

/** Returns the folder that contains all matches of a pattern. */
function fixedPart(pattern: string): string {
  return /[*?[{]/.test(pattern) ? pattern.replace(/\/[^/]*[*?[{].*$/s, "") || "/" : pattern
}
