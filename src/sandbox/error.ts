/**
 * Errors of a sandbox that cannot be started.
 *
 * @module
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { orAbsent } from "../execution/json.ts"

const identifier = <const Tag extends string>(tag: Tag) => `effect-jupyter/Sandbox/${tag}` as const
const Lines = Schema.Array(Schema.String)
const quoted = (lines: ReadonlyArray<string>): string => lines.length === 0 ? "" : `\n${lines.join("\n")}`

/**
 * A program that the sandbox requires is not installed.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make({ sandbox: true })).pipe(
 *   Effect.catchReason("SandboxError", "ToolMissing", (reason) => Effect.logError(reason.tools.join(", ")))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ToolMissing extends Schema.TaggedError<ToolMissing>(identifier("ToolMissing"))("ToolMissing", {
  /** The missing tools: `bwrap`, `socat`, `rg` or `bash` on the PATH, or the package of the sandbox runtime. */
  tools: Schema.Array(Schema.String),
  /** The packages that contain them. */
  packages: Schema.Array(Schema.String),
  /** The command that installs them, if it is not the system's package manager. */
  command: Schema.optionalKey(Schema.String),
}) {
  override get message(): string {
    const run = this.command === undefined
      ? `the script "sandbox/install.sh" of this package, or "sudo apt-get install -y ${
        this.packages.join(" ")
      }"`
      : `"${this.command}"`
    return `The sandbox needs "${this.tools.join('", "')}", which is not installed; run ${run}`
  }
}

/**
 * The system does not allow unprivileged users to create namespaces.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make({ sandbox: true })).pipe(
 *   Effect.catchReason("SandboxError", "NamespacesDisabled", (reason) => Effect.logError(reason.command))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class NamespacesDisabled
  extends Schema.TaggedError<NamespacesDisabled>(identifier("NamespacesDisabled"))("NamespacesDisabled", {
    detail: Schema.String,
    /** The command that allows them. */
    command: Schema.String,
    /** The output of bubblewrap. */
    output: Lines,
  }) {
  override get message(): string {
    return `The system lets the sandbox create no namespaces. ${this.detail}; run "${this.command}"` +
      quoted(this.output)
  }
}

/**
 * The permissions, or the settings file, are not valid.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make({ sandbox: { allowWrite: ["*.csv"] } })).pipe(
 *   Effect.catchReason("SandboxError", "InvalidSettings", (reason) => Effect.logError(reason.key))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSettings
  extends Schema.TaggedError<InvalidSettings>(identifier("InvalidSettings"))("InvalidSettings", {
    /** The settings file, if they came from one. */
    file: orAbsent(Schema.String),
    /** The path of the key, for instance `"allowNet[0]"`; empty for the whole. */
    key: Schema.String,
    detail: Schema.String,
  }) {
  override get message(): string {
    const where = [this.key, this.file].filter((part) => part !== undefined && part !== "")
    return `The sandbox settings are not valid${
      where.length === 0 ? "" : ` at "${where.join('" of "')}"`
    }: ` +
      this.detail
  }
}

/**
 * The process runs as root, and no other user was given for the kernels.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make({ sandbox: true })).pipe(
 *   Effect.catchReason("SandboxError", "RunningAsRoot", (reason) => Effect.logError(reason.message))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class RunningAsRoot
  extends Schema.TaggedError<RunningAsRoot>(identifier("RunningAsRoot"))("RunningAsRoot", {}) {
  override get message(): string {
    return 'The process runs as root, and a sandbox of root leaks; give the option "sandbox" the permission ' +
      '"user", for instance { uid: 65534, gid: 65534 }, or run the program as another user'
  }
}

/**
 * The sandbox could not be started although its requirements seem to be met.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway, Sandbox } from "effect-jupyter"
 *
 * const isStart = (error: unknown) => Sandbox.isSandboxError(error) && error.reason._tag === "StartFailed"
 *
 * export const program = Effect.scoped(KernelGateway.make({ sandbox: true })).pipe(
 *   Effect.tapError((error) => isStart(error) ? Effect.logError(error.message) : Effect.void)
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class StartFailed extends Schema.TaggedError<StartFailed>(identifier("StartFailed"))("StartFailed", {
  detail: Schema.String,
  /** The output of the sandbox. */
  output: Lines,
}) {
  override get message(): string {
    return `The sandbox could not be started: ${this.detail}${quoted(this.output)}`
  }
}

/**
 * There is no sandbox for this platform.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make({ sandbox: true })).pipe(
 *   Effect.catchReason("SandboxError", "UnsupportedPlatform", (reason) => Effect.logError(reason.platform))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class UnsupportedPlatform
  extends Schema.TaggedError<UnsupportedPlatform>(identifier("UnsupportedPlatform"))("UnsupportedPlatform", {
    platform: Schema.String,
  }) {
  override get message(): string {
    return `There is no sandbox for "${this.platform}"; run the kernels on Linux`
  }
}

/**
 * The schema of {@link SandboxErrorReason}.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Sandbox } from "effect-jupyter"
 *
 * const isReason = Schema.is(Sandbox.SandboxErrorReason)
 * console.log(isReason(new Sandbox.RunningAsRoot())) // => true
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const SandboxErrorReason = Schema.Union([
  ToolMissing,
  NamespacesDisabled,
  InvalidSettings,
  RunningAsRoot,
  StartFailed,
  UnsupportedPlatform,
])

/** The reasons of a {@link SandboxError}. */
export type SandboxErrorReason = typeof SandboxErrorReason.Type

const SandboxErrorTypeId = "~effect-jupyter/Sandbox/SandboxError"

/**
 * The sandbox could not be started, and no kernel was. `reason` has the details.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const gateway = KernelGateway.layer({ sandbox: true }).pipe(
 *   Layer.tapError((error) => error._tag === "SandboxError" ? Effect.logError(error.message) : Effect.void)
 * )
 * import { Effect } from "effect"
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class SandboxError
  extends Schema.TaggedError<SandboxError>(identifier("SandboxError"))("SandboxError", {
    reason: SandboxErrorReason,
  }) {
  readonly [SandboxErrorTypeId] = SandboxErrorTypeId
  override readonly cause = this.reason
  override get message(): string {
    return this.reason.message
  }
}

/**
 * Tells whether a value is a {@link SandboxError}.
 *
 * @example
 * ```ts
 * import { Sandbox } from "effect-jupyter"
 *
 * console.log(Sandbox.isSandboxError(new Error("no"))) // => false
 * ```
 *
 * @category guards
 * @since 0.1.0
 */
export function isSandboxError(value: unknown): value is SandboxError {
  return Predicate.hasProperty(value, SandboxErrorTypeId)
}

/** The failure for a reason. */
export function sandboxError(reason: SandboxErrorReason): SandboxError {
  return new SandboxError({ reason })
}
