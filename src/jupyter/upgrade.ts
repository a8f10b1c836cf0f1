/**
 * The handshake of a WebSocket by an `HttpClient`, which has the certificates and the proxy of an application.
 *
 * @module
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Cookies from "effect/http/Cookies"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Scope from "effect/Scope"
import type * as EffectSocket from "effect/socket/Socket"
import { Buffer } from "node:buffer"
import type { ClientRequest } from "node:http"
import { Duplex } from "node:stream"
import * as Body from "./body.ts"

/**
 * The client cannot upgrade a connection. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class NoUpgrade extends Data.TaggedError("NoUpgrade") {}

/**
 * Sends the handshake of a WebSocket by a client, with the headers of the request that `ws` has prepared. The request
 * itself is not sent; it receives the answer. Fails if the client cannot upgrade a connection, as fetch cannot.
 *
 * @category constructors
 * @since 0.1.0
 */
export const handshake: (
  client: HttpClient.HttpClient,
  url: string,
  request: ClientRequest,
) => Effect.Effect<void, NoUpgrade, Scope.Scope> = Effect.fnUntraced(function* (client, url, request) {
  const headers = Object.entries(request.getHeaders()).flatMap(([name, value]) =>
    // The client sets its own.
    name === "host" || name === "connection" || name === "upgrade" ? [] : [[name, String(value)] as const]
  )
  // Closes the connection with the scope, also if the answer is not read.
  const response = yield* HttpClient.withScope(client).execute(
    HttpClientRequest.get(url.replace(/^ws/, "http")).pipe(
      HttpClientRequest.setHeaders(headers),
      HttpClientRequest.upgrade("websocket"),
    ),
  ).pipe(
    Body.withAnyStatus,
    // The connection lives longer than the span of the request.
    Effect.withTracerEnabled(false),
    Effect.catch((error) =>
      cannotUpgrade(error) ? new NoUpgrade() : Effect.sync(() => {
        request.emit("error", causeOf(error))
        return undefined
      })
    ),
  )
  if (response === undefined) return
  if (response.status !== 101) {
    request.emit("response", answerOf(response))
    return
  }
  yield* Effect.match(Effect.flatMap(response.upgrade, toDuplex), {
    onSuccess: (socket) =>
      void request.emit("upgrade", { ...answerOf(response), socket }, socket, Buffer.alloc(0)),
    onFailure: (error) => void request.emit("error", error),
  })
})

/** Tells whether the client itself refused the request, as fetch does; an error of the network has a cause. */
const cannotUpgrade = ({ reason }: HttpClientError.HttpClientError): boolean =>
  reason._tag === "TransportError" && reason.cause === undefined

const causeOf = (error: HttpClientError.HttpClientError): Error =>
  error.reason.cause instanceof Error ? error.reason.cause : error

/** Returns the part of an answer that `ws` reads. */
const answerOf = ({ cookies, headers, status }: HttpClientResponse.HttpClientResponse) => ({
  statusCode: status,
  headers: { ...headers, "set-cookie": Cookies.toSetCookieHeaders(cookies) },
})

/**
 * A connection of Effect as a stream of Node, which counts the bytes that it has read as Node's sockets do.
 */
class Connection extends Duplex {
  bytesRead = 0
}

/** Makes a stream of Node of a connection, which closes with the scope. */
const toDuplex = Effect.fnUntraced(function* (socket: EffectSocket.Socket) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const { pull } = yield* Scope.provide(socket.reader, scope)
  const { write, writeAll } = yield* Scope.provide(socket.writer, scope)
  const run = Effect.runForkWith(yield* Effect.context<never>())
  let isReading = false
  const connection: Connection = new Connection({
    read: () => {
      if (isReading) return
      isReading = true
      run(readInto)
    },
    write: (chunk: Uint8Array, _encoding, done) => finish(write(chunk), done),
    writev: (chunks: ReadonlyArray<{ readonly chunk: Uint8Array }>, done) => {
      const [first, ...rest] = chunks.map(({ chunk }) => chunk)
      finish(first === undefined ? Effect.void : writeAll([first, ...rest]), done)
    },
    // Not waited for: a connection to a peer that does not answer takes long to end.
    destroy: (error, done) => {
      run(Scope.close(scope, Exit.void))
      done(error)
    },
  })
  /** Reads until the stream has enough. */
  const readInto: Effect.Effect<void> = Effect.matchEffect(pull, {
    onFailure: () => Effect.sync(() => void connection.push(null)),
    onSuccess: (frames) =>
      Effect.suspend(() => {
        let wantsMore = true
        for (const frame of frames) {
          const bytes = Buffer.from(frame)
          connection.bytesRead += bytes.length
          wantsMore = connection.push(bytes)
        }
        isReading = wantsMore
        return wantsMore ? readInto : Effect.void
      }),
  })
  const finish = <E extends Error>(writing: Effect.Effect<void, E>, done: (error?: Error | null) => void) => {
    run(Effect.match(writing, { onFailure: (error) => done(error), onSuccess: () => done() }))
  }
  return connection
})
