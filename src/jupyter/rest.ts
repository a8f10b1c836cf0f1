/**
 * The kernels REST API that Jupyter Kernel Gateway, Jupyter Server, Enterprise Gateway and JupyterHub share.
 *
 * Follows {@link https://jupyter-server.readthedocs.io/en/latest/developers/rest-api.html Jupyter Server's REST API}.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Defect from "../defect.ts"
import { bodyExcerpt, RestError, timedOut } from "./rest_error.ts"
import * as Server from "./server.ts"
import * as WaitBudget from "./wait_budget.ts"

export { RestError } from "./rest_error.ts"

/** A member that a server may leave out or have as null. */
const optional = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

/** Bytes that a gateway received from the client, and those that it has sent. */
const Counts = Schema.Struct({ received: Schema.Finite, sent: Schema.Finite })

/**
 * The kernel model of the REST API.
 *
 * @category schemas
 * @since 0.1.0
 */
export const KernelModel = Schema.Struct({
  /** A part of the path of its requests. */
  id: Schema.String.check(Schema.isPattern(/^[\w-]+$/)),
  name: Schema.String,
  execution_state: optional(Schema.String),
  /** An ISO date. */
  last_activity: optional(Schema.String),
  /** The number of WebSockets that are connected to it. */
  connections: optional(Schema.Finite),
  /** Tells whether its process is stopped, as by SIGSTOP; only gateways of this library have it. */
  stopped: optional(Schema.Boolean),
  /** The Unix socket at which the kernel serves its client itself, and the token that it requires. */
  connection: Schema.optionalKey(Schema.Struct({ path: Schema.String, token: Schema.String })),
  /** Tells whether the gateway is its client, to which programs attach. */
  attachable: Schema.optionalKey(Schema.Boolean),
  /** The connections to a kernel that serves its client itself, which its gateway joins. */
  joins: Schema.optionalKey(Schema.Struct({
    shell: Schema.optionalKey(Counts),
    control: Schema.optionalKey(Counts),
    /** The side that ended them. */
    ended: Schema.NullOr(Schema.Literals(["client", "kernel"])),
  })),
  /** Tells whether it is being deleted; only kernels that serve their client themselves have it. */
  ending: optional(Schema.Boolean),
})

/**
 * The kernelspecs of a server by name, and the name of its default.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Kernelspecs = Schema.Struct({
  default: optional(Schema.String),
  kernelspecs: Schema.Record(
    Schema.String,
    Schema.Struct({
      spec: optional(Schema.Struct({
        display_name: optional(Schema.String),
        language: optional(Schema.String),
      })),
    }),
  ),
})

/**
 * The address of a server and the limits of its requests.
 *
 * @category options
 * @since 0.1.0
 */
export interface RestOptions extends RestLimits, Server.ServerOptions {}

/**
 * The limits of requests.
 *
 * @category options
 * @since 0.1.0
 */
export interface RestLimits {
  /** Maximum time of a request that does not start a kernel; 10 seconds by default. */
  readonly timeout?: Duration.Input | undefined
  /** Maximum number of concurrent starts; 1 by default, because Kernel Gateway mixes up their environments. */
  readonly maxConcurrentStarts?: number | undefined
}

/**
 * The kernels of one server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rest {
  /** Succeeds if the server answers and accepts the credentials. */
  readonly check: Effect.Effect<void, RestError>
  /** As `check`, and returns the version of the protocol of `effect-jupyter serve`; `undefined` for another server. */
  readonly protocol: Effect.Effect<number | undefined, RestError>
  /** Returns the kernelspecs of the server by name, and the name of its default. */
  readonly kernelspecs: Effect.Effect<typeof Kernelspecs.Type, RestError>
  /**
   * Starts a kernel, which is deleted when the scope closes. A deletion that fails is repeated until the kernel is gone,
   * for 30 seconds at most. All deletions together are waited for for 4 seconds at most, and go on in the background.
   */
  readonly start: (options: {
    /** The kernelspec; the server's default if absent. */
    readonly name?: string | undefined
    readonly env: Readonly<Record<string, string>>
    /** Maximum time of the request. */
    readonly timeout: Duration.Input
    /** Tells when the scope closes whether the kernel stays; false by default. */
    readonly isKept?: (() => boolean) | undefined
    /** The name of the program for {@link Rest.remove} when the scope closes. */
    readonly holder?: string | undefined
  }) => Effect.Effect<typeof KernelModel.Type, RestError, Scope.Scope>
  /** Returns the kernels that run on the server. */
  readonly kernels: Effect.Effect<ReadonlyArray<typeof KernelModel.Type>, RestError>
  readonly get: (id: string) => Effect.Effect<typeof KernelModel.Type, RestError>
  readonly interrupt: (id: string) => Effect.Effect<void, RestError>
  /**
   * Deletes a kernel, as at the end of the scope of its start. With `holder`, the name of a program on a shared gateway,
   * it stays if another program has attached to it since.
   */
  readonly remove: (id: string, holder?: string) => Effect.Effect<void>
  /** Has a kernel of a shared gateway stay when the program that started it ends. */
  readonly keep: (id: string, holder: string) => Effect.Effect<void, RestError>
  /**
   * Sends a frame to the main shell of a kernel that is attachable, whatever becomes of the client then. Returns the
   * number of messages of the kernel before that.
   */
  readonly post: (id: string, holder: string, frame: Uint8Array) => Effect.Effect<number, RestError>
}

