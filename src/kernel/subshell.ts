/**
 * Requests beside the executions of a kernel: to a subshell if it has them, otherwise to the main shell between two
 * executions.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Defect from "../defect.ts"
import { KernelError } from "../execution.ts"
import { IntrospectionFailed, KernelBusy } from "../introspection.ts"
import { excerpt } from "../jupyter/control_codes.ts"
import { Unanswered } from "../jupyter/conversation.ts"
import { type ChannelName, type JsonObject, maxIdLength, type Message } from "../jupyter/message.ts"
import * as Connection from "./connection.ts"
import * as Identity from "./identity.ts"
import type { Instance } from "./instance.ts"
import * as OutputRouter from "./output_router.ts"
import type { Session } from "./session.ts"

/** A request without output that runs no code of the user. */
export interface Request {
  readonly type: string
  readonly content: JsonObject
  /** Returns the content of a message if it is the answer. */
  readonly pick: (message: Message) => JsonObject | undefined
  /** True if the kernel answers it on the control channel, also while code runs. */
  readonly isForControl?: boolean | undefined
}

/** An answer and the kernel that sent it. */
export interface Answer {
  readonly instance: Instance
  readonly content: JsonObject
}

/** Maximum time between the `idle` of a request and its answer, which come on two channels. */
const replyTimeout: Duration.Input = "500 millis"

/** Maximum time to wait for the subshell of a kernel; after that the main shell is used. */
const subshellProbeTimeout: Duration.Input = "3 seconds"

/** Time after which the subshell is requested again: a cut may have taken the request. */
const subshellProbeRetry: Duration.Input = "10 seconds"

/** Maximum time for which the main shell goes on with a request that has no caller any more. */
const abandonGrace: Duration.Input = "250 millis"

/** Maximum time for a request to end after an interrupt. */
const interruptTimeout: Duration.Input = "2 seconds"

/** Maximum number of subshells that abandoned requests occupy: Python cannot end their threads. */
const maxAbandoned = 8

/** The state of the shell that answers the requests of a kernel. */
interface ShellState {
  readonly instance: Instance
  /** Held by one request at a time, so that the timeout of a request does not count those before it. */
  readonly lock: Semaphore.Semaphore
  /** The id of the subshell; `undefined` for a kernel that has none. */
  subshell: Deferred.Deferred<string | undefined, KernelError> | undefined
  /** True if the subshell was not there in time. */
  isSlow: boolean
  abandonedCount: number
}

/** Makes the state of a kernel that was asked nothing yet. */
const emptyState = (instance: Instance): ShellState => ({
  instance,
  lock: Semaphore.makeUnsafe(1),
  subshell: undefined,
  isSlow: false,
  abandonedCount: 0,
})

/** A request under way. */
type Pending = Fiber.Fiber<JsonObject, KernelError | Unanswered>

/** Returns a new id. */
export const newId = (): string => SecureRandom.uuidV4Unsafe()

/** Asks a kernel, and waits for the answer at most for the timeout. */
export type Ask = (
  request: Request,
  timeout: Duration.Input,
) => Effect.Effect<Answer, KernelBusy | IntrospectionFailed | KernelError>

/** Makes what asks the kernel of a session. */
export const make = (session: Session): Ask => {
  let current: ShellState | undefined
  const stateOf = (instance: Instance): ShellState =>
    current?.instance === instance ? current : current = emptyState(instance)
  return (request, timeout) => ask(session, stateOf, request, timeout)
}

