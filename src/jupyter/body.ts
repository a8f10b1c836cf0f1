/**
 * Takes answers of any status, and reads their bodies within a bound.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Stream from "effect/Stream"

/**
 * Maximum bytes of an answer: servers with hundreds of kernelspecs need a hundredth of that.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxBodyBytes = 16 * 1024 * 1024

/**
 * The text of a body, which is cut at {@link maxBodyBytes} if it is not whole.
 *
 * @category models
 * @since 0.1.0
 */
export interface Body {
  readonly text: string
  readonly isWhole: boolean
}

/**
 * Takes the answer from the error of a client that fails for statuses that are no success.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withAnyStatus = <R>(
  responding: Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError, R>,
): Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError, R> =>
  Effect.catchReason(
    responding,
    "HttpClientError",
    "StatusCodeError",
    ({ response }) => Effect.succeed(response),
  )

/**
 * Reads the body of a response, which is not read any further once it is past the bound.
 *
 * @category constructors
 * @since 0.1.0
 */
export const read = (
  response: HttpClientResponse.HttpClientResponse,
): Effect.Effect<Body, HttpClientError.HttpClientError> =>
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
