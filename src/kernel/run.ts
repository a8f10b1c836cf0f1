/**
 * One execution on one connection: sends the request, and passes messages and events to the execution's state. Whatever
 * happens, the kernel is idle afterwards, or known not to be.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import * as LogLevel from "effect/LogLevel"
import type * as Path from "effect/Path"
import * as Scope from "effect/Scope"
import * as Defect from "../defect.ts"
import {
  type Chunk,
  type ExecutionFailure,
  type ExecutionRef,
  type ExecutionResult,
  KernelError,
} from "../execution.ts"
import { answeredType } from "../jupyter/attached_channel.ts"
import type { Message } from "../jupyter/message.ts"
import * as Collector from "../output/collector.ts"
import type { Images } from "../output/images.ts"
import type { Output } from "../output/output.ts"
import * as Attachment from "./attachment.ts"
import * as Backlog from "./backlog.ts"
import type { Listener, Request } from "./connection.ts"
import * as ExecuteRequest from "./execute_request.ts"
import * as ExecutionState from "./execution_state.ts"
import * as Handlers from "./handlers.ts"
import * as Input from "./input.ts"
import type { Instance } from "./instance.ts"
import * as InternalRequest from "./internal_request.ts"
import * as Interpreter from "./interpreter.ts"
import * as Metrics from "./metrics.ts"
import * as Outcome from "./outcome.ts"
import * as OutputQueue from "./output_queue.ts"

/** Maximum time to wait for the earlier messages of code that is stopped. */
const repeatTimeout: Duration.Input = "5 seconds"

/** The options of one execution. */
export interface RunOptions extends ExecuteRequest.Options {
  readonly timeout?: Duration.Input | undefined
  /** Bytes of text to keep. */
  readonly outputLimit?: number | undefined
  /** Takes each chunk, which counts for the timeout too, and the number of its message if the execution is resumed. */
  readonly onChunk?: ((chunk: Chunk, position: number | undefined) => Effect.Effect<void>) | undefined
  readonly onInput?: ((request: Input.InputRequest) => Effect.Effect<string>) | undefined
  readonly imagesDir: string
  /** `"directory"` by default. */
  readonly images?: Images | undefined
  /** Folders that sandboxed code may write. */
  readonly untrusted?: ReadonlyArray<string> | undefined
  /** Set if the code was started before. */
  readonly resumed?: Resumed | undefined
  /** Set if another client may go on with the execution. */
  readonly continued?: Continued | undefined
}

/** An execution that another client goes on with if the server keeps the answers. */
export interface Continued {
  /** Takes the reference before the code is sent. */
  readonly onBegin?: ((ref: ExecutionRef) => void) | undefined
  /** Takes each chunk of code with a reference, as `onChunk` does. */
  readonly onChunk?: RunOptions["onChunk"]
  /** Tells whether the code is not interrupted when the scope closes. */
  readonly isLeft: () => boolean
}

/** Code that was started before, of which the outputs after a position are taken. */
export interface Resumed {
  readonly ref: ExecutionRef
  /** True if the code is interrupted when the scope closes. */
  readonly interrupts: boolean
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
  /** Tells whether the kernel is done with the code, and no interrupt can reach the next execution. */
  readonly finished: () => boolean
}

/** The callbacks of a session. */
export interface RunEvents {
  /** Runs when the kernel can run other code. */
  readonly onFree: Effect.Effect<void>
  /** Takes the run if the kernel is free although the run is not {@link Run.finished finished}. */
  readonly onStuck: (run: Run) => void
}

/**
 * Sends the code, unless it is resumed. When the scope closes before the kernel is done, it is interrupted and awaited.
 */
export const start: (
  instance: Instance,
  code: string,
  options: RunOptions & RunEvents,
) => Effect.Effect<Run, ExecutionFailure, Scope.Scope> = Effect.fnUntraced(
  function* (instance, code, options) {
    const { internalRequest, resumed, timeout } = options
    const clock = yield* Clock.Clock
    const turnAt = clock.currentTimeMillisUnsafe()
    const attachment = internalRequest && (yield* InternalRequest.prepare(internalRequest, instance, options))
    // It may have ended while this got ready: nothing is sent to it any more.
    const reason = instance.endReason()
    if (reason !== undefined && (resumed === undefined || reason._tag !== "KernelDied")) {
      return yield* new KernelError({ reason })
    }

    const { dispatch, handlers, isReached, log, run, sent, untilKnown } = yield* Effect.acquireRelease(
      open(instance, ExecuteRequest.make(instance, code, options, attachment), options),
      ({ close }) => close,
    )
    yield* log("Execution starts")
    if (timeout === undefined) {
      yield* sent
      return run
    }
    const rest = () =>
      Duration.subtract(
        Duration.fromInputUnsafe(timeout),
        Duration.millis(clock.currentTimeMillisUnsafe() - turnAt),
      )
    const reachDeadline = Effect.suspend(() => {
      handlers.expire()
      // What waits for a connection is not sent any more, and there is nothing to interrupt.
      return Effect.map(
        untilKnown,
        () => dispatch({ _tag: isReached() ? "Stopped" : "KernelEnded", reason: { _tag: "Timeout" } }),
      )
    })
    yield* Effect.timeoutOrElse(sent, { duration: rest(), orElse: () => reachDeadline })
    yield* Effect.forkScoped(Effect.delay(reachDeadline, rest()))
    return run
  },
)

