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
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as Defect from "../defect.ts"
import { ConnectionLost, KernelError } from "../execution.ts"
import { IntrospectionFailed, KernelBusy } from "../introspection.ts"
import { excerpt } from "../jupyter/control_codes.ts"
import { type ChannelName, type JsonObject, maxIdLength, type Message, request } from "../jupyter/message.ts"
import { besideId, type Connection, isOutput } from "./connection.ts"
import * as Identity from "./identity.ts"
import type { Session } from "./session.ts"

/** A request that puts out nothing and runs no code of the user's. */
export interface Question {
  readonly type: string
  readonly content: JsonObject
  /** What a message says if it is the answer. */
  readonly answers: (message: Message) => JsonObject | undefined
  /** The kernel answers it on the control channel, which is always open. */
  readonly isForControl?: boolean | undefined
}

/** An answer and who gave it. */
export interface Answer {
  readonly connection: Connection
  readonly content: JsonObject
}

/** How long after its `idle` a request may still be answered: the two travel apart. */
const grace: Duration.Input = "500 millis"

/** How long a kernel may take to say whether it has subshells. */
const opening: Duration.Input = "3 seconds"

/** When it is asked once more: what was asked may have been lost in a cut. */
const givingUp: Duration.Input = "10 seconds"

/** How long the main shell may go on with a question that nobody waits for any more. */
const patience: Duration.Input = "250 millis"

/** How long a kernel may take to let go of a question after an interrupt. */
const release: Duration.Input = "2 seconds"

/** How many questions that nobody waits for any more may hold up a subshell each: threads of Python cannot be ended. */
const mostHung = 8

/** What a kernel answers questions with. */
interface Desk {
  /** One question at a time: a kernel answers them one after the other, and the wait for others is not its delay. */
  readonly turn: Semaphore.Semaphore
  /** The id of the subshell; `undefined` for a kernel that has none. */
  subshell: Deferred.Deferred<string | undefined, KernelError> | undefined
  /** It was waited for in vain. */
  isLate: boolean
  hung: number
}

const desks = new WeakMap<Connection, Desk>()

const deskOf = (connection: Connection): Desk => {
  const known = desks.get(connection)
  if (known !== undefined) return known
  const desk = { turn: Semaphore.makeUnsafe(1), subshell: undefined, isLate: false, hung: 0 }
  desks.set(connection, desk)
  return desk
}

/** A question under way. */
type Asked = Fiber.Fiber<JsonObject, KernelError | string>

/** A new id. */
export const newId = (): string => SecureRandom.uuidV4Unsafe()

/** Asks the kernel of a session. */
export const ask = (
  session: Session,
  question: Question,
  timeout: Duration.Input,
): Effect.Effect<Answer, KernelBusy | IntrospectionFailed | KernelError> =>
  Effect.gen(function* () {
    const failed = (detail: string) =>
      new IntrospectionFailed({ kernelId: session.id(), request: question.type, detail })
    const bounded = Effect.timeoutOrElse({
      duration: timeout,
      orElse: () => failed(`No answer came within ${Duration.format(Duration.fromInputUnsafe(timeout))}`),
    })
    // After a reset that was cut short it is started first.
    const connection = yield* bounded(session.connection)
    const desk = deskOf(connection)
    const answer = (asking: Effect.Effect<JsonObject, KernelError | string>) =>
      asking.pipe(
        Effect.map((content): Answer => ({ connection, content })),
        Effect.mapError((error) => typeof error === "string" ? failed(error) : error),
        bounded,
      )
    const { info } = connection.identity
    // What it said at its start: some kernels answer on the shell channel alone, when they are idle.
    if (question.type === "kernel_info_request" && info !== undefined) return { connection, content: info }
    if (question.isForControl === true) {
      return yield* answer(converse(connection, question, { channel: "control" }))
    }
    /** Asks in a fiber of its own: the kernel does not stop when nobody waits any more, or when it failed. */
    const send = (way: Way, onLeft: (asked: Asked) => Effect.Effect<void>) =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
        const conversation = Effect.interruptible(converse(connection, question, way))
        const asked = yield* Effect.forkDetach(conversation, { startImmediately: true })
        return yield* restore(answer(Fiber.join(asked))).pipe(Effect.onError(() => onLeft(asked)))
      }))

    return yield* Effect.uninterruptibleMask(Effect.fnUntraced(function* (restore) {
      yield* restore(Semaphore.take(desk.turn, 1))
      let left: { readonly asked: Asked; readonly deadline: number } | undefined
      const inTurn = Effect.gen(function* () {
        if (desk.hung >= mostHung) return yield* failed(`It still has ${desk.hung} questions to answer`)
        const subshell = yield* bounded(subshellOf(connection, desk))
        if (subshell !== undefined) {
          const deadline = (yield* Clock.currentTimeMillis) + Duration.toMillis(timeout)
          const onLeft = (asked: Asked) =>
            Effect.sync(() => {
              left = { asked, deadline }
            })
          return yield* send({ channel: "shell", subshell }, onLeft)
        }
        const answered = yield* session.ifIdle(
          send({ channel: "shell" }, (asked) => letGo(connection, asked)),
        )
        return yield* Option.isNone(answered)
          ? new KernelBusy({ kernelId: connection.id })
          : Effect.succeed(answered.value)
      })
      return yield* restore(inTurn).pipe(
        Effect.onExit((exit) => {
          const handOver = Semaphore.release(desk.turn, 1)
          return left === undefined || connection.ended() !== undefined ? handOver : Effect.forkDetach(
            Defect.log(leave(connection, { desk, ...left, handOver, hasFailed: hasFailed(exit) })),
          )
        }),
      )
    }))
  })

