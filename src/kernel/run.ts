/**
 * One execution on one connection: the request goes out, outputs come in, and whatever happens the kernel is
 * idle again afterwards, or known not to be.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as FileSystem from "effect/FileSystem"
import * as LogLevel from "effect/LogLevel"
import type * as Path from "effect/Path"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Defect from "../defect.ts"
import {
  type Chunk,
  ConnectionLost,
  type ExecutionFailure,
  type ExecutionResult,
  KernelDied,
  KernelError,
  type KernelErrorReason,
  KernelUnresponsive,
  ProtocolViolation,
} from "../execution.ts"
import { executeContent, type Message, request } from "../jupyter/message.ts"
import { type Connection, executionId, isDeath } from "./connection.ts"
import * as Backlog from "./backlog.ts"
import * as Collector from "../output/collector.ts"
import * as InternalRequest from "./internal_request.ts"
import * as Handlers from "./handlers.ts"
import type { Images } from "../output/images.ts"
import type { Output } from "../output/output.ts"
import * as Input from "./input.ts"
import * as Interruption from "./interruption.ts"
import * as Metrics from "./metrics.ts"
import * as Outcome from "./outcome.ts"
import * as Reducer from "./reducer.ts"

/** How to run a piece of code. */
export interface RunOptions {
  readonly timeout?: Duration.Input | undefined
  /** Bytes of text to keep. */
  readonly outputLimit?: number | undefined
  /** Takes each chunk, which counts for the timeout too. */
  readonly onChunk?: ((chunk: Chunk) => Effect.Effect<void>) | undefined
  readonly onInput?: ((request: Input.InputRequest) => Effect.Effect<string>) | undefined
  /** Whether the code may ask for input; true by default. */
  readonly allowStdin?: boolean | undefined
  readonly imagesDir: string
  /** `"directory"` by default. */
  readonly images?: Images | undefined
  /** Folders that sandboxed code may write. */
  readonly untrusted?: ReadonlyArray<string> | undefined
  /** Set if the code is not the user's but carries a request of ours. */
  readonly internalRequest?: InternalRequest.InternalRequest | undefined
}

/** An execution under way. */
export interface Run {
  /**
   * The next chunks and, as the last element of all, the result. Fails with what ended the execution early,
   * ends with `Done` after the result.
   */
  readonly pull: Effect.Effect<
    Arr.NonEmptyReadonlyArray<Chunk | ExecutionResult>,
    ExecutionFailure | Cause.Done,
    FileSystem.FileSystem | Path.Path
  >
  /** Whether the kernel is done with the code, and nothing of this execution can reach what runs next. */
  readonly finished: () => boolean
}

/** How long reply and idle may be apart before the kernel is asked whether it has more to say. */
const fenceDelay: Duration.Input = "1 second"

/** Bytes of output that wait for the consumer before the connection is not read any further. */
const highWaterMark = 32 * 1024 * 1024

/**
 * Sends the code. When the scope closes before the kernel is done, it is interrupted and awaited. `onFree` is
 * run when the kernel can run other code, `onStuck` is called with the run if it does not react to interrupts.
 */
