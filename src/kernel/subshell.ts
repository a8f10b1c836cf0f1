/**
 * Requests beside the executions of a kernel: in a subshell, where it has them, or in a turn of their own.
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

/** A request that puts out nothing and runs no code of the user's. */
export interface Request {
  readonly type: string
  readonly content: JsonObject
  /** What a message says if it is the answer. */
  readonly pick: (message: Message) => JsonObject | undefined
  /** The kernel answers it on the control channel, which is always open. */
  readonly isForControl?: boolean | undefined
}

/** An answer and who gave it. */
export interface Answer {
  readonly instance: Instance
  readonly content: JsonObject
}

/** How long after its `idle` a request may still be answered: the two travel apart. */
const replyTimeout: Duration.Input = "500 millis"

/** How long a kernel may take to say whether it has subshells. */
const subshellProbeTimeout: Duration.Input = "3 seconds"

/** When it is asked once more: what was asked may have been lost in a cut. */
const subshellProbeRetry: Duration.Input = "10 seconds"

/** Maximum time for which the main shell goes on with a request that has no caller any more. */
const abandonGrace: Duration.Input = "250 millis"

/** How long a kernel may take to let go of a request after an interrupt. */
const interruptTimeout: Duration.Input = "2 seconds"

/** How many requests that nobody waits for any more may hold up a subshell each: threads of Python cannot be ended. */
const maxAbandoned = 8

/** What answers a kernel's requests. */
interface ShellState {
  readonly instance: Instance
  /** One request at a time: a kernel answers them one after the other, and the wait for others is not its delay. */
  readonly lock: Semaphore.Semaphore
  /** The id of the subshell; `undefined` for a kernel that has none. */
  subshell: Deferred.Deferred<string | undefined, KernelError> | undefined
  /** It was waited for in vain. */
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

/** A new id. */
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
    // After a reset that was cut short it is started first.
    const instance = yield* bounded(session.instance)
    const shell = stateOf(instance)
    const answer = (asking: Effect.Effect<JsonObject, KernelError | Unanswered>) =>
      asking.pipe(
        Effect.map((content): Answer => ({ instance, content })),
        Effect.mapError((error) => error._tag === "Unanswered" ? failed(error.detail) : error),
        bounded,
      )
    const { info } = instance.identity
    // What it said at its start: some kernels answer on the shell channel alone, when they are idle.
    if (request.type === "kernel_info_request" && info !== undefined) return { instance, content: info }
    if (request.isForControl === true) {
      return yield* answer(send(instance, request, { channel: "control" }))
    }
    /** Asks in a fiber of its own: the kernel does not stop when nobody waits any more, or when it failed. */
    const sendDetached = (route: Route, onAbandon: (pending: Pending) => Effect.Effect<void>) =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
        const sending = Effect.interruptible(send(instance, request, route))
        const pending = yield* Effect.forkDetach(sending, { startImmediately: true })
        return yield* restore(answer(Fiber.join(pending))).pipe(Effect.onError(() => onAbandon(pending)))
      }))

    return yield* Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
      yield* restore(Semaphore.take(shell.lock, 1))
      let abandoned: { readonly pending: Pending; readonly deadline: number } | undefined
      const locked = Effect.gen(function* () {
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
      return yield* restore(locked).pipe(
        Effect.onExit((exit) => {
          const release = Semaphore.release(shell.lock, 1)
          return abandoned === undefined || instance.endReason() !== undefined ? release : Effect.forkDetach(
            Defect.log(abandon(instance, { shell, ...abandoned, release, hasFailed: hasFailed(exit) })),
          )
        }),
      )
    }))
  })

/** Whether there is no use in waiting any longer. */
const hasFailed = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)

/** Whether the request is over within the time. */
const isOverWithin = (pending: Pending, bound: Duration.Input): Effect.Effect<boolean> =>
  Effect.map(Effect.timeoutOption(Fiber.await(pending), bound), Option.isSome)

/**
 * A request that nobody waits for any more keeps its turn until it is over, at most for the time that it had: IPython
 * confuses what two threads complete. What takes longer may take for ever: the next request gets another subshell.
 */
