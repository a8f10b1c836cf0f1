/**
 * Starts the local gateway: a child process with its descendants and a directory. All of them are removed when the scope
 * closes and when this process dies.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Defect from "../defect.ts"
import * as Assets from "../assets.ts"
import { Exited, type GatewayError, gatewayError, PortInUse, StartFailed, StartTimeout } from "./error.ts"
import { type SandboxError, sandboxError, SandboxErrorReason } from "../sandbox/error.ts"
import * as Platform from "../platform.ts"
import { plain } from "../jupyter/control_codes.ts"
import type { HostSettings } from "../sandbox/host.ts"
import { reasonLine } from "./exit_output.ts"
import * as RuntimeDir from "./runtime_dir.ts"
import * as Tail from "./tail.ts"

/** The command and the settings of a gateway. */
export interface ProcessOptions {
  readonly python: string
  readonly host: string
  /** 0 for a free one. */
  readonly port: number
  /** The working directory of kernels. */
  readonly workingDir: string
  /** The whole environment of the kernels. */
  readonly env: Readonly<Record<string, string>>
  /** The whole environment of the gateway itself, except its settings. */
  readonly ownEnv: Readonly<Record<string, string>>
  readonly token: Redacted.Redacted<string>
  /** True if programs on other machines are clients. */
  readonly isServed: boolean
  readonly logLevel: "Debug" | "Info" | "Warn" | "Error"
  readonly startTimeout: Duration.Input
  /** True if kernels may be forked from a process that has loaded IPython and `preload`. */
  readonly fork: boolean
  /** Modules that forked kernels have loaded. */
  readonly preload: ReadonlyArray<string>
  /** Bytes of output to keep of each kernel, which outlives its client; none by default. */
  readonly outputRetention?: number | undefined
  readonly sandbox: {
    readonly host: HostSettings
    /** Authorizes requests to set the rules of a sandboxed kernel. */
    readonly secret: Redacted.Redacted<string>
  } | undefined
  /** Called for each violation that a sandbox denied. */
  readonly onViolation: (kernelId: string | undefined, violation: string) => Effect.Effect<void>
}

/** A gateway that listens. */
export interface GatewayProcess {
  readonly port: number
  /** The environment of kernels, with the variables of the options. */
  readonly kernelEnv: Readonly<Record<string, string>>
  /** Succeeds when the gateway ended because the scope closed, fails with `Exited` if it ended before. */
  readonly join: Effect.Effect<void, GatewayError>
  /** Fails with `StartTimeout` and the last lines of the log. */
  readonly startTimeoutError: Effect.Effect<never, GatewayError>
}

const script = (name: string) =>
  Effect.mapError(Assets.find(`python/effect_jupyter/gateway/${name}`), gatewayError)

/** A line that `gateway/main.py` prints. */
const Line = Schema.Union([
  Schema.Struct({ port: Schema.Int }),
  Schema.Struct({ refused: SandboxErrorReason }),
  Schema.Struct({ violation: Schema.String, kernel: Schema.NullOr(Schema.String) }),
])
const decodeLine = Schema.decodeEffect(Schema.fromJsonString(Line))

/** Exit code of `gateway/main.py` if the port is in use. */
const portInUse = 98

/** The environment variables of kernels whose profiles and histories are removed with the gateway. */
export const profileOf = (runtimeDir: string) => ({ IPYTHONDIR: `${runtimeDir}/ipython` })

/** The parts in which the supervisor of one program's gateway and that of a shared one differ. */
export interface SupervisorOptions {
  readonly runtimeDir: string
  readonly stdin: "pipe" | "ignore"
  /** The argument of `shared.py`, if programs share the gateway. */
  readonly shared?: Redacted.Redacted<string>
}

/** Starts the supervisor of a gateway. */
export const spawn = Effect.fnUntraced(
  function* (options: ProcessOptions, { runtimeDir, shared, stdin }: SupervisorOptions) {
    const path = yield* Path.Path
    const supervisor = yield* script("supervisor.py")
    const gateway = yield* script("main.py")
    return yield* ChildProcess.make(
      // The working directory of the process is another one.
      options.python.includes("/") ? path.resolve(options.python) : options.python,
      [
        // With untrusted kernels, neither their environment variables nor their files change Python's module search.
        ...(options.sandbox === undefined ? [] : ["-E", "-S"]),
        supervisor,
        runtimeDir,
        gateway,
      ],
      {
        // Python must not import modules from the working directory of the program.
        cwd: "/",
        stdin,
        env: {
          ...profileOf(runtimeDir),
          ...options.ownEnv,
          // Jupyter settings of the user do not apply to the gateway.
          JUPYTER_RUNTIME_DIR: runtimeDir,
          JUPYTER_PATH: [runtimeDir, ...kernelspecsOf(options)].join(":"),
          JUPYTER_NO_CONFIG: "1",
          KG_AUTH_TOKEN: options.token,
          // Not as an argument, which other users can read.
          EFFECT_JUPYTER_SETTINGS: Redacted.make(settingsOf(options, runtimeDir, shared !== undefined), {
            label: "gateway settings",
          }),
          ...(shared === undefined ? {} : { EFFECT_JUPYTER_SHARED: shared }),
          ...(options.sandbox === undefined
            ? {}
            : { EFFECT_JUPYTER_HIDDEN: options.sandbox.host.sharedGateways }),
        },
        // Longer than the supervisor may take: only it knows all processes to end.
        forceKillAfter: "10 seconds",
      },
    ).pipe(
      Effect.mapError((error) =>
        gatewayError(new StartFailed({ detail: Platform.describe(error), output: [] }))
      ),
    )
  },
)