/** Whether there is no use in waiting any longer. */
const hasFailed = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)

/** Whether the question is over within the time. */
const isOverWithin = (asked: Asked, bound: Duration.Input): Effect.Effect<boolean> =>
  Effect.map(Effect.timeoutOption(Fiber.await(asked), bound), Option.isSome)

/**
 * A question that nobody waits for any more keeps its turn until it is over, at most for the time that it had: IPython
 * confuses what two threads complete. What takes longer may take for ever: the next question gets another subshell.
 */
const leave = Effect.fnUntraced(function* (
  connection: Connection,
  { asked, deadline, desk, handOver, hasFailed }: {
    readonly asked: Asked
    readonly deadline: number
    readonly desk: Desk
    readonly handOver: Effect.Effect<unknown>
    readonly hasFailed: boolean
  },
) {
  const rest = Duration.millis(Math.max(0, deadline - (yield* Clock.currentTimeMillis)))
  // Who refused to answer has time for the next question.
  if (asked.pollUnsafe() !== undefined || (!hasFailed && (yield* isOverWithin(asked, rest)))) {
    yield* handOver
    return
  }
  const { subshell } = desk
  desk.subshell = undefined
  desk.hung++
  yield* handOver
  const id = subshell === undefined ? undefined : yield* Deferred.await(subshell)
  yield* Effect.raceFirst(Fiber.await(asked), untilFree(connection, id))
  yield* Fiber.interrupt(asked)
  desk.hung--
  if (id !== undefined && connection.ended() === undefined) yield* close(connection, id)
})

/** What a subshell has not answered before the next question, it never will; both may be lost in a cut. */
const untilFree = (connection: Connection, subshell: string | undefined): Effect.Effect<unknown> =>
  subshell === undefined
    ? Effect.never
    : converse(connection, questionOf("kernel_info"), { channel: "shell", subshell }).pipe(
      Effect.timeout("2 seconds"),
      Effect.retry(Schedule.exponential("1 second")),
      Effect.catch(() => Effect.never),
    )

/** Frees the main shell of a question that nobody waits for any more: executions would wait for it. */
const letGo = Effect.fnUntraced(function* (connection: Connection, asked: Asked) {
  if (connection.ended() !== undefined || (yield* isOverWithin(asked, patience))) return
  yield* Effect.ignore(Effect.timeoutOption(connection.interrupt, release))
  if (!(yield* isOverWithin(asked, release))) yield* Fiber.interrupt(asked)
})

/** Which way a request goes. */
interface Way {
  readonly channel: ChannelName
  readonly subshell?: string | undefined
}

