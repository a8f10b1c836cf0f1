/**
 * Our own gateway: one child process, everything it starts, and one directory, all gone when the scope
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
import { headline } from "./last_words.ts"
import * as RuntimeDir from "./runtime_dir.ts"
import * as Tail from "./tail.ts"

/** What to run and how. */
export interface ProcessOptions {
  readonly python: string
  readonly host: string
  /** 0 for a free one. */
  readonly port: number
  /** Where kernels start. */
  readonly workingDir: string
  /** The whole environment of the kernels. */
  readonly env: Readonly<Record<string, string>>
  /** The whole environment of the gateway itself, but for its settings. */
  readonly ownEnv: Readonly<Record<string, string>>
  readonly token: Redacted.Redacted<string>
  readonly logLevel: "Debug" | "Info" | "Warn" | "Error"
  readonly startTimeout: Duration.Input
  /** Whether kernels may be forked from a process that has loaded what they need. */
  readonly fork: boolean
  /** Modules that such kernels have loaded from the start. */
  readonly preload: ReadonlyArray<string>
  readonly sandbox: {
    readonly host: HostSettings
    /** What a request has to know in order to say what a sandboxed kernel may do. */
    readonly secret: Redacted.Redacted<string>
  } | undefined
  /** Called for each thing that a sandbox denied. */
  readonly onViolation: (kernelId: string | undefined, violation: string) => Effect.Effect<void>
}

/** A gateway that listens. */
export interface GatewayProcess {
  readonly port: number
  /** What a kernel has to find in its environment, the variables of the options included. */
  readonly kernelEnv: Readonly<Record<string, string>>
  /** Succeeds when the gateway ended because the scope closed, fails with `Exited` if it ended before. */
  readonly join: Effect.Effect<void, GatewayError>
  /** The failure of a gateway that does not answer in time, with what it has logged by now. */
  readonly tooLate: Effect.Effect<never, GatewayError>
}

const script = (name: string) =>
  Effect.mapError(Assets.find(`python/effect_jupyter/gateway/${name}`), gatewayError)

/** What `gateway/main.py` prints. */
const Line = Schema.Union([
  Schema.Struct({ port: Schema.Int }),
  Schema.Struct({ refused: SandboxErrorReason }),
  Schema.Struct({ violation: Schema.String, kernel: Schema.NullOr(Schema.String) }),
])
const decodeLine = Schema.decodeEffect(Schema.fromJsonString(Line))

/** The status with which `gateway/main.py` ends if the port is taken. */
const portTaken = 98

