/**
 * Requests to one server: with its credentials and cookies, repeated where that is safe.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpCookies from "effect/http/Cookies"
import * as HttpHeaders from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Body from "./body.ts"
import * as Cookies from "./cookies.ts"
import * as Credentials from "./credentials.ts"
import { bodyExcerpt, describe, errorText, parseRetryAfter, RestError, timedOut } from "./rest_error.ts"
import * as Socket from "./socket.ts"

/**
 * The address of a server and the credentials for it.
 *
 * @category options
 * @since 0.1.0
 */
export interface ServerOptions {
  /** Base URL, with the path prefix of the server, if any. */
  readonly url: string
  /** Sent with every request, the authorization among them. */
  readonly headers: Credentials.Headers | Credentials.Credentials
  /** Opens WebSockets by an upgrade of this client, which has certificates for instance; by `ws` itself if absent. */
  readonly upgradeClient?: HttpClient.HttpClient | undefined
}

/**
 * The answer to a request.
 *
 * @category models
 * @since 0.1.0
 */
export interface Answer {
  /** Method and path of the request. */
  readonly name: string
  readonly status: number
  readonly text: string
  readonly headers: HttpHeaders.Headers
}

/**
 * A server that answers requests and opens WebSockets. It keeps the cookies of the server, as load balancers need them,
 * and asks for credentials again if the server refuses them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server {
  /** Base URL without a slash at its end. */
  readonly url: string
  /** Sends a request. Fails unless the status is a success. */
  readonly send: (
    request: HttpClientRequest.HttpClientRequest,
    timeout: Duration.Input,
  ) => Effect.Effect<Answer, RestError>
  /** Sends a request and emits the bytes of its answer as they arrive. Fails unless the status is a success. */
  readonly stream: (request: HttpClientRequest.HttpClientRequest) => Stream.Stream<Uint8Array, RestError>
  /** Opens a WebSocket, which closes with the scope. */
  readonly open: Socket.Open
  /** Returns the text without the credentials. */
  readonly redact: (text: string) => string
}

/**
 * Makes a server of its address.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options: ServerOptions) => Effect.Effect<Server, never, HttpClient.HttpClient> = Effect
  .fnUntraced(function* ({ headers, upgradeClient, url }) {
    const base = url.replace(/\/+$/, "")
    const http = yield* HttpClient.HttpClient
    const credentials = Credentials.isCredentials(headers) ? headers : Credentials.constant(headers)
    const cookies = Cookies.make()
    const redact = (text: string) => cookies.redact(credentials.redact(text))
    // A WebSocket that is upgraded from a connection which was idle would wait for one that is dead.
    const connection = upgradeClient === undefined ? {} : { connection: "close" }
    const nameOf = ({ method, url }: HttpClientRequest.HttpClientRequest) =>
      `${method} ${url.slice(base.length)}`
    const unreachable = (request: string, error: HttpClientError.HttpClientError) =>
      new RestError({ request, kind: "Unreachable", detail: redact(describe(error)) })

    /** Sends a request with these headers. Fails unless the status is a success. */
    const respond = Effect.fnUntraced(function* (
      request: HttpClientRequest.HttpClientRequest,
      headers: Credentials.Headers,
    ) {
      const name = nameOf(request)
      const clock = yield* Clock.Clock
      const all = cookies.addTo(headers, request.url, clock.currentTimeMillisUnsafe())
      const response = yield* http.execute(
        HttpClientRequest.setHeaders(request, { ...all, ...connection }),
      ).pipe(
        Body.withAnyStatus,
        // Any header may be a secret of the user, which spans would show, and the server may repeat it in any header.
        Effect.provideService(HttpHeaders.CurrentRedactedNames, [/^/]),
        Effect.mapError((error) => unreachable(name, error)),
      )
      const now = clock.currentTimeMillisUnsafe()
      cookies.keep(response.cookies, request.url, now)
      const { status } = response
      if (status >= 200 && status < 300) return response
      const { text } = yield* Effect.mapError(Body.read(response), (error) => unreachable(name, error))
      const { location } = response.headers
      const retryAfter = parseRetryAfter(response.headers["retry-after"], now)
      return yield* new RestError({
        request: name,
        kind: isRefusal(status) ? "Unauthorized" : status === 404 ? "NotFound" : "Refused",
        detail: redact(
          location === undefined
            ? errorText(redact(text))
            : `It redirects to "${bodyExcerpt(redact(location))}"`,
        ),
        status,
        ...(retryAfter === undefined ? {} : { retryAfter }),
      })
    })

    /** Sends a request with credentials, and again with other ones if they are refused. */
    const respondAuthorized = (request: HttpClientRequest.HttpClientRequest) =>
      Effect.catchTag(
        authorized(
          credentials,
          (headers) => respond(request, headers),
          ({ kind }) => kind === "Unauthorized",
        ),
        "CredentialsError",
        ({ detail }) =>
          Effect.fail(
            new RestError({ request: nameOf(request), kind: "NoCredentials", detail: redact(detail) }),
          ),
      )

    const sendOnce = Effect.fnUntraced(function* (request: HttpClientRequest.HttpClientRequest) {
      const name = nameOf(request)
      const response = yield* respondAuthorized(request)
      const { isWhole, text } = yield* Effect.mapError(
        Body.read(response),
        (error) => unreachable(name, error),
      )
      const { headers, status } = response
      if (isWhole) return { name, status, text, headers }
      const detail = `Its answer has more than ${Body.maxBodyBytes} bytes: "${bodyExcerpt(redact(text))}"`
      return yield* new RestError({ request: name, kind: "Malformed", status, detail: redact(detail) })
    })

    const openOnce = Effect.fnUntraced(
      function* (address: string, options: Socket.OpenOptions, headers: Credentials.Headers) {
        const clock = yield* Clock.Clock
        return yield* Socket.open(address, {
          upgradeClient,
          redact,
          ...options,
          headers: cookies.addTo(headers, address, clock.currentTimeMillisUnsafe()),
          onSetCookie: (lines) =>
            cookies.keep(HttpCookies.fromSetCookie(lines), address, clock.currentTimeMillisUnsafe()),
        })
      },
    )

    return {
      url: base,
      redact,
      send: (request, timeout) => {
        const answer = sendOnce(request).pipe(
          Effect.timeoutOrElse({
            duration: timeout,
            orElse: () => Effect.fail(timedOut(nameOf(request), timeout)),
          }),
        )
        return request.method === "GET" ? repeated(answer, ({ status }) => status) : answer
      },
      stream: (request) =>
        Stream.unwrap(
          Effect.map(
            respondAuthorized(request),
            ({ stream }) => Stream.mapError(stream, (error) => unreachable(nameOf(request), error)),
          ),
        ),
      open: (address, options) =>
        authorized(
          credentials,
          (headers) => openOnce(address, options, headers),
          ({ code = 0 }) => isRefusal(code),
        ).pipe(
          Effect.catchTag(
            "CredentialsError",
            ({ message }) => Effect.fail(new Socket.ChannelError({ detail: redact(message) })),
          ),
          (opening) => repeated(opening, ({ code }) => code),
        ),
    }
  })

