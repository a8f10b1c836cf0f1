/**
 * The procedures of kernels over the sessions of this process.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constFalse } from "effect/Function"
import * as Queue from "effect/Queue"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ExecuteOptions, Kernel } from "../client/kernel.ts"
import {
  type Chunk,
  ConnectionLost,
  ExecutionAborted,
  ExecutionFailure,
  type ExecutionRef,
  ExecutionResult,
  KernelDied,
  KernelError,
  Unsupported,
} from "../execution.ts"
import { IntrospectionFailed } from "../introspection.ts"
import { KernelSessions } from "../sessions/service.ts"
import type { SessionEvent } from "../sessions/session.ts"
import * as Exchange from "../values/exchange.ts"
import { UnsupportedValue } from "../values/error.ts"
import * as Continued from "./continued.ts"
import * as Fragment from "./fragment.ts"
import { Accepted, Answers, Attachment, Bytes, group, Started } from "./group.ts"
import * as Parts from "./parts.ts"
import * as Questions from "./questions.ts"
import * as Uploads from "./uploads.ts"

/** Maximum bytes of the text of a result that is sent, and of output that is held until the answer is complete. */
const maxOutput = 100_000_000

/** The time for which a request that has ended is not taken again, should a protocol repeat it. */
const repeatWindow: Duration.Input = "1 minute"

/** The time between messages of an answer that is not complete: proxies give up after a minute. */
const heartbeatInterval: Duration.Input = "20 seconds"

/** The elements of a stream that wait for its consumer. */
const bufferSize = 16

interface Target {
  readonly key: string
  readonly session?: string | undefined
}

/** The transport of a request, and whether this process leaves the session to another one. */
interface Call {
  readonly headers?: Readonly<Record<string, string | undefined>>
  readonly isLeft?: () => boolean
}

interface Options extends Pick<ExecuteOptions, "timeout" | "allowStdin" | "outputLimit">, Questions.Asks {
  readonly chunks?: boolean | undefined
  readonly requestId?: string | undefined
}

