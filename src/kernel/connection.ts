/**
 * A started kernel and the channels to it: everything that a reset replaces.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
// Draws random bytes for many ids at once.
import { randomUUID } from "node:crypto"
import * as Defect from "../defect.ts"
import {
  ConnectionLost,
  Forbidden,
  KernelDied,
  KernelError,
  type KernelErrorReason,
  KernelNotFound,
  KernelStartFailed,
  NoSuchKernelspec,
  ResourceLimit,
} from "../execution.ts"
import type * as Gateway from "../gateway/connection.ts"
import * as Channel from "../jupyter/channel.ts"
import { explain } from "../gateway/exit_output.ts"
import * as Conversation from "../jupyter/conversation.ts"
import {
  type ChannelName,
  decode,
  type JsonObject,
  type Message,
  parentId,
  request,
} from "../jupyter/message.ts"
import type { RestError } from "../jupyter/rest.ts"
import type { Identity } from "./identity.ts"
import { defaultMaxMessageSize } from "../jupyter/socket.ts"
import type { Unsolicited } from "./late_output.ts"
import * as Metrics from "./metrics.ts"

/** Which kernel to start. */
export interface KernelOptions {
  readonly kernelName: string | undefined
  readonly env: Readonly<Record<string, string>>
  readonly startTimeout: Duration.Input
  readonly pingInterval: Duration.Input
  readonly maxMessageSize?: number | undefined
}

/** A kernel that runs, is connected and is ready for executions. */
export interface Connection extends Link {
  readonly identity: Identity
}

/** A kernel that runs and is connected. */
export interface Link {
  readonly id: string
  readonly session: string
  readonly channel: Channel.Channel
  /** Bytes that a message of the kernel may have. */
  readonly maxMessageSize: number
  /** Sends the kernel an interrupt; it may or may not react. */
  readonly interrupt: Effect.Effect<void, KernelError>
  /** Why the kernel can do nothing any more, if so. */
  readonly ended: () => KernelErrorReason | undefined
  /** Gives the kernel up; the first reason counts. */
  readonly end: (reason: KernelErrorReason) => void
  /** Calls the listener when the kernel ends, at once if it has; gives what cancels that. */
  readonly onEnded: (listener: (reason: KernelErrorReason) => void) => () => void
  /** Says who is told that the kernel's process was found stopped, three times in a row, from now on. */
  readonly onStopped: (listener: () => void) => void
  /** Takes output whose request is not listened to, or puts out nothing itself. */
  readonly unsolicited: (message: Message, bytes: number) => void
  /**
   * Has the execution that runs take output in the name of other requests: of those beside the executions, and what
   * the kernel says to have been written during this one. Gives what ends that.
   */
  readonly claim: (
    id: string,
    listener: (message: Message, bytes: number) => void,
  ) => (executionCount: number | undefined) => void
  /** Says who takes output of no running execution from now on. */
  readonly onOutput: (listener: (output: Unsolicited) => void) => void
}

/** A request of the library's own, which runs no code of the user's. */
export interface Request {
  readonly type: string
  readonly content: JsonObject
  /** A new one by default. */
  readonly id?: string | undefined
  readonly channel?: ChannelName | undefined
  readonly subshell?: string | undefined
  readonly buffers?: ReadonlyArray<Uint8Array> | undefined
}

