/**
 * What the library asks of the platform it runs on: files, child processes, HTTP. Node's implementation,
 * which Deno runs too.
 *
 * @module
 */
import * as NodeCrypto from "@effect/platform-node/NodeCrypto"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeServices from "@effect/platform-node/NodeServices"
import type * as Digest from "effect/crypto/Digest"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"

/** The services of the platform. */
export type Platform = NodeServices.NodeServices | HttpClient.HttpClient | Digest.Digest

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
  NodeServices.layer,
  NodeHttpClient.layerNodeHttp,
  NodeCrypto.layerDigest,
)
