/**
 * The permissions of untrusted code in an operating-system sandbox, and the actions that the sandbox denied.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Connection from "./gateway/connection.ts"
import { KernelGateway } from "./kernel_gateway.ts"
import type { Violation } from "./sandbox/violation.ts"

export {
  InvalidSettings,
  isSandboxError,
  NamespacesDisabled,
  RunningAsRoot,
  SandboxError,
  SandboxErrorReason,
  StartFailed,
  ToolMissing,
  UnsupportedPlatform,
} from "./sandbox/error.ts"
export type { Input, Limits, Permissions, SettingsFile, User } from "./sandbox/permissions.ts"
export { Violation } from "./sandbox/violation.ts"

/**
 * Streams the actions that the sandboxes of a gateway deny from now on: every connection, and on macOS others too.
 * The stream of a gateway without a sandbox is empty. A slow consumer loses the oldest of more than 1,000 violations.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Sandbox } from "effect-jupyter"
 *
 * export const audit = Stream.runForEach(
 *   Sandbox.violations,
 *   ({ host, kernelId }) => Effect.logWarning(`The kernel ${kernelId} wanted to reach ${host}`)
 * )
 * ```
 *
 * @category utils
 * @since 0.1.0
 */
export const violations: Stream.Stream<Violation, never, KernelGateway> = Stream.unwrap(
  Effect.map(KernelGateway, (gateway) => {
    const sandbox = Connection.sandboxOf(gateway)
    return sandbox === undefined ? Stream.empty : Stream.fromPubSub(sandbox.violations)
  }),
)