/** Sends a kernel a request and returns what `pick` makes of the messages that answer it. */
export const ask = <A>(
  link: Pick<Link, "id" | "session" | "channel" | "ended" | "onEnded">,
  { id, type, subshell, ...options }: Request,
  pick: (message: Message, bytes: number) => A | undefined,
  bounds?: { readonly replyTimeout?: Duration.Input | undefined },
): Effect.Effect<A, KernelError | Conversation.Unanswered> =>
  Effect.suspend(() => {
    // A new one each time it runs: a kernel takes no message twice.
    const message = request(type, {
      id: id ?? SecureRandom.uuidV4Unsafe(),
      session: link.session,
      ...options,
    })
    const header = subshell === undefined ? message.header : { ...message.header, subshell_id: subshell }
    const answer = Effect.catchTag(
      Conversation.ask(link.channel.request, { ...message, header }, pick, bounds),
      "ChannelError",
      ({ detail }) =>
        new KernelError({ reason: link.ended() ?? new ConnectionLost({ kernelId: link.id, detail }) }),
    )
    const ended = Deferred.makeUnsafe<never, KernelError>()
    const end = Effect.acquireUseRelease(
      Effect.sync(() =>
        link.onEnded((reason) => Deferred.doneUnsafe(ended, Exit.fail(new KernelError({ reason }))))
      ),
      () => Deferred.await(ended),
      (forget) => Effect.sync(forget),
    )
    return Effect.raceFirst(end, answer)
  })

/** The server tells of a death on one connection and of a missing kernel on another: the death has to win. */
const notFoundDelay: Duration.Input = "300 millis"

/** How many executions that ended are remembered, to say which number the one had that output is of. */
const remembered = 1024

/** What the id of an execution begins with. */
const prefix = "execution-"

/** A new id for an execution, by which its output is told from that of other requests. */
export const executionId = (): string => `${prefix}${randomUUID()}`

/** What the id of a request begins with that is answered beside the executions. */
const besidePrefix = "beside-"

/** A new id for a request on the control channel or to a subshell. */
export const besideId = (): string => `${besidePrefix}${randomUUID()}`

/** Where our kernels say during which request an earlier one has put out something. */
const during = "effect_jupyter_during"

/** How many looks in a row find a kernel stopped before that is told. */
const tolerated = 3

const endedEarly = "It ended before it was ready"
const advice = `${endedEarly}; check the option "env", the kernelspec and the packages of its interpreter`

