/**
 * The REST API of JupyterHub, as far as it starts and stops the server of a user.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Sse from "effect/encoding/Sse"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { RestError } from "../jupyter/rest_error.ts"
import type * as Server from "../jupyter/server.ts"

/** The server of a user as the hub knows it. */
export const ServerModel = Schema.Struct({
  ready: Schema.Boolean,
  /** The operation that is under way; null if the server runs or is stopped. */
  pending: Schema.NullOr(Schema.String),
  /** The time of its start; null until the hub has the options of the start. */
  started: Schema.optionalKey(Schema.NullOr(Schema.String)),
  /** The options of its start. */
  user_options: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.Unknown))),
  /** The address, without scheme and host. */
  url: Schema.String,
  /** The address, if users have hosts of their own. */
  full_url: Schema.optionalKey(Schema.NullOr(Schema.String)),
})

const UserModel = Schema.Struct({
  name: Schema.String,
  servers: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, ServerModel))),
})

/** An event of a start. */
export const ProgressEvent = Schema.Struct({
  progress: Schema.optionalKey(Schema.Finite),
  message: Schema.optionalKey(Schema.String),
  ready: Schema.optionalKey(Schema.Boolean),
  failed: Schema.optionalKey(Schema.Boolean),
})

/** The state of a server; `undefined` if it does not run. */
export type State = typeof ServerModel.Type | undefined

/** The server of a user on a hub. */
export interface UserServer {
  readonly state: Effect.Effect<State, RestError>
  readonly start: (options: Readonly<Record<string, unknown>>) => Effect.Effect<void, RestError>
  readonly stop: Effect.Effect<void, RestError>
  /** The events of a start that has been requested; ends with it. */
  readonly progress: Stream.Stream<typeof ProgressEvent.Type & { readonly message: string }, RestError>
}

/** Maximum time of a request; the hub answers a start after 10 seconds. */
const requestTimeout = "30 seconds"

/** Maximum time without a byte of the progress; the hub sends an empty line every 8 seconds. */
const maxSilence = "30 seconds"

/** Maximum characters of one event. */
const maxEventSize = 1024 * 1024

/** Returns the name of the user that the credentials belong to. */
export const whoami = (hub: Server.Server): Effect.Effect<string, RestError> =>
  Effect.map(getUser(hub, "user"), ({ name }) => name)

/** Returns the server of a user; the name of the default server is empty. */
export function userServer(hub: Server.Server, user: string, name: string): UserServer {
  const path = `users/${encodeURIComponent(user)}`
  const server = name === "" ? `${path}/server` : `${path}/servers/${encodeURIComponent(name)}`
  const url = `${hub.url}/hub/api/${server}`
  const cut = (kind: RestError["kind"], detail: string) =>
    new RestError({ request: `GET /hub/api/${server}/progress`, kind, detail: hub.redact(detail) })
  return {
    state: Effect.map(getUser(hub, path), ({ servers }) => servers?.[name]),
    start: (options) =>
      Effect.asVoid(
        hub.send(HttpClientRequest.bodyJsonUnsafe(HttpClientRequest.post(url), options), requestTimeout),
      ),
    stop: Effect.asVoid(hub.send(HttpClientRequest.delete(url), requestTimeout)),
    progress: hub.stream(
      HttpClientRequest.get(`${url}/progress`).pipe(HttpClientRequest.accept("text/event-stream")),
    ).pipe(
      Stream.timeoutOrElse({
        duration: maxSilence,
        orElse: () => Stream.fail(cut("Timeout", `No answer within ${maxSilence}`)),
      }),
      Stream.decodeText,
      Stream.pipeThroughChannel(Sse.decodeDataSchema(ProgressEvent, { maxEventSize })),
      Stream.map(({ data }) => ({ ...data, message: hub.redact(data.message ?? "") })),
      Stream.mapError((error) =>
        error._tag === "RestError"
          ? error
          : cut("Malformed", error._tag === "Retry" ? "It asks for another connection" : error.message)
      ),
    ),
  }
}

const decodeUser = Schema.decodeUnknownEffect(Schema.fromJsonString(UserModel))

const getUser = Effect.fnUntraced(function* (hub: Server.Server, path: string) {
  const { name, status, text } = yield* hub.send(
    HttpClientRequest.get(`${hub.url}/hub/api/${path}`),
    requestTimeout,
  )
  return yield* Effect.mapError(
    decodeUser(text),
    () => new RestError({ request: name, kind: "Malformed", status, detail: "Not a user of JupyterHub" }),
  )
})
