/**
 * Errors of gateways that programs share.
 *
 * @module
 */
import * as Schema from "effect/Schema"

const identifier = <const Tag extends string>(tag: Tag) => `effect-jupyter/KernelGateway/${tag}` as const

/**
 * A shared gateway runs under the name, with other options than those that were given.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.makeShared({ name: "fresh", fork: false })).pipe(
 *   Effect.catchReason("GatewayError", "OptionsMismatch", ({ differences }) =>
 *     Effect.logError(differences.map(({ option }) => option)))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class OptionsMismatch
  extends Schema.TaggedError<OptionsMismatch>(identifier("OptionsMismatch"))("OptionsMismatch", {
    /** The name of the gateway. */
    name: Schema.String,
    /** The options that differ, with their values as JSON; `undefined` for those that are absent or secret. */
    differences: Schema.Array(Schema.Struct({
      option: Schema.String,
      running: Schema.optionalKey(Schema.String),
      given: Schema.optionalKey(Schema.String),
    })),
  }) {
  override get message(): string {
    const differences = this.differences.map(({ given, option, running }) =>
      `"${option}" is ${running ?? "another"} there, and ${given ?? "another"} here`
    )
    return `The shared gateway "${this.name}" runs with other options: ${differences.join("; ")}; ` +
      `give the same options or another name, or end the gateway by KernelGateway.stopShared`
  }
}

/**
 * The folder of a shared gateway cannot be trusted: it is not a folder of this user alone.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.makeShared({ name: "analysis", idleTimeToLive: "1 hour" })).pipe(
 *   Effect.catchReason("GatewayError", "FolderRefused", (reason) => Effect.logError(reason.folder))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class FolderRefused
  extends Schema.TaggedError<FolderRefused>(identifier("FolderRefused"))("FolderRefused", {
    folder: Schema.String,
    /** The reason why it cannot be used. */
    detail: Schema.String,
  }) {
  override get message(): string {
    return `The folder "${this.folder}" of shared gateways cannot be used: ${this.detail}`
  }
}
