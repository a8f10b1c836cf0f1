/**
 * A kernel of a server of the kernels API: started, interrupted and deleted over REST, with its messages over a WebSocket.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
// Draws random bytes for many ids at once.
import { randomUUID } from "node:crypto"
import * as Defect from "../defect.ts"
import {
  ConnectionLost,
  KernelDied,
  KernelError,
  type KernelErrorReason,
  KernelNotFound,
  KernelStartFailed,
  KernelUnresponsive,
  ProtocolViolation,
} from "../execution.ts"
import type * as Gateway from "../gateway/connection.ts"
import { explain } from "../gateway/exit_output.ts"
import * as Channel from "../jupyter/channel.ts"
import * as DirectChannel from "../jupyter/direct_channel.ts"
import * as Messages from "../jupyter/message.ts"
import type { Message } from "../jupyter/message.ts"
import { type ChannelError, defaultMaxMessageSize } from "../jupyter/socket.ts"
import type { Conversation, KernelConnection, Listener, Reply, Request } from "./connection.ts"
import * as Metrics from "./metrics.ts"
import * as OwnConnection from "./own_connection.ts"
import * as OutputRouter from "./output_router.ts"
import { startFailure } from "./start_failure.ts"

/** The options of the start of a kernel. */
export interface KernelOptions {
  readonly kernelName: string | undefined
  readonly env: Readonly<Record<string, string>>
  readonly startTimeout: Duration.Input
  readonly pingInterval: Duration.Input
  readonly maxMessageSize?: number | undefined
}

/** Time between a missing kernel and its report: the WebSocket may report the death of the kernel meanwhile. */
const notFoundDelay: Duration.Input = "300 millis"

/** Consecutive polls that find the process stopped before executions fail. */
export const minStoppedPolls = 3

const endedEarly = "It ended before it was ready"
const advice = `${endedEarly}; check the option "env", the kernelspec and the packages of its interpreter`

