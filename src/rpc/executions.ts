/**
 * Executions in another process, and requests for values, which have output as well.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { ExecuteOptions, ResumeOptions } from "../client/kernel.ts"
import {
  type Chunk,
  ExecutionFailure,
  ExecutionRef,
  type ExecutionResult,
  ExecutionTimeout,
  KernelError,
} from "../execution.ts"
import * as Options from "../options/check.ts"
import type { Answer, Exchange } from "../values/exchange.ts"
import * as Fragment from "./fragment.ts"
import { Accepted, type Answers, type Begun, type Bytes, type Position, type Started } from "./group.ts"
import * as Parts from "./parts.ts"
import type { Question } from "./question.ts"
import * as Questions from "./questions.ts"
import * as Uploads from "./uploads.ts"
import {
  ask,
  askStream,
  attach,
  lost,
  type Remote,
  sendable,
  textOf,
  unsupported,
  untilConnected,
  upload,
} from "./remote.ts"

/** Maximum time that an interrupted execution waits until the kernel is idle, which the kernel bounds by 10. */
const settleTimeout: Duration.Input = "12 seconds"

/** Maximum time to wait for the first part of an answer that is not complete. */
const streamTimeout: Duration.Input = "5 seconds"

/** Maximum time that outputs wait for the next owner of a kernel. */
const ownerTimeout: Duration.Input = "2 minutes"

/** Runs an execution in the order of requests, and waits, if it is ended early, until the kernel is idle. */
const queued = <A, E>(
  { client, sending }: Remote,
  run: (requestId: string) => Stream.Stream<A | Accepted, E>,
): Stream.Stream<A, E> =>
  Stream.unwrap(Effect.gen(function* () {
    const requestId = SecureRandom.uuidV4Unsafe()
    let isOver = false
    const finish = Effect.sync(() => {
      isOver = true
    })
    yield* Effect.addFinalizer(() =>
      isOver ? Effect.void : client.settled({ requestId }).pipe(
        Effect.timeout(settleTimeout),
        Effect.ignoreCause,
      )
    )
    // Requests of some protocols overtake each other.
    const turn = yield* Effect.flatMap(Effect.scope, Scope.fork)
    yield* Scope.provide(Semaphore.takeScoped(sending, 1), turn)
    const release = Scope.close(turn, Exit.void)
    return run(requestId).pipe(
      Stream.tap((element) => element instanceof Accepted ? release : Effect.void),
      Stream.filter((element): element is A => !(element instanceof Accepted)),
      Stream.tapError(() => Effect.andThen(finish, release)),
      Stream.onEnd(Effect.andThen(finish, release)),
    )
  }))

/** Runs code, and emits its outputs. */
export const execution = (
  remote: Remote,
  code: string,
  options: ExecuteOptions & { readonly chunks?: boolean },
): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure> => {
  const continues = remote.guard !== undefined
  const outputs = queued(remote, (requestId) =>
    Stream.unwrap(Effect.gen(function* () {
      const sent = { ...yield* optionsOf(remote, options), code: yield* textOf(remote, code) }
      const elements: Elements<Begun | Position> = askStream(remote, (target) =>
        remote.client.execute({ ...target, ...sent, chunks: options.chunks, continues, requestId }))
      return whole(remote, elements, options)
    })))
  return goOn(remote, outputs, options)
}

type Continued = Stream.Stream<Begun | Position | Chunk | ExecutionResult, ExecutionFailure>