/** Listens for the messages of an execution, which `close` ends and waits for. */
const open = Effect.fnUntraced(
  function* (
    instance: Instance,
    request: Request & { readonly id: string },
    options: RunOptions & RunEvents,
  ) {
    const { id: kernelId } = instance
    const { continued, internalRequest, onInput: answer, resumed, timeout } = options
    const ref = resumed?.ref ?? (continued && instance.durable.refOf(request))
    const services = yield* Effect.context<never>()
    const scope = yield* Effect.scope
    const meter = Metrics.meter(yield* Clock.Clock, services)
    const handlers = Handlers.make()
    const onChunk = ref && continued?.onChunk
    const collector = Collector.make(onChunk === undefined ? options : { ...options, onChunk }, handlers)
    const backlog = yield* Backlog.make(instance)
    let hasBegun = false
    const listener: Listener = {
      onFenced: () => dispatch({ _tag: "Fenced", delivery: conversation }),
      onFailure: (reason) => stop(reason),
      onMessage: (message, bytes) => {
        hasBegun = true
        backlog.note(message)
        const { msg_type: type } = message.header
        if (type === answeredType) return
        if (type !== "input_request") return receive(message, bytes)
        // One that died waits for no answer.
        if (instance.endReason() === undefined) onInput(message)
      },
    }
    const opening = resumed === undefined
      ? instance.request(request, listener, { tracksLosses: true })
      : instance.durable.resume(resumed.ref, listener)
    // Until the end, which may come after that of the scope: a kernel that ignores interrupts goes on.
    const conversation = yield* opening
    const outputs = OutputQueue.make(conversation)
    const runFork = Effect.runForkWith(services)
    /** Starts what ends with the execution, from a callback. */
    const fork = (effect: Effect.Effect<void>): void => void runFork(Effect.forkIn(Defect.log(effect), scope))
    let forgetEnd = (): void => {}
    const { dispatch, free, isFree, state, transition } = Interpreter.make({
      instance,
      interrupt: resumed === undefined ? instance.interrupt : instance.durable.interrupt(resumed.ref),
      conversation,
      backlog,
      outputs: ref === undefined ? outputs : {
        ...outputs,
        offerAlways: (output) => offer(output),
        end: (reason) => outputs.end(reason ?? Attachment.beyond(ref, conversation.position?.())),
      },
      runFork,
      expireHandlers: () => fork(Effect.delay(Effect.sync(handlers.expire), Handlers.handlerGrace)),
      onClose: (executionCount) => {
        unclaim(executionCount)
        forgetEnd()
      },
      onFree: (isSafe) => {
        if (!isSafe) options.onStuck(run)
        runFork(options.onFree)
      },
    })
    const stop = (reason: Outcome.EndReason): void => dispatch({ _tag: "Stopped", reason })
    const takeAnswer = internalRequest && InternalRequest.taker(internalRequest, kernelId, stop)
    const receive = (message: Message, bytes: number): void => {
      meter.addBytes(bytes)
      if (takeAnswer?.(message, bytes) === true) return
      const before = state()
      const [next, commands, output] = ExecutionState.onMessage(before, message, conversation)
      if (output !== undefined) {
        meter.markOutput()
        offer(conversation.takeGap() ? { ...output, afterGap: true } : output, bytes)
      }
      if (next === before) return
      if (next.progress.ignored > before.progress.ignored) Metrics.ignored.updateUnsafe(1, services)
      transition(next, commands)
    }
    /** Adds an output, unless it was taken before; without a size whatever waits before it. */
    const offer = (output: Output, bytes?: number): void => {
      const position = ref && conversation.position?.()
      if (ref !== undefined && position !== undefined && position <= ref.position) return
      const numbered = position === undefined ? output : { ...output, position }
      if (bytes === undefined) outputs.offerAlways(numbered)
      else outputs.offer(numbered, bytes)
    }
    const onInput = Input.make({
      kernelId,
      reply: conversation.reply,
      onInput: answer,
      fork,
      // Code that goes on without a consumer waits for one that answers.
      stop: resumed?.interrupts === false ? (reason) => dispatch({ _tag: "KernelEnded", reason }) : stop,
    })
    const run: Run = {
      pull: pullFrom(outputs, collector, { handlers, kernelId, timeout, progress: () => state().progress }),
      finished: () => state().phase === "finished" && !state().isInterruptPending,
    }
    const unclaim = resumed === undefined ? instance.output.claim(request.id, receive) : () => {}
    forgetEnd = instance.onEnded((reason) => {
      const received = conversation.received?.(reason)
      if (received === undefined) return dispatch({ _tag: "KernelEnded", reason })
      fork(Effect.map(received, (reason) => dispatch({ _tag: "KernelEnded", reason })))
    })
    const log = yield* logger({ kernel: kernelId, execution: request.id })
    if (ref !== undefined) continued?.onBegin?.(ref)
    /** Tells whether an interrupt reaches the code: before that which is resumed, other code may run. */
    const isReached = () => resumed === undefined ? conversation.isSent() : hasBegun
    /** Waits until the earlier messages tell whether code that is resumed has begun. */
    const untilKnown = Effect.suspend(() => {
      if (isReached() || conversation.repeated === undefined) return Effect.void
      outputs.drain()
      return Effect.asVoid(Effect.timeoutOption(conversation.repeated, repeatTimeout))
    })
    const sending = Effect.mapError(conversation.send, (error) => {
      const reason = instance.endReason() ?? error.reason
      dispatch({ _tag: "KernelEnded", reason })
      return new KernelError({ reason })
    })
    // What is repeated may be more than is buffered, and its consumer waits for the run.
    const repeating = resumed && runFork(Effect.ignore(sending))
    /** Ends the execution without an interrupt; one on its way is awaited. */
    const leave = Effect.suspend(() => {
      dispatch({ _tag: "KernelEnded", reason: conversation.lossReason(false) })
      return free
    })
    const close = Effect.suspend(() => {
      meter.report()
      if (isFree()) return Effect.void
      // The kernel is not to be interrupted for what goes on without a consumer, or for what it does not know.
      const isOthers = resumed?.interrupts === false || (ref !== undefined && continued?.isLeft() === true)
      if (isOthers || instance.endReason() !== undefined) return leave
      outputs.discard()
      return Effect.andThen(untilKnown, Effect.suspend(() => isReached() ? free : leave))
    }).pipe(
      Effect.andThen(log("Execution ended")),
      Effect.ensuring(repeating === undefined ? Effect.void : Fiber.interrupt(repeating)),
    )
    const sent = resumed === undefined ? sending : Effect.void
    return { close, dispatch, handlers, isReached, log, run, sent, untilKnown }
  },
)

