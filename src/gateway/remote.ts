/**
 * Connects to a server that exists already.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Options from "../options/check.ts"
import * as Platform from "../platform.ts"
import * as Address from "./address.ts"
import * as Connection from "./connection.ts"
import { type GatewayError, gatewayError, Unreachable } from "./error.ts"

/**
 * The address and the credentials of a remote server.
 *
 * @category options
 * @since 0.1.0
 */
export interface RemoteOptions {
  /**
   * Base URL with the path prefix of the server, or the address that Jupyter prints, with its page and token. A user name
   * and a password in it are sent as basic authentication if there is no token.
   */
  readonly url: string
  /** The token that requests are authorized with; that of the address by default. */
  readonly token?: Redacted.Redacted<string> | string | undefined
  /** Headers of every request; none by default. */
  readonly headers?: Record<string, string> | undefined
}

/**
 * Finds the server at the address or at one of its parent paths, as the address may be that of a page. Fails with
 * `Unreachable`, `Unauthorized` or `InvalidOption`.
 */
export const connect: (
  options: RemoteOptions,
) => Effect.Effect<Connection.Connection, GatewayError, Scope.Scope> = Effect.fnUntraced(
  function* (options: RemoteOptions) {
    yield* Effect.mapError(Options.check(Options.Remote, { ...options }), gatewayError)
    const address = Address.parse(options.url)
    if (address === undefined) {
      const url = Address.withoutSecrets(options.url)
      return yield* gatewayError(new Unreachable({ url, detail: "It is not an http or https URL" }))
    }
    const given = Redacted.isRedacted(options.token) ? Redacted.value(options.token) : options.token
    const token = given?.trim() ? Redacted.make(given.trim()) : address.token
    const headers = address.authorization === undefined
      ? options.headers
      : { authorization: address.authorization, ...options.headers }
    const connectTo = (url: string) =>
      Connection.make({ url, token, join: Effect.never }, { headers }).pipe(
        Effect.tap(({ rest }) => rest.check),
        Effect.mapError((error) => Connection.toGatewayError(url, error)),
      )
    const [first = address.url, ...parents] = Address.candidates(address.url)
    return yield* parents.reduce(
      (found, parent) =>
        Effect.catchIf(
          found,
          hasAnswered,
          (error) =>
            Effect.mapError(
              connectTo(parent),
              (other) => other.reason._tag === "Unauthorized" ? other : error,
            ),
        ),
      connectTo(first),
    )
  },
  Platform.provide,
)

/** Tells whether a server answered, but not as one with kernels does at this path. */
const hasAnswered = ({ reason }: GatewayError): boolean =>
  reason._tag === "Unauthorized" || (reason._tag === "Unreachable" && reason.status !== undefined)