/** Starts a gateway and waits until it listens. */
export const start = Effect.fnUntraced(function* (options: ProcessOptions) {
  const path = yield* Path.Path
  const tail = Tail.make()
  const supervisor = yield* script("supervisor.py")
  const gateway = yield* script("main.py")
  /** Kernels write there too, and what they write must not reach a terminal with our errors. */
  const output = () => tail.lines().map(plain)
  const runtimeDir = yield* RuntimeDir.make
  // Profiles and histories of kernels go with the gateway.
  const profile = { IPYTHONDIR: `${runtimeDir}/ipython` }
  const kernelEnv = { ...profile, ...options.env }
  const closing = yield* Deferred.make<void>()
  const handle = yield* ChildProcess.make(
    // Seen from the directory below.
    options.python.includes("/") ? path.resolve(options.python) : options.python,
    [
      // Next to untrusted code neither the variables nor the files of the kernels lead Python to other modules.
      ...(options.sandbox === undefined ? [] : ["-E", "-S"]),
      supervisor,
      runtimeDir,
      gateway,
    ],
    {
      // What lies in the working directory of the program is no module of ours.
      cwd: "/",
      // Nothing is ever written: this pipe closes when our process dies, and the supervisor waits for that.
      stdin: "pipe",
      env: {
        ...profile,
        ...options.ownEnv,
        // Settings of the user do not change the gateway.
        JUPYTER_RUNTIME_DIR: runtimeDir,
        JUPYTER_PATH: [runtimeDir, ...kernelspecsOf(options)].join(":"),
        JUPYTER_NO_CONFIG: "1",
        KG_AUTH_TOKEN: options.token,
        // Not as an argument: everybody can read those.
        EFFECT_JUPYTER_SETTINGS: Redacted.make(settingsOf(options, { runtimeDir, kernelEnv }), {
          label: "gateway settings",
        }),
      },
      // Longer than the supervisor may take: nobody else knows all that has to go.
      forceKillAfter: "10 seconds",
    },
  ).pipe(
    Effect.mapError((error) =>
      gatewayError(new StartFailed({ detail: Platform.inWords(error), output: [] }))
    ),
  )
  yield* Effect.addFinalizer(() =>
    Deferred.succeed(closing, undefined).pipe(
      // One that was stopped would not hear that it is to end.
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
  const told = yield* handle.stdout.pipe(
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
        // A library inside the gateway may print.
        Effect.ignore,
      )
    ),
    Effect.ignore,
    Defect.log,
    Effect.forkScoped,
  )

  const exitCode = Effect.match(handle.exitCode, { onSuccess: Number, onFailure: () => undefined }).pipe(
    // The exit is known before the last lines are read.
    Effect.tap(Effect.timeoutOption(Effect.andThen(Fiber.await(logs), Fiber.await(told)), "500 millis")),
  )
  const join = Effect.flatMap(
    exitCode,
    (code) =>
      Deferred.isDoneUnsafe(closing)
        ? Effect.void
        : Effect.fail(gatewayError(new Exited({ exitCode: code, output: output() }))),
  )
  const gaveUp = Effect.flatMap(
    exitCode,
    (code): Effect.Effect<number, GatewayError | SandboxError> =>
      Deferred.isDoneUnsafe(port) ? Deferred.await(port) : Effect.fail(gatewayError(
        code === portTaken
          ? new PortInUse({ host: options.host, port: options.port })
          : startFailed(code, output()),
      )),
  )
  const tooLate = Effect.suspend(() =>
    gatewayError(
      new StartTimeout({ timeout: Duration.fromInputUnsafe(options.startTimeout), output: output() }),
    )
  )
  const listening = yield* Effect.raceFirst(Deferred.await(port), gaveUp).pipe(
    Effect.timeoutOrElse({ duration: options.startTimeout, orElse: () => tooLate }),
  )
  const process: GatewayProcess = { port: listening, kernelEnv, join, tooLate }
  return process
})

/** What `gateway/main.py` is to know, as JSON. */
function settingsOf(
  options: ProcessOptions,
  { kernelEnv, runtimeDir }: Pick<GatewayProcess, "kernelEnv"> & { readonly runtimeDir: string },
): string {
  const { sandbox } = options
  return JSON.stringify({
    host: options.host,
    port: options.port,
    workingDir: options.workingDir,
    runtimeDir,
    logLevel: options.logLevel.toUpperCase(),
    // Nothing of untrusted code is outside of its sandbox.
    kernelEnv: sandbox === undefined ? kernelEnv : null,
    fork: options.fork,
    preload: options.preload,
    sandbox: sandbox?.host ?? null,
    secret: sandbox === undefined ? null : Redacted.value(sandbox.secret),
  })
}

function startFailed(exitCode: number | undefined, output: ReadonlyArray<string>): StartFailed {
  const ended = `It ended with exit code ${
    exitCode ?? "unknown"
  }; check the options "env", "preload" and "python"`
  const reason = headline(output)
  return new StartFailed({ detail: reason === undefined ? ended : `${reason.trim()} (${ended})`, output })
}

/** Where kernelspecs of the user are besides the usual places; a sandboxed gateway has no kernel but its own. */
function kernelspecsOf({ env, sandbox }: ProcessOptions): ReadonlyArray<string> {
  const path = env.JUPYTER_PATH ?? Platform.variable("JUPYTER_PATH")
  return sandbox !== undefined || path === undefined ? [] : [path]
}