/** Makes the procedures. */
export const make = Effect.gen(function* () {
  const sessions = yield* KernelSessions
  const names = new WeakMap<Kernel, string>()
  const owner = SecureRandom.uuidV4Unsafe()
  const running = new Map<string, Deferred.Deferred<void>>()
  const ended = new Map<string, number>()
  const questions = Questions.make()
  const uploads = yield* Uploads.make()

  const attachmentOf = (kernel: Kernel): Attachment => {
    const session = names.get(kernel) ?? `${owner}/${kernel.id}`
    names.set(kernel, session)
    const { implementation = "", language = "" } = Exchange.of(kernel)?.identity ?? {}
    return new Attachment({ session, kernelId: kernel.id, language, implementation })
  }
  /** Tells whether another process had the session, with this kernel. */
  const isOf = (kernel: Kernel, session: string | undefined) => session?.split("/")[1] === kernel.id
  /** Returns the reason of a request for a session that the key no longer has. */
  const gone = (key: string, session: string | undefined, kernel: Kernel) => {
    const kernelId = undefined
    if (session?.startsWith(owner) === true) {
      const detail =
        `The session "${key}" has another kernel by now, without the state; use "reset" to use that one`
      return new ExecutionAborted({ kernelId, detail })
    }
    // The request may have begun there, and code must not run twice.
    return isOf(kernel, session)
      ? new ConnectionLost({ kernelId, detail: `Another process has the session "${key}" by now` })
      : new KernelDied({ kernelId })
  }
  /** Returns the kernel of a request, which is in use until the request ends. */
  const kernelOf = ({ key, session }: Target): Effect.Effect<Kernel, KernelError, Scope.Scope> =>
    Effect.filterOrElse(
      sessions.get(key),
      (kernel) => session === undefined || session === attachmentOf(kernel).session,
      (kernel) => new KernelError({ reason: gone(key, session, kernel) }),
    )
  /** As `kernelOf`, also of a session that another process had. */
  const held = ({ key, session }: Target) =>
    Effect.flatMap(
      sessions.get(key),
      (kernel) => kernelOf({ key, session: isOf(kernel, session) ? undefined : session }),
    )
  const using = <A, E>(target: Target, use: (kernel: Kernel) => Effect.Effect<A, E>) =>
    Effect.scoped(Effect.flatMap(kernelOf(target), use))

  /** As `using`, for a request whose answer is one message. */
  const asking = <A, E>(target: Target, request: string, ask: (kernel: Kernel) => Effect.Effect<A, E>) =>
    using(target, (kernel) =>
      Effect.tap(ask(kernel), (answer) => {
        const detail = Fragment.findExcess(answer)
        return detail === undefined ? Effect.void : new IntrospectionFailed({
          kernelId: kernel.id,
          request,
          detail,
        })
      }))

  /** Takes a request once, and lets `settled` wait until its stream has ended and the kernel is idle. */
  const tracked = <A, E>(
    { requestId }: Options,
    stream: Stream.Stream<A, E>,
  ): Stream.Stream<A | Accepted, E | KernelError> =>
    requestId === undefined ? stream : Stream.unwrap(Effect.as(
      Effect.acquireRelease(
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          for (const [id, endedAt] of ended) {
            if (now - endedAt <= Duration.toMillis(repeatWindow)) break
            ended.delete(id)
          }
          // A cluster repeats a request whose connection was cut, and code must not run twice.
          if (running.has(requestId) || ended.has(requestId)) {
            const detail = "It was cut while the code ran"
            return new KernelError({ reason: new ConnectionLost({ kernelId: undefined, detail }) })
          }
          const settled = Deferred.makeUnsafe<void>()
          running.set(requestId, settled)
          return Effect.succeed(settled)
        }),
        (settled) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            running.delete(requestId)
            ended.set(requestId, now)
            return Deferred.succeed(settled, undefined)
          }),
      ),
      withHeartbeat(stream, Effect.sync(() => new Accepted())),
    ))

  return group.of({
    open: ({ key }) => using({ key }, (kernel) => Effect.succeed(attachmentOf(kernel))),
    hold: (target) =>
      Stream.unwrap(Effect.map(held(target), (kernel) =>
        withHeartbeat(
          changesOf(sessions.events, target.key, kernel).pipe(Stream.map(() => attachmentOf(kernel))),
          Effect.sync(() => attachmentOf(kernel)),
        ))),
    execute: ({ code, continues = false, ...options }, { headers, isLeft = constFalse }: Call = {}) =>
      tracked(
        options,
        Stream.unwrap(Effect.gen(function* () {
          const text = yield* uploads.takeText(code)
          const kernel = yield* kernelOf(options)
          const carrier = continues ? Exchange.of(kernel) : undefined
          return questions.asking(options, (callbacks) => {
            const run = { ...sendable(options), ...callbacks }
            const elements = carrier === undefined
              ? kernel.stream(text, run)
              : Continued.stream(carrier, text, { ...run, chunks: options.chunks }, isLeft)
            return options.chunks === false ? Stream.filter(elements, Continued.isNoChunk) : elements
          })
        })).pipe(sendTo(headers)),
      ),
    detach: (target) => using(target, (kernel) => kernel.detach),
    start: ({ allowStdin, code, ...target }) =>
      Effect.flatMap(
        uploads.takeText(code),
        (text) => using(target, (kernel) => kernel.start(text, { allowStdin })),
      ),
    resume: ({ interrupts, ref, ...options }, { headers, isLeft = constFalse }: Call = {}) =>
      tracked(
        options,
        Stream.unwrap(Effect.map(kernelOf(options), (kernel) =>
          questions.asking(options, (callbacks) => {
            const positions = Continued.makePositions()
            const run = {
              ...sendable(options),
              ...callbacks,
              interrupts,
              ...(options.chunks === false ? {} : {
                onChunk: (_: Chunk, { position }: ExecutionRef) => positions.note(position),
              }),
            }
            const carrier = Exchange.of(kernel)
            const elements = carrier === undefined
              ? kernel.resume(ref, run)
              : carrier.resume(ref, { ...run, continued: { isLeft } })
            return options.chunks === false
              ? Stream.filter(elements, Continued.isNoChunk)
              : positions.before(elements)
          }))).pipe(sendTo(headers)),
      ),
    exchange: ({ bytes, kernelId, operation, ...options }, { headers }: Call = {}) =>
      tracked(
        options,
        Stream.unwrap(Effect.gen(function* () {
          const packed = yield* uploads.takeBytes(bytes)
          const kernel = yield* kernelOf(options)
          const carrier = Exchange.of(kernel)
          if (carrier === undefined) {
            const detail = "the kernel is not one of a server"
            return yield* new KernelError({ reason: new Unsupported({ language: "", operation, detail }) })
          }
          const buffers = Parts.unpack(packed)
          if (buffers === undefined) {
            const detail = "The request has other buffers than it says"
            return yield* new KernelError({ reason: new ExecutionAborted({ kernelId: kernel.id, detail }) })
          }
          const request = { operation, buffers, value: undefined }
          return questions.asking(options, (callbacks) =>
            answersOf(carrier.exchange, request, { ...options, ...callbacks, kernelId }))
        })).pipe(sendTo(headers)),
      ),
    answer: ({ value, ...reply }) =>
      Effect.flatMap(
        value === undefined ? Effect.undefined : uploads.takeText(value),
        (value) => questions.answer({ ...reply, value }),
      ),
    upload: uploads.add,
    settled: ({ requestId }) =>
      Effect.suspend(() => {
        const settled = running.get(requestId)
        return settled === undefined ? Effect.void : Deferred.await(settled)
      }),
    evaluate: ({ expression, timeout, ...target }) =>
      using(target, (kernel) => kernel.evaluate(expression, Schema.Json, { timeout })).pipe(
        Effect.catchTag("SchemaError", (error) => unsupported(error.message)),
        Effect.tap((value) => {
          const detail = Fragment.findExcess(value)
          return detail === undefined ? Effect.void : unsupported(detail)
        }),
      ),
    interrupt: (target) => using(target, (kernel) => kernel.interrupt),
    reset: (target) =>
      Effect.scoped(Effect.gen(function* () {
        const isOpen = (yield* sessions.list).some(({ key }) => key === target.key)
        const kernel = yield* sessions.get(target.key)
        // The kernel of a new session is clean.
        if (isOpen) yield* kernel.reset
        return attachmentOf(kernel)
      })),
    complete: ({ code, cursor, timeout, ...target }) =>
      asking(
        target,
        "complete_request",
        (kernel) =>
          Effect.flatMap(uploads.takeText(code), (text) => kernel.complete(text, cursor, { timeout })),
      ),
    inspect: ({ code, cursor, detail, timeout, ...target }) =>
      asking(
        target,
        "inspect_request",
        (kernel) =>
          Effect.flatMap(
            uploads.takeText(code),
            (text) => kernel.inspect(text, cursor, { detail, timeout }),
          ),
      ),
    isComplete: ({ code, timeout, ...target }) =>
      asking(
        target,
        "is_complete_request",
        (kernel) => Effect.flatMap(uploads.takeText(code), (text) => kernel.isComplete(text, { timeout })),
      ),
    history: ({ last, timeout, ...target }) =>
      asking(target, "history_request", (kernel) => kernel.history({ last, timeout })),
    info: (target) => asking(target, "kernel_info_request", (kernel) => kernel.info),
    variables: (target) => asking(target, "variables", (kernel) => kernel.variables),
    output: (target, { headers }: Call = {}) =>
      Stream.unwrap(Effect.map(kernelOf(target), (kernel) => kernel.output)).pipe(sendTo(headers)),
  })
})

