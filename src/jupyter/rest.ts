/**
 * The kernels REST API that Jupyter Kernel Gateway, Jupyter Server, Enterprise Gateway and JupyterHub share.
 *
 * Follows {@link https://jupyter-server.readthedocs.io/en/latest/developers/rest-api.html Jupyter Server's REST API}.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Headers from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Defect from "../defect.ts"
import { plain } from "./control_codes.ts"
import * as WaitBudget from "./wait_budget.ts"

/** What a server tells about a kernel. */
export const KernelModel = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  execution_state: Schema.optionalKey(Schema.String),
  /** Whether its process is stopped, as by SIGSTOP; gateways of ours tell it. */
  stopped: Schema.optionalKey(Schema.Boolean),
})

/** What a server tells about the kernels it can start: enough to know it from a web page. */
const Kernelspecs = Schema.Struct({
  default: Schema.optionalKey(Schema.String),
  kernelspecs: Schema.Record(Schema.String, Schema.Unknown),
})

/** A request to a Jupyter server that did not do what it was for. */
export class RestError
  extends Schema.TaggedError<RestError>("effect-jupyter/jupyter/RestError")("RestError", {
    /** Method and path, for instance `"POST /api/kernels"`. */
    request: Schema.String,
    kind: Schema.Literals(["Unreachable", "Timeout", "Unauthorized", "NotFound", "Refused", "Malformed"]),
    /** The HTTP status, where there was an answer. */
    status: Schema.optionalKey(Schema.Int),
    /** The server's own words, or what the network said. */
    detail: Schema.String,
    /** When the server wants to be asked again, if it said so. */
    retryAfter: Schema.optionalKey(Schema.Duration),
  }) {
  override get message(): string {
    const answer = this.status === undefined ? "" : ` with status ${this.status}`
    return `"${this.request}" failed${answer}: ${this.detail}`
  }
}

/** How to reach a server. */
export interface RestOptions {
  /** Base URL, with the path under which the server lives, if any. */
  readonly url: string
  /** Sent with every request, the authorization among them. */
  readonly headers: Readonly<Record<string, string>>
  /** Bound of a request that does not start a kernel; 10 seconds by default. */
  readonly timeout?: Duration.Input | undefined
  /** How many kernels may be asked for at once; 1 by default, because Kernel Gateway mixes up their environments. */
  readonly startsAtOnce?: number | undefined
}

/** The kernels of one server. */
export interface Rest {
  /** Succeeds if the server answers and accepts the credentials. */
  readonly check: Effect.Effect<void, RestError>
  /** The kernels that the server can start, by name, and which one it starts if none is named. */
  readonly kernelspecs: Effect.Effect<typeof Kernelspecs.Type, RestError>
  /**
   * Starts a kernel, which is deleted when the scope closes. A server that is slow to delete kernels, however many,
   * is waited for during 4 seconds at most, and one that fails to is asked again in the background until the kernel
   * is gone, for half a minute at most.
   */
  readonly start: (options: {
    /** The kernelspec; the server's default if absent. */
    readonly name?: string | undefined
    readonly env: Readonly<Record<string, string>>
    /** Bound of the request. */
    readonly timeout: Duration.Input
  }) => Effect.Effect<typeof KernelModel.Type, RestError, Scope.Scope>
  readonly get: (id: string) => Effect.Effect<typeof KernelModel.Type, RestError>
  readonly interrupt: (id: string) => Effect.Effect<void, RestError>
}

/**
 * The REST client of one server.
 *
 * @example
 * ```ts
 * import { NodeHttpClient } from "@effect/platform-node"
 * import { Effect } from "effect"
 * import * as Rest from "effect-jupyter/jupyter/rest"
 *
 * const program = Effect.gen(function*() {
 *   const rest = yield* Rest.make({ url: "http://127.0.0.1:8888", headers: {} })
 *   const kernel = yield* rest.start({ env: {}, timeout: "30 seconds" })
 *   yield* rest.interrupt(kernel.id)
 * })
 *
 * export const main = program.pipe(Effect.scoped, Effect.provide(NodeHttpClient.layerNodeHttp))
 * ```
 */