const abandon = Effect.fnUntraced(function* (
  instance: Instance,
  { pending, deadline, shell, release, hasFailed }: {
    readonly pending: Pending
    readonly deadline: number
    readonly shell: ShellState
    readonly release: Effect.Effect<unknown>
    readonly hasFailed: boolean
  },
) {
  const rest = Duration.millis(Math.max(0, deadline - (yield* Clock.currentTimeMillis)))
  // Who refused to answer has time for the next request.
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

/** What a subshell has not answered before the next request, it never will; both may be lost in a cut. */
const awaitSubshellReady = (instance: Instance, subshell: string | undefined): Effect.Effect<unknown> =>
  subshell === undefined
    ? Effect.never
    : send(instance, requestOf("kernel_info"), { channel: "shell", subshell }).pipe(
      Effect.timeout("2 seconds"),
      Effect.retry(Schedule.exponential("1 second")),
      Effect.catch(() => Effect.never),
    )

/** Frees the main shell of a request that nobody waits for any more: executions would wait for it. */
const interruptMainShell = Effect.fnUntraced(function* (instance: Instance, pending: Pending) {
  if (instance.endReason() !== undefined || (yield* isOverWithin(pending, abandonGrace))) return
  yield* Effect.ignore(Effect.timeoutOption(instance.interrupt, interruptTimeout))
  if (!(yield* isOverWithin(pending, interruptTimeout))) yield* Fiber.interrupt(pending)
})

/** Which way a request goes. */
interface Route {
  readonly channel: ChannelName
  readonly subshell?: string | undefined
}

/** The subshell of a kernel, which is made when it is needed first and ends with the kernel. */
const subshellOf = (
  instance: Instance,
  shell: ShellState,
): Effect.Effect<string | undefined, KernelError> =>
  Effect.suspend(() => {
    if (shell.subshell !== undefined) {
      // One that takes long may come all the same.
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
    // Who asks first may not wait for long, and others wait, too.
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

/** Asks by the request of a name; the reply of that name answers. */
export const requestOf = (name: string, content: JsonObject = {}): Request => ({
  type: `${name}_request`,
  content,
  pick: ({ content, header }) => header.msg_type === `${name}_reply` ? content : undefined,
})

const open = Effect.fnUntraced(
  function* (instance: Instance) {
    // Kernels that wrap others inherit the claim, and share one process with what they wrap.
    if (!Identity.isIPython(instance.identity)) return undefined
    const info = instance.identity.info ??
      (yield* send(instance, requestOf("kernel_info"), { channel: "control" }))
    const { supported_features: features = [] } = yield* Schema.decodeEffect(Features)(info)
    if (!features.includes("kernel subshells")) return undefined
    const created = yield* send(instance, requestOf("create_subshell"), { channel: "control" })
    const { subshell_id: subshell } = yield* Schema.decodeUnknownEffect(Created)(created)
    return subshell
  },
  // Who does not understand the request has no subshells.
  Effect.catchTags({ SchemaError: () => none, Unanswered: () => none }),
)

/** Ends a subshell that has nothing to do: ipykernel waits for its end, and answers nothing meanwhile. */
const close = (instance: Instance, subshell: string): Effect.Effect<void> =>
  send(instance, requestOf("delete_subshell", { subshell_id: subshell }), { channel: "control" }).pipe(
    Effect.timeoutOption(subshellProbeTimeout),
    Effect.ignore,
  )

/** Sends a request and waits for its answer, however long. */
const send = (
  instance: Instance,
  { content, pick, type }: Request,
  route: Route,
): Effect.Effect<JsonObject, KernelError | Unanswered> => {
  /** It has the turn of an execution: what comes in its name belongs to none. */
  const isAlone = route.channel === "shell" && route.subshell === undefined
  const answer = (message: Message, bytes: number): JsonObject | undefined => {
    if (!OutputRouter.isOutput(message)) return pick(message)
    // ipykernel takes the latest request for the source of all that threads of the user print.
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