const ask = (
  session: Session,
  stateOf: (instance: Instance) => ShellState,
  request: Request,
  timeout: Duration.Input,
): ReturnType<Ask> =>
  Effect.gen(function* () {
    const failed = (detail: string) =>
      new IntrospectionFailed({ kernelId: session.id(), request: request.type, detail })
    const bounded = Effect.timeoutOrElse({
      duration: timeout,
      orElse: () => failed(`No answer came within ${Duration.format(Duration.fromInputUnsafe(timeout))}`),
    })
    // After a reset that was interrupted, a kernel is started first.
    const instance = yield* bounded(session.instance)
    const shell = stateOf(instance)
    const answer = (asking: Effect.Effect<JsonObject, KernelError | Unanswered>) =>
      asking.pipe(
        Effect.map((content): Answer => ({ instance, content })),
        Effect.mapError((error) => error._tag === "Unanswered" ? failed(error.detail) : error),
        bounded,
      )
    const { info } = instance.identity
    // The reply of the start: some kernels answer on the shell channel only, and while they are idle.
    if (request.type === "kernel_info_request" && info !== undefined) return { instance, content: info }
    if (request.isForControl === true) {
      return yield* answer(send(instance, request, { channel: "control" }))
    }
    /** Sends in a fiber of its own: the kernel goes on with a request whose caller is interrupted or has failed. */
    const sendDetached = (route: Route, onAbandon: (pending: Pending) => Effect.Effect<void>) =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
        const sending = Effect.interruptible(send(instance, request, route))
        const pending = yield* Effect.forkDetach(sending, { startImmediately: true })
        return yield* restore(answer(Fiber.join(pending))).pipe(Effect.onError(() => onAbandon(pending)))
      }))

    return yield* Effect.uninterruptibleMask((restore) => {
      // Of the lock, which a request has until it is over, be it without a caller.
      const scope = Scope.makeUnsafe()
      let abandoned: { readonly pending: Pending; readonly deadline: number } | undefined
      const locked = Effect.gen(function* () {
        yield* Scope.provide(Semaphore.takeScoped(shell.lock, 1), scope)
        if (shell.abandonedCount >= maxAbandoned) {
          return yield* failed(`It still has ${shell.abandonedCount} questions to answer`)
        }
        const subshell = yield* bounded(subshellOf(instance, shell))
        if (subshell !== undefined) {
          const deadline = (yield* Clock.currentTimeMillis) + Duration.toMillis(timeout)
          const onAbandon = (pending: Pending) =>
            Effect.sync(() => {
              abandoned = { pending, deadline }
            })
          return yield* sendDetached({ channel: "shell", subshell }, onAbandon)
        }
        const answered = yield* session.ifIdle(
          sendDetached({ channel: "shell" }, (pending) => interruptMainShell(instance, pending)),
        )
        return yield* Option.isNone(answered)
          ? new KernelBusy({ kernelId: instance.id })
          : Effect.succeed(answered.value)
      })
      return restore(locked).pipe(
        Effect.onExit((exit) => {
          const release = Scope.close(scope, Exit.void)
          return abandoned === undefined || instance.endReason() !== undefined ? release : Effect.forkDetach(
            Defect.log(abandon(instance, { shell, ...abandoned, release, hasFailed: hasFailed(exit) })),
          )
        }),
      )
    })
  })

/** Tells whether the request failed, and was not only interrupted. */
const hasFailed = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)

/** Waits for the end of a request, and tells whether it came within the time. */
const isOverWithin = (pending: Pending, bound: Duration.Input): Effect.Effect<boolean> =>
  Effect.map(Effect.timeoutOption(Fiber.await(pending), bound), Option.isSome)

/**
 * Keeps the lock for a request without a caller until it is over, at most for the rest of its timeout: IPython must not
 * complete in two threads. After that the next request gets another subshell.
 */
const abandon = Effect.fnUntraced(function* (
  instance: Instance,
  { pending, deadline, shell, release, hasFailed }: {
    readonly pending: Pending
    readonly deadline: number
    readonly shell: ShellState
    readonly release: Effect.Effect<void>
    readonly hasFailed: boolean
  },
) {
  const rest = Duration.millis(Math.max(0, deadline - (yield* Clock.currentTimeMillis)))
  // The kernel has answered, if only with an error.
  if (pending.pollUnsafe() !== undefined || (!hasFailed && (yield* isOverWithin(pending, rest)))) {
    yield* release
    return
  }
  const { subshell } = shell
  shell.subshell = undefined
  shell.abandonedCount++
  yield* release
  const id = subshell === undefined ? undefined : yield* Deferred.await(subshell)
  yield* Effect.raceFirst(Fiber.await(pending), awaitSubshellReady(instance, id))
  yield* Fiber.interrupt(pending)
  shell.abandonedCount--
  if (id !== undefined && instance.endReason() === undefined) yield* close(instance, id)
})

/** Waits until a subshell answers a later request, after which an earlier one has no answer any more. */
const awaitSubshellReady = (instance: Instance, subshell: string | undefined): Effect.Effect<unknown> =>
  subshell === undefined
    ? Effect.never
    : send(instance, requestOf("kernel_info"), { channel: "shell", subshell }).pipe(
      Effect.timeout("2 seconds"),
      Effect.retry(Schedule.exponential("1 second")),
      Effect.catch(() => Effect.never),
    )

/** Interrupts the main shell if it goes on with a request without a caller, for which executions would wait. */
const interruptMainShell = Effect.fnUntraced(function* (instance: Instance, pending: Pending) {
  if (instance.endReason() !== undefined || (yield* isOverWithin(pending, abandonGrace))) return
  yield* Effect.ignore(Effect.timeoutOption(instance.interrupt, interruptTimeout))
  if (!(yield* isOverWithin(pending, interruptTimeout))) yield* Fiber.interrupt(pending)
})

