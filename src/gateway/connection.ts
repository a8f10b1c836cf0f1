/**
 * The connection to the server behind a gateway, which a `KernelGateway` has besides its public members.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import * as Predicate from "effect/Predicate"
import type * as PubSub from "effect/PubSub"
import * as Redacted from "effect/Redacted"
import * as DelayedAck from "../jupyter/delayed_ack.ts"
import * as Credentials from "../jupyter/credentials.ts"
import * as Platform from "../platform.ts"
import * as Rest from "../jupyter/rest.ts"
import * as Server from "../jupyter/server.ts"
import type * as Socket from "../jupyter/socket.ts"
import * as Address from "./address.ts"
import { CredentialsFailed, type GatewayError, gatewayError, Unauthorized, Unreachable } from "./error.ts"
import type { Rules } from "../sandbox/rules.ts"
import type { Violation } from "../sandbox/violation.ts"

/** A connection to a Jupyter server, which all kernels on it share. */
export interface Connection {
  readonly url: string
  readonly token: Redacted.Redacted<string> | undefined
  /** The facts about the server besides its address. */
  readonly options: Options
  /** Opens WebSockets with the credentials and the cookies of the server. */
  readonly openSocket: Socket.Open
  /** Decides when to acknowledge at once; `undefined` if the server does not wait for acknowledgements. */
  readonly ackPolicy: DelayedAck.AckPolicy | undefined
  readonly rest: Rest.Rest
  /** Waits for the end of the server, and returns a description of it; never succeeds for a remote server. */
  readonly ended: Effect.Effect<string>
  /** True for a gateway of this library, which supports more than the REST API of Jupyter. */
  readonly isOwn: boolean
  /** True for a gateway of this library that another process started, which does not trust its clients. */
  readonly isServed: boolean
  /**
   * The way to kernels that have connections of their own: to their clients on this machine or to a shared gateway, or
   * joined to their clients by the gateway; `undefined` if the server has no such kernels.
   */
  readonly ownConnection: "direct" | "joined" | undefined
  /** The id of a shared gateway, which another one under its name does not have. */
  readonly serverId: string | undefined
  /** The environment of kernels without the variables of a client; only those of this client on a remote server. */
  readonly kernelEnv: Readonly<Record<string, string>>
  /** The sandbox of the kernels of a local gateway; `undefined` if they have none, or if the server is remote. */
  readonly sandbox: Sandbox | undefined
}

/** The permissions of all kernels of a gateway, and the actions that were denied. */
export interface Sandbox {
  readonly rules: Rules
  /** Authorizes requests to the gateway that restrict the rules of a kernel. */
  readonly secret: Redacted.Redacted<string>
  /** An absolute path. */
  readonly workspace: string
  readonly violations: PubSub.PubSub<Violation>
}

/** The public members of a gateway. */
interface Address {
  readonly url: string
  readonly token: Redacted.Redacted<string> | undefined
  readonly join: Effect.Effect<void, GatewayError>
}

/** The facts about a server besides its address. */
interface Options {
  /** Headers besides the authorization by the token, or credentials, which have that, too. */
  readonly headers?: Credentials.Headers | Credentials.Credentials | undefined
  /** Opens WebSockets by this client if it can upgrade connections. */
  readonly upgradeClient?: HttpClient.HttpClient | undefined
  /** Maximum number of concurrent starts; 1 by default, because Kernel Gateway mixes up their environments. */
  readonly startConcurrency?: number | undefined
  readonly kernelEnv?: Readonly<Record<string, string>> | undefined
  readonly sandbox?: Sandbox | undefined
  readonly serverId?: string | undefined
  /** False by default. */
  readonly isOwn?: boolean | undefined
  /** False by default. */
  readonly isServed?: boolean | undefined
  readonly ownConnection?: Connection["ownConnection"]
}

/** Set in tests in which clients connect to the gateway. */
const fallback = "EFFECT_JUPYTER_TEST_FALLBACK"

/** The member of a gateway that has its connection; a copy of the gateway has it, too. */
const ConnectionKey: unique symbol = Symbol("effect-jupyter/KernelGateway/connection")

interface Connected {
  /** A function, so that a printed gateway shows no secrets. */
  readonly [ConnectionKey]: () => Connection
}

const isConnected = (gateway: Address): gateway is Address & Connected =>
  Predicate.hasProperty(gateway, ConnectionKey)