export const make: (options: RestOptions) => Effect.Effect<Rest, never, HttpClient.HttpClient> = Effect
  .fnUntraced(
    function* ({ headers, startsAtOnce = 1, timeout = "10 seconds", url }: RestOptions) {
      const base = url.replace(/\/+$/, "")
      const http = yield* HttpClient.HttpClient
      const starts = yield* Semaphore.make(startsAtOnce)
      const awaitDeletion = WaitBudget.make(deletionWait)

      const send = sender(http, base, headers)
      const model = read("a kernel", decodeModel)
      const kernel = (id: string) => `${base}/api/kernels/${encodeURIComponent(id)}`

      const requestDeletion = (id: string) =>
        send(HttpClientRequest.delete(kernel(id)), "5 seconds").pipe(
          Effect.asVoid,
          Effect.catchIf((error) => error.kind === "NotFound", () => Effect.void),
          // The span would be one of an error, and after the end of the one that it belongs to.
          Effect.withTracerEnabled(false),
        )
      // Kernels are looked at again and again, long after whatever started them: no trace has a place for that.
      const get = (id: string) =>
        send(HttpClientRequest.get(kernel(id)), timeout).pipe(
          Effect.flatMap(model),
          Effect.withTracerEnabled(false),
        )
      /** A server that restarts a dead kernel cannot delete it meanwhile, and says so by an error. */
      const deleteLater = (id: string) =>
        Effect.andThen(Effect.ignore(requestDeletion(id)), Effect.flip(get(id))).pipe(
          Effect.filterOrFail(({ kind }) => kind === "NotFound"),
          Effect.retry(Schedule.spaced("1 second").pipe(Schedule.upTo({ duration: deletionBound }))),
          Effect.delay("500 millis"),
          Effect.mapError(() => `The server did not delete the kernel "${id}"`),
          Effect.ignore({ log: "Warn" }),
          Effect.forkDetach,
        )
      const remove = (id: string) =>
        requestDeletion(id).pipe(
          Effect.catchIf(
            // Where there is no server any more, there is nobody to ask again.
            ({ kind }) => kind === "Refused" || kind === "Timeout",
            () => Effect.asVoid(deleteLater(id)),
          ),
          Effect.ignore({ log: "Warn" }),
        )

      const kernelspecs = Effect.flatMap(
        send(HttpClientRequest.get(`${base}/api/kernelspecs`), timeout),
        read("a list of kernelspecs", decodeKernelspecs),
      )

      return {
        // Every server has kernelspecs and none gives them away without credentials.
        check: Effect.asVoid(kernelspecs),
        kernelspecs,
        start: ({ env, name, timeout }) =>
          // Once it is under way it goes on: a kernel whose id never arrived could not be deleted.
          Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
            yield* restore(Semaphore.take(starts, 1))
            const post = HttpClientRequest.post(`${base}/api/kernels`).pipe(
              // Always with an environment: without one Kernel Gateway hands its own to the kernel.
              HttpClientRequest.bodyJsonUnsafe({ name, env }),
            )
            const isOver = yield* Deferred.make<void>()
            yield* Effect.forkDetach(Effect.andThen(Deferred.await(isOver), Semaphore.release(starts, 1)))
            const starting = yield* send(post, Duration.max(Duration.fromInputUnsafe(timeout), postBound))
              .pipe(
                Effect.flatMap(model),
                Effect.ensuring(Deferred.succeed(isOver, undefined)),
                Effect.forkDetach({ startImmediately: true }),
              )
            // A start that may never be answered does not hold up those after it.
            const passOn = Effect.forkDetach(Effect.delay(Deferred.succeed(isOver, undefined), abandonedHold))
            // Too late for the caller, but it has to be deleted all the same.
            const discard = Effect.andThen(passOn, Fiber.join(starting)).pipe(
              Effect.flatMap(({ id }) => remove(id)),
              Effect.ignore,
              Defect.log,
              Effect.forkDetach({ startImmediately: true }),
              // A server that is quick does it before a program that was interrupted ends.
              Effect.flatMap((removing) => Effect.timeoutOption(Fiber.await(removing), discardGrace)),
            )
            const kernel = yield* restore(Effect.timeoutOption(Fiber.join(starting), timeout)).pipe(
              Effect.onInterrupt(() => discard),
            )
            if (Option.isNone(kernel)) {
              yield* discard
              return yield* late("POST /api/kernels", timeout)
            }
            yield* Effect.addFinalizer(() => awaitDeletion(remove(kernel.value.id)))
            return kernel.value
          })),
        get,
        interrupt: (id) =>
          Effect.asVoid(send(HttpClientRequest.post(`${kernel(id)}/interrupt`), interruptBound)),
      }
    },
  )