/** Emits the outputs of code, also if its owner ends: the next one that has the kernel resumes code that has begun. */
const goOn = (
  remote: Remote,
  outputs: Continued,
  options: ExecuteOptions & { readonly chunks?: boolean },
): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure> =>
  Stream.unwrap(Effect.gen(function* () {
    const clock = yield* Clock.Clock
    let isOver = false
    let begun: { readonly ref: ExecutionRef; readonly at: number } | undefined
    let session = remote.attachment?.session
    /** The positions of the chunk that comes, of the last one that was emitted, and of that before the owner ended. */
    let position = 0
    let last = 0
    let taken = -1
    const isNew = (
      element: Begun | Position | Chunk | ExecutionResult,
    ): element is Chunk | ExecutionResult => {
      switch (element._tag) {
        case "Begun":
          begun = { ref: element.ref, at: clock.currentTimeMillisUnsafe() }
          return false
        case "Position":
          position = element.position
          return false
        case "ExecutionResult":
          isOver = true
          return true
        default:
          if (options.chunks === false || position <= taken) return false
          last = position
          return true
      }
    }
    /** Waits for an owner. Returns false if it is the same, which has interrupted the code, or has another kernel. */
    const hasNext = Effect.gen(function* () {
      const attachment = yield* ask(remote, () => remote.client.open({ key: remote.key }))
      // The next request is for the session of the new owner.
      if (attachment.kernelId === remote.attachment?.kernelId) attach(remote, attachment)
      const isKept = attachment.kernelId === begun?.ref.kernel.kernelId
      if (!isKept || attachment.session === session) return false
      session = attachment.session
      return true
    })
    /** Takes everything again, as the result has all of it. Fails if no other owner goes on with the code. */
    const again = Effect.fnUntraced(function* (failure: KernelError) {
      if (remote.guard === undefined) return yield* failure
      const isNext = yield* Effect.mapError(hasNext, () => failure)
      if (begun === undefined || !isNext) return yield* failure
      taken = last
      const { at, ref } = begun
      const { timeout } = options
      if (timeout === undefined) return resumed(remote, ref, { ...options, interrupts: true })
      const rest = restOf(timeout, clock.currentTimeMillisUnsafe() - at)
      return Stream.mapError(
        resumed(remote, ref, { ...options, timeout: rest, interrupts: true }),
        (failure) =>
          failure._tag === "ExecutionTimeout"
            ? new ExecutionTimeout({ ...failure, timeout: Duration.fromInputUnsafe(timeout) })
            : failure,
      )
    })
    const emit = (outputs: Continued): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure> =>
      outputs.pipe(
        Stream.filter(isNew),
        Stream.catchReason(
          "KernelError",
          "ConnectionLost",
          (_, failure) => Stream.unwrap(Effect.map(again(failure), emit)),
        ),
      )
    /** Interrupts code that its owner did not, as it had ended. */
    const stop = Effect.gen(function* () {
      if (begun === undefined || !(yield* hasNext)) return
      const options = {
        timeout: "1 milli",
        chunks: false,
        interrupts: true,
        onInput: () => Effect.never,
      } as const
      yield* Stream.runDrain(resumed(remote, begun.ref, options))
    })
    yield* Effect.addFinalizer(() =>
      isOver ? Effect.void : Effect.forkIn(Effect.ignoreCause(stop), remote.scope)
    )
    return Stream.tapError(emit(outputs), () => Effect.sync(() => isOver = true))
  }))

/** Returns the rest of a timeout of code that began some time ago, which is over at once if there is none. */
const restOf = (timeout: Duration.Input, millis: number): Duration.Duration =>
  Duration.max(
    Duration.subtract(Duration.fromInputUnsafe(timeout), Duration.millis(millis)),
    Duration.millis(1),
  )

/** Resumes code, and emits the positions of its chunks as well. */
const resumed = (
  remote: Remote,
  ref: ExecutionRef,
  options: Omit<ResumeOptions, "onChunk"> & { readonly chunks?: boolean },
): Stream.Stream<Chunk | ExecutionResult | Position, ExecutionFailure> =>
  queued(remote, (requestId) =>
    Stream.unwrap(Effect.map(optionsOf(remote, options), (sent) => {
      const elements: Elements<Position> = askStream(remote, (target) =>
        remote.client.resume({
          ...target,
          ...sent,
          ref,
          chunks: options.chunks,
          interrupts: options.interrupts,
          requestId,
        }))
      return whole(remote, elements, options)
    })))

/** Emits the outputs of code that was started, from the last one on if another process has the kernel by then. */
export const resume = (
  remote: Remote,
  ref: ExecutionRef,
  { onChunk, ...options }: ResumeOptions,
): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure> =>
  Stream.suspend(() => {
    let last = ref
    let position = ref.position
    const outputs = Stream.suspend(() => resumed(remote, last, options)).pipe(
      Stream.mapEffect((element) =>
        Effect.suspend((): Effect.Effect<ReadonlyArray<Chunk | ExecutionResult>> => {
          if (element._tag === "ExecutionResult") {
            return Effect.succeed([element])
          }
          if (element._tag === "Position") {
            position = element.position
            return Effect.succeed([])
          }
          last = new ExecutionRef({ ...ref, position })
          return Effect.as(onChunk?.(element, last) ?? Effect.void, [element])
        })
      ),
      Stream.flattenIterable,
    )
    return remote.guard === undefined
      ? outputs
      : Stream.retry(outputs, Schedule.upTo(untilConnected, { duration: ownerTimeout }))
  })

