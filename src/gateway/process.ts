/**
 * Our own gateway: one child process, everything it starts, and one directory, all gone when the scope
 * closes and when this process dies.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import { Exited, type GatewayError, gatewayError, PortInUse, StartFailed, StartTimeout } from "./error.ts"
import * as Tail from "./tail.ts"

/** What to run and how. */
export interface ProcessOptions {
  readonly python: string
  readonly host: string
  /** 0 for a free one. */
  readonly port: number
  /** Where kernels start. */
  readonly workingDir: string
  /** The whole environment of the gateway and its kernels. */
  readonly env: Readonly<Record<string, string>>
  readonly token: Redacted.Redacted<string>
  readonly logLevel: "Debug" | "Info" | "Warn" | "Error"
  readonly startTimeout: Duration.Input
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

const python = (name: string): string => fileURLToPath(new URL(`../python/${name}`, import.meta.url))
const decodePort = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Struct({ port: Schema.Int })))

/** The status with which `gateway.py` ends if the port is taken. */
const portTaken = 98

/** Starts a gateway and waits until it listens. */
export const start = Effect.fnUntraced(function* (options: ProcessOptions) {
  const tail = Tail.make()
  const runtimeDir = yield* makeRuntimeDir
  const settings = {
    host: options.host,
    port: options.port,
    workingDir: options.workingDir,
    runtimeDir,
    logLevel: options.logLevel.toUpperCase(),
    kernelLauncher: python("kernel.py"),
  }
  // Profiles and histories of kernels go with the gateway.
  const kernelEnv = { IPYTHONDIR: `${runtimeDir}/ipython`, ...options.env }
  const closing = yield* Deferred.make<void>()
  const handle = yield* ChildProcess.make(
    options.python,
    [python("supervisor.py"), runtimeDir, python("gateway.py"), JSON.stringify(settings)],
    {
      // Nothing is ever written: this pipe closes when our process dies, and the supervisor waits for that.
      stdin: "pipe",
      env: {
        ...kernelEnv,
        // Settings of the user do not change the gateway.
        JUPYTER_RUNTIME_DIR: runtimeDir,
        JUPYTER_PATH: runtimeDir,
        JUPYTER_NO_CONFIG: "1",
        KG_AUTH_TOKEN: options.token,
      },
      // Longer than the supervisor may take: nobody else knows all that has to go.
      forceKillAfter: "10 seconds",
    },
  ).pipe(
    Effect.mapError((error) => gatewayError(new StartFailed({ detail: error.message, output: [] }))),
  )
  yield* Effect.addFinalizer(() => Deferred.succeed(closing, undefined))

  const port = yield* Deferred.make<number>()
  const logs = yield* tail.follow(handle.stderr, (line) => Effect.logDebug(line)).pipe(
    Effect.annotateLogs("gateway", handle.pid),
    Effect.forkScoped,
  )
  yield* handle.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) =>
      Effect.flatMap(decodePort(line), (ready) => Deferred.succeed(port, ready.port))
    ),
    Effect.ignore,
    Effect.forkScoped,
  )

  const exitCode = Effect.match(handle.exitCode, { onSuccess: Number, onFailure: () => undefined }).pipe(
    // The exit is known before the last lines are read.
    Effect.tap(Effect.timeoutOption(Fiber.await(logs), "500 millis")),
  )
  const join = Effect.flatMap(
    exitCode,
    (code) =>
      Deferred.isDoneUnsafe(closing)
        ? Effect.void
        : Effect.fail(gatewayError(new Exited({ exitCode: code, output: tail.lines() }))),
  )
  const gaveUp = Effect.flatMap(exitCode, (code) =>
    Effect.fail(gatewayError(
      code === portTaken
        ? new PortInUse({ host: options.host, port: options.port })
        : new StartFailed({ detail: `It ended with exit code ${code ?? "unknown"}`, output: tail.lines() }),
    )))
  const tooLate = Effect.suspend(() =>
    gatewayError(
      new StartTimeout({ timeout: Duration.fromInputUnsafe(options.startTimeout), output: tail.lines() }),
    )
  )
  const listening = yield* Effect.raceFirst(Deferred.await(port), gaveUp).pipe(
    Effect.timeoutOrElse({ duration: options.startTimeout, orElse: () => tooLate }),
  )
  const process: GatewayProcess = { port: listening, kernelEnv, join, tooLate }
  return process
})

/**
 * The name of a directory for sockets and connection files, which the supervisor creates. It is removed here
 * too, for the case that the supervisor was killed. Directly in `/tmp`: the path of a socket has 107 bytes at
 * most, of which a kernel's name takes 50.
 */
const makeRuntimeDir = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  return yield* Effect.acquireRelease(
    Effect.sync(() => `/tmp/effect-jupyter-${SecureRandom.uuidV4Unsafe().slice(0, 8)}`),
    (directory) => Effect.ignore(fs.remove(directory, { recursive: true, force: true })),
  )
})