/** Starts a kernel and connects to it; with the scope the connection closes and the kernel is deleted. */
export const make: (
  gateway: Gateway.Connection,
  options: KernelOptions,
) => Effect.Effect<Link, KernelError, Scope.Scope> = Effect.fnUntraced(
  function* (gateway, options) {
    const { id: kernelId } = yield* gateway.rest.start({
      name: options.kernelName,
      env: { ...gateway.kernelEnv, ...options.env },
      timeout: options.startTimeout,
    }).pipe(
      Effect.catch((error) => startFailure(gateway, error, options)),
    )
    yield* Effect.acquireRelease(Metric.modify(Metrics.kernels, 1), () => Metric.modify(Metrics.kernels, -1))
    const session = SecureRandom.uuidV4Unsafe()
    const fork = Effect.runForkWith(yield* Effect.context<never>())
    const scope = yield* Effect.scope
    const count = (metric: Metric.Metric<number, unknown>) => void fork(Metric.update(metric, 1))

    const router = makeRouter()
    let hasWarnedMalformed = false
    let ended: KernelErrorReason | undefined
    const listeners = new Set<(reason: KernelErrorReason) => void>()
    const end = (reason: KernelErrorReason): void => {
      if (ended !== undefined) return
      ended = reason
      for (const listener of [...listeners]) listener(reason)
    }
    const notFound = Effect.sync(() => end(new KernelNotFound({ kernelId }))).pipe(
      Effect.delay(notFoundDelay),
    )

    let stops = 0
    let onStopped = (): void => {}
    const pollModel = gateway.rest.get(kernelId).pipe(
      Effect.map(({ execution_state: state, stopped }) => {
        if (state === "dead") end(new KernelDied({ kernelId }))
        // A debugger, or who freezes it for a moment, does not end what runs.
        stops = stopped === true ? stops + 1 : 0
        if (stops >= tolerated) onStopped()
      }),
      Effect.catchIf((error) => error.kind === "NotFound", () => notFound),
      Effect.ignore,
    )
    const failed = (detail: string) =>
      new KernelError({ reason: new KernelStartFailed({ kernelId, detail }) })
    /** A gateway of ours knows what a kernel said before it ended, which is more than others do. */
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
    const connecting = Channel.make({
      url: gateway.url,
      headers: gateway.headers,
      kernelId,
      session,
      pingInterval: options.pingInterval,
      openTimeout: options.startTimeout,
      maxMessageSize: options.maxMessageSize,
      ...ack,
      onUnclaimed: (message, bytes) => {
        if (isDeath(message)) end(new KernelDied({ kernelId }))
        else if (isOwnOutput(message, session)) router.unsolicited(message, bytes)
        // All clients of a kernel hear of its states; a fence may be answered when nobody needs it any more.
        else if (!["status", "kernel_info_reply"].includes(message.header.msg_type)) count(Metrics.ignored)
      },
      onMalformed: (error) => {
        count(Metrics.ignored)
        // Once for a connection: garbage comes in heaps.
        if (!hasWarnedMalformed) {
          fork(Effect.annotateLogs(Effect.logWarning(error.message), { kernel: kernelId }))
        }
        hasWarnedMalformed = true
      },
      onReconnected: () => count(Metrics.reconnects),
    }).pipe(
      Effect.catch((error) =>
        error.code === 404 ? startFailureOf(`${endedEarly}: ${error.message}`) : failed(error.message)
      ),
    )
    // Nothing but the process itself tells at once: a connection that is cut could come back.
    yield* Effect.forkScoped(
      Defect.log(Effect.map(gateway.ended, (detail) => end(new ConnectionLost({ kernelId, detail })))),
    )
    // A server that waits for a kernel to answer does not tell that it died meanwhile.
    const untilDead = Effect.repeat(pollModel, {
      schedule: Schedule.spaced("500 millis"),
      while: () => ended === undefined,
    })
    const channel = yield* Effect.raceFirst(connecting, Effect.andThen(untilDead, startFailureOf(endedEarly)))
    yield* channel.lost.pipe(
      Effect.catch((error) =>
        error.code === 404
          ? notFound
          : Effect.sync(() => end(new ConnectionLost({ kernelId, detail: error.detail })))
      ),
      Defect.log,
      Effect.forkScoped,
    )
    // A server does not tell its clients that it culled a kernel or that somebody deleted it.
    yield* Effect.forkScoped(Defect.log(Effect.repeat(pollModel, Schedule.spaced(options.pingInterval))))
    return {
      id: kernelId,
      session,
      channel,
      maxMessageSize: options.maxMessageSize ?? defaultMaxMessageSize,
      interrupt: gateway.rest.interrupt(kernelId).pipe(
        Effect.tapError((error) => error.kind === "NotFound" ? Effect.forkIn(notFound, scope) : Effect.void),
        Effect.mapError((error) =>
          new KernelError({
            reason: ended ??
              (error.kind === "NotFound"
                ? new KernelNotFound({ kernelId })
                : new ConnectionLost({ kernelId, detail: error.message })),
          })
        ),
      ),
      ended: () => ended,
      end,
      onStopped: (listener) => {
        onStopped = listener
      },
      onEnded: (listener) => {
        if (ended !== undefined) listener(ended)
        else listeners.add(listener)
        return () => listeners.delete(listener)
      },
      ...router,
    }
  },
)