/** Splits what is large, and bounds the output that the server holds until the answer is complete. */
const sendTo =
  (headers: Call["headers"]) => <A extends object, E extends ExecutionFailure>(stream: Stream.Stream<A, E>) =>
    Fragment.split(
      headers?.["content-type"] === RpcSerialization.json.contentType
        ? Fragment.within(stream, maxOutput, Effect.suspend(heldTooMuch))
        : stream,
    )

const heldTooMuch = (): KernelError =>
  new KernelError({
    reason: new Unsupported({
      language: "",
      operation: "stream",
      detail: `there is more output than the ${maxOutput} characters of an answer that is sent as a whole; ` +
        "over HTTP, use `RpcSerialization.layerNdjson`",
    }),
  })

const unsupported = (detail: string): UnsupportedValue =>
  new UnsupportedValue({ valueType: "value", path: "$", detail })

/**
 * Emits elements of their own beside a stream until it ends: the first at once, and others so often that no client and no
 * proxy gives up a connection over which nothing comes for long.
 */
const withHeartbeat = <A, E, B>(
  stream: Stream.Stream<A, E>,
  beat: Effect.Effect<B>,
): Stream.Stream<A | B, E> =>
  // Both begin at once: requests that arrive later are later in the queue of the kernel, too.
  Stream.merge(
    Stream.concat(
      Stream.fromEffect(beat),
      Stream.fromEffectRepeat(Effect.delay(beat, heartbeatInterval)),
    ),
    stream,
    { haltStrategy: "right" },
  )

