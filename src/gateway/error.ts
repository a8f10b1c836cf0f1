/**
 * Errors of a gateway that does not start, does not answer or has ended.
 *
 * @module
 */
import { AssetsMissing } from "../assets.ts"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { orAbsent } from "../execution/json.ts"
import { InvalidOption } from "../options/check.ts"
import { FolderRefused, OptionsMismatch } from "./shared_error.ts"

export { FolderRefused, OptionsMismatch } from "./shared_error.ts"

const identifier = <const Tag extends string>(tag: Tag) => `effect-jupyter/KernelGateway/${tag}` as const
const Lines = Schema.Array(Schema.String)
const quoted = (lines: ReadonlyArray<string>): string => lines.length === 0 ? "" : `\n${lines.join("\n")}`

/**
 * The Python interpreter cannot run the gateway, or none was found.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make()).pipe(
 *   Effect.catchReason("GatewayError", "PythonNotFound", (reason) => Effect.logError(reason.detail))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class PythonNotFound extends Schema.TaggedError<PythonNotFound>(identifier("PythonNotFound"))(
  "PythonNotFound",
  {
    /** The interpreter that was tried. */
    python: Schema.String,
    /** The reason why it cannot be used. */
    detail: Schema.String,
  },
) {
  override get message(): string {
    return `The Python interpreter "${this.python}" cannot run a kernel gateway: ${this.detail}`
  }
}

/**
 * The managed environment could not be installed.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make()).pipe(
 *   Effect.catchReason("GatewayError", "ProvisioningFailed", (reason) => Effect.logError(reason.output.join("\n")))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ProvisioningFailed
  extends Schema.TaggedError<ProvisioningFailed>(identifier("ProvisioningFailed"))(
    "ProvisioningFailed",
    {
      /** The directory of the environment. */
      directory: Schema.String,
      /** The last lines of the installer's output. */
      output: Lines,
      /** The reason and advice, if known. */
      detail: Schema.optionalKey(Schema.String),
    },
  ) {
  override get message(): string {
    const detail = this.detail ??
      "check the network and the package names, or name an interpreter that has " +
        'them by the option "python" or the environment variable EFFECT_JUPYTER_PYTHON'
    return `The Python packages could not be installed into "${this.directory}"; ${detail}${
      quoted(this.output)
    }`
  }
}

/**
 * The gateway's process could not be started, or ended while it was starting.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make()).pipe(
 *   Effect.catchReason("GatewayError", "StartFailed", (reason) => Effect.logError(reason.output.join("\n")))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class StartFailed extends Schema.TaggedError<StartFailed>(identifier("StartFailed"))("StartFailed", {
  detail: Schema.String,
  /** The last lines of the gateway's log. */
  output: Lines,
}) {
  override get message(): string {
    return `The kernel gateway could not be started: ${this.detail}${quoted(this.output)}`
  }
}

/**
 * The gateway did not answer in time.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make()).pipe(
 *   Effect.catchReason("GatewayError", "StartTimeout", (reason) => Effect.logError(reason.timeout))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class StartTimeout
  extends Schema.TaggedError<StartTimeout>(identifier("StartTimeout"))("StartTimeout", {
    timeout: Schema.DurationFromString,
    /** The last lines of the gateway's log. */
    output: Lines,
  }) {
  override get message(): string {
    return `The kernel gateway did not answer within ${Duration.format(this.timeout)}; ` +
      `give it longer by the option "startTimeout"${quoted(this.output)}`
  }
}

/**
 * The requested port is in use.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make()).pipe(
 *   Effect.catchReason("GatewayError", "PortInUse", (reason) => Effect.logError(`Taken: ${reason.port}`))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class PortInUse extends Schema.TaggedError<PortInUse>(identifier("PortInUse"))("PortInUse", {
  host: Schema.String,
  port: Schema.Int,
}) {
  override get message(): string {
    return `The port "${this.port}" of "${this.host}" is in use; leave the option "port" out for a free one`
  }
}

/**
 * The gateway's process ended before its scope was closed.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make()).pipe(
 *   Effect.catchReason("GatewayError", "Exited", (reason) => Effect.logError(`Exit code ${reason.exitCode}`))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class Exited extends Schema.TaggedError<Exited>(identifier("Exited"))("Exited", {
  /** The exit code; 128 plus the number of the signal that killed it, `undefined` if it is unknown. */
  exitCode: orAbsent(Schema.Int),
  /** The last lines of the gateway's log. */
  output: Lines,
}) {
  override get message(): string {
    return `The kernel gateway ended with exit code ${
      this.exitCode ?? "unknown"
    }, and its kernels with it; ` +
      `build a new one${quoted(this.output)}`
  }
}

