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
import * as Headers from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Defect from "../defect.ts"
import { plain } from "./control_codes.ts"
import * as WaitBudget from "./wait_budget.ts"

/**
 * The kernel model of the REST API.
 *
 * @category schemas
 * @since 0.1.0
 */
export const KernelModel = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  execution_state: Schema.optionalKey(Schema.String),
  /** Tells whether its process is stopped, as by SIGSTOP; only gateways of this library have it. */
  stopped: Schema.optionalKey(Schema.Boolean),
  /** The Unix socket at which the kernel serves its client itself, and the token that it requires. */
  connection: Schema.optionalKey(Schema.Struct({ path: Schema.String, token: Schema.String })),
  /** Tells whether it is being deleted; only kernels with a Unix socket have it. */
  ending: Schema.optionalKey(Schema.Boolean),
})

/** The kernelspecs of a server, as far as needed to tell the answer from a web page. */
const Kernelspecs = Schema.Struct({
  default: Schema.optionalKey(Schema.String),
  kernelspecs: Schema.Record(Schema.String, Schema.Unknown),
})

/**
 * A request to a Jupyter server that failed.
 *
 * @category errors
 * @since 0.1.0
 */
export class RestError
  extends Schema.TaggedError<RestError>("effect-jupyter/jupyter/RestError")("RestError", {
    /** Method and path, for instance `"POST /api/kernels"`. */
    request: Schema.String,
    kind: Schema.Literals(["Unreachable", "Timeout", "Unauthorized", "NotFound", "Refused", "Malformed"]),
    /** The HTTP status, if there was an answer. */
    status: Schema.optionalKey(Schema.Int),
    /** The server's error text, or that of the network. */
    detail: Schema.String,
    /** The delay after which the server wants the next request, from its header `retry-after`. */
    retryAfter: Schema.optionalKey(Schema.Duration),
  }) {
  override get message(): string {
    const answer = this.status === undefined ? "" : ` with status ${this.status}`
    return `"${this.request}" failed${answer}: ${this.detail}`
  }
}

/**
 * The address of a server and the limits of its requests.
 *
 * @category options
 * @since 0.1.0
 */
export interface RestOptions {
  /** Base URL, with the path prefix of the server, if any. */
  readonly url: string
  /** Sent with every request, the authorization among them. */
  readonly headers: Readonly<Record<string, string>>
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
  /** Returns the kernelspecs of the server by name, and the name of its default. */
  readonly kernelspecs: Effect.Effect<typeof Kernelspecs.Type, RestError>
  /**
   * Starts a kernel, which is deleted when the scope closes. All deletions together wait for a slow server for
   * 4 seconds at most. A deletion that fails is repeated in the background until the kernel is gone, for 30 seconds
   * at most.
   */
  readonly start: (options: {
    /** The kernelspec; the server's default if absent. */
    readonly name?: string | undefined
    readonly env: Readonly<Record<string, string>>
    /** Maximum time of the request. */
    readonly timeout: Duration.Input
  }) => Effect.Effect<typeof KernelModel.Type, RestError, Scope.Scope>
  readonly get: (id: string) => Effect.Effect<typeof KernelModel.Type, RestError>
  readonly interrupt: (id: string) => Effect.Effect<void, RestError>
}

/**
 * Makes the REST client of one server.
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
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options: RestOptions) => Effect.Effect<Rest, never, HttpClient.HttpClient> = Effect
  .fnUntraced(
    function* ({ headers, maxConcurrentStarts = 1, timeout = "10 seconds", url }: RestOptions) {
      const base = url.replace(/\/+$/, "")
      const http = yield* HttpClient.HttpClient
      const starts = yield* Semaphore.make(maxConcurrentStarts)
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
      // Kernels are polled long after the span that started them has ended: the requests belong to no trace.
      const get = (id: string) =>
        send(HttpClientRequest.get(kernel(id)), timeout).pipe(
          Effect.flatMap(model),
          Effect.withTracerEnabled(false),
        )
      /** A server that restarts a dead kernel cannot delete it meanwhile, and says so by an error. */
      const deleteLater = (id: string) =>
        Effect.andThen(Effect.ignore(requestDeletion(id)), Effect.flip(get(id))).pipe(
          Effect.filterOrFail(({ kind }) => kind === "NotFound"),
          Effect.retry(Schedule.spaced("1 second").pipe(Schedule.upTo({ duration: maxDeletionTime }))),
          Effect.delay("500 millis"),
          Effect.mapError(() => `The server did not delete the kernel "${id}"`),
          Effect.ignore({ log: "Warn" }),
          Effect.forkDetach,
        )
      const remove = (id: string) =>
        requestDeletion(id).pipe(
          Effect.catchIf(
            // An unreachable server has ended, and its kernels with it.
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
        // Every server has kernelspecs, and requires credentials for them.
        check: Effect.asVoid(kernelspecs),
        kernelspecs,
        start: ({ env, name, timeout }) =>
          // A started request is not interrupted: a kernel whose id was not received could not be deleted.
          Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
            // Of the permit, which a start has until it is answered.
            const turn = yield* Scope.make()
            const release = Scope.close(turn, Exit.void)
            yield* restore(Scope.provide(Semaphore.takeScoped(starts, 1), turn)).pipe(
              Effect.onError(() => release),
            )
            const post = HttpClientRequest.post(`${base}/api/kernels`).pipe(
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
            yield* Effect.addFinalizer(() => awaitDeletion(remove(kernel.value.id)))
            return kernel.value
          })),
        get,
        interrupt: (id) =>
          Effect.asVoid(send(HttpClientRequest.post(`${kernel(id)}/interrupt`), interruptTimeout)),
      }
    },
  )

