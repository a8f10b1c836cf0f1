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
import * as Defect from "../defect.ts"
import {
  ConnectionLost,
  KernelDied,
  KernelError,
  type KernelErrorReason,
  KernelNotFound,
  type KernelRef,
  KernelStartFailed,
  KernelUnresponsive,
  SessionTaken,
} from "../execution.ts"
import type * as Gateway from "../gateway/connection.ts"
import { explain } from "../gateway/exit_output.ts"
import * as AttachedChannel from "../jupyter/attached_channel.ts"
import * as Channel from "../jupyter/channel.ts"
import * as DirectChannel from "../jupyter/direct_channel.ts"
import * as Messages from "../jupyter/message.ts"
import type { Message } from "../jupyter/message.ts"
import type { KernelModel } from "../jupyter/rest.ts"
import type { ChannelError } from "../jupyter/socket.ts"
import * as Attachment from "./attachment.ts"
import type { KernelConnection, Listener } from "./connection.ts"
import * as Conversations from "./conversations.ts"
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

const hasClient = "It has a client, and a kernel of a local gateway has only one"

/** Time in which the gateway notices that a kernel has ended. */
const refusedDelay: Duration.Input = "1 second"

/** Starts a kernel and connects to it; with the scope the connection closes and the kernel is deleted. */
export const make: (
  gateway: Gateway.Connection,
  options: KernelOptions,
) => Effect.Effect<KernelConnection, KernelError, Scope.Scope> = Effect.fnUntraced(
  function* (gateway, options) {
    const stay = { isKept: false }
    const holder = SecureRandom.uuidV4Unsafe()
    const model = yield* gateway.rest.start({
      name: options.kernelName,
      env: {
        ...gateway.kernelEnv,
        ...options.env,
        ...(gateway.ownConnection === undefined ? {} : OwnConnection.requested(options.maxMessageSize)),
      },
      timeout: options.startTimeout,
      isKept: () => stay.isKept,
      holder: gateway.serverId === undefined ? undefined : holder,
    }).pipe(
      Effect.catch((error) => startFailure(gateway, error, options)),
    )
    return yield* connect(gateway, { ...options, model, session: SecureRandom.uuidV4Unsafe(), holder, stay })
  },
)

/**
 * Connects to a kernel that another client has started; with the scope the connection closes. The kernel stays until
 * `reclaim`.
 */
export const attach: (
  gateway: Gateway.Connection,
  ref: KernelRef,
  options: ConnectOptions,
) => Effect.Effect<KernelConnection, KernelError, Scope.Scope> = Effect.fnUntraced(
  function* (gateway, ref, options) {
    const find = gateway.rest.get(ref.kernelId).pipe(
      Effect.mapError((error) => Attachment.missing(gateway, ref, error)),
      Effect.filterOrFail(
        ({ ending }) => ending !== true,
        () => new KernelNotFound({ kernelId: ref.kernelId }),
      ),
      Effect.filterOrFail(
        // A shared gateway keeps what code that was started has put out.
        (model) => !isDead(model) || model.attachable === true,
        () => new KernelDied({ kernelId: ref.kernelId }),
      ),
      Effect.mapError((reason) => new KernelError({ reason })),
    )
    const model = yield* find
    const stay = { isKept: true }
    const holder = SecureRandom.uuidV4Unsafe()
    // Another client may attach in the moment of the end, which a shared gateway alone knows.
    const remove = gateway.rest.remove(ref.kernelId, gateway.serverId === undefined ? undefined : holder)
    yield* Effect.addFinalizer(() => stay.isKept ? Effect.void : remove)
    // Other servers end the connection of a client when another one with its session connects.
    const session = model.attachable === true ? ref.session : SecureRandom.uuidV4Unsafe()
    const connectTo = (model: typeof KernelModel.Type) =>
      connect(gateway, { ...options, model, session, holder, stay })
    return yield* connectTo(model).pipe(
      // It may have ended meanwhile.
      Effect.catch((error) => Effect.flatMap(find, (now) => isDead(now) ? connectTo(now) : error)),
    )
  },
)

/** The options of the connection to a kernel. */
export type ConnectOptions = Omit<KernelOptions, "kernelName" | "env">