/**
 * Makes the REST client of one server.
 *
 * @example
 * ```ts
 * import { NodeHttpClient } from "@effect/platform-node"
 * import { Effect, Redacted } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 * import * as Rest from "effect-jupyter/jupyter/rest"
 *
 * const program = Effect.gen(function*() {
 *   const { token = Redacted.make(""), url } = yield* KernelGateway.KernelGateway
 *   const rest = yield* Rest.make({ url, headers: { authorization: `token ${Redacted.value(token)}` } })
 *   const kernel = yield* rest.start({ env: {}, timeout: "30 seconds" })
 *   yield* rest.interrupt(kernel.id)
 * })
 *
 * export const main = program.pipe(Effect.scoped, Effect.provide(NodeHttpClient.layerNodeHttp))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: RestOptions): Effect.Effect<Rest, never, HttpClient.HttpClient> =>
  Effect.flatMap(Server.make(options), (server) => of(server, options))

/**
 * Makes the REST client of a server that has its credentials and cookies.
 *
 * @category constructors
 * @since 0.1.0
 */
export const of: (server: Server.Server, options: RestLimits) => Effect.Effect<Rest> = Effect
  .fnUntraced(
    function* (server, { maxConcurrentStarts = 1, timeout = "10 seconds" }) {
      const { send, url } = server
      const starts = yield* Semaphore.make(maxConcurrentStarts)
      const awaitDeletion = WaitBudget.make(deletionWait)

      const model = read(server, "a kernel", decodeModel)
      const kernel = (id: string) => `${url}/api/kernels/${encodeURIComponent(id)}`

      const attachment = (id: string, name: string, holder: string) =>
        `${kernel(id)}/attachment/${name}?holder=${encodeURIComponent(holder)}`

      const requestDeletion = (id: string, holder?: string) =>
        send(
          HttpClientRequest.delete(holder === undefined ? kernel(id) : attachment(id, "kept", holder)),
          "5 seconds",
        ).pipe(
          Effect.asVoid,
          Effect.catchIf(({ kind, status }) => kind === "NotFound" || status === 409, () => Effect.void),
          // The span would be one of an error, and after the end of the one that it belongs to.
          Effect.withTracerEnabled(false),
        )
      // Kernels are polled long after the span that started them has ended: the requests belong to no trace.
      const get = (id: string) =>
        send(HttpClientRequest.get(kernel(id)), timeout).pipe(
          Effect.flatMap(model),
          Effect.withTracerEnabled(false),
        )
      /** A server that restarts a dead kernel cannot delete it meanwhile, and says so by an error. */
      const deleteLater = (id: string, holder?: string) =>
        Effect.andThen(Effect.ignore(requestDeletion(id, holder)), Effect.flip(get(id))).pipe(
          Effect.filterOrFail(({ kind }) => kind === "NotFound"),
          Effect.retry(Schedule.spaced("1 second").pipe(Schedule.upTo({ duration: maxDeletionTime }))),
          Effect.delay("500 millis"),
          Effect.mapError(() => `The server did not delete the kernel "${id}"`),
        )
      const remove = (id: string, holder?: string) =>
        requestDeletion(id, holder).pipe(
          // A connection that was idle may have been closed; a server that is gone has ended, and its kernels with it.
          Effect.retry({ times: 1, while: ({ kind }) => kind === "Unreachable" }),
          Effect.catchIf(
            ({ kind }) => kind === "Refused" || kind === "Timeout",
            () => deleteLater(id, holder),
          ),
          Effect.ignore({ log: "Warn" }),
        )

      const readKernelspecs = read(server, "a list of kernelspecs", decodeKernelspecs)
      const getKernelspecs = send(HttpClientRequest.get(`${url}/api/kernelspecs`), timeout)
      const kernelspecs = Effect.flatMap(getKernelspecs, readKernelspecs)

      return {
        // Every server has kernelspecs, and requires credentials for them.
        check: Effect.asVoid(kernelspecs),
        protocol: Effect.flatMap(
          getKernelspecs,
          (answer) => Effect.as(readKernelspecs(answer), protocolOf(answer)),
        ),
        kernelspecs,
        kernels: Effect.flatMap(
          send(HttpClientRequest.get(`${url}/api/kernels`), timeout),
          read(server, "a list of kernels", decodeModels),
        ),
        start: ({ env, holder, isKept = () => false, name, timeout }) =>
          // A started request is not interrupted: a kernel whose id was not received could not be deleted.
          Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
            // Of the permit, which a start has until it is answered.
            const turn = yield* Scope.make()
            const release = Scope.close(turn, Exit.void)
            yield* restore(Scope.provide(Semaphore.takeScoped(starts, 1), turn)).pipe(
              Effect.onError(() => release),
            )
            const post = HttpClientRequest.post(`${url}/api/kernels`).pipe(
              // Always with an environment: without one Kernel Gateway gives its own to the kernel.
              HttpClientRequest.bodyJsonUnsafe({ name, env }),
            )
            const starting = yield* send(
              post,
              Duration.max(Duration.fromInputUnsafe(timeout), minStartTimeout),
            )
              .pipe(
                Effect.flatMap(model),
                Effect.ensuring(release),
                Effect.forkDetach({ startImmediately: true }),
              )
            // A start that may never be answered does not block later ones.
            const releaseLater = Effect.forkDetach(Effect.delay(release, abandonedHold))
            // The caller no longer waits for the kernel, which still has to be deleted.
            const discard = Effect.andThen(releaseLater, Fiber.join(starting)).pipe(
              Effect.flatMap(({ id }) => remove(id)),
              Effect.ignore,
              Defect.log,
              Effect.forkDetach({ startImmediately: true }),
              // A fast server deletes it before an interrupted program ends.
              Effect.flatMap((removing) => Effect.timeoutOption(Fiber.await(removing), discardGrace)),
            )
            const kernel = yield* restore(Effect.timeoutOption(Fiber.join(starting), timeout)).pipe(
              Effect.onInterrupt(() => discard),
            )
            if (Option.isNone(kernel)) {
              yield* discard
              return yield* timedOut("POST /api/kernels", timeout)
            }
            const end = awaitDeletion(remove(kernel.value.id, holder))
            yield* Effect.addFinalizer(() => isKept() ? Effect.void : end)
            return kernel.value
          })),
        get,
        interrupt: (id) =>
          Effect.asVoid(send(HttpClientRequest.post(`${kernel(id)}/interrupt`), interruptTimeout)),
        remove: (id, holder) => awaitDeletion(remove(id, holder)),
        keep: (id, holder) =>
          Effect.asVoid(send(HttpClientRequest.put(attachment(id, "kept", holder)), timeout)),
        post: (id, holder, frame) =>
          HttpClientRequest.post(attachment(id, "requests", holder)).pipe(
            HttpClientRequest.bodyUint8Array(frame),
            (request) => send(request, timeout),
            Effect.flatMap(read(server, "a position", decodePosition)),
            Effect.map(({ position }) => position),
          ),
      }
    },
  )