const isRefusal = (status: number): boolean => status === 401 || status === 403

/** Runs an attempt with credentials, and once more if the server refuses them and there are other ones. */
const authorized = <A, E, R>(
  credentials: Credentials.Credentials,
  attempt: (headers: Credentials.Headers) => Effect.Effect<A, E, R>,
  isRefused: (error: E) => boolean,
): Effect.Effect<A, E | Credentials.CredentialsError, R> =>
  Effect.flatMap(
    credentials.headers,
    (headers) =>
      Effect.catchIf(attempt(headers), isRefused, (error) =>
        Effect.flatMap(
          credentials.renew(headers),
          Option.match({ onNone: () => Effect.fail(error), onSome: attempt }),
        )),
  )

/** Number of times that a request is repeated which a server could not answer. */
const maxRepetitions = 3

/** Pause before the first repetition; each later one is twice as long. */
const firstPause = Duration.millis(250)

/** Maximum time of all pauses, which a server may ask to be longer. */
const maxPauses = Duration.seconds(10)

/** Repeats a request that is safe to repeat while the server, or a proxy before it, is not available. */
const repeated = <A, E extends { readonly retryAfter?: Duration.Duration | undefined }, R>(
  attempt: Effect.Effect<A, E, R>,
  statusOf: (error: E) => number | undefined,
): Effect.Effect<A, E, R> => {
  const run = (pause: Duration.Duration, left: Duration.Duration, count: number): Effect.Effect<A, E, R> =>
    Effect.catch(attempt, (error) => {
      const { retryAfter } = error
      const status = statusOf(error)
      const isTransient = status === 429 ? retryAfter !== undefined : isUnavailable(status)
      const delay = Duration.max(pause, retryAfter ?? pause)
      return !isTransient || count === 0 || Duration.isGreaterThan(delay, left)
        ? Effect.fail(error)
        : Effect.delay(
          Effect.suspend(() => run(Duration.times(pause, 2), Duration.subtract(left, delay), count - 1)),
          delay,
        )
    })
  return run(firstPause, maxPauses, maxRepetitions)
}

/**
 * Tells whether a status says that a server, or a proxy before it, is not available for the moment.
 *
 * @category guards
 * @since 0.1.0
 */
export const isUnavailable = (status: number | undefined): boolean =>
  status === 502 || status === 503 || status === 504
