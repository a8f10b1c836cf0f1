/**
 * Questions of an execution that its client answers in another process: for input, and for the path of an image that it
 * stores.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { ExecuteOptions } from "../client/kernel.ts"
import { Question } from "./question.ts"

/** The functions of an execution's options, which run in the process of the client. */
export type Callbacks = Pick<ExecuteOptions, "images" | "onInput">

/** Which functions the client has. */
export interface Asks {
  readonly asksInput?: boolean | undefined
  readonly asksImages?: boolean | undefined
}

/** An answer: a value, or the reason why there is none. */
interface Reply {
  readonly id: string
  readonly value?: string | undefined
  readonly detail?: string | undefined
}

/** The questions of a server that wait for their answers. */
export interface Questions {
  /** Runs an execution whose functions ask the client. Its questions are elements of the stream. */
  readonly asking: <A, E>(
    asks: Asks,
    run: (callbacks: Callbacks) => Stream.Stream<A, E>,
  ) => Stream.Stream<A | Question, E>
  readonly answer: (reply: Reply) => Effect.Effect<void>
}

/** The elements of a stream that wait for its consumer. */
const bufferSize = 16

/** Maximum characters of the reason why there is no answer. */
const maxDetail = 10_000

/** Makes the questions of a server. */
export const make = (): Questions => {
  const waiting = new Map<string, Deferred.Deferred<string, string>>()
  return {
    asking: <A, E>(
      { asksImages = false, asksInput = false }: Asks,
      run: (callbacks: Callbacks) => Stream.Stream<A, E>,
    ) =>
      !asksImages && !asksInput ? run({ images: "bytes" }) : Stream.callback<A | Question, E>(
        (queue) => {
          const ask = Effect.fnUntraced(function* (about: Question["about"]) {
            const id = SecureRandom.uuidV4Unsafe()
            const answer = yield* Deferred.make<string, string>()
            waiting.set(id, answer)
            return yield* Queue.offer(queue, new Question({ id, about })).pipe(
              Effect.andThen(Deferred.await(answer)),
              Effect.ensuring(Effect.sync(() => waiting.delete(id))),
            )
          })
          const callbacks: Callbacks = {
            images: asksImages ? (image) => ask({ _tag: "Image", ...image }) : "bytes",
            onInput: asksInput ? (request) => Effect.orDie(ask({ _tag: "Input", ...request })) : undefined,
          }
          return run(callbacks).pipe(
            Stream.runForEachArray((elements) => Queue.offerAll(queue, elements)),
            Effect.exit,
            Effect.flatMap((exit) =>
              Exit.isSuccess(exit) ? Queue.end(queue) : Queue.failCause(queue, exit.cause)
            ),
          )
        },
        { bufferSize },
      ),
    answer: ({ detail = "The client has no answer", id, value }) =>
      Effect.suspend(() => {
        const answer = waiting.get(id)
        if (answer === undefined) return Effect.void
        return Effect.asVoid(
          value === undefined ? Deferred.fail(answer, detail) : Deferred.succeed(answer, value),
        )
      }),
  }
}

/** Answers the questions of a stream by the functions of the client, and emits the other elements. */
export const answering = <A, E>(
  stream: Stream.Stream<A | Question, E>,
  { images, onInput }: Callbacks,
  reply: (reply: Reply) => Effect.Effect<void, unknown>,
): Stream.Stream<A, E> => {
  if (onInput === undefined && typeof images !== "function") {
    return Stream.filter(stream, (element): element is A => !(element instanceof Question))
  }
  const answer = ({ about: { _tag, ...about } }: Question): Effect.Effect<string, unknown> =>
    "bytes" in about
      ? typeof images === "function" ? images(about) : Effect.fail("The client stores no images")
      : onInput?.(about) ?? Effect.fail("The client answers no questions")
  return Stream.unwrap(Effect.map(FiberSet.make<void>(), (fibers) =>
    stream.pipe(
      Stream.tap((element) =>
        element instanceof Question
          ? FiberSet.run(
            fibers,
            Effect.suspend(() => answer(element)).pipe(
              Effect.matchCauseEffect({
                onFailure: (cause) =>
                  reply({ id: element.id, detail: Cause.pretty(cause).slice(0, maxDetail) }),
                onSuccess: (value) => reply({ id: element.id, value }),
              }),
              Effect.ignoreCause,
            ),
          )
          : Effect.void
      ),
      Stream.filter((element): element is A => !(element instanceof Question)),
    )))
}
