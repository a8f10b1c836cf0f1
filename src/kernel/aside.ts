/**
 * Requests beside the executions of a kernel: in a subshell, where it has them, or in a turn of their own.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import { ConnectionLost, KernelError } from "../execution.ts"
import { IntrospectionFailed, KernelBusy } from "../introspection.ts"
import { type ChannelName, type JsonObject, type Message, request } from "../jupyter/message.ts"
import { type Connection, isOutput } from "./connection.ts"
import type { Session } from "./session.ts"

/** A request that puts out nothing and runs no code of the user's. */
export interface Question {
  readonly type: string
  readonly content: JsonObject
  /** What a message says if it is the answer. */
  readonly answers: (message: Message) => JsonObject | undefined
  /** The kernel answers it on the control channel, which is always open. */
  readonly isForControl?: boolean
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

/** One question at a time: a kernel answers them one after the other, and the wait for others is not its delay. */
const turns = new WeakMap<Connection, Semaphore.Semaphore>()

/** The subshells of kernels; `undefined` for those that have none. */
const subshells = new WeakMap<Connection, Effect.Effect<string | undefined, KernelError>>()

/** A new id. */
export const newId = (): string => SecureRandom.uuidV4Unsafe()

/** Asks the kernel of a session. */
export const ask = (
  session: Session,
  question: Question,
  timeout: Duration.Input,
): Effect.Effect<Answer, KernelBusy | IntrospectionFailed | KernelError> =>
  Effect.gen(function* () {
    const connection = yield* session.connection
    const failed = (detail: string) =>
      new IntrospectionFailed({ kernelId: connection.id, request: question.type, detail })
    const bounded = Effect.timeoutOrElse({
      duration: timeout,
      orElse: () => failed(`No answer came within ${Duration.format(Duration.fromInputUnsafe(timeout))}`),
    })
    const send = (way: Way) =>
      Effect.map(converse(connection, question, way), (content) => ({ connection, content }))
    if (question.isForControl === true) {
      return yield* send({ channel: "control" }).pipe(Effect.catch(refine(failed)), bounded)
    }
    return yield* inTurn(
      connection,
      Effect.gen(function* () {
        const subshell = yield* bounded(subshellOf(connection))
        if (subshell === undefined) {
          const answer = yield* session.ifIdle(
            send({ channel: "shell" }).pipe(Effect.catch(refine(failed)), bounded),
          )
          return yield* Option.isNone(answer)
            ? new KernelBusy({ kernelId: connection.id })
            : Effect.succeed(answer.value)
        }
        return yield* send({ channel: "shell", subshell }).pipe(
          Effect.catch(refine(failed)),
          bounded,
          // Whatever it does, it may do for ever: the next question gets another one.
          Effect.tapErrorTag("IntrospectionFailed", () => Effect.sync(() => subshells.delete(connection))),
        )
      }),
    )
  })

/** Does something after all that was asked of the kernel before. */
const inTurn = <A, E>(connection: Connection, effect: Effect.Effect<A, E>): Effect.Effect<A, E> => {
  const turn = turns.get(connection) ?? Semaphore.makeUnsafe(1)
  turns.set(connection, turn)
  return Semaphore.withPermits(turn, 1)(effect)
}

/** Which way a request goes. */
interface Way {
  readonly channel: ChannelName
  readonly subshell?: string
}

const refine =
  (failed: (detail: string) => IntrospectionFailed) =>
  (error: KernelError | string): Effect.Effect<never, IntrospectionFailed | KernelError> =>
    Effect.fail(typeof error === "string" ? failed(error) : error)

/** The subshell of a kernel, which is made when it is needed first and ends with the kernel. */
const subshellOf = (connection: Connection): Effect.Effect<string | undefined, KernelError> =>
  Effect.suspend(() => {
    const known = subshells.get(connection)
    if (known !== undefined) return known
    const made = Deferred.makeUnsafe<string | undefined, KernelError>()
    const waiting = Deferred.await(made)
    subshells.set(connection, waiting)
    // Who waits first may not wait for long, and others wait, too.
    return open(connection).pipe(
      Effect.onExit((exit) =>
        Effect.suspend(() => {
          if (exit._tag === "Failure" && subshells.get(connection) === waiting) subshells.delete(connection)
          return Deferred.done(made, exit)
        })
      ),
      Effect.forkDetach,
      Effect.andThen(waiting),
    )
  })

const Features = Schema.Struct({ supported_features: Schema.optionalKey(Schema.Array(Schema.String)) })
const Created = Schema.Struct({ subshell_id: Schema.String })

/** No subshell. */
const none = Effect.as(Effect.void, undefined)

const open = Effect.fnUntraced(
  function* (connection: Connection) {
    const control = { channel: "control" } as const
    const reply = (name: string) => ({ content, header }: Message) =>
      header.msg_type === `${name}_reply` ? content : undefined
    const info = yield* converse(connection, {
      type: "kernel_info_request",
      content: {},
      answers: reply("kernel_info"),
    }, control)
    const { supported_features: features = [] } = yield* Effect.mapError(
      Schema.decodeEffect(Features)(info),
      (error) => error.message,
    )
    if (!features.includes("kernel subshells")) return undefined
    const created = yield* converse(connection, {
      type: "create_subshell_request",
      content: {},
      answers: reply("create_subshell"),
    }, control)
    const subshell = yield* Effect.mapError(
      Schema.decodeUnknownEffect(Created)(created),
      (error) => error.message,
    )
    return subshell.subshell_id
  },
  Effect.timeoutOrElse({ duration: opening, orElse: () => none }),
  // Who does not understand the question has no subshells.
  Effect.catchIf(Predicate.isString, () => none),
)

/** Sends a request and waits for its answer, however long; fails with what there was instead. */
const converse = (
  connection: Connection,
  { answers, content, type }: Question,
  { channel, subshell }: Way,
): Effect.Effect<JsonObject, KernelError | string> =>
  Effect.scoped(Effect.gen(function* () {
    const { channel: channels, id: kernelId, session } = connection
    const id = newId()
    const answered = yield* Deferred.make<JsonObject, KernelError | string>()
    const scope = yield* Effect.scope
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    const done = (effect: Effect.Effect<JsonObject, KernelError | string>): void =>
      void Deferred.doneUnsafe(answered, effect)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        connection.setAside(id)
        channels.listen(id, {
          onMessage: (message, bytes) => {
            // ipykernel takes the latest request for the source of all that threads of the user print.
            if (isOutput(message)) return connection.stray(message, bytes)
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
  return [ename, evalue].filter((part) => typeof part === "string" && part !== "").join(": ") || "It refused"
}