/** Starts a gateway and waits until it listens. */
export const start = Effect.fnUntraced(function* (options: ProcessOptions) {
  const tail = Tail.make()
  /** Without control codes: kernels write to the log too, and errors may be shown in a terminal. */
  const output = () => tail.lines().map(plain)
  const runtimeDir = yield* RuntimeDir.make
  const kernelEnv = { ...profileOf(runtimeDir), ...options.env }
  const closing = yield* Deferred.make<void>()
  // Nothing is written: the supervisor waits until the pipe closes, which it does when this process dies.
  const handle = yield* spawn(options, { runtimeDir, stdin: "pipe" })
  yield* Effect.addFinalizer(() =>
    Deferred.succeed(closing, undefined).pipe(
      // A stopped process would not react to the end of its input.
      Effect.andThen(handle.isRunning),
      Effect.map((isRunning) => isRunning ? Platform.resume(handle.pid) : undefined),
      Effect.ignore,
    )
  )

  const port = yield* Deferred.make<number, SandboxError>()
  const logs = yield* tail.follow(handle.stderr, (line) => Effect.logDebug(plain(line))).pipe(
    Effect.annotateLogs("gateway", handle.pid),
    Defect.log,
    Effect.forkScoped,
  )
  const stdoutReader = yield* handle.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) =>
      Effect.flatMap(
        decodeLine(line),
        (message): Effect.Effect<unknown> =>
          "port" in message
            ? Deferred.succeed(port, message.port)
            : "refused" in message
            ? Deferred.fail(port, sandboxError(message.refused))
            : options.onViolation(message.kernel ?? undefined, message.violation),
      ).pipe(
        // Libraries in the gateway may print other lines.
        Effect.ignore,
      )
    ),
    Effect.ignore,
    Defect.log,
    Effect.forkScoped,
  )

  const exitCode = Effect.match(handle.exitCode, { onSuccess: Number, onFailure: () => undefined }).pipe(
    // The exit is known before the last lines are read.
    Effect.tap(
      Effect.timeoutOption(Effect.andThen(Fiber.await(logs), Fiber.await(stdoutReader)), "500 millis"),
    ),
  )
  const join = Effect.flatMap(
    exitCode,
    (code) =>
      Deferred.isDoneUnsafe(closing)
        ? Effect.void
        : Effect.fail(gatewayError(new Exited({ exitCode: code, output: output() }))),
  )
  const exitBeforeListening = Effect.flatMap(
    exitCode,
    (code): Effect.Effect<number, GatewayError | SandboxError> =>
      Deferred.isDoneUnsafe(port) ? Deferred.await(port) : startFailure(options, code, output()),
  )
  const startTimeoutError = Effect.suspend(() =>
    gatewayError(
      new StartTimeout({ timeout: Duration.fromInputUnsafe(options.startTimeout), output: output() }),
    )
  )
  const listening = yield* Effect.raceFirst(Deferred.await(port), exitBeforeListening).pipe(
    Effect.timeoutOrElse({ duration: options.startTimeout, orElse: () => startTimeoutError }),
  )
  const process: GatewayProcess = { port: listening, kernelEnv, join, startTimeoutError }
  return process
})

/** Returns the settings of `gateway/main.py` as JSON. */
function settingsOf(options: ProcessOptions, runtimeDir: string, shared: boolean): string {
  const { sandbox } = options
  return JSON.stringify({
    host: options.host,
    port: options.port,
    workingDir: options.workingDir,
    runtimeDir,
    logLevel: options.logLevel.toUpperCase(),
    // The environment of untrusted code is set in its sandbox only, and programs on other machines do not know it.
    kernelEnv: sandbox === undefined || options.isServed
      ? { ...profileOf(runtimeDir), ...options.env }
      : null,
    isServed: options.isServed,
    fork: options.fork,
    preload: options.preload,
    outputRetention: options.outputRetention ?? null,
    shared,
    sandbox: sandbox?.host ?? null,
    secret: sandbox === undefined ? null : Redacted.value(sandbox.secret),
  })
}

/** Fails with the reason why a gateway ended before it listened. */
export function startFailure(
  options: ProcessOptions,
  exitCode: number | undefined,
  output: ReadonlyArray<string>,
): Effect.Effect<never, GatewayError> {
  if (exitCode === portInUse) {
    return Effect.fail(gatewayError(new PortInUse({ host: options.host, port: options.port })))
  }
  const ended = `It ended with exit code ${
    exitCode ?? "unknown"
  }; check the options "env", "preload" and "python"`
  const reason = reasonLine(output)
  return Effect.fail(gatewayError(
    new StartFailed({ detail: reason === undefined ? ended : `${reason.trim()} (${ended})`, output }),
  ))
}

/** Returns further folders with kernelspecs of the user. A sandboxed gateway has only its own kernel. */
function kernelspecsOf({ env, sandbox }: ProcessOptions): ReadonlyArray<string> {
  const path = env.JUPYTER_PATH ?? Platform.variable("JUPYTER_PATH")
  return sandbox !== undefined || path === undefined ? [] : [path]
}