/**
 * The server refused the credentials.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make()).pipe(
 *   Effect.catchReason("GatewayError", "Unauthorized", (reason) => Effect.logError(`Status ${reason.status}`))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class Unauthorized
  extends Schema.TaggedError<Unauthorized>(identifier("Unauthorized"))("Unauthorized", {
    url: Schema.String,
    status: Schema.Int,
    /** The message of the server. */
    detail: Schema.optionalKey(Schema.String),
  }) {
  override get message(): string {
    const detail = this.detail === undefined ? "" : `: ${this.detail}`
    return `The server at "${this.url}" refused the token with status ${this.status}${detail}; ` +
      `check the option "token", and what the token permits`
  }
}

/**
 * An Effect that was given for the `token` or the `headers` of a server failed.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const gateway = KernelGateway.layerRemote({ url: "https://example.org", token: Effect.fail("no vault") }).pipe(
 *   Layer.catchTag("GatewayError", (error) =>
 *     error.reason._tag === "CredentialsFailed" ? KernelGateway.layer() : Layer.effectContext(Effect.fail(error)))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class CredentialsFailed
  extends Schema.TaggedError<CredentialsFailed>(identifier("CredentialsFailed"))("CredentialsFailed", {
    url: Schema.String,
    /** A description of the failure. */
    detail: Schema.String,
  }) {
  override get message(): string {
    return `There are no credentials for the server at "${this.url}": ${this.detail}; ` +
      `check the Effects of the options "token" and "headers"`
  }
}

/**
 * The server cannot be reached, or is not a Jupyter server.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make()).pipe(
 *   Effect.catchReason("GatewayError", "Unreachable", (reason) => Effect.logError(reason.detail))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class Unreachable extends Schema.TaggedError<Unreachable>(identifier("Unreachable"))("Unreachable", {
  url: Schema.String,
  detail: Schema.String,
  /** The HTTP status, if there was an answer. */
  status: Schema.optionalKey(Schema.Int),
}) {
  override get message(): string {
    return `There is no Jupyter server at "${this.url}": ${this.detail}`
  }
}

/**
 * The schema of {@link GatewayErrorReason}.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * const isReason = Schema.is(KernelGateway.GatewayErrorReason)
 * console.log(isReason(new KernelGateway.PortInUse({ host: "127.0.0.1", port: 80 }))) // => true
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const GatewayErrorReason = Schema.Union([
  AssetsMissing,
  InvalidOption,
  PythonNotFound,
  ProvisioningFailed,
  StartFailed,
  StartTimeout,
  PortInUse,
  Exited,
  Unauthorized,
  CredentialsFailed,
  Unreachable,
  OptionsMismatch,
  FolderRefused,
])

/** The reasons of a {@link GatewayError}. */
export type GatewayErrorReason = typeof GatewayErrorReason.Type

const GatewayErrorTypeId = "~effect-jupyter/KernelGateway/GatewayError"

/**
 * A gateway could not be started or reached, or has ended. `reason` has the details.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const gateway = KernelGateway.layer({ port: 8888 }).pipe(
 *   Layer.catchTag("GatewayError", (error) =>
 *     error.reason._tag === "PortInUse" ? KernelGateway.layer() : Layer.effectContext(Effect.fail(error)))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class GatewayError
  extends Schema.TaggedError<GatewayError>(identifier("GatewayError"))("GatewayError", {
    reason: GatewayErrorReason,
  }) {
  readonly [GatewayErrorTypeId] = GatewayErrorTypeId
  override readonly cause = this.reason
  override get message(): string {
    return this.reason.message
  }
}

/**
 * Tells whether a value is a {@link GatewayError}.
 *
 * @example
 * ```ts
 * import { KernelGateway } from "effect-jupyter"
 *
 * console.log(KernelGateway.isGatewayError(new Error("no"))) // => false
 * ```
 *
 * @category guards
 * @since 0.1.0
 */
export function isGatewayError(value: unknown): value is GatewayError {
  return Predicate.hasProperty(value, GatewayErrorTypeId)
}

/** Makes a {@link GatewayError} of a reason. */
export function gatewayError(reason: GatewayErrorReason): GatewayError {
  return new GatewayError({ reason })
}
