/**
 * What the library asks of the platform it runs on: files, child processes, HTTP. Node's implementation,
 * which Deno runs too.
 *
 * @module
 */
import * as NodeChildProcessSpawner from "@effect/platform-node/NodeChildProcessSpawner"
import * as NodeCrypto from "@effect/platform-node/NodeCrypto"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodePath from "@effect/platform-node/NodePath"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import type * as Digest from "effect/crypto/Digest"
import type * as FileSystem from "effect/FileSystem"
import type * as HttpClient from "effect/http/HttpClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Path from "effect/Path"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import type * as Stdio from "effect/Stdio"
import { homedir } from "node:os"
import process from "node:process"

/** The services of the platform. */
export type Platform =
  | FileSystem.FileSystem
  | Path.Path
  | Stdio.Stdio
  | ChildProcessSpawner.ChildProcessSpawner
  | HttpClient.HttpClient
  | Digest.Digest

const files = Layer.mergeAll(NodeFileSystem.layer, NodePath.layer)

/**
 * Provides the services of the platform.
 *
 * @example
 * ```ts
 * import { Effect, FileSystem } from "effect"
 * import * as Platform from "effect-jupyter/platform"
 *
 * export const program = Effect.gen(function*() {
 *   const fs = yield* FileSystem.FileSystem
 *   return yield* fs.exists("images")
 * }).pipe(Effect.provide(Platform.layer))
 * ```
 */
export const layer: Layer.Layer<Platform> = Layer.mergeAll(
  // Not all of `NodeServices`: its terminal listens to stdin, and each kernel would add a listener.
  Layer.provideMerge(NodeChildProcessSpawner.layer, files),
  NodeStdio.layer,
  NodeHttpClient.layerNodeHttp,
  NodeCrypto.layerDigest,
)

/**
 * A variable of our own process; `undefined` if it is not set or empty. Not read through Config: what children
 * inherit is a fact of the process, whatever an application uses for its configuration.
 *
 * @example
 * ```ts
 * import * as Platform from "effect-jupyter/platform"
 *
 * console.log(Platform.variable("HOME"))
 * ```
 */
export function variable(name: string): string | undefined {
  // @effect-diagnostics-next-line processEnv:off
  return process.env[name] || undefined
}

/**
 * Has a process go on that was stopped, as by SIGSTOP; does nothing to one that ended.
 *
 * @example
 * ```ts
 * import * as Platform from "effect-jupyter/platform"
 *
 * Platform.resume(4711)
 * ```
 */
export function resume(pid: number): void {
  try {
    process.kill(pid, "SIGCONT")
  } catch {
    // It ended.
  }
}

/**
 * The home of the user, by HOME or by the system's list of users; `undefined` if there is none.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Platform from "effect-jupyter/platform"
 *
 * export const program = Effect.flatMap(Platform.home, (home = "/") => Effect.log(home))
 * ```
 */
export const home: Effect.Effect<string | undefined> = Effect.orElseSucceed(
  Effect.try(() => homedir() || undefined),
  () => undefined,
)