/** The options of an execution without those that are functions. */
const sendable = ({ allowStdin, outputLimit = maxOutput, timeout }: Options): ExecuteOptions => ({
  allowStdin,
  outputLimit: Math.min(outputLimit, maxOutput),
  timeout,
})

/** Emits when a reset has replaced the kernel of a session, and ends with the session. */
const changesOf = (
  events: Stream.Stream<SessionEvent>,
  key: string,
  kernel: Kernel,
): Stream.Stream<SessionEvent> =>
  events.pipe(
    Stream.filter((event) => event.key === key),
    Stream.takeUntil((event) =>
      event._tag === "Closed" || event._tag === "Evicted" ||
      (event._tag === "Replaced" && event.kernelId !== kernel.id), { excludeLast: true }),
    Stream.filter((event) => event._tag === "Replaced"),
  )

/** Sends a request for values, and emits its output, the bytes of the answers, the answers and the result. */
const answersOf = (
  exchange: Exchange.Exchange,
  request: Exchange.EncodedRequest,
  { chunks, images, kernelId, onInput, ...options }: Options & Questions.Callbacks & {
    readonly kernelId: string | undefined
  },
): Stream.Stream<Chunk | Started | Bytes | Answers | ExecutionResult, ExecutionFailure> =>
  Stream.callback<Chunk | Started | Bytes | Answers | ExecutionResult, ExecutionFailure>(
    Effect.fnUntraced(function* (queue) {
      const response = yield* exchange(request, {
        ...sendable(options),
        images,
        onInput,
        kernelId,
        onKernel: (kernelId) => void Queue.offerUnsafe(queue, new Started({ kernelId })),
        ...(chunks === false ? {} : { onChunk: (chunk) => Effect.asVoid(Queue.offer(queue, chunk)) }),
      })
      const answers = response.answers.map(({ buffers, detail, isLast, kind, path, valueType }) => ({
        kind,
        isLast,
        detail,
        path,
        valueType,
        buffers: buffers.length,
      }))
      const packed = Parts.pack(response.answers.flatMap(({ buffers }) => buffers))
      for (const part of Parts.ofSize(packed, Fragment.maxSize)) {
        yield* Queue.offer(queue, new Bytes({ bytes: part }))
      }
      yield* Queue.offer(queue, new Answers({ kernelId: response.kernelId, answers }))
      if (Exit.isSuccess(response.exit)) yield* Queue.offer(queue, response.exit.value)
      yield* Exit.isSuccess(response.exit) ? Queue.end(queue) : Queue.failCause(queue, response.exit.cause)
    }),
    { bufferSize },
  )