/** The channel and the subshell of a request. */
interface Route {
  readonly channel: ChannelName
  readonly subshell?: string | undefined
}

/** Returns the subshell of a kernel, which is created for the first request. */
const subshellOf = (
  instance: Instance,
  shell: ShellState,
): Effect.Effect<string | undefined, KernelError> =>
  Effect.suspend(() => {
    if (shell.subshell !== undefined) {
      // A slow subshell may still come.
      return shell.isSlow && !Deferred.isDoneUnsafe(shell.subshell) ? none : Deferred.await(shell.subshell)
    }
    const made = Deferred.makeUnsafe<string | undefined, KernelError>()
    shell.subshell = made
    shell.isSlow = false
    const waiting = Effect.timeoutOrElse(Deferred.await(made), {
      duration: subshellProbeTimeout,
      orElse: () => {
        shell.isSlow = true
        return none
      },
    })
    // In a fiber of its own: the first caller may be interrupted, and others wait too.
    return open(instance).pipe(
      Effect.timeoutOption(subshellProbeRetry),
      Effect.onExit((exit) => {
        const isKnown = Exit.isSuccess(exit) && Option.isSome(exit.value)
        if (!isKnown && shell.subshell === made) shell.subshell = undefined
        return Deferred.done(made, Exit.map(exit, Option.getOrUndefined))
      }),
      Effect.forkDetach,
      Effect.andThen(waiting),
    )
  })

const Features = Schema.Struct({ supported_features: Schema.optionalKey(Schema.Array(Schema.String)) })
const Created = Schema.Struct({ subshell_id: Schema.String.check(Schema.isMaxLength(maxIdLength)) })

/** No subshell. */
const none = Effect.as(Effect.void, undefined)

/** Returns the request of a name, which the reply of the same name answers. */
export const requestOf = (name: string, content: JsonObject = {}): Request => ({
  type: `${name}_request`,
  content,
  pick: ({ content, header }) => header.msg_type === `${name}_reply` ? content : undefined,
})

const open = Effect.fnUntraced(
  function* (instance: Instance) {
    // Kernels that wrap IPython report the feature too, but share one process with what they wrap.
    if (!Identity.isIPython(instance.identity)) return undefined
    const info = instance.identity.info ??
      (yield* send(instance, requestOf("kernel_info"), { channel: "control" }))
    const { supported_features: features = [] } = yield* Schema.decodeEffect(Features)(info)
    if (!features.includes("kernel subshells")) return undefined
    const created = yield* send(instance, requestOf("create_subshell"), { channel: "control" })
    const { subshell_id: subshell } = yield* Schema.decodeUnknownEffect(Created)(created)
    return subshell
  },
  // A kernel that does not know the request has no subshells.
  Effect.catchTags({ SchemaError: () => none, Unanswered: () => none }),
)

/** Deletes an idle subshell: ipykernel waits for its thread, and answers nothing meanwhile. */
const close = (instance: Instance, subshell: string): Effect.Effect<void> =>
  send(instance, requestOf("delete_subshell", { subshell_id: subshell }), { channel: "control" }).pipe(
    Effect.timeoutOption(subshellProbeTimeout),
    Effect.ignore,
  )

/** Sends a request and waits for its answer without a bound. */
const send = (
  instance: Instance,
  { content, pick, type }: Request,
  route: Route,
): Effect.Effect<JsonObject, KernelError | Unanswered> => {
  /** True if it runs in place of an execution, so that no output belongs to one. */
  const isAlone = route.channel === "shell" && route.subshell === undefined
  const answer = (message: Message, bytes: number): JsonObject | undefined => {
    if (!OutputRouter.isOutput(message)) return pick(message)
    // ipykernel names the latest request as the source of what threads of the user print.
    if (!isAlone) instance.output.route(message, bytes)
    return undefined
  }
  const newRequestId = isAlone ? newId : OutputRouter.besideId
  return Effect.filterOrFail(
    Effect.suspend(() =>
      Connection.ask(instance, { type, content, id: newRequestId(), ...route }, answer, { replyTimeout })
    ),
    ({ status }) => status !== "error",
    (error) => new Unanswered({ detail: errorText(error) }),
  )
}

function errorText({ ename, evalue }: JsonObject): string {
  const parts = [ename, evalue].filter((part) => typeof part === "string" && part !== "")
  return excerpt(parts.join(": "), 1000) || "It refused"
}
