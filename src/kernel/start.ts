/**
 * Starts a kernel by its options, connects to it and sets it up.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { KernelError, type KernelRef, KernelStartFailed } from "../execution.ts"
import type * as Gateway from "../gateway/connection.ts"
import * as Options from "../options/check.ts"
import * as Permissions from "../sandbox/permissions.ts"
import * as Rules from "../sandbox/rules.ts"
import type { KernelConnection } from "./connection.ts"
import * as GatewayKernel from "./gateway_kernel.ts"
import * as Identity from "./identity.ts"
import * as Instance from "./instance.ts"
import * as Setup from "./setup.ts"
import { notReady } from "./start_failure.ts"
import * as Usage from "./usage.ts"

/** Options of the start of a kernel. */
export interface StartOptions {
  /**
   * The kernel's working directory. It is restored after each execution that changed it, with a note on stdout. By
   * default the kernel starts in the gateway's `workingDir`, and the working directory is not restored.
   */
  readonly workingDir?: string | undefined
  /**
   * The name of the kernelspec; the gateway's default, which is Python, if absent. Kernels of other languages execute
   * code; operations that need Python fail with the reason `Unsupported`.
   */
  readonly kernelName?: string | undefined
  /**
   * Environment variables of the kernel, besides those of the gateway's option `env`. A remote server may ignore them,
   * except those that begin with `KERNEL_`: in a Python kernel they are therefore set before the first execution, and for
   * other languages a warning is logged.
   */
  readonly env?: Record<string, string> | undefined
  /**
   * The user that an Enterprise Gateway starts the kernel for, as the variable `KERNEL_USERNAME`; that of the gateway by
   * default.
   */
  readonly user?: string | undefined
  /**
   * The permissions of the kernel; those of its gateway by default. They can only restrict those of the gateway.
   * Permissions that are not given are denied, except `allowWrite`, whose default is that of the gateway.
   */
  readonly sandbox?: true | Permissions.Permissions | Permissions.SettingsFile | undefined
  /** Maximum time of the start; 30 seconds by default. */
  readonly initTimeout?: Duration.Input | undefined
  /**
   * Maximum bytes of a message of the kernel; 512 MiB by default. An execution that sends a larger one fails with the
   * reason `ProtocolViolation`; the kernel stays usable.
   */
  readonly maxMessageSize?: number | undefined
  /** The interval of checks that the connection and the kernel are alive; 10 seconds by default. */
  readonly pingInterval?: Duration.Input | undefined
  /** The interval at which metrics of the kernel's memory and CPU use are updated; never by default. */
  readonly usageInterval?: Duration.Input | undefined
}

/** Starts a kernel, connects to it and sets it up. The kernel is deleted when the scope closes. */
export type Start = Effect.Effect<Instance.Instance, KernelError, Scope.Scope>

/** The default of {@link StartOptions.initTimeout}. */
export const defaultTimeout: Duration.Input = "30 seconds"

/** Connects to a kernel that another client has started; deletes it when the scope closes if `deletes` is set. */
export const attach = (
  gateway: Gateway.Connection,
  ref: KernelRef,
  { deletes, initTimeout = defaultTimeout, maxMessageSize, pingInterval = "10 seconds", usageInterval }:
    & Pick<StartOptions, "initTimeout" | "maxMessageSize" | "pingInterval" | "usageInterval">
    & { readonly deletes: boolean },
): Start =>
  Effect.gen(function* () {
    const connection = yield* GatewayKernel.attach(gateway, ref, {
      startTimeout: initTimeout,
      pingInterval,
      maxMessageSize,
    })
    // A kernel that serves its client itself is known, and need not answer.
    const identity = connection.isDirect
      ? Identity.ipython
      : yield* Effect.catch(identityOf(connection), (error) =>
        // The reason of the end of the kernel is known somewhat later than the end.
        Effect.timeoutOrElse(connection.ended, { duration: "3 seconds", orElse: () => error }))
    const instance = yield* Instance.make(connection, identity)
    // One that could not be used stays for another attempt.
    if (deletes) yield* connection.durable.reclaim
    if (usageInterval !== undefined) yield* Usage.report(instance, usageInterval)
    return instance
  }).pipe(
    Effect.timeoutOrElse({
      duration: initTimeout,
      orElse: () => new KernelError({ reason: notReady(initTimeout) }),
    }),
  )

/** Returns the identity of a kernel, which may be busy: the control channel does not wait for the code. */
const identityOf = (connection: KernelConnection): Effect.Effect<Identity.Identity, KernelError> =>
  Effect.raceFirst(Setup.identify(connection), Setup.identify(connection, { channel: "control" }))

/** Reads the files that a start needs, and returns a function that starts kernels on a gateway. */
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
        if (workingDir !== undefined) yield* requirePythonSpec(gateway, kernelName)
        const connection = yield* GatewayKernel.make(gateway, {
          kernelName,
          env: { ...(gateway.isOwn ? {} : remoteEnv(options, workingDir)), ...env, ...rules },
          startTimeout: initTimeout,
          pingInterval,
          maxMessageSize: options.maxMessageSize,
        })
        // The default kernel of a gateway of this library is known, which saves a request.
        const isKnown = connection.isDirect && kernelName === undefined
        const identity = isKnown ? Identity.ipython : yield* Setup.identify(connection)
        const instance = yield* Instance.make(connection, identity)
        yield* setup(instance, gateway.isOwn ? {} : env)
        if (options.usageInterval !== undefined) yield* Usage.report(instance, options.usageInterval)
        return instance
      }).pipe(
        Effect.timeoutOrElse({
          duration: initTimeout,
          orElse: () => new KernelError({ reason: notReady(initTimeout) }),
        }),
      )
  })

/** Fails with `Unsupported` if the server says that the kernelspec is of another language, before it is started. */
const requirePythonSpec = Effect.fnUntraced(function* (
  { isOwn, rest }: Gateway.Connection,
  kernelName: string | undefined,
) {
  if (isOwn && kernelName === undefined) return
  const specs = yield* Effect.option(rest.kernelspecs)
  if (Option.isNone(specs)) return
  const { default: defaultName, kernelspecs } = specs.value
  // If it does not say, the kernel does when it has started.
  const language = kernelspecs[kernelName ?? defaultName ?? ""]?.spec?.language ?? ""
  if (language !== "") yield* Identity.requirePython({ ...Identity.ipython, language }, "workingDir")
})

/** Returns the variables by which a server that starts kernels elsewhere, as Enterprise Gateway, takes options. */
const remoteEnv = (
  { initTimeout, user }: StartOptions,
  workingDir: string | undefined,
): Record<string, string> => ({
  ...(user === undefined ? {} : { KERNEL_USERNAME: user }),
  ...(workingDir === undefined ? {} : { KERNEL_WORKING_DIR: workingDir }),
  // Whole seconds. The default is that of Enterprise Gateway.
  ...(initTimeout === undefined
    ? {}
    : { KERNEL_LAUNCH_TIMEOUT: String(Math.max(1, Math.ceil(Duration.toSeconds(initTimeout)))) }),
})

/** Returns the rules of the kernel as an environment variable, which the gateway removes before the kernel starts. */
const rulesOf = Effect.fnUntraced(
  function* ({ isServed, sandbox }: Gateway.Connection, asked: StartOptions["sandbox"]) {
    if (isServed && asked !== undefined) {
      // A gateway on another machine knows its rules and its files, and does not trust its clients.
      return { EFFECT_JUPYTER_PERMISSIONS: Permissions.encode(yield* Permissions.read(asked)) }
    }
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
