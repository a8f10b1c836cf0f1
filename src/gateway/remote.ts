/**
 * Connects to a server that exists already.
 *
 * @module
 */
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { isUnavailable } from "../jupyter/server.ts"
import * as Options from "../options/check.ts"
import * as Platform from "../platform.ts"
import * as Address from "./address.ts"
import * as Connection from "./connection.ts"
import * as Credentials from "./credentials.ts"
import { CredentialsFailed, type GatewayError, gatewayError, Unreachable } from "./error.ts"

/**
 * A token that expires.
 *
 * @category options
 * @since 0.1.0
 */
export interface ExpiringToken {
  readonly token: Redacted.Redacted<string> | string
  /** The time after which the server refuses it; never by default. */
  readonly expiresAt?: DateTime.DateTime.Input | undefined
}

/**
 * The address and the credentials of a remote server, and how to use it.
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
  /**
   * The token that requests are authorized with; that of the address by default. An Effect, such as a request to a vault,
   * runs before the first request, again before `expiresAt`, and when the server refuses the token.
   */
  readonly token?:
    | Redacted.Redacted<string>
    | string
    | Effect.Effect<Redacted.Redacted<string> | string | ExpiringToken, unknown>
    | undefined
  /**
   * Headers of every request; none by default. An Effect runs before the first request, and when the server refuses the
   * headers.
   */
  readonly headers?: Record<string, string> | Effect.Effect<Record<string, string>, unknown> | undefined
  /**
   * The user that an Enterprise Gateway starts kernels for, as their variable `KERNEL_USERNAME`; the option `user` of a
   * kernel replaces it.
   */
  readonly user?: string | undefined
  /**
   * Maximum number of kernels that start at the same time; 4 by default for a server of `effect-jupyter serve`, and 1 for
   * others, because Kernel Gateway mixes up the environments of concurrent starts.
   */
  readonly startConcurrency?: number | undefined
  /**
   * Restores a connection that is cut, as for other servers, on a server of `effect-jupyter serve`; false by default.
   * Kernels then send over Jupyter's channels, slower and without flow control: the server keeps the output that a
   * consumer does not take. By default a consumer that takes none makes the kernel wait, and a connection that is cut ends
   * the kernel with `ConnectionLost`.
   */
  readonly reconnect?: boolean | undefined
}

/**
 * Finds the server at the address or at one of its parent paths, as the address may be that of a page. Fails with
 * `Unreachable`, `Unauthorized`, `CredentialsFailed` or `InvalidOption`.
 */
export const connect: (
  options: RemoteOptions,
) => Effect.Effect<Connection.Connection, GatewayError, Scope.Scope> = Effect.fnUntraced(
  function* (options: RemoteOptions) {
    const { address, headers, token } = yield* authorize(Options.Remote, options)
    const upgradeClient = Option.getOrUndefined(yield* Effect.serviceOption(HttpClient.HttpClient))
    const facts = {
      headers,
      upgradeClient,
      startConcurrency: options.startConcurrency,
      kernelEnv: options.user === undefined ? {} : { KERNEL_USERNAME: options.user },
    }
    const connectTo = Effect.fnUntraced(
      function* (url: string) {
        const address = { url, token, join: Effect.never }
        const connection = yield* Connection.make(address, facts)
        if (!(yield* isServed(connection))) return connection
        const ownConnection = options.reconnect === true ? undefined : "joined"
        return yield* Connection.make(address, { ...facts, isOwn: true, isServed: true, ownConnection })
      },
      Platform.provide,
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
)

/** Checks the options of a server, and returns its address and its credentials. */
export const authorize = Effect.fnUntraced(
  function* (schema: typeof Options.Remote | typeof Options.Hub, options: RemoteOptions) {
    const address = Address.parse(options.url)
    for (const values of [constants(options), { token: address?.token }]) {
      yield* Effect.mapError(Options.check(schema, values), gatewayError)
    }
    if (address === undefined) {
      const url = Address.withoutSecrets(options.url)
      return yield* gatewayError(new Unreachable({ url, detail: "It is not an http or https URL" }))
    }
    const credentials = yield* Effect.mapError(
      Credentials.make(options, address),
      ({ detail }) => gatewayError(new CredentialsFailed({ url: address.url, detail })),
    )
    return { address, ...credentials }
  },
)

/** The version of what `effect-jupyter serve` offers beyond Jupyter's API, which `gateway/join.py` announces. */
const protocol = 1

/** Tells whether a server runs `effect-jupyter serve` of this version. */
const isServed = Effect.fnUntraced(function* ({ rest, url }: Connection.Connection) {
  const found = yield* Effect.mapError(rest.protocol, (error) => Connection.toGatewayError(url, error))
  if (found !== undefined && found !== protocol) {
    yield* Effect.logWarning(
      `"${url}" runs "effect-jupyter serve" with version ${found} of its protocol, and this library knows version ` +
        `${protocol}; it is used as any Jupyter server, install the same version on both sides`,
    )
  }
  return found === protocol
})

/** Returns the options whose values are known before an Effect runs. */
const constants = ({ headers, token, ...options }: RemoteOptions) => ({
  ...options,
  ...(Effect.isEffect(token) ? {} : { token }),
  ...(Effect.isEffect(headers) ? {} : { headers }),
})

/** Tells whether a server answered, but not as one with kernels does at this path. */
const hasAnswered = ({ reason }: GatewayError): boolean =>
  reason._tag === "Unauthorized" ||
  (reason._tag === "Unreachable" && reason.status !== undefined && !isUnavailable(reason.status))