/** Makes a function that sends requests to a server with a timeout. Fails unless the status is a success. */
const sender = (
  http: HttpClient.HttpClient,
  base: string,
  headers: Readonly<Record<string, string>>,
) => {
  const secret = Object.keys(headers).map((name) => name.toLowerCase())
  return (request: HttpClientRequest.HttpClientRequest, requestTimeout: Duration.Input) => {
    const name = `${request.method} ${request.url.slice(base.length)}`
    const restError = (
      kind: RestError["kind"],
      detail: string,
      answer?: { readonly status: number; readonly retryAfter?: Duration.Duration },
    ) => new RestError({ request: name, kind, detail, ...answer })
    return http.execute(HttpClientRequest.setHeaders(request, headers)).pipe(
      // Any header may be a secret of the user, which spans would show.
      Effect.updateService(Headers.CurrentRedactedNames, (names) => [...names, ...secret]),
      Effect.flatMap((response) =>
        Effect.map(readBody(response), (body) => ({ ...body, status: response.status, response }))
      ),
      Effect.mapError((error) => restError("Unreachable", describe(error))),
      Effect.timeoutOrElse({
        duration: requestTimeout,
        orElse: () => timedOut(name, requestTimeout),
      }),
      Effect.flatMap(({ isWhole, response, status, text }) => {
        if (status >= 200 && status < 300) {
          if (isWhole) return Effect.succeed({ name, response, text })
          const detail = `Its answer has more than ${maxBodyBytes} bytes: "${bodyExcerpt(text)}"`
          return Effect.fail(restError("Malformed", detail, { status }))
        }
        const kind = status === 401 || status === 403
          ? "Unauthorized"
          : status === 404
          ? "NotFound"
          : "Refused"
        const { location } = response.headers
        const detail = location === undefined ? errorText(text) : `It redirects to "${bodyExcerpt(location)}"`
        const seconds = Number.parseInt(response.headers["retry-after"] ?? "", 10)
        const retryAfter = seconds >= 0 ? { retryAfter: Duration.seconds(seconds) } : {}
        return Effect.fail(restError(kind, detail, { status, ...retryAfter }))
      }),
    )
  }
}

type Answer = Effect.Success<ReturnType<ReturnType<typeof sender>>>

/** Maximum bytes of an answer: servers with hundreds of kernelspecs need a hundredth of that. */
const maxBodyBytes = 16 * 1024 * 1024

/** Reads the body of a response, which is not read any further once it is past the bound. */
const readBody = (response: HttpClientResponse.HttpClientResponse) =>
  Effect.suspend(() => {
    const decoder = new TextDecoder()
    let bytes = 0
    let text = ""
    return response.stream.pipe(
      Stream.takeWhile((chunk) => {
        bytes += chunk.byteLength
        if (bytes <= maxBodyBytes) text += decoder.decode(chunk, { stream: true })
        return bytes <= maxBodyBytes
      }),
      Stream.runDrain,
      // Clients over `fetch` fail where there is no body.
      Effect.catchIf(({ reason }) => reason._tag === "EmptyBodyError", () => Effect.void),
      Effect.map(() => ({ text: text + decoder.decode(), isWhole: bytes <= maxBodyBytes })),
    )
  })

/** Decodes an answer. Fails with an error that says which kind of answer was expected. */
const read =
  <A>(expected: string, decode: (text: string) => Effect.Effect<A, Schema.SchemaError>) =>
  ({ name, response: { status }, text }: Answer) =>
    Effect.mapError(decode(text), () => {
      const detail = `Not ${expected} but "${bodyExcerpt(text)}"`
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

function timedOut(request: string, timeout: Duration.Input): RestError {
  const detail = `No answer within ${Duration.format(Duration.fromInputUnsafe(timeout))}`
  return new RestError({ request, kind: "Timeout", detail })
}

/** The body of an error response of Jupyter's servers. */
const decodeErrorBody = Schema.decodeUnknownExit(
  Schema.fromJsonString(
    Schema.Struct({
      message: Schema.NonEmptyString,
      traceback: Schema.optional(Schema.NullOr(Schema.String)),
    }),
  ),
)

/** Returns the error text of a response body. */
function errorText(text: string): string {
  const body = decodeErrorBody(text)
  if (Exit.isFailure(body)) return bodyExcerpt(text)
  const { message, traceback } = body.value
  // The last line of a traceback names the exception.
  return plain(truncateMiddle(traceback?.trim().split("\n").at(-1) || message.trim(), 8192))
}

const decodeKernelspecs = Schema.decodeUnknownEffect(Schema.fromJsonString(Kernelspecs))
const decodeModel = Schema.decodeUnknownEffect(Schema.fromJsonString(KernelModel))

/** Characters of each end of a body that are searched for text. */
const maxExcerptInput = 10_000

/** Returns the beginning and the end of a body on one line: enough to recognize a login page or the end of a traceback. */
function bodyExcerpt(text: string): string {
  const line = plain(truncateMiddle(text, 2 * maxExcerptInput)).replace(/\s+/g, " ")
  return truncateMiddle(line.trim(), 400)
}

function truncateMiddle(text: string, maxLength: number): string {
  return text.length > maxLength ? `${text.slice(0, maxLength / 2)} … ${text.slice(-maxLength / 2)}` : text
}

function describe(
  error: { readonly message: string; readonly reason?: { readonly cause?: unknown } },
): string {
  const cause = error.reason?.cause
  return cause instanceof Error ? `${error.message} (${cause.message})` : error.message
}