/** Makes a connection for a server. */
export const make: (
  address: Address,
  options?: Options,
) => Effect.Effect<Connection, never, HttpClient.HttpClient> = Effect.fnUntraced(
  function* ({ join, token, url }, options = {}) {
    const {
      headers = {},
      isOwn = false,
      isServed = false,
      kernelEnv = {},
      sandbox,
      serverId,
      upgradeClient,
    } = options
    const ownConnection = Platform.variable(fallback) === undefined ? options.ownConnection : undefined
    const server = yield* Server.make({
      url,
      upgradeClient,
      headers: Credentials.isCredentials(headers) ? headers : { ...headers, ...authorization(token) },
    })
    // Gateways of this library support concurrent starts; more than 4 are not faster on few cores.
    const maxConcurrentStarts = options.startConcurrency ?? (isOwn ? 4 : 1)
    const rest = yield* Rest.of(server, { maxConcurrentStarts })
    const ackPolicy = isOwn ? undefined : DelayedAck.make()
    const ended = endedOf(join)
    return {
      url,
      token,
      options,
      openSocket: server.open,
      rest,
      ended,
      isOwn,
      isServed,
      ownConnection,
      ackPolicy,
      kernelEnv,
      sandbox,
      serverId,
    }
  },
)

/** Returns the header of a token. Kernel Gateway knows the scheme `token` only, and a URL would end up in logs. */
export const authorization = (token: Redacted.Redacted<string> | undefined): Credentials.Headers =>
  token === undefined ? {} : { authorization: `token ${Redacted.value(token)}` }

const endedOf = (join: Address["join"]): Connection["ended"] =>
  Effect.match(join, {
    onFailure: ({ message }) => message,
    onSuccess: () => "The gateway was closed",
  })

/** Returns the error of a gateway whose server failed to answer a request. */
export function toGatewayError(url: string, error: Rest.RestError): GatewayError {
  return gatewayError(
    error.kind === "Unauthorized"
      ? new Unauthorized({
        url,
        status: error.status ?? 0,
        ...(error.detail === "" ? {} : { detail: error.detail }),
      })
      : error.kind === "NoCredentials"
      ? new CredentialsFailed({ url, detail: error.detail })
      : new Unreachable({
        url,
        detail: error.message,
        ...(error.status === undefined ? {} : { status: error.status }),
      }),
  )
}

/** Gives a gateway its connection, so that its clients share it. */
export function attach<G extends Address>(gateway: G, connection: Connection): G {
  return { ...gateway, [ConnectionKey]: () => connection }
}

/** Returns the connection of a gateway; a new one to the same server if the gateway was given another URL or token. */
export function of(gateway: Address): Effect.Effect<Connection, never, HttpClient.HttpClient> {
  const { join, token, url } = gateway
  const known = isConnected(gateway) ? gateway[ConnectionKey]() : undefined
  if (known !== undefined && known.url === url && known.token === token) {
    return Effect.succeed({ ...known, ended: endedOf(join) })
  }
  const address = Address.parse(url)
  const options = known?.options
  return make({ url: address?.url ?? url, token: token ?? address?.token, join }, {
    ...options,
    // Another address may lead over a proxy, which a connection to the kernel itself would bypass.
    ownConnection: options?.ownConnection === "joined" ? "joined" : undefined,
    // Another token replaces the credentials that are asked for.
    ...(Credentials.isCredentials(options?.headers) && known?.token !== token ? { headers: {} } : {}),
  })
}

/** Returns the reason for which no kernel of a gateway outlives its client; `undefined` if kernels can. */
export const refusalOf = ({ isOwn, isServed, ownConnection, serverId }: Connection): string | undefined =>
  ownConnection === "joined"
    ? 'The kernel ends with its connection; give the option "reconnect" of layerRemote, or use layerShared'
    : isOwn && !isServed && serverId === undefined
    ? "The gateway ends with this program; use KernelGateway.layerShared"
    : undefined

/** Returns the name of a server in references to its kernels. */
export const serverOf = ({ serverId, url }: Connection): string => serverId ?? url

/** Returns the sandbox of a gateway's kernels, if they have one. */
export function sandboxOf(gateway: Address): Sandbox | undefined {
  return isConnected(gateway) ? gateway[ConnectionKey]().sandbox : undefined
}
