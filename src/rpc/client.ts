/**
 * A kernel of another process.
 *
 * @module
 */
import type * as ClusterError from "effect/cluster/ClusterError"
import * as Cause from "effect/Cause"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberHandle from "effect/FiberHandle"
import * as Option from "effect/Option"
import * as RpcClient from "effect/rpc/RpcClient"
import type { RpcClientError } from "effect/rpc/RpcClientError"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { ExecuteOptions, Kernel, ResumeOptions } from "../client/kernel.ts"
import {
  type Chunk,
  ConnectionLost,
  ExecutionAborted,
  ExecutionFailure,
  ExecutionRef,
  type ExecutionResult,
  isKernelError,
  KernelError,
  type KernelErrorReason,
  Unsupported,
} from "../execution.ts"
import { IntrospectionFailed, KernelBusy } from "../introspection.ts"
import type { AskOptions } from "../kernel/introspection.ts"
import * as Options from "../options/check.ts"
import { UnsupportedValue } from "../values/error.ts"
import type { Answer, Exchange } from "../values/exchange.ts"
import * as Values from "../values/make.ts"
import * as Fragment from "./fragment.ts"
import {
  Accepted,
  type Answers,
  type Attachment,
  type Bytes,
  group,
  type Position,
  type Started,
} from "./group.ts"
import * as Parts from "./parts.ts"
import type { Question } from "./question.ts"
import * as Questions from "./questions.ts"
import * as Uploads from "./uploads.ts"

/** Maximum time that an interrupted execution waits until the kernel is idle, which the kernel bounds by 10. */
const settleTimeout: Duration.Input = "12 seconds"

/** Maximum time that a reset waits until earlier requests have their place in the queue. */
const acceptTimeout: Duration.Input = "1 second"

/** Maximum time to wait for the first part of an answer that is not complete. */
const streamTimeout: Duration.Input = "5 seconds"

/** Maximum time that outputs wait for the next owner of a kernel. */
const ownerTimeout: Duration.Input = "2 minutes"

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
interface Remote {
  readonly key: string
  readonly client: Client
  /** Completed when the protocol has sent a part of an answer that is not complete. */
  readonly streams: Deferred.Deferred<void>
  readonly guard: Effect.Effect<never, KernelError> | undefined
  /** The turn of the request that the server has not accepted yet. */
  readonly sending: Semaphore.Semaphore
  attachment: Attachment | undefined
  /** The reason for which requests fail until a reset. */
  ended: KernelErrorReason | undefined
}

/** The session that a request is for. */
interface Target {
  readonly key: string
  readonly session: string | undefined
}

/** Connects to the kernel of a key, whose session is in use until the scope closes. */
export const make = (key: string): Effect.Effect<Kernel, KernelError, RpcClient.Protocol | Scope.Scope> =>
  Effect.flatMap(RpcClient.make(group), (client) => makeWith(key, client))