/** Gives what sends requests to a server, each within a bound; they fail unless the server does what it is asked. */
const sender = (
  http: HttpClient.HttpClient,
  base: string,
  headers: Readonly<Record<string, string>>,
) => {
  const secret = Object.keys(headers).map((name) => name.toLowerCase())
  return (request: HttpClientRequest.HttpClientRequest, bound: Duration.Input) => {
    const name = `${request.method} ${request.url.slice(base.length)}`
    const failed = (
      kind: RestError["kind"],
      detail: string,
      answer?: { readonly status: number; readonly retryAfter?: Duration.Duration },
    ) => new RestError({ request: name, kind, detail, ...answer })
    return http.execute(HttpClientRequest.setHeaders(request, headers)).pipe(
      // Any of them may be a secret of the user's, which spans would show.
      Effect.updateService(Headers.CurrentRedactedNames, (names) => [...names, ...secret]),
      Effect.flatMap((response) =>
        Effect.map(response.text, (text) => ({ status: response.status, text, response }))
      ),
      Effect.mapError((error) => failed("Unreachable", describe(error))),
      Effect.timeoutOrElse({
        duration: bound,
        orElse: () => late(name, bound),
      }),
      Effect.flatMap(({ response, status, text }) => {
        if (status >= 200 && status < 300) return Effect.succeed({ name, response, text })
        const kind = status === 401 || status === 403
          ? "Unauthorized"
          : status === 404
          ? "NotFound"
          : "Refused"
        const { location } = response.headers
        const detail = location === undefined ? said(text) : `It redirects to "${excerpt(location)}"`
        const seconds = Number.parseInt(response.headers["retry-after"] ?? "", 10)
        const retryAfter = seconds >= 0 ? { retryAfter: Duration.seconds(seconds) } : {}
        return Effect.fail(failed(kind, detail, { status, ...retryAfter }))
      }),
    )
  }
}

type Answer = Effect.Success<ReturnType<ReturnType<typeof sender>>>

/** Makes something of an answer, or complains that it is no `what`. */
const read =
  <A>(what: string, decode: (text: string) => Effect.Effect<A, Schema.SchemaError>) =>
  ({ name, response: { status }, text }: Answer) =>
    Effect.mapError(decode(text), () => {
      const detail = `Not ${what} but "${excerpt(text)}"`
      return new RestError({ request: name, kind: "Malformed", status, detail })
    })

/** How long an interrupted start waits for the deletion of its kernel. */
export const discardGrace: Duration.Input = "250 millis"

/** How long closings of kernels wait for a server together, whether it is slow or silent. */
const deletionWait: Duration.Input = "4 seconds"

/** A server that answers late interrupts late: longer than for others it has to be known whether it did. */
const interruptBound: Duration.Input = "1 minute"

/** How long others wait for a start that was given up: Kernel Gateway could mix up their environments. */
const abandonedHold: Duration.Input = "3 seconds"

/** How long to remember a kernel whose start takes longer than the caller waits, in order to delete it. */
const postBound = Duration.minutes(2)

/** How long to try to delete a kernel: longer than servers take to restart one. */
const deletionBound = Duration.seconds(30)

function late(request: string, bound: Duration.Input): RestError {
  const detail = `No answer within ${Duration.format(Duration.fromInputUnsafe(bound))}`
  return new RestError({ request, kind: "Timeout", detail })
}

/** What Jupyter's servers answer with if they refuse something. */
const decodeRefusal = Schema.decodeUnknownExit(
  Schema.fromJsonString(
    Schema.Struct({
      message: Schema.NonEmptyString,
      traceback: Schema.optional(Schema.NullOr(Schema.String)),
    }),
  ),
)

/** A server's own words without what they are wrapped in. */
function said(text: string): string {
  const refusal = decodeRefusal(text)
  if (Exit.isFailure(refusal)) return excerpt(text)
  const { message, traceback } = refusal.value
  // Of an exception that a server did not expect the last line says which.
  return plain(shortened(traceback?.trim().split("\n").at(-1) || message.trim(), 8192))
}

const decodeKernelspecs = Schema.decodeUnknownEffect(Schema.fromJsonString(Kernelspecs))
const decodeModel = Schema.decodeUnknownEffect(Schema.fromJsonString(KernelModel))

/** Characters of each end of a body that are looked at. */
const longestExcerpt = 10_000

/**
 * The first and the last words of a body: enough to recognise a proxy's login page and to see where a traceback
 * leads, not enough to flood a log.
 */
function excerpt(text: string): string {
  const line = plain(shortened(text, 2 * longestExcerpt)).replace(/\s+/g, " ")
  return shortened(line.trim(), 400)
}

function shortened(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most / 2)} … ${text.slice(-most / 2)}` : text
}

function describe(
  error: { readonly message: string; readonly reason?: { readonly cause?: unknown } },
): string {
  const cause = error.reason?.cause
  return cause instanceof Error ? `${error.message} (${cause.message})` : error.message
}
