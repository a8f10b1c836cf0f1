/**
 * The session of a key in another process: how requests are sent there, and what they fail with.
 *
 * @module
 */
import type * as ClusterError from "effect/cluster/ClusterError"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as RpcClient from "effect/rpc/RpcClient"
import type { RpcClientError } from "effect/rpc/RpcClientError"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import {
  ConnectionLost,
  ExecutionFailure,
  isKernelError,
  KernelError,
  type KernelErrorReason,
  Unsupported,
} from "../execution.ts"
import { IntrospectionFailed, KernelBusy } from "../introspection.ts"
import type { AskOptions } from "../kernel/introspection.ts"
import { UnsupportedValue } from "../values/error.ts"
import { type Attachment, group } from "./group.ts"
import * as Uploads from "./uploads.ts"

/** The time between attempts to hold a session, or to read its late output, after the connection was lost. */
const reconnectDelay: Duration.Input = "1 second"

/** Failures of requests that have no answer. */
export type TransportError =
  | RpcClientError
  | ClusterError.AlreadyProcessingMessage
  | ClusterError.EntityNotAssignedToRunner
  | ClusterError.MailboxFull
  | ClusterError.PersistenceError

const isAnswer = Schema.is(
  Schema.Union([...ExecutionFailure.members, KernelBusy, IntrospectionFailed, UnsupportedValue]),
)
const isTransportError = (error: unknown): error is TransportError => !isAnswer(error)

/** The procedures of another process. */
export type Client = RpcClient.FromGroup<typeof group, TransportError>

/** The session of a key in another process. */
export interface Remote {
  readonly key: string
  readonly client: Client
  /** Completed when the protocol has sent a part of an answer that is not complete. */
  readonly streams: Deferred.Deferred<void>
  readonly guard: Effect.Effect<never, KernelError> | undefined
  /** The turn of the request that the server has not accepted yet. */
  readonly sending: Semaphore.Semaphore
  /** The scope of the client. */
  readonly scope: Scope.Scope
  attachment: Attachment | undefined
  /** The reason for which requests fail until a reset. */
  ended: KernelErrorReason | undefined
}

/** The session that a request is for. */
export interface Target {
  readonly key: string
  readonly session: string | undefined
}

/** Takes note of the kernel that the session has. */
export const attach = (remote: Remote, attachment: Attachment): void => {
  remote.attachment = attachment
  remote.ended = undefined
}

/** Repeats a request while there is no connection. */
export const untilConnected = Schedule.spaced(reconnectDelay).pipe(
  Schedule.while(({ input }: { readonly input: unknown }) =>
    isKernelError(input) && input.reason._tag === "ConnectionLost"
  ),
)

/** Sends a request. */
export const ask = <A, E>(
  remote: Remote,
  request: (target: Target) => Effect.Effect<A, E | TransportError>,
): Effect.Effect<A, E | KernelError> =>
  Effect.suspend((): Effect.Effect<A, E | TransportError | KernelError> => {
    if (remote.ended !== undefined) return new KernelError({ reason: remote.ended })
    const answer = request(targetOf(remote))
    return remote.guard === undefined ? answer : Effect.raceFirst(answer, remote.guard)
  }).pipe(Effect.catchCause((cause) => Effect.fail(failureOf(remote, cause))))

/** Sends a request whose answers are a stream. */
export const askStream = <A, E>(
  remote: Remote,
  request: (target: Target) => Stream.Stream<A, E | TransportError>,
): Stream.Stream<A, E | KernelError> =>
  Stream.suspend((): Stream.Stream<A, E | TransportError | KernelError> => {
    if (remote.ended !== undefined) return Stream.fail(new KernelError({ reason: remote.ended }))
    const answers = request(targetOf(remote))
    return remote.guard === undefined ? answers : Stream.interruptWhen(answers, remote.guard)
  }).pipe(Stream.catchCause((cause) => Stream.fail(failureOf(remote, cause))))

/** Returns the session that requests are for. */
export const targetOf = ({ attachment, key }: Remote): Target => ({ key, session: attachment?.session })

/** Returns the failure of a request; that of the connection if nothing else is known. */
export function failureOf<E>(remote: Remote, cause: Cause.Cause<E | TransportError>): E | KernelError {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  if (error === undefined) {
    // The caller was not interrupted, or this would not run.
    if (remote.ended !== undefined) return new KernelError({ reason: remote.ended })
    return lost(
      remote,
      Cause.hasInterrupts(cause) ? "The server ended the request" : String(Cause.squash(cause)),
    )
  }
  if (isTransportError(error)) return lost(remote, error.message === "" ? error._tag : error.message)
  if (
    isKernelError(error) && (error.reason._tag === "KernelDied" || error.reason._tag === "KernelNotFound")
  ) {
    remote.ended = error.reason
  }
  return error
}

/** Returns the failure of a connection. */
export const lost = ({ attachment }: Remote, detail: string): KernelError =>
  new KernelError({ reason: new ConnectionLost({ kernelId: attachment?.kernelId, detail }) })

/** Returns the failure of an operation that another process does not offer. */
export const unsupported = (operation: string, detail: string): KernelError =>
  new KernelError({ reason: new Unsupported({ language: "", operation, detail }) })

/** Returns the options of a request as they are sent. */
export const sendable = (
  { timeout }: AskOptions = {},
): { readonly timeout: Duration.Duration | undefined } => ({
  timeout: timeout === undefined ? undefined : Duration.fromInputUnsafe(timeout),
})

/** Uploads a part of a request. */
export const upload = (
  remote: Remote,
  part: Uploads.Part,
): Effect.Effect<void, KernelError> => ask(remote, () => remote.client.upload(part))

/** Uploads a text beyond the size of a message; returns what is sent in its place. */
export const textOf = (remote: Remote, text: string): Effect.Effect<typeof Uploads.Text.Type, KernelError> =>
  Uploads.text(text, (part) => upload(remote, part))