type Elements<A> = Stream.Stream<
  A | Accepted | Chunk | ExecutionResult | Fragment.Fragment | Question,
  ExecutionFailure
>

/** Joins the fragments of a stream, and answers its questions. */
const whole = <A extends object>(
  remote: Remote,
  elements: Elements<A>,
  callbacks: Questions.Callbacks,
): Stream.Stream<A | Accepted | Chunk | ExecutionResult, ExecutionFailure> =>
  Questions.answering(
    Fragment.join(elements, Fragment.isOfExecution),
    callbacks,
    ({ value, ...reply }) =>
      Effect.flatMap(
        value === undefined ? Effect.undefined : textOf(remote, value),
        (value) => remote.client.answer({ ...reply, value }),
      ),
  )

/** Returns the options that can be sent. Fails if there are others. */
const optionsOf = Effect.fnUntraced(function* (
  remote: Remote,
  { allowStdin, images, onInput, outputLimit, timeout }: ExecuteOptions,
) {
  yield* Effect.mapError(
    Options.check(Options.Execute, { images, outputLimit, timeout }),
    (reason) => new KernelError({ reason }),
  )
  if (images === "directory") {
    return yield* unsupported(
      "images",
      'the kernel is in another process; give "bytes", which is the default, or a function',
    )
  }
  const asksInput = onInput !== undefined
  const asksImages = typeof images === "function"
  if (asksInput || asksImages) {
    yield* Effect.timeoutOrElse(Deferred.await(remote.streams), {
      duration: streamTimeout,
      orElse: () =>
        unsupported(
          asksInput ? "onInput" : "images",
          "the connection to the kernel's process carries no answers before they are complete; " +
            "over HTTP, use `RpcSerialization.layerNdjson`",
        ),
    })
  }
  return {
    allowStdin,
    outputLimit,
    asksInput,
    asksImages,
    ...sendable({ timeout }),
  }
})

/** Exchanges requests for values with the kernel. */
export const exchange = (remote: Remote): Exchange =>
  Effect.fnUntraced(
    function* ({ buffers, operation }, { kernelId, onChunk, onKernel = () => {}, ...options }) {
      const parts: Array<Uint8Array> = []
      let answers: Answers | undefined
      let result: ExecutionResult | undefined
      const run = queued(remote, (requestId) =>
        Stream.unwrap(Effect.gen(function* () {
          const sent = yield* optionsOf(remote, options)
          const bytes = yield* Uploads.bytes(Parts.pack(buffers), (part) => upload(remote, part))
          const elements: Elements<Started | Bytes | Answers> = askStream(remote, (target) =>
            remote.client.exchange({
              ...target,
              ...sent,
              requestId,
              chunks: onChunk !== undefined,
              operation,
              kernelId,
              bytes,
            }))
          return whole(remote, elements, options)
        })))
      const exit = yield* run.pipe(
        Stream.runForEach((element): Effect.Effect<void> => {
          switch (element._tag) {
            case "Started":
              return Effect.sync(() => onKernel(element.kernelId))
            case "Bytes":
              return Effect.sync(() => void parts.push(element.bytes))
            case "Answers":
              return Effect.sync(() => {
                answers = element
              })
            case "ExecutionResult":
              return Effect.sync(() => {
                result = element
              })
            default:
              return onChunk?.(element) ?? Effect.void
          }
        }),
        Effect.andThen(Effect.suspend(() =>
          result === undefined
            ? Effect.fail(lost(remote, "A request ended without a result"))
            : Effect.succeed(result)
        )),
        Effect.exit,
      )
      return {
        answers: answers === undefined ? [] : withBuffers(answers, parts),
        exit,
        kernelId: answers?.kernelId ?? remote.attachment?.kernelId,
      }
    },
  )

/** Returns the answers with their buffers, which were sent one after the other. */
function withBuffers({ answers }: Answers, parts: ReadonlyArray<Uint8Array>): ReadonlyArray<Answer> {
  const all = Parts.unpack(Parts.join(parts)) ?? []
  let next = 0
  return answers.map(({ buffers, ...answer }) => ({
    ...answer,
    buffers: all.slice(next, next += buffers),
    given: undefined,
  }))
}