/** Hands output to the execution that it is of, or to what takes that of no running one. */
function makeRouter(): Pick<Link, "unsolicited" | "claim" | "onOutput"> {
  let running: { readonly id: string; readonly take: (message: Message, bytes: number) => void } | undefined
  const counts = new Map<string, number | undefined>()
  let onOutput = (_output: Unsolicited): void => {}
  return {
    unsolicited: (message, bytes) => {
      const parent = parentId(message)
      const executionId = parent?.startsWith(prefix) === true ? parent : undefined
      // The kernel takes the latest request for the source of what threads put out, be it one beside the executions.
      const isOfRunning = parent?.startsWith(besidePrefix) === true ||
        (executionId !== undefined && message.parentHeader[during] === running?.id)
      if (running !== undefined && isOfRunning && isOutput(message)) {
        running.take(message, bytes)
        if (executionId === undefined) return
      }
      const executionCount = executionId === undefined ? undefined : counts.get(executionId)
      onOutput({ message, bytes, executionId, executionCount })
    },
    claim: (id, take) => {
      running = { id, take }
      return (executionCount) => {
        running = undefined
        counts.set(id, executionCount)
        const [oldest = ""] = counts.keys()
        if (counts.size > remembered) counts.delete(oldest)
      }
    },
    onOutput: (listener) => {
      onOutput = listener
    },
  }
}

/** A server that restarts a dead kernel gives the id to an empty one: the state is lost all the same. */
export function isDeath({ content, header }: Message): boolean {
  if (header.msg_type !== "status") return false
  const status = decode.status(content)
  return Exit.isSuccess(status) && ["dead", "restarting"].includes(status.value.execution_state)
}

const outputs = new Set([
  "stream",
  "display_data",
  "update_display_data",
  "execute_result",
  "clear_output",
])

/** Tells what code puts out from what a kernel says of itself. */
export function isOutput({ header }: Message): boolean {
  return outputs.has(header.msg_type)
}

/** Tells whether something is put out in the name of a request of this client. */
function isOwnOutput(message: Message, session: string): boolean {
  return message.parentHeader.session === session &&
    (isOutput(message) || message.header.msg_type === "error")
}

/** The failure of a start that took too long. */
export function notReady(timeout: Duration.Input): KernelStartFailed {
  const bound = Duration.format(Duration.fromInputUnsafe(timeout))
  return new KernelStartFailed({
    kernelId: undefined,
    detail: `It was not ready within ${bound}; give it longer by the option "initTimeout"`,
  })
}

/** Fails with why a server did not start a kernel. */
const startFailure = (...asked: Parameters<typeof startReason>): Effect.Effect<never, KernelError> =>
  Effect.flatMap(startReason(...asked), (reason) => Effect.fail(new KernelError({ reason })))

/** Why a server did not start a kernel; asks it for its kernelspecs where that may be the reason. */
const startReason = Effect.fnUntraced(function* (
  { rest }: Gateway.Connection,
  error: RestError,
  { kernelName, startTimeout }: KernelOptions,
): Effect.fn.Return<KernelErrorReason> {
  if (error.kind === "Timeout") return notReady(startTimeout)
  if (error.kind === "Unreachable") return new ConnectionLost({ kernelId: undefined, detail: error.message })
  const status = error.status === undefined ? "" : `, status ${error.status}`
  const detail = `${error.detail} (${error.request}${status})`
  if (error.status === 429 || (error.kind === "Unauthorized" && isLimit.test(error.detail))) {
    const { retryAfter } = error
    return new ResourceLimit({ detail, ...(retryAfter === undefined ? {} : { retryAfter }) })
  }
  if (error.kind === "Unauthorized") return new Forbidden({ detail })
  const failed = new KernelStartFailed({ kernelId: undefined, detail })
  // A name that a server does not know is answered with any status.
  if (error.kind !== "Refused" && error.kind !== "NotFound") return failed
  const specs = yield* Effect.option(rest.kernelspecs)
  const known = Option.match(specs, {
    onNone: () => undefined,
    onSome: ({ kernelspecs }) => Object.keys(kernelspecs),
  })
  const name = kernelName ?? Option.getOrUndefined(specs)?.default
  return known === undefined || name === undefined || known.includes(name)
    ? failed
    : new NoSuchKernelspec({ kernelName: name, known })
})

/** Servers answer 403 for their limits as for what they do not allow. */
const isLimit = /limit|maximum|quota|too many/i
