/**
 * The headers that authorize requests to a server. They are constant, or those of an Effect that is run again before
 * they expire and when the server refuses them.
 *
 * @module
 */
import * as Cache from "effect/Cache"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Secrets from "./secrets.ts"

/**
 * Headers of a request.
 *
 * @category models
 * @since 0.1.0
 */
export type Headers = Readonly<Record<string, string>>

/**
 * An Effect that was given for credentials has failed.
 *
 * @category errors
 * @since 0.1.0
 */
export class CredentialsError
  extends Schema.TaggedError<CredentialsError>("effect-jupyter/jupyter/CredentialsError")(
    "CredentialsError",
    {
      detail: Schema.String,
    },
  ) {
  override get message(): string {
    return `There are no credentials: ${this.detail}`
  }
}

/**
 * The headers that authorize requests.
 *
 * @category models
 * @since 0.1.0
 */
export interface Credentials {
  /** Returns the headers of the next request. */
  readonly headers: Effect.Effect<Headers, CredentialsError>
  /** Asks for other headers in place of those that the server refused. Returns none if there are no others. */
  readonly renew: (refused: Headers) => Effect.Effect<Option.Option<Headers>, CredentialsError>
  /** Returns the text without secrets. */
  readonly redact: (text: string) => string
}

/**
 * Headers, and the time at which they expire.
 *
 * @category models
 * @since 0.1.0
 */
export interface Expiring {
  readonly headers: Headers
  /** Milliseconds since 1970; `undefined` if they do not expire. */
  readonly expiresAt: number | undefined
}

/** Maximum time before their expiry at which headers are asked for again. */
const maxMargin = Duration.seconds(30)

/** Maximum time of an Effect that is asked for headers. */
const maxSourceTime = Duration.seconds(30)

/**
 * Makes credentials of constant headers.
 *
 * @category constructors
 * @since 0.1.0
 */
export function constant(headers: Headers): Credentials {
  const { add, redact } = Secrets.make()
  add(headers)
  return { headers: Effect.succeed(headers), renew: () => Effect.succeedNone, redact }
}

/**
 * Makes credentials of an Effect, which runs once for all requests: before the first one, when a tenth of the time until
 * the expiry is left (30 seconds at most), and when the server refuses the headers. It fails after 30 seconds.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  source: Effect.Effect<Expiring, CredentialsError>,
) => Effect.Effect<Credentials> = Effect.fnUntraced(function* (source) {
  const { add, redact } = Secrets.make()
  const cache = yield* Cache.makeWith(
    (_key: "headers") =>
      Effect.gen(function* () {
        const { expiresAt, headers } = yield* Effect.timeoutOrElse(source, {
          duration: maxSourceTime,
          orElse: () =>
            Effect.fail(new CredentialsError({ detail: `None within ${Duration.format(maxSourceTime)}` })),
        })
        add(headers)
        const remaining = expiresAt === undefined
          ? Duration.infinity
          : Duration.millis(Math.max(0, expiresAt - (yield* Clock.currentTimeMillis)))
        return { headers, remaining }
      }),
    { capacity: 1, timeToLive: (exit) => Exit.isSuccess(exit) ? timeToLive(exit.value.remaining) : 0 },
  )
  const current = Effect.map(Cache.get(cache, "headers"), ({ headers }) => headers)
  return {
    headers: current,
    renew: (refused) =>
      // Requests that are refused at the same time ask once.
      Cache.invalidateWhen(cache, "headers", ({ headers }) => headers === refused).pipe(
        Effect.andThen(current),
        Effect.map(Option.liftPredicate((headers) => !Equal.equals(headers, refused))),
      ),
    redact,
  }
})

const timeToLive = (remaining: Duration.Duration): Duration.Duration =>
  Duration.isFinite(remaining)
    ? Duration.subtract(remaining, Duration.min(maxMargin, Duration.times(remaining, 0.1)))
    : remaining

/**
 * Tells credentials from headers.
 *
 * @category guards
 * @since 0.1.0
 */
export const isCredentials = (value: Headers | Credentials | undefined): value is Credentials =>
  Predicate.isFunction(value?.redact)