export const start: (
  connection: Connection,
  code: string,
  options: RunOptions & { readonly onStuck: (run: Run) => void; readonly onFree: Effect.Effect<void> },
) => Effect.Effect<Run, ExecutionFailure, Scope.Scope> = Effect.fnUntraced(
  function* (connection, code, options) {
    const { channel, id: kernelId, maxMessageSize, session } = connection
    const { internalRequest } = options
    const clock = yield* Clock.Clock
    const turnAt = clock.currentTimeMillisUnsafe()
    const attached = internalRequest === undefined
      ? { metadata: {}, buffers: [] }
      : yield* InternalRequest.prepare(internalRequest, connection, options)
    const id = executionId()
    const message = request("execute_request", {
      id,
      session,
      content: executeContent(code, {
        silent: false,
        allowStdin: options.allowStdin ?? true,
        storeHistory: internalRequest === undefined,
      }),
      ...attached,
    })
    const outputs = yield* Queue.unbounded<Output, Outcome.EndReason | Cause.Done>()
    const finished = Deferred.makeUnsafe<void>()
    const started = Deferred.makeUnsafe<void>()
    const handlers = Handlers.make()
    const collector = Collector.make(options, handlers)
    const backlog = yield* Backlog.make(connection)
    const interruption = yield* Interruption.make({
      send: connection.interrupt,
      started,
      finished,
      prepare: Effect.sync(() => {
        // The kernel's last output has to arrive even if the consumer does not take what came before.
        isDraining = true
        conversation.resume()
      }).pipe(Effect.andThen(backlog.begin)),
      isBehind: backlog.isBehind,
      look: Effect.suspend(() => askForRest),
      onIgnored: Effect.suspend(() => {
        isStuck = true
        put(Reducer.putOutShown(progress))
        endReason = new KernelUnresponsive({ kernelId })
        tellLeftOut()
        Queue.failCauseUnsafe(outputs, Cause.fail(endReason))
        return Effect.annotateLogs(Effect.logWarning("The kernel ignores interrupts"), "kernel", kernelId)
      }),
      onEnd: (isUnderWay) => {
        backlog.end()
        if (isStuck || isUnderWay) options.onStuck(run)
        return options.onFree
      },
    })
    const sentAt = clock.currentTimeMillisUnsafe()
    const scope = yield* Effect.scope
    const services = yield* Effect.context<never>()
    // It may have ended while this got ready: nothing is sent to it any more.
    const ended = connection.ended()
    if (ended !== undefined) return yield* new KernelError({ reason: ended })
    const runFork = Effect.runForkWith(services)
    /** Starts what belongs to this execution from a callback. */
    const fork = (effect: Effect.Effect<void>): void => void runFork(Effect.forkIn(Defect.log(effect), scope))
    const elapsed = () => Duration.millis(clock.currentTimeMillisUnsafe() - sentAt)

    let progress = Reducer.initial
    let endReason: Outcome.EndReason | undefined
    let isFinished = false
    let isAsking = false
    let wasOver = false
    let isDraining = false
    let isStuck = false
    /** The consumer is gone: what comes now is dropped. */
    let isUnread = false
    let waitingBytes = 0
    /** Bytes that came after the execution was stopped and found no place. */
    let leftOut = 0
    let bytes = 0
    let answered = 0
    let firstOutput: Duration.Duration | undefined

    /** The kernel is done with the code, or nobody can know any more. */
    const finish = (): void => {
      if (isFinished) return
      unclaim(progress.executionCount)
      // First of all: each of the next lines may run the consumer, to whom the kernel must count as idle.
      isFinished = true
      forgetEnd()
      // The end may come in one read with what made the connection pause: nobody else would resume it.
      conversation.close()
      // An interrupt on its way would hit the next execution.
      if (!interruption.isOwned()) runFork(options.onFree)
      Deferred.doneUnsafe(finished, Exit.void)
      Deferred.doneUnsafe(started, Exit.void)
      tellLeftOut()
      for (const page of progress.pages) Queue.offerUnsafe(outputs, page)
      Queue.failCauseUnsafe(outputs, Cause.fail(endReason ?? Cause.Done()))
    }
    const tellLeftOut = (): void => {
      if (leftOut === 0) return
      const text = `[effect-jupyter] about ${leftOut} bytes left out\n`
      Queue.offerUnsafe(outputs, { _tag: "Text", name: "stderr", text })
    }
    const put = ([next, output]: readonly [Reducer.Progress, Output?]): void => {
      progress = next
      if (output !== undefined) Queue.offerUnsafe(outputs, output)
    }
    /** The first counts. An exception that comes after it is of our own interrupt. */
    const decide = (reason: Outcome.EndReason): void => {
      if (isFinished || endReason !== undefined) return
      put(Reducer.putOutShown(progress))
      endReason = reason
      fork(Effect.delay(Effect.sync(handlers.expire), Handlers.handlerGrace))
    }
    const finishWith = (reason: KernelErrorReason): void => {
      decide(reason)
      finish()
    }
    const forgetEnd = connection.onEnded((reason) => {
      decide(reason)
      // A kernel that is gone does not keep its state, as one does that was interrupted.
      if (!isStuck) endReason = reason
      finish()
    })

    /** Takes an answer, which is kept until the code ends. */
    const takeAnswer = (
      { take }: InternalRequest.InternalRequest,
      message: Message,
      length: number,
    ): void => {
      answered += length + 256 * message.buffers.length // About what a buffer takes besides its bytes.
      if (answered > maxMessageSize) violated(`Its answers have more than ${maxMessageSize} bytes`)
      else take(message)
    }
    const advance = (message: Message, length: number): void => {
      if (isDeath(message)) return connection.end(new KernelDied({ kernelId }))
      if (internalRequest?.isAnswer(message) === true) return takeAnswer(internalRequest, message, length)
      const [next, output] = Reducer.step(progress, message)
      if (next.ignored > progress.ignored) Metrics.ignored.updateUnsafe(1, services)
      progress = next
      if (output !== undefined && !isUnread) {
        // The connection is read on for the kernel's last words, whatever is still in front of them.
        if (isDraining && waitingBytes > highWaterMark) leftOut += length
        else {
          Queue.offerUnsafe(outputs, output)
          waitingBytes += length
          if (waitingBytes > highWaterMark && !isDraining) conversation.pause()
        }
      }
      if (next.started) Deferred.doneUnsafe(started, Exit.void)
      const isOver = Reducer.isOver(next)
      if (isOver && conversation.isOrdered() && conversation.hasReceivedAll()) return finish()
      // Reply and idle travel apart, and so may output of other threads: what is missing is on its way, or lost.
      if ((next.idle || next.reply !== undefined) && !isAsking) {
        isAsking = true
        if (!isOver) fork(Effect.delay(askForRest, fenceDelay))
      }
      if (isOver && !wasOver) {
        wasOver = true
        fork(askForRest)
      }
    }
    /** The kernel's answer to another request proves that it has no more to say to this one. */
    const askForRest = Effect.suspend(() =>
      isFinished ? Effect.void : Effect.ignore(Effect.andThen(conversation.fence, Effect.sync(onFenced)))
    )
    const size = () => attached.buffers.reduce((sum, { byteLength }) => sum + byteLength, code.length)
    const lost = () => Outcome.gap(connection, conversation.disconnectError(), progress.started ? 0 : size())
    const onFenced = (): void => {
      if (isFinished) return
      const isOver = progress.reply !== undefined || progress.shown.length > 0
      const isUnanswered = progress.idle && conversation.disconnectError() === undefined
      if (!isOver) return finishWith(isUnanswered ? Outcome.withoutReply(kernelId) : lost())
      put(Reducer.end(progress))
      if (conversation.hasReceivedAll()) return finish()
      finishWith(lost())
    }
    const opening = channel.request(message, {
      onFenced,
      onTooLarge: ({ detail }) => violated(detail),
      onMessage: (message, length) => {
        bytes += length
        backlog.note(message)
        if (message.header.msg_type === "input_request") return onInput(message)
        advance(message, length)
        if (firstOutput === undefined && message.channel === "iopub" && Queue.sizeUnsafe(outputs) > 0) {
          firstOutput = elapsed()
        }
      },
    }, { tracksLosses: true })
    // Until the end, which may come after that of the scope: a kernel that ignores interrupts goes on.
    const conversation = yield* Scope.provide(opening, Scope.makeUnsafe())
    const unclaim = connection.claim(id, (message, length) => {
      bytes += length
      advance(message, length)
    })
    /** Interrupts the code; decided at once, as it may end, or do again what it is stopped for, before a fiber begins. */
    const stop = (reason: Outcome.EndReason): void => {
      if (isFinished || endReason !== undefined) return
      decide(reason)
      fork(interruption.run)
    }
    // One that is stopped says nothing by itself, and what is asked of it waits as it does.
    connection.onStopped(() => stop(new KernelUnresponsive({ kernelId })))
    const violated = (detail: string): void => stop(new ProtocolViolation({ kernelId, detail }))
    const onInput = Input.make({
      connection,
      reply: (message) => conversation.reply(message),
      onInput: options.onInput,
      fork,
      stop,
    })
    yield* Effect.addFinalizer(() => {
      isUnread = true
      return connection.ended() !== undefined || (isFinished && !interruption.isOwned())
        ? Effect.void
        : Effect.andThen(Effect.ignore(Queue.clear(outputs)), interruption.run)
    })
    // Annotations cost more than what is rarely asked for is worth.
    const isDebugEnabled = yield* LogLevel.isEnabled("Debug")
    const log = (event: string) =>
      isDebugEnabled
        ? Effect.annotateLogs(Effect.logDebug(event), { kernel: kernelId, execution: id })
        : Effect.void
    yield* Effect.addFinalizer(() => {
      Metrics.duration.updateUnsafe(elapsed(), services)
      Metrics.outputBytes.updateUnsafe(bytes, services)
      if (firstOutput !== undefined) Metrics.firstOutput.updateUnsafe(firstOutput, services)
      return log("Execution ended")
    })

    const toResult = () =>
      progress.reply === "ok" && handlers.gaveUp()
        ? Effect.fail(fail({ _tag: "Timeout" }))
        : Outcome.toResult(progress, { kernelId, partial: collector.result(progress) })
    const fail = (endReason: Outcome.EndReason): ExecutionFailure =>
      Outcome.failure(endReason, progress, { timeout: options.timeout, partial: collector.result(progress) })
    let delivered = false
    const run: Run = {
      pull: Queue.takeAll(outputs).pipe(
        Effect.matchEffect({
          onSuccess: (batch) => {
            const wasFull = waitingBytes > highWaterMark
            // First of all: the reader goes on within the release and may have to hold the connection again.
            waitingBytes = 0
            if (wasFull && !isFinished) conversation.resume()
            return collector.collect(batch)
          },
          onFailure: (end): Run["pull"] => {
            if (!Cause.isDone(end)) return Effect.fail(fail(end))
            if (delivered) return Cause.done()
            delivered = true
            return Effect.map(toResult(), (result) => Arr.of(result))
          },
        }),
      ),
      finished: () => isFinished && !interruption.isUnderWay(),
    }

    yield* log("Execution starts")
    yield* conversation.send.pipe(
      Effect.mapError((error) => {
        const reason = connection.ended() ?? new ConnectionLost({ kernelId, detail: error.detail })
        finishWith(reason)
        return new KernelError({ reason })
      }),
    )
    if (options.timeout !== undefined) {
      const spent = Duration.millis(clock.currentTimeMillisUnsafe() - turnAt)
      const rest = Duration.subtract(Duration.fromInputUnsafe(options.timeout), spent)
      const expire = Effect.sync(() => {
        handlers.expire()
        stop({ _tag: "Timeout" })
      })
      yield* Effect.forkScoped(Effect.delay(expire, rest))
    }
    return run
  },
)
