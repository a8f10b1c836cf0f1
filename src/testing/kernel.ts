/**
 * The kernel of tests: the queue, the interrupts and the results of a kernel around scripts.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Defect from "../defect.ts"
import {
  ExecutionAborted,
  ExecutionError,
  type ExecutionFailure,
  type ExecutionResult,
  ExecutionTimeout,
  InputRequested,
  KernelError,
  type KernelErrorReason,
} from "../execution.ts"
import { IntrospectionFailed } from "../introspection.ts"
import * as Collector from "../output/collector.ts"
import * as Handlers from "../kernel/handlers.ts"
import type { Images } from "../output/images.ts"
import type { Output } from "../output/output.ts"
import type { ExecuteOptions, Kernel } from "../client/kernel.ts"
import * as LateOutput from "../kernel/late_output.ts"
import * as Reducer from "../kernel/reducer.ts"
import type { Run } from "../kernel/run.ts"
import * as Span from "../kernel/span.ts"
import type { Platform } from "../platform.ts"
import * as Scripts from "./script.ts"
import type { Members, Raised, Script } from "./script.ts"
import * as Values from "./values.ts"

/** What the kernel needs besides its scripts. */
export interface KernelParts {
  readonly images?: Images | undefined
  readonly imagesDir?: string | undefined
  readonly members?: Members | undefined
  readonly platform: Context.Context<Platform>
}

/** How an execution ends. */
type End = { readonly _tag: "Done" } | { readonly _tag: "Timeout" } | KernelErrorReason | Raised

/** Whether a kernel runs nothing more until it is reset. */
const isLasting = Predicate.or(
  Predicate.or(Predicate.isTagged("KernelDied"), Predicate.isTagged("KernelNotFound")),
  Predicate.or(Predicate.isTagged("ConnectionLost"), Predicate.isTagged("KernelUnresponsive")),
)

/** Makes a kernel that does what the scripts say; it ends with the scope. */
export const make: (
  scripts: ReadonlyArray<Script>,
  parts: KernelParts,
) => Effect.Effect<
  { readonly kernel: Kernel; readonly executed: Effect.Effect<ReadonlyArray<string>> },
  never,
  Scope.Scope
