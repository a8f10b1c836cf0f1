/**
 * Finds the shared gateway of a name, or starts it.
 *
 * The folder of the gateway has a Unix socket, at which its supervisor listens, and a file with its address and token.
 * A program sends the token only after the supervisor has answered at the socket with the id that the file has: what
 * listens at the port of a gateway that was killed is never contacted.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { plain } from "../jupyter/control_codes.ts"
import { type SandboxError, sandboxError } from "../sandbox/error.ts"
import {
  Exited,
  type GatewayError,
  gatewayError,
  OptionsMismatch,
  StartTimeout,
  Unreachable,
} from "./error.ts"
import * as Lease from "./lease.ts"
import * as Process from "./process.ts"
import * as RuntimeDir from "./runtime_dir.ts"
import * as SharedFolder from "./shared_folder.ts"
import * as SharedOptions from "./shared_options.ts"
import * as Tail from "./tail.ts"

/** A gateway that listens, with the id by which programs know it again. */
export interface SharedProcess extends Process.GatewayProcess {
  readonly serverId: string
  readonly token: Redacted.Redacted<string>
  /** Authorizes requests to set the rules of a sandboxed kernel. */
  readonly secret: Redacted.Redacted<string> | undefined
}

/** The name of a gateway, and how to start it. */
export interface ConnectOptions {
  readonly name: string
  readonly idleTimeToLive: Duration.Input
  readonly process: Process.ProcessOptions
}

/** The file in the folder of a gateway. */
const State = Schema.Struct({
  id: Schema.String,
  /** The process of the supervisor. */
  pid: Schema.Int,
  port: Schema.Int,
  token: Schema.String,
  secret: Schema.NullOr(Schema.String),
  runtimeDir: Schema.String,
  /** The options that programs have to agree on, as JSON. */
  options: Schema.Record(Schema.String, Schema.String),
})
type State = typeof State.Type
const decodeState = Schema.decodeEffect(Schema.fromJsonString(State))

/** Exit code of the supervisor if that of another program has the lock. */
const taken = 75

/** The pause after an attempt to find the gateway. */
const retryInterval: Duration.Input = "20 millis"

/** Maximum time for a gateway to end with its kernels. */
const stopTimeout = Duration.seconds(30)

/** A gateway as a program wants it. */
interface Target {
  readonly folder: string
  readonly process: Process.ProcessOptions
  readonly options: SharedOptions.Values
}

/** There is no gateway of the name, or it is ending. */
class Absent extends Data.TaggedError("Absent") {}

/** Finds the gateway, or starts it, and holds a lease of it until the scope closes. */
export const connect = Effect.fnUntraced(function* ({ idleTimeToLive, name, process }: ConnectOptions) {
  const folder = yield* SharedFolder.find(name)
  const tail = Tail.make()
  const output = () => tail.lines().map(plain)
  const startTimeoutError = Effect.suspend(() =>
    gatewayError(
      new StartTimeout({ timeout: Duration.fromInputUnsafe(process.startTimeout), output: output() }),
    )
  )
  const options = yield* SharedOptions.make(process)
  const target: Target = { folder, process, options }
  const request = { idleTimeToLive: toSeconds(idleTimeToLive) }
  const { lease, number, state } = yield* attach(target, {
    request,
    onLog: (line) => Effect.andThen(Effect.sync(() => tail.push(line)), Effect.logDebug(plain(line))),
    onViolation: process.onViolation,
  }).pipe(
    inOwnScope,
    Effect.tapErrorTag("Absent", () => startSupervisor(target, request)),
    Effect.retry({ schedule: Schedule.spaced(retryInterval), while: isAbsent }),
    Effect.catchTag("Absent", () => startTimeoutError),
    Effect.timeoutOrElse({ duration: process.startTimeout, orElse: () => startTimeoutError }),
    Effect.annotateLogs("gateway", name),
  )
  const port = String(state.port)
  const differences = SharedOptions.differences(
    { ...state.options, port },
    // Any port will do if none was given.
    process.port === 0 ? { ...options, port } : options,
  )
  if (differences.length > 0) return yield* gatewayError(new OptionsMismatch({ name, differences }))
  const closing = yield* Deferred.make<void>()
  yield* Effect.addFinalizer(() => Deferred.succeed(closing, undefined))
  const shared: SharedProcess = {
    serverId: state.id,
    port: state.port,
    token: Redacted.make(state.token, { label: "gateway token" }),
    secret: state.secret === null ? undefined : Redacted.make(state.secret, { label: "gateway secret" }),
    // A kernel whose request has the number ends with the lease.
    kernelEnv: {
      ...Process.profileOf(state.runtimeDir),
      ...process.env,
      EFFECT_JUPYTER_LEASE: String(number),
    },
    join: Effect.flatMap(lease.end, (end) => {
      if (Deferred.isDoneUnsafe(closing)) return Effect.void
      const exitCode = end?.exitCode ?? undefined
      return Effect.fail(gatewayError(new Exited({ exitCode, output: end?.output.map(plain) ?? output() })))
    }),
    startTimeoutError,
  }
  return shared
})