/** Connects by a client. A `guard` fails when there is no server for long, although requests wait for one. */
export const makeWith: (
  key: string,
  client: Client,
  guard?: Effect.Effect<never, KernelError>,
) => Effect.Effect<Kernel, KernelError, Scope.Scope> = Effect.fnUntraced(
  function* (key, client, guard) {
    yield* Effect.mapError(Options.check(Options.Session, { key }), (reason) => new KernelError({ reason }))
    const remote: Remote = {
      key,
      client,
      streams: yield* Deferred.make<void>(),
      guard,
      sending: yield* Semaphore.make(1),
      attachment: undefined,
      ended: undefined,
    }
    // Before the requests that run are ended, which then have the reason.
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        const kernelId = remote.attachment?.kernelId
        remote.ended = new ExecutionAborted({ kernelId, detail: "The client is closed" })
      })
    )
    const holding = yield* FiberHandle.make()
    const hold = FiberHandle.run(holding, keep(remote), { startImmediately: true })
    yield* hold
    const { implementation, language } = yield* ask(remote, () => client.open({ key })).pipe(
      Effect.tap((attachment) => Effect.sync(() => attach(remote, attachment))),
    )
    const session = {
      id: () => remote.attachment?.kernelId ?? "",
      identity: { language, implementation, info: undefined },
    }
    const kernel: Kernel = {
      ...yield* Values.make(session, exchange(remote)),
      get id() {
        return session.id()
      },
      execute: (code, options) =>
        Effect.flatMap(
          Stream.runLast(execution(remote, code, { ...options, chunks: false })),
          (last) =>
            Option.isSome(last) && last.value._tag === "ExecutionResult"
              ? Effect.succeed(last.value)
              : Effect.fail(lost(remote, "An execution ended without a result")),
        ),
      stream: (code, options) => execution(remote, code, options ?? {}),
      output: lateOutput(remote),
      interrupt: ask(remote, (target) => client.interrupt(target)),
      reset: Effect.gen(function* () {
        // After what was requested before; a protocol that sends answers only as a whole does not tell when that is.
        yield* Effect.timeoutOption(Semaphore.takeScoped(remote.sending, 1), acceptTimeout)
        remote.ended = undefined
        const before = remote.attachment?.session
        const attachment = yield* ask(remote, (target) => client.reset(target))
        attach(remote, attachment)
        if (attachment.session !== before) yield* hold
      }).pipe(Effect.scoped),
      detach: ask(remote, (target) => client.detach(target)),
      start: (code, { allowStdin } = {}) =>
        Effect.flatMap(
          textOf(remote, code),
          (code) => ask(remote, (target) => client.start({ ...target, code, allowStdin })),
        ),
      resume: (ref, options) => resume(remote, ref, options ?? {}),
      complete: (code, cursor, options) =>
        Effect.flatMap(
          textOf(remote, code),
          (code) =>
            ask(remote, (target) => client.complete({ ...target, ...sendable(options), code, cursor })),
        ),
      inspect: (code, cursor, { detail, ...options } = {}) =>
        Effect.flatMap(textOf(remote, code), (code) =>
          ask(
            remote,
            (target) => client.inspect({ ...target, ...sendable(options), code, cursor, detail }),
          )),
      isComplete: (code, options) =>
        Effect.flatMap(
          textOf(remote, code),
          (code) => ask(remote, (target) => client.isComplete({ ...target, ...sendable(options), code })),
        ),
      history: (options) =>
        ask(remote, (target) => client.history({ ...target, ...sendable(options), last: options?.last })),
      info: ask(remote, (target) => client.info(target)),
      variables: ask(remote, (target) => client.variables(target)),
    }
    return kernel
  },
)

const attach = (remote: Remote, attachment: Attachment): void => {
  remote.attachment = attachment
  remote.ended = undefined
}

/** Has the session in use, and takes note of its end and of the kernels that other clients' resets give it. */
const keep = (remote: Remote): Effect.Effect<void> =>
  Stream.suspend(() => remote.client.hold(targetOf(remote))).pipe(
    Stream.runForEach((attachment) => {
      const { kernelId, session } = remote.attachment ?? {}
      // A reset has given the session another kernel, or another process has the kernel by now.
      const isChanged = (attachment.session === session) !== (attachment.kernelId === kernelId)
      if (isChanged) attach(remote, attachment)
      return Deferred.succeed(remote.streams, undefined)
    }),
    Effect.catchCause((cause) => Effect.fail(failureOf(remote, cause))),
    Effect.retry(untilConnected),
    // Requests tell the same.
    Effect.ignore,
  )

/** Repeats a request while there is no connection. */
const untilConnected = Schedule.spaced(reconnectDelay).pipe(
  Schedule.while(({ input }: { readonly input: unknown }) =>
    isKernelError(input) && input.reason._tag === "ConnectionLost"
  ),
)