/** Returns the version in the header by which `effect-jupyter serve` makes itself known. */
const protocolOf = ({ headers }: Server.Answer): number | undefined => {
  const version = headers["x-effect-jupyter"]
  return version === undefined || !/^\d{1,9}$/.test(version) ? undefined : Number(version)
}

/** Decodes an answer. Fails with an error that says which kind of answer was expected. */
const read = <A>(
  { redact }: Server.Server,
  expected: string,
  decode: (text: string) => Effect.Effect<A, Schema.SchemaError>,
) =>
({ name, status, text }: Server.Answer) =>
  Effect.mapError(decode(text), () => {
    const detail = redact(`Not ${expected} but "${bodyExcerpt(redact(text))}"`)
    return new RestError({ request: name, kind: "Malformed", status, detail })
  })

/**
 * Maximum time that an interrupted start waits for the deletion of its kernel.
 *
 * @category constants
 * @since 0.1.0
 */
export const discardGrace: Duration.Input = "250 millis"

/** Maximum time that all deletions together wait for the server. */
const deletionWait: Duration.Input = "4 seconds"

/** Maximum time of an interrupt request. It is long because a late answer still means that the kernel was interrupted. */
const interruptTimeout: Duration.Input = "1 minute"

/** Time that later starts wait for an abandoned one: Kernel Gateway could mix up their environments. */
const abandonedHold: Duration.Input = "3 seconds"

/** Minimum timeout of a start request, which outlasts the caller's so that a late kernel is deleted. */
const minStartTimeout = Duration.minutes(2)

/** Maximum time of attempts to delete a kernel: longer than servers take to restart one. */
const maxDeletionTime = Duration.seconds(30)

const decodeKernelspecs = Schema.decodeUnknownEffect(Schema.fromJsonString(Kernelspecs))
const decodePosition = Schema.decodeUnknownEffect(
  Schema.fromJsonString(Schema.Struct({ position: Schema.Int })),
)
const decodeModel = Schema.decodeUnknownEffect(Schema.fromJsonString(KernelModel))
const decodeModels = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Array(KernelModel)))