/** The subshell of a kernel, which is made when it is needed first and ends with the kernel. */
const subshellOf = (connection: Connection, desk: Desk): Effect.Effect<string | undefined, KernelError> =>
  Effect.suspend(() => {
    if (desk.subshell !== undefined) {
      // One that takes long may come all the same.
      return desk.isLate && !Deferred.isDoneUnsafe(desk.subshell) ? none : Deferred.await(desk.subshell)
    }
    const made = Deferred.makeUnsafe<string | undefined, KernelError>()
    desk.subshell = made
    desk.isLate = false
    const waiting = Effect.timeoutOrElse(Deferred.await(made), {
      duration: opening,
      orElse: () => {
        desk.isLate = true
        return none
      },
    })
    // Who asks first may not wait for long, and others wait, too.
    return open(connection).pipe(
      Effect.timeoutOption(givingUp),
      Effect.onExit((exit) => {
        const isKnown = Exit.isSuccess(exit) && Option.isSome(exit.value)
        if (!isKnown && desk.subshell === made) desk.subshell = undefined
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
export const questionOf = (name: string, content: JsonObject = {}): Question => ({
  type: `${name}_request`,
  content,
  answers: ({ content, header }) => header.msg_type === `${name}_reply` ? content : undefined,
})

const open = Effect.fnUntraced(
  function* (connection: Connection) {
    // Kernels that wrap others inherit the claim, and share one process with what they wrap.
    if (!Identity.isIPython(connection.identity)) return undefined
    const info = connection.identity.info ??
      (yield* converse(connection, questionOf("kernel_info"), { channel: "control" }))
    const { supported_features: features = [] } = yield* Effect.mapError(
      Schema.decodeEffect(Features)(info),
      (error) => error.message,
    )
    if (!features.includes("kernel subshells")) return undefined
    const created = yield* converse(connection, questionOf("create_subshell"), { channel: "control" })
    const subshell = yield* Effect.mapError(
      Schema.decodeUnknownEffect(Created)(created),
      (error) => error.message,
    )
    return subshell.subshell_id
  },
  // Who does not understand the question has no subshells.
  Effect.catchIf(Predicate.isString, () => none),
)

/** Ends a subshell that has nothing to do: ipykernel waits for its end, and answers nothing meanwhile. */
const close = (connection: Connection, subshell: string): Effect.Effect<void> =>
  converse(connection, questionOf("delete_subshell", { subshell_id: subshell }), { channel: "control" }).pipe(
    Effect.timeoutOption(opening),
    Effect.ignore,
  )

/** Sends a request and waits for its answer, however long; fails with what there was instead. */
const converse = (
  connection: Connection,
  { answers, content, type }: Question,
  { channel, subshell }: Way,
): Effect.Effect<JsonObject, KernelError | string> =>
  Effect.scoped(Effect.gen(function* () {
    const { channel: channels, id: kernelId, session } = connection
    /** It has the turn of an execution: what comes in its name belongs to none. */
    const isAlone = channel === "shell" && subshell === undefined
    const id = isAlone ? newId() : besideId()
    const answered = yield* Deferred.make<JsonObject, KernelError | string>()
    const scope = yield* Effect.scope
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    const done = (effect: Effect.Effect<JsonObject, KernelError | string>): void =>
      void Deferred.doneUnsafe(answered, effect)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        channels.listen(id, {
          onTooLarge: ({ detail }) => done(Effect.fail(detail)),
          onMessage: (message, bytes) => {
            // ipykernel takes the latest request for the source of all that threads of the user print.
            if (isOutput(message)) return isAlone ? undefined : connection.unsolicited(message, bytes)
            const answer = answers(message)
            if (answer !== undefined) {
              return done(answer.status === "error" ? Effect.fail(complaint(answer)) : Effect.succeed(answer))
            }
            if (message.header.msg_type === "status" && message.content.execution_state === "idle") {
              const giveUp = Effect.sync(() => done(Effect.fail("It said nothing")))
              runFork(Effect.forkIn(Effect.delay(giveUp, grace), scope))
            }
          },
        })
        return connection.onEnded((reason) => done(Effect.fail(new KernelError({ reason }))))
      }),
      (forgetEnd) =>
        Effect.sync(() => {
          forgetEnd()
          channels.forget(id)
        }),
    )
    const message = request(type, { id, session, content, channel })
    yield* channels.send(
      subshell === undefined ? message : { ...message, header: { ...message.header, subshell_id: subshell } },
    ).pipe(
      Effect.mapError((error) => {
        const reason = connection.ended() ?? new ConnectionLost({ kernelId, detail: error.detail })
        return new KernelError({ reason })
      }),
      (sending) => Effect.raceFirst(Effect.asVoid(Deferred.await(answered)), sending),
    )
    return yield* Deferred.await(answered)
  }))

function complaint({ ename, evalue }: JsonObject): string {
  const parts = [ename, evalue].filter((part) => typeof part === "string" && part !== "")
  return excerpt(parts.join(": "), 1000) || "It refused"
}