/** Starts a kernel and connects to it; with the scope the connection closes and the kernel is deleted. */
export const make: (
  gateway: Gateway.Connection,
  options: KernelOptions,
) => Effect.Effect<KernelConnection, KernelError, Scope.Scope> = Effect.fnUntraced(
  function* (gateway, options) {
    const { connection: own, id: kernelId } = yield* gateway.rest.start({
      name: options.kernelName,
      env: { ...gateway.kernelEnv, ...options.env, ...(gateway.isLocal ? OwnConnection.requested : {}) },
      timeout: options.startTimeout,
    }).pipe(
      Effect.catch((error) => startFailure(gateway, error, options)),
    )
    yield* Effect.acquireRelease(Metric.modify(Metrics.kernels, 1), () => Metric.modify(Metrics.kernels, -1))
    const session = SecureRandom.uuidV4Unsafe()
    const fork = Effect.runForkWith(yield* Effect.context<never>())
    const scope = yield* Effect.scope
    const count = (metric: Metric.Metric<number, unknown>) => void fork(Metric.update(metric, 1))

    let onUnsolicited: Listener["onMessage"] = () => {}
    let hasWarnedMalformed = false
    let endReason: KernelErrorReason | undefined
    const ended = Deferred.makeUnsafe<never, KernelError>()
    const end = (reason: KernelErrorReason): void => {
      endReason ??= reason
      Deferred.doneUnsafe(ended, Exit.fail(new KernelError({ reason })))
    }
    const notFound = Effect.sync(() => end(new KernelNotFound({ kernelId }))).pipe(
      Effect.delay(notFoundDelay),
    )

    let stops = 0
    const listeners = new Set<Listener>()
    const pollModel = gateway.rest.get(kernelId).pipe(
      Effect.map(({ execution_state: state, stopped }) => {
        if (state === "dead") end(new KernelDied({ kernelId }))
        // A debugger may stop it for a moment, which does not end executions.
        stops = stopped === true ? stops + 1 : 0
        if (stops < minStoppedPolls) return
        for (const listener of [...listeners]) listener.onFailure?.(new KernelUnresponsive({ kernelId }))
      }),
      Effect.catchIf((error) => error.kind === "NotFound", () => notFound),
      Effect.ignore,
    )
    const failed = (detail: string) =>
      new KernelError({ reason: new KernelStartFailed({ kernelId, detail }) })
    /** A local gateway returns the last output of a kernel that ended; other servers return less. */
    const startFailureOf = (otherwise: string) =>
      Effect.flatMap(
        Effect.match(gateway.rest.get(kernelId), {
          onSuccess: () => otherwise,
          onFailure: ({ detail, kind }) =>
            kind === "NotFound" ? explain(detail.split("\n"), advice) : otherwise,
        }),
        failed,
      )
    const ack = gateway.ackPolicy === undefined ? {} : { shouldAckNow: yield* gateway.ackPolicy.register }
    const channelOptions = {
      session,
      openTimeout: options.startTimeout,
      maxMessageSize: options.maxMessageSize,
      onUnclaimed: (message: Message, bytes: number) => {
        if (isDeath(message)) end(new KernelDied({ kernelId }))
        else if (isOwnOutput(message, session)) onUnsolicited(message, bytes)
        // States go to all clients of a kernel, and the reply to a fence may come after the fence was interrupted.
        else if (!["status", "kernel_info_reply"].includes(message.header.msg_type)) count(Metrics.ignored)
      },
      onMalformed: (error: Messages.WireError) => {
        count(Metrics.ignored)
        // Once for each connection: such frames come in large numbers.
        if (!hasWarnedMalformed) {
          fork(Effect.annotateLogs(Effect.logWarning(error.message), { kernel: kernelId }))
        }
        hasWarnedMalformed = true
      },
    }
    const overServer = Channel.make({
      ...channelOptions,
      url: gateway.url,
      headers: {},
      openSocket: gateway.openSocket,
      kernelId,
      pingInterval: options.pingInterval,
      ...ack,
      onReconnected: () => count(Metrics.reconnects),
    }).pipe(
      Effect.catch((error) =>
        error.code === 404 ? startFailureOf(`${endedEarly}: ${error.message}`) : failed(error.message)
      ),
    )
    let isDirect = own !== undefined
    const connecting = own === undefined
      ? overServer
      : DirectChannel.make({ ...channelOptions, ...own }).pipe(
        // The kernel has another ipykernel than is supported, which the log of the gateway says, or it has ended.
        Effect.catch(() => {
          isDirect = false
          return overServer
        }),
      )
    // The end of a connection proves nothing, as it may be restored; the end of the process does.
    yield* Effect.forkScoped(
      Defect.log(Effect.map(gateway.ended, (detail) => end(new ConnectionLost({ kernelId, detail })))),
    )
    // A server that waits for the reply of a kernel does not report its death meanwhile.
    const untilDead = Effect.repeat(pollModel, {
      schedule: Schedule.spaced("500 millis"),
      while: () => endReason === undefined,
    })
    const channel = yield* Effect.raceFirst(connecting, Effect.andThen(untilDead, startFailureOf(endedEarly)))
    yield* channel.lost.pipe(
      Effect.catch((error) =>
        isDirect
          ? Effect.map(OwnConnection.endReason(gateway, kernelId, error.detail), end)
          : error.code === 404
          ? notFound
          : Effect.sync(() => end(new ConnectionLost({ kernelId, detail: error.detail })))
      ),
      Defect.log,
      Effect.forkScoped,
    )
    // A server does not report to its clients that it culled a kernel, or that another client deleted it.
    const polling = Effect.repeat(pollModel, {
      schedule: Schedule.spaced(options.pingInterval),
      while: () => endReason === undefined,
    })
    yield* Effect.forkScoped(Defect.log(polling))
    /** The id of the latest execution. */
    let latest: string | undefined
    const open = opener({
      ...options,
      kernelId,
      session,
      channel,
      listeners,
      end,
      endReason: () => endReason,
    })
    const request: KernelConnection["request"] = (request, ...rest) => {
      if (OutputRouter.isExecutionId(request.id)) latest = request.id
      return open(request, ...rest)
    }
    const interrupt = gateway.rest.interrupt(kernelId).pipe(
      Effect.tapError((error) => error.kind === "NotFound" ? Effect.forkIn(notFound, scope) : Effect.void),
      Effect.mapError((error) =>
        new KernelError({
          reason: endReason ??
            (error.kind === "NotFound"
              ? new KernelNotFound({ kernelId })
              : new ConnectionLost({ kernelId, detail: error.message })),
        })
      ),
    )
    const connection = { request, ended: Deferred.await(ended) }
    return {
      ...connection,
      id: kernelId,
      isDirect,
      onUnsolicited: (take) => {
        onUnsolicited = take
      },
      interrupt: isDirect ? OwnConnection.interrupt(connection, () => latest, interrupt) : interrupt,
    }
  },
)