/** Sends a request. */
const ask = <A, E>(
  remote: Remote,
  request: (target: Target) => Effect.Effect<A, E | TransportError>,
): Effect.Effect<A, E | KernelError> =>
  Effect.suspend((): Effect.Effect<A, E | TransportError | KernelError> => {
    if (remote.ended !== undefined) return new KernelError({ reason: remote.ended })
    const answer = request(targetOf(remote))
    return remote.guard === undefined ? answer : Effect.raceFirst(answer, remote.guard)
  }).pipe(Effect.catchCause((cause) => Effect.fail(failureOf(remote, cause))))

/** Sends a request whose answers are a stream. */
const askStream = <A, E>(
  remote: Remote,
  request: (target: Target) => Stream.Stream<A, E | TransportError>,
): Stream.Stream<A, E | KernelError> =>
  Stream.suspend((): Stream.Stream<A, E | TransportError | KernelError> => {
    if (remote.ended !== undefined) return Stream.fail(new KernelError({ reason: remote.ended }))
    const answers = request(targetOf(remote))
    return remote.guard === undefined ? answers : Stream.interruptWhen(answers, remote.guard)
  }).pipe(Stream.catchCause((cause) => Stream.fail(failureOf(remote, cause))))

const targetOf = ({ attachment, key }: Remote): Target => ({ key, session: attachment?.session })

/** Returns the failure of a request; that of the connection if nothing else is known. */
function failureOf<E>(remote: Remote, cause: Cause.Cause<E | TransportError>): E | KernelError {
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

const lost = ({ attachment }: Remote, detail: string): KernelError =>
  new KernelError({ reason: new ConnectionLost({ kernelId: attachment?.kernelId, detail }) })

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

const execution = (
  remote: Remote,
  code: string,
  options: ExecuteOptions & { readonly chunks?: boolean },
): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure> =>
  queued(remote, (requestId) =>
    Stream.unwrap(Effect.gen(function* () {
      const sent = { ...yield* optionsOf(remote, options), code: yield* textOf(remote, code) }
      const elements: Elements<never> = askStream(remote, (target) =>
        remote.client.execute({ ...target, ...sent, chunks: options.chunks, requestId }))
      return whole(remote, elements, options)
    })))

/** Emits the outputs of code that was started, from the last one on if another process has the kernel by then. */
const resume = (
  remote: Remote,
  ref: ExecutionRef,
  { interrupts, onChunk, ...options }: ResumeOptions,
): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure> =>
  Stream.suspend(() => {
    let last = ref
    let position = ref.position
    const outputs = queued(remote, (requestId) =>
      Stream.unwrap(Effect.map(optionsOf(remote, options), (sent) => {
        const elements: Elements<Position> = askStream(remote, (target) =>
          remote.client.resume({ ...target, ...sent, ref: last, interrupts, requestId }))
        return whole(remote, elements, options)
      }))).pipe(
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

const unsupported = (operation: string, detail: string): KernelError =>
  new KernelError({ reason: new Unsupported({ language: "", operation, detail }) })

const sendable = ({ timeout }: AskOptions = {}): { readonly timeout: Duration.Duration | undefined } => ({
  timeout: timeout === undefined ? undefined : Duration.fromInputUnsafe(timeout),
})

/** Exchanges requests for values with the kernel. */
const exchange = (remote: Remote): Exchange =>
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

/** Uploads a part of a request. */
const upload = (
  remote: Remote,
  part: Uploads.Part,
): Effect.Effect<void, KernelError> => ask(remote, () => remote.client.upload(part))

const textOf = (remote: Remote, text: string): Effect.Effect<typeof Uploads.Text.Type, KernelError> =>
  Uploads.text(text, (part) => upload(remote, part))

/** Emits late output, also after the connection was lost and is there again. */
const lateOutput = (remote: Remote): Kernel["output"] =>
  Fragment.join(askStream(remote, (target) => remote.client.output(target)), Fragment.isOfLateOutput).pipe(
    Stream.retry(untilConnected),
    Stream.catch(() => Stream.empty),
  )
