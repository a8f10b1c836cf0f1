/**
 * The connection of a program to the supervisor of a shared gateway, which keeps the gateway running while it is open;
 * `gateway/shared.py` has the other end.
 *
 * @module
 */
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import * as Defect from "../defect.ts"
import { SandboxErrorReason } from "../sandbox/error.ts"

const exit = {
  /** The exit code of the gateway; `null` if it was ended. */
  exitCode: Schema.NullOr(Schema.Int),
  /** The last lines of its log. */
  output: Schema.Array(Schema.String),
} as const

const Ready = Schema.Struct({ ready: Schema.String, lease: Schema.Int })
const Failed = Schema.Struct({
  failed: Schema.Struct({
    ...exit,
    refused: Schema.NullOr(SandboxErrorReason),
    /** The options of the program that started it. */
    options: Schema.Record(Schema.String, Schema.String),
  }),
})
const Ended = Schema.Struct({ ended: Schema.Struct(exit) })

/** A line of the supervisor. */
const Line = Schema.Union([
  Ready,
  Failed,
  Ended,
  Schema.Struct({ log: Schema.String }),
  Schema.Struct({ violation: Schema.String, kernel: Schema.NullOr(Schema.String) }),
])
const decodeLine = Schema.decodeEffect(Schema.fromJsonString(Line))

/** The gateway listens and has an id, or did not start; `undefined` if its supervisor ended without a word. */
export type Start = typeof Ready.Type | typeof Failed.Type | undefined

/** The end of a gateway; `undefined` if its supervisor ended without a word. */
export type End = (typeof Ended.Type)["ended"] | undefined

/** A connection to a supervisor. */
export interface Lease {
  /** Waits until the gateway listens, or will not. */
  readonly start: Effect.Effect<Start>
  /** Waits for the end of the gateway. */
  readonly end: Effect.Effect<End>
  /** Waits for the end of the supervisor, which has then removed everything. */
  readonly closed: Effect.Effect<void>
}

/** The request of a program, and the receivers of messages that the supervisor sends to all programs. */
export interface LeaseOptions {
  readonly request: { readonly idleTimeToLive: number | null } | { readonly stop: true }
  readonly onLog?: (line: string) => Effect.Effect<void>
  readonly onViolation?: (kernelId: string | undefined, violation: string) => Effect.Effect<void>
}

/** Opens a connection. Fails if no supervisor listens at the socket. */
export const open: (
  path: string,
  options: LeaseOptions,
) => Effect.Effect<Lease, Socket.SocketError, Scope.Scope> = Effect.fnUntraced(
  function* (path, { onLog = () => Effect.void, onViolation = () => Effect.void, request }) {
    const socket = yield* NodeSocket.makeNet({ path })
    const lines = yield* Socket.readerString(socket)
    const { write } = yield* socket.writer
    const start = yield* Deferred.make<Start>()
    const end = yield* Deferred.make<End>()
    const closed = yield* Deferred.make<void>()
    yield* Stream.fromPull(Effect.succeed(lines)).pipe(
      Stream.splitLines,
      Stream.runForEach((line) =>
        Effect.flatMap(
          decodeLine(line),
          (message): Effect.Effect<unknown> =>
            "ready" in message || "failed" in message
              ? Deferred.succeed(start, message)
              : "ended" in message
              ? Deferred.succeed(end, message.ended)
              : "log" in message
              ? onLog(message.log)
              : onViolation(message.kernel ?? undefined, message.violation),
        )
      ),
      Effect.ignore,
      Effect.ensuring(Effect.all([
        Deferred.succeed(start, undefined),
        Deferred.succeed(end, undefined),
        Deferred.succeed(closed, undefined),
      ])),
      Defect.log,
      Effect.forkScoped,
    )
    yield* write(`${JSON.stringify(request)}\n`)
    return { start: Deferred.await(start), end: Deferred.await(end), closed: Deferred.await(closed) }
  },
)