/** Connects to a kernel; with the scope the connection closes. */
const connect = Effect.fnUntraced(
  function* (
    gateway: Gateway.Connection,
    { holder, model, session, stay, ...options }: ConnectOptions & {
      readonly model: typeof KernelModel.Type
      readonly session: string
      /** Identifies this client to a shared gateway. */
      readonly holder: string
      readonly stay: Attachment.Stay
    },
  ) {
    const kernelId = model.id
    yield* Effect.acquireRelease(Metric.modify(Metrics.kernels, 1), () => Metric.modify(Metrics.kernels, -1))
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
    const died = Effect.sync(() => end(new KernelDied({ kernelId })))
    const pollModel = gateway.rest.get(kernelId).pipe(
      // A direct connection ends after the last output.
      Effect.tap((model) => isDead(model) ? Effect.delay(died, isDirect ? "2 seconds" : 0) : Effect.void),
      Effect.map(({ stopped }) => {
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
        if (Conversations.isDeath(message)) end(new KernelDied({ kernelId }))
        // A gateway that is the client of the kernel has no other clients.
        else if (
          isOutput(message) && (model.attachable === true || message.parentHeader.session === session)
        ) {
          onUnsolicited(message, bytes)
        } // States go to all clients of a kernel, and the reply to a fence may come after the fence was interrupted.
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
    const notConnected = (error: ChannelError) =>
      error.code === 404 ? startFailureOf(`${endedEarly}: ${error.message}`) : error.code === 409
        // A kernel that is ending looks like one that has a client.
        ? Effect.delay(startFailureOf(hasClient), refusedDelay)
        : failed(error.message)
    const overServer = Channel.make({
      ...channelOptions,
      url: gateway.url,
      headers: {},
      openSocket: gateway.openSocket,
      kernelId,
      pingInterval: options.pingInterval,
      ...ack,
      onReconnected: () => count(Metrics.reconnects),
    }).pipe(Effect.catch(notConnected))
    let attached: AttachedChannel.AttachedChannel | undefined
    let isDirect = false
    const attach = Effect.map(
      AttachedChannel.make({
        ...channelOptions,
        url: `${gateway.url}/api/kernels/${kernelId}`,
        openSocket: gateway.openSocket,
        holder,
      }),
      (channel): Channel.Channel => attached = channel,
    )
    const taken = new SessionTaken({ kernelId })
    const own = OwnConnection.of(gateway, model, options.pingInterval)
    const direct: Effect.Effect<Channel.Channel, ChannelError | KernelError, Scope.Scope> | undefined =
      own !== undefined
        ? DirectChannel.make({ ...channelOptions, ...own })
        : model.attachable === true
        ? Effect.mapError(attach, (error) =>
          AttachedChannel.isTaken(error) ? new KernelError({ reason: taken }) : error)
        : undefined
    // The kernel has another ipykernel than is supported, which the log of the gateway says, or it has ended.
    const isRefusal = own?.isRefusal ?? (({ code }: ChannelError) => code === 404)
    const connecting = direct === undefined ? overServer : direct.pipe(
      Effect.tap(() => Effect.sync(() => isDirect = true)),
      Effect.catchTag("ChannelError", (error) => isRefusal(error) ? overServer : notConnected(error)),
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
    if (isDead(model)) end(new KernelDied({ kernelId }))
    const channel = yield* isDead(model)
      ? connecting
      : Effect.raceFirst(connecting, Effect.andThen(untilDead, startFailureOf(endedEarly)))
    yield* channel.lost.pipe(
      Effect.catch((error) =>
        error.code === AttachedChannel.takenCode
          ? Effect.sync(() => {
            stay.isKept = true
            end(taken)
          })
          : isDirect
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
    /** The id of the latest execution; `undefined` for code that was started, of which there may be more. */
    let latest: string | undefined
    const conversations = Conversations.make({
      ...options,
      kernelId,
      session,
      channel,
      listeners,
      position: attached?.position,
      end,
      endReason: () => endReason,
    })
    const request: KernelConnection["request"] = (request, ...rest) => {
      if (OutputRouter.isExecutionId(request.id)) latest = request.id
      return conversations.request(request, ...rest)
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
    const connection: Pick<KernelConnection, "request" | "ended"> = {
      request,
      ended: Deferred.await(ended),
    }
    return {
      ...connection,
      durable: Attachment.make(gateway, {
        kernelId,
        session,
        stay,
        holder,
        attached: attached && {
          encode: (request) => {
            latest = undefined
            return conversations.encode(request)
          },
          resume: conversations.resume(attached),
          position: attached.position,
          interrupt: ({ id }) => OwnConnection.interrupt(connection, () => id, interrupt),
        },
        endReason: () => endReason,
      }),
      id: kernelId,
      isDirect,
      onUnsolicited: (take: Listener["onMessage"]) => {
        onUnsolicited = take
      },
      interrupt: isDirect ? OwnConnection.interrupt(connection, () => latest, interrupt) : interrupt,
    }
  },
)

/** Tells whether the process of a kernel has ended by itself. */
const isDead = ({ execution_state: state }: typeof KernelModel.Type): boolean => state === "dead"

/** Tells whether a message is output, which may be of a request. */
const isOutput = (message: Message): boolean =>
  OutputRouter.isOutput(message) || message.header.msg_type === "error"
