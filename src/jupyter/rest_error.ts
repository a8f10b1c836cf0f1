/**
 * The error of a request to a Jupyter server, and the text in its answer.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { plain } from "./control_codes.ts"

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
    kind: Schema.Literals([
      "Unreachable",
      "Timeout",
      "Unauthorized",
      "NotFound",
      "Refused",
      "Malformed",
      /** An Effect that was given for the credentials failed; nothing was sent. */
      "NoCredentials",
    ]),
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
 * Returns the error of a request without an answer.
 *
 * @category constructors
 * @since 0.1.0
 */
export function timedOut(request: string, timeout: Duration.Input): RestError {
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

/**
 * Returns the error text of a response body.
 *
 * @category utilities
 * @since 0.1.0
 */
export function errorText(text: string): string {
  const body = decodeErrorBody(text)
  if (Exit.isFailure(body)) return bodyExcerpt(text)
  const { message, traceback } = body.value
  // The last line of a traceback names the exception.
  return plain(truncateMiddle(traceback?.trim().split("\n").at(-1) || message.trim(), 8192))
}

/** Characters of each end of a body that are searched for text. */
const maxExcerptInput = 10_000

/**
 * Returns the beginning and the end of a body on one line: enough to recognize a login page or the end of a traceback.
 *
 * @category utilities
 * @since 0.1.0
 */
export function bodyExcerpt(text: string): string {
  const line = plain(truncateMiddle(text, 2 * maxExcerptInput)).replace(/\s+/g, " ")
  return truncateMiddle(line.trim(), 400)
}

function truncateMiddle(text: string, maxLength: number): string {
  return text.length > maxLength ? `${text.slice(0, maxLength / 2)} … ${text.slice(-maxLength / 2)}` : text
}

/**
 * Returns the message of an error of the network.
 *
 * @category utilities
 * @since 0.1.0
 */
export function describe(
  error: { readonly message: string; readonly reason?: { readonly cause?: unknown } },
): string {
  const { message = "" } = rootOf(error.reason?.cause) ?? {}
  return message === "" ? error.message : `${error.message} (${message})`
}

/** Returns the first of the errors that led to one: that of fetch says only that it failed. */
function rootOf(cause: unknown): Error | undefined {
  return cause instanceof Error ? rootOf(cause.cause) ?? cause : undefined
}

/**
 * Returns the delay in a header `retry-after`, which has seconds or a date; `undefined` if it is not valid.
 *
 * @category utilities
 * @since 0.1.0
 */
export function parseRetryAfter(value = "", now: number): Duration.Duration | undefined {
  const text = value.trim()
  const millis = /^\d+$/.test(text)
    ? Number(text) * 1000
    // Dates of HTTP begin with a weekday; JavaScript takes "-5" and "1.5" for dates, too.
    : /^[A-Z][a-z]{2,8},? /.test(text)
    ? Date.parse(text) - now
    : NaN
  return Number.isNaN(millis)
    ? undefined
    : Duration.millis(Math.min(Math.max(0, millis), Number.MAX_SAFE_INTEGER))
}
