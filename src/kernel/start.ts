/**
 * From options to a kernel that is ready for its first execution.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { KernelError, KernelStartFailed } from "../execution.ts"
import type * as Gateway from "../gateway/connection.ts"
import * as Options from "../options/check.ts"
import * as Permissions from "../sandbox/permissions.ts"
import * as Rules from "../sandbox/rules.ts"
import * as Connection from "./connection.ts"
import * as Identity from "./identity.ts"
import * as Setup from "./setup.ts"
import * as Usage from "./usage.ts"

/** Which kernel to start and how. */
export interface StartOptions {
  /**
   * The kernel's working directory, restored after each execution that changed it, with a line on stdout that
   * says so. By default the kernel starts in the gateway's `workingDir` and may go elsewhere.
   */
  readonly workingDir?: string | undefined
  /**
   * The kernelspec; the gateway's default, Python, if absent. Kernels of other languages execute, and fail with the
   * reason `Unsupported` where Python is needed.
   */
  readonly kernelName?: string | undefined
  /**
   * Environment variables of the kernel, besides those of the gateway's option `env`. Where a server may not pass them
   * on, Python has them set before the first execution, and a warning names them for other languages.
   */
  readonly env?: Record<string, string> | undefined
  /**
   * What the kernel may do; all that its gateway allows by default. May take away from that and not add to it:
   * what is not given here is denied, but for `allowWrite`, which stays the gateway's.
   */
  readonly sandbox?: true | Permissions.Permissions | Permissions.SettingsFile | undefined
  /** Bound of the start; 30 seconds by default. */
  readonly initTimeout?: Duration.Input | undefined
  /**
   * Bytes of a message of the kernel; 512 MiB by default. An execution that sends a larger one fails with the reason
   * `ProtocolViolation`, and the kernel can be used further.
   */
  readonly maxMessageSize?: number | undefined
  /** How often the connection and the kernel are checked for life; 10 seconds by default. */
  readonly pingInterval?: Duration.Input | undefined
  /** How often the kernel is asked for its memory and CPU use, for the metrics; never by default. */
  readonly usageInterval?: Duration.Input | undefined
}

/** What starts a kernel, connects to it and sets it up; with the scope it is deleted. */
export type Start = Effect.Effect<Connection.Connection, KernelError, Scope.Scope>

/** Bound of a start unless the options say otherwise. */
export const defaultTimeout: Duration.Input = "30 seconds"

/** Reads what a start needs and gives what starts kernels of a gateway. */
export const load: (
  options: StartOptions,
) => Effect.Effect<(gateway: Gateway.Connection) => Start, never, FileSystem.FileSystem | Path.Path> = Effect
  .fnUntraced(function* (options) {
    const { env = {}, initTimeout = defaultTimeout, kernelName, pingInterval = "10 seconds" } = options
    const path = yield* Path.Path
    const named = options.workingDir === undefined ? [] : [options.workingDir]
    const checked = yield* Options.check(Options.Kernel, { ...options }).pipe(
      Effect.andThen(Effect.forEach(named, (folder) => Options.resolve(path, "workingDir", folder))),
      Effect.result,
    )
    if (Result.isFailure(checked)) {
      const failure = new KernelError({ reason: checked.failure })
      return () => Effect.fail(failure)
    }
    const [workingDir] = checked.success
    const setup = yield* Setup.load({ workingDir })
    const platform = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
    return (gateway) =>
      Effect.gen(function* () {
        const rules = yield* Effect.provideContext(rulesOf(gateway, options.sandbox), platform)
        const link = yield* Connection.make(gateway, {
          kernelName,
          env: { ...env, ...rules },
          startTimeout: initTimeout,
          pingInterval,
          maxMessageSize: options.maxMessageSize,
        })
        // The default kernel of our own gateways.
        const isKnown = gateway.isOwn && kernelName === undefined
        const identity = isKnown ? Identity.ipython : yield* Setup.identify(link)
        const connection: Connection.Connection = { ...link, identity }
        yield* setup(connection, gateway.isOwn ? {} : env)
        if (options.usageInterval !== undefined) yield* Usage.report(connection, options.usageInterval)
        return connection
      }).pipe(
        Effect.timeoutOrElse({
          duration: initTimeout,
          orElse: () => new KernelError({ reason: Connection.notReady(initTimeout) }),
        }),
      )
  })

/** The rules of the kernel as a variable, which the gateway takes away before the kernel starts. */
const rulesOf = Effect.fnUntraced(
  function* ({ sandbox }: Gateway.Connection, asked: StartOptions["sandbox"]) {
    if (sandbox === undefined) {
      return asked === undefined ? {} : yield* Permissions.invalid(
        "sandbox",
        'The gateway has no sandbox; give its option "sandbox"',
      )
    }
    const rules = asked === undefined
      ? sandbox.rules
      : yield* Rules.narrow(sandbox.rules, yield* Permissions.read(asked), sandbox.workspace)
    const secret = Redacted.value(sandbox.secret)
    return { EFFECT_JUPYTER_SANDBOX: JSON.stringify({ secret, rules }) }
  },
  Effect.mapError((error) =>
    new KernelError({ reason: new KernelStartFailed({ kernelId: undefined, detail: error.message }) })
  ),
)