/** Ends the gateway of a name, if one runs, and waits until it has ended with everything that it started. */
export const stop = Effect.fnUntraced(
  function* (name: string) {
    const folder = yield* SharedFolder.find(name)
    const socket = `${folder}/socket`
    const timeoutError = gatewayError(
      new Unreachable({ url: socket, detail: `It did not end within ${Duration.format(stopTimeout)}` }),
    )
    yield* Lease.open(socket, { request: { stop: true } }).pipe(
      Effect.flatMap((lease) => lease.closed),
      Effect.catchTag("SocketError", () => Effect.void),
      Effect.timeoutOrElse({ duration: stopTimeout, orElse: () => timeoutError }),
    )
  },
  Effect.scoped,
)

/** Opens a lease of the gateway that runs, and waits until it listens. Fails with `Absent` if none runs. */
const attach = Effect.fnUntraced(function* (
  { folder, options, process }: Target,
  leaseOptions: Lease.LeaseOptions,
): Effect.fn.Return<
  { readonly lease: Lease.Lease; readonly number: number; readonly state: State },
  Absent | GatewayError | SandboxError,
  FileSystem.FileSystem | Scope.Scope
> {
  const fs = yield* FileSystem.FileSystem
  const lease = yield* Effect.mapError(Lease.open(`${folder}/socket`, leaseOptions), () => new Absent())
  const start = yield* lease.start
  if (start === undefined) return yield* new Absent()
  if ("failed" in start) {
    const { exitCode, output, refused } = start.failed
    // Another program started it, with options that may be the reason.
    if (SharedOptions.differences(start.failed.options, options).length > 0) return yield* new Absent()
    if (refused !== null) return yield* sandboxError(refused)
    return yield* Process.startFailure(process, exitCode ?? undefined, output.map(plain))
  }
  const state = yield* fs.readFileString(`${folder}/gateway.json`).pipe(
    Effect.flatMap(decodeState),
    Effect.mapError(() => new Absent()),
  )
  // The file may be that of a gateway that was started since.
  if (state.id !== start.ready) return yield* new Absent()
  return { lease, number: start.lease, state }
})

/** Starts a supervisor, which ends at once if another one has the lock. */
const startSupervisor = Effect.fnUntraced(
  function* ({ folder, options, process }: Target, request: { readonly idleTimeToLive: number | null }) {
    const runtimeDir = yield* RuntimeDir.choose
    const state: Omit<State, "pid" | "port"> = {
      id: SecureRandom.uuidV4Unsafe(),
      token: Redacted.value(process.token),
      secret: process.sandbox === undefined ? null : Redacted.value(process.sandbox.secret),
      runtimeDir,
      options,
    }
    const shared = Redacted.make(JSON.stringify({ ...request, folder, state }), { label: "shared gateway" })
    const handle = yield* Process.spawn(process, { runtimeDir, stdin: "ignore", shared })
    const tail = Tail.make()
    yield* tail.follow(handle.stderr, () => Effect.void)
    const exitCode = yield* Effect.orElseSucceed(Effect.map(handle.exitCode, Number), () => undefined)
    if (exitCode === 0 || exitCode === taken) return
    return yield* Process.startFailure(process, exitCode, tail.lines().map(plain))
  },
  Effect.scoped,
)

const isAbsent = ({ _tag }: Absent | GatewayError | SandboxError): boolean => _tag === "Absent"

/** Returns a duration in seconds; `null` if it is infinite. */
function toSeconds(duration: Duration.Input): number | null {
  const millis = Duration.toMillis(Duration.fromInputUnsafe(duration))
  return Number.isFinite(millis) ? millis / 1000 : null
}

/** Closes the scope of an effect if it fails, and with the current one. */
const inOwnScope = <A, E, R>(self: Effect.Effect<A, E, R | Scope.Scope>) =>
  Effect.flatMap(
    Effect.flatMap(Effect.scope, (scope) => Scope.fork(scope)),
    (scope) =>
      Effect.onError(Scope.provide(self, scope), (cause) => Scope.close(scope, Exit.failCause(cause))),
  )