> = Effect.fnUntraced(
  function* (scripts, { images = "bytes", imagesDir = "images", members = {}, platform }) {
    const turn = yield* Semaphore.make(1)
    const output = yield* LateOutput.make({ images, imagesDir })
    const executed = yield* Ref.make<ReadonlyArray<string>>([])
    const take = Scripts.taker(scripts)
    let generation = 0
    let id = SecureRandom.uuidV4Unsafe()
    let executionCount = 0
    /** Why the kernel can do nothing any more, if so. */
    let ended: KernelErrorReason | undefined
    let isClosed = false
    /** Ends the execution that runs. */
    let stop: (end: End) => Effect.Effect<void> = nothing

    const aborted = (detail: string) => new ExecutionAborted({ kernelId: id, detail })
    const alive = Effect.suspend((): Effect.Effect<void, KernelError> => {
      const reason = isClosed ? aborted("The client is closed") : ended
      return reason === undefined ? Effect.void : Effect.fail(new KernelError({ reason }))
    })
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        isClosed = true
        return stop(aborted("The client is closed"))
      })
    )

    /** Does what the script says, and tells how it ended. */
    const play = Effect.fnUntraced(function* (
      script: Script,
      put: (output: Output) => Effect.Effect<unknown>,
      { allowStdin = true, count, onInput }: ExecuteOptions & { readonly count: number },
    ) {
      const { chunks = [], delay = 0, error, interval = 0, result } = script
      for (const chunk of chunks) {
        yield* pause(interval)
        const output = Scripts.toOutput(chunk)
        if (output._tag !== "Input") {
          yield* put(output)
          continue
        }
        const { password, prompt } = output
        if (!allowStdin) {
          const asked = password ? "getpass" : "raw_input"
          const evalue = `${asked} was called, but this frontend does not support input requests.`
          return { ename: "StdinNotImplementedError", evalue }
        }
        const answer = yield* Effect.exit(
          Effect.suspend(() =>
            onInput === undefined ? Effect.fail("Nobody answers") : Defect.log(onInput({ prompt, password }))
          ),
        )
        if (answer._tag === "Failure") return new InputRequested({ kernelId: id, prompt })
      }
      yield* pause(delay)
      if (result !== undefined) yield* put(Scripts.valueOf(result, count))
      return error ?? { _tag: "Done" as const }
    })

    const begin = Effect.fnUntraced(function* (
      code: string,
      options: ExecuteOptions,
      onScript: (script: Script) => void,
    ) {
      const asked = generation
      let isMine = true
      const handOver = Effect.suspend(() => {
        if (!isMine) return Effect.void
        isMine = false
        return Effect.asVoid(Semaphore.release(turn, 1))
      })
      yield* Effect.acquireRelease(Semaphore.take(turn, 1), () => handOver, { interruptible: true })
      if (asked !== generation) {
        return yield* new KernelError({ reason: aborted("The kernel was reset before the code began") })
      }
      yield* alive
      yield* Ref.update(executed, Arr.append(code))
      const count = ++executionCount
      const collector = Collector.make(
        { imagesDir, ...options, images: options.images ?? images },
        Handlers.make(),
      )
      const outputs = yield* Queue.unbounded<Output, End>()
      let isOver = false
      const finish = (end: End) =>
        Effect.suspend(() => {
          if (isOver) return Effect.void
          isOver = true
          stop = nothing
          if (isLasting(end)) ended = end
          return Effect.andThen(handOver, Queue.fail(outputs, end))
        })
      yield* Effect.addFinalizer(() => finish({ _tag: "Done" }))
      const found = take(code)
      if (found._tag === "Script") onScript(found.script)
      const put = (output: Output) => Queue.offer(outputs, output)
      // At once, so that a test clock finds who sleeps; and as in other kernels, whether or not somebody reads.
      const playing = yield* Effect.flatMap(
        found._tag === "Script"
          ? play(found.script, put, { ...options, count })
          : Effect.succeed<End>(aborted(found.detail)),
        finish,
      ).pipe(
        Effect.onError((cause) => Queue.failCause(outputs, cause)),
        Effect.forkScoped({ startImmediately: true }),
      )
      const stopWith = (end: End) => Effect.andThen(finish(end), Fiber.interrupt(playing))
      // It may be over already.
      stop = isOver ? nothing : stopWith
      if (options.timeout !== undefined && !isOver) {
        const timeout = Effect.delay(stopWith({ _tag: "Timeout" }), options.timeout)
        yield* Effect.forkScoped(timeout, { startImmediately: true })
      }

      const conclude = (end: End): Effect.Effect<ExecutionResult, ExecutionFailure> => {
        const raised = "_tag" in end
          ? undefined
          : { ename: end.ename, evalue: end.evalue ?? "", traceback: end.traceback ?? [] }
        const partial = collector.result({ ...Reducer.initial, executionCount: count, raised })
        if (raised !== undefined) return new ExecutionError({ ...raised, partial })
        if (!("_tag" in end) || end._tag === "Done") return Effect.succeed(partial)
        if (end._tag !== "Timeout") return new KernelError({ reason: end, partial })
        const timeout = Duration.fromInputUnsafe(options.timeout ?? Duration.infinity)
        return new ExecutionTimeout({ timeout, partial })
      }
      let isConcluded = false
      const pull: Run["pull"] = Queue.takeAll(outputs).pipe(
        Effect.matchEffect({
          onSuccess: collector.collect,
          onFailure: (end): Run["pull"] => {
            if (isConcluded) return Cause.done()
            isConcluded = true
            return Effect.map(conclude(end), (result) => Arr.of(result))
          },
        }),
      )
      return Stream.fromPull(Effect.succeed(pull))
    })

    const run = (code: string, options: ExecuteOptions, onScript: (script: Script) => void) =>
      Stream.unwrap(begin(code, options, onScript)).pipe(Stream.provideContext(platform))
    const unscripted = (request: string) =>
      Effect.andThen(
        alive,
        Effect.suspend(() =>
          new IntrospectionFailed({ kernelId: id, request, detail: `The test gives no "members.${request}"` })
        ),
      )
    const self = { id: () => id }
    const kernel: Kernel = {
      ...Values.make({
        execute: (code, { onScript, ...options }) => run(code, options, onScript),
        id: () => id,
        alive,
      }),
      complete: () => unscripted("complete"),
      inspect: () => unscripted("inspect"),
      isComplete: () => unscripted("isComplete"),
      history: () => unscripted("history"),
      info: unscripted("info"),
      variables: unscripted("variables"),
      output: Stream.provideContext(output.stream, platform),
      // Other members that a kernel gets belong above.
      ...members,
      get id() {
        return id
      },
      stream: (code, options = {}) =>
        Span.withStreamSpan("Kernel.stream", self)(run(code, options, () => {})),
      execute: Effect.fnUntraced(function* (code: string, options: ExecuteOptions = {}) {
        const last = yield* Stream.runLast(run(code, options, () => {}))
        return Option.isSome(last) && last.value._tag === "ExecutionResult"
          ? last.value
          : yield* Effect.die("A script ended without a result")
      }, Span.withSpan("Kernel.execute", self)),
      interrupt: Effect.suspend(() => Effect.andThen(alive, stop({ ename: "KeyboardInterrupt" }))).pipe(
        Span.withSpan("Kernel.interrupt", self),
      ),
      reset: Effect.gen(function* () {
        generation++
        yield* stop(aborted("The kernel was reset"))
        yield* Semaphore.takeScoped(turn, 1)
        if (isClosed) return yield* new KernelError({ reason: aborted("The client is closed") })
        executionCount = 0
        ended = undefined
        id = SecureRandom.uuidV4Unsafe()
      }).pipe(Effect.scoped, Span.withSpan("Kernel.reset", self)),
    }
    return { kernel, executed: Ref.get(executed) }
  },
)

const nothing = (): Effect.Effect<void> => Effect.void

const pause = (duration: Duration.Input): Effect.Effect<void> =>
  duration === 0 ? Effect.void : Effect.sleep(duration)