/** Makes the function that opens the conversations of a kernel. */
const opener = ({
  channel,
  end,
  endReason,
  kernelId,
  listeners,
  maxMessageSize = defaultMaxMessageSize,
  session,
}: {
  readonly kernelId: string
  readonly session: string
  readonly channel: Channel.Channel
  readonly maxMessageSize?: number | undefined
  /** The listeners of the conversations that are open. */
  readonly listeners: Set<Listener>
  readonly end: (reason: KernelErrorReason) => void
  readonly endReason: () => KernelErrorReason | undefined
}): KernelConnection["request"] => {
  const lost = ({ detail }: { readonly detail: string }) =>
    new KernelError({ reason: endReason() ?? new ConnectionLost({ kernelId, detail }) })
  return (request, listener, { tracksLosses, waitsForConnection = true } = {}) => {
    const opening = channel.request(toMessage(request, session), {
      onMessage: (message, bytes) => {
        if (isDeath(message)) end(new KernelDied({ kernelId }))
        else listener.onMessage(message, bytes)
      },
      onFenced: listener.onFenced,
      onTooLarge: ({ detail }) => listener.onFailure?.(new ProtocolViolation({ kernelId, detail })),
    }, { tracksLosses })
    const open = Effect.map(opening, (conversation): Conversation => {
      const { close, disconnectError, fence, reply, send } = conversation
      listeners.add(listener)
      return {
        ...conversation,
        send: waitsForConnection
          ? Effect.mapError(send, lost)
          : Effect.suspend(() =>
            channel.isConnected() ? Effect.mapError(send, lost) : lost({ detail: "It is being restored" })
          ),
        reply: (message) => Effect.mapError(reply(toMessage(message, session)), lost),
        fence: Effect.catchTag(fence, "ChannelError", (error) => lost(error)),
        close: () => {
          listeners.delete(listener)
          close()
        },
        wasCut: () => disconnectError() !== undefined,
        lossReason: (isStarted) =>
          lossReason(disconnectError(), {
            kernelId,
            maxMessageSize,
            unread: isStarted ? 0 : sizeOf(request),
          }),
      }
    })
    return Effect.acquireRelease(open, ({ close }) => Effect.sync(close))
  }
}

const toMessage = (
  { id = randomUUID(), subshell, type, ...parts }: Request & Partial<Reply>,
  session: string,
): Message => {
  const message = Messages.request(type, { id, session, ...parts })
  return subshell === undefined
    ? message
    : { ...message, header: { ...message.header, subshell_id: subshell } }
}

/** Returns about the bytes of a request. */
const sizeOf = ({ buffers = [], content }: Request): number =>
  buffers.reduce((sum, { byteLength }) => sum + byteLength, JSON.stringify(content).length)

/** The default maximum of the bytes of a message that Jupyter servers accept. */
const defaultServerMaximum = 10_000_000

/**
 * Returns the reason of an execution whose output may be incomplete. `unread` is the size of the request if the kernel
 * did not begin with it: servers close the connection on a message that is too large, often without a reason.
 */
function lossReason(
  disconnectError: ChannelError | undefined,
  { kernelId, maxMessageSize, unread }: {
    readonly kernelId: string
    readonly maxMessageSize: number
    readonly unread: number
  },
): ConnectionLost | ProtocolViolation {
  if (disconnectError?.isTooLarge === true) {
    const detail = `A message has more than the ${maxMessageSize} bytes of the option "maxMessageSize"`
    return new ProtocolViolation({ kernelId, detail })
  }
  const what = unread < defaultServerMaximum
    ? "not all messages of the kernel could be recovered"
    : `the code of ${(unread / 1e6).toFixed(1)} MB did not arrive, and many servers refuse more than 10 MB`
  return new ConnectionLost({ kernelId, detail: `${disconnectError?.detail ?? "It was cut"}; ${what}` })
}

/** Tells whether the kernel died: a server that restarts a dead kernel keeps the id, but the state is lost. */
function isDeath({ content, header }: Message): boolean {
  return header.msg_type === "status" &&
    (content.execution_state === "dead" || content.execution_state === "restarting")
}

/** Tells whether a message is output of a request of this client. */
function isOwnOutput(message: Message, session: string): boolean {
  return message.parentHeader.session === session &&
    (OutputRouter.isOutput(message) || message.header.msg_type === "error")
}