/** Pulls chunks and, when the outputs end, what becomes of the execution. */
function pullFrom(
  outputs: OutputQueue.OutputQueue,
  collector: Collector.OutputCollector,
  { handlers, kernelId, progress, timeout }: {
    readonly handlers: Handlers.Handlers
    readonly kernelId: string
    readonly progress: () => ExecutionState.State["progress"]
    readonly timeout: Duration.Input | undefined
  },
): Run["pull"] {
  const failure = (reason: Outcome.EndReason) =>
    Outcome.failure(reason, progress(), { timeout, partial: collector.result(progress()) })
  let isDelivered = false
  return Effect.matchEffect(outputs.takeAll, {
    onSuccess: collector.collect,
    onFailure: (end): Run["pull"] => {
      if (!Cause.isDone(end)) return Effect.fail(failure(end))
      if (isDelivered) return Cause.done()
      isDelivered = true
      // Functions of the user did not get all of the output in time.
      if (progress().reply === "ok" && handlers.gaveUp()) return Effect.fail(failure({ _tag: "Timeout" }))
      const partial = collector.result(progress())
      return Effect.map(Outcome.toResult(progress(), { kernelId, partial }), (result) => Arr.of(result))
    },
  })
}

/** Logs at Debug; annotations cost more than what is rarely asked for is worth. */
const logger = (annotations: Readonly<Record<string, string>>) =>
  Effect.map(
    LogLevel.isEnabled("Debug"),
    (isEnabled) => (event: string): Effect.Effect<void> =>
      isEnabled ? Effect.annotateLogs(Effect.logDebug(event), annotations) : Effect.void,
  )
