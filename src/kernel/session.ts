/**
 * The session of a client: executions in a queue, interrupts, and resets that replace the kernel.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Defect from "../defect.ts"
import {
  type Chunk,
  ConnectionLost,
  ExecutionAborted,
  type ExecutionFailure,
  type ExecutionRef,
  type ExecutionResult,
  KernelError,
  type KernelRef,
  KernelUnresponsive,
} from "../execution.ts"
import { discardGrace } from "../jupyter/rest.ts"
import * as Options from "../options/check.ts"
import * as Ahead from "./ahead.ts"
import * as ExecuteRequest from "./execute_request.ts"
import type { Identity } from "./identity.ts"
import { type Instance, running } from "./instance.ts"
import type { LateOutput } from "./late_output.ts"
import * as Metrics from "./metrics.ts"
import * as Run from "./run.ts"

/** A kernel that can be replaced. */
export interface Session {
  /** The id of the current kernel. */
  readonly id: () => string
  /** The identity of the kernel, which a reset does not change. */
  readonly identity: Identity
  readonly stream: (
    code: string,
    options: Run.RunOptions,
  ) => Stream.Stream<Chunk | ExecutionResult, ExecutionFailure, FileSystem.FileSystem | Path.Path>
  readonly execute: (
    code: string,
    options: Run.RunOptions,
  ) => Effect.Effect<ExecutionResult, ExecutionFailure, FileSystem.FileSystem | Path.Path>
  /** The current kernel, for requests beside the executions. Fails if it ended. */
  readonly instance: Effect.Effect<Instance, KernelError>
  /** Runs an effect under the lock of the executions, or not at all while another has it. */
  readonly ifIdle: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E, R>
  readonly interrupt: Effect.Effect<void, KernelError>
  readonly reset: Effect.Effect<void, KernelError>
  /** Has the current kernel outlive the session. */
  readonly detach: Effect.Effect<KernelRef, KernelError>
  /** Sends code before executions that wait, and returns when the kernel has it. */
  readonly start: (
    code: string,
    options: Pick<ExecuteRequest.Options, "allowStdin">,
  ) => Effect.Effect<ExecutionRef, KernelError>
  /** Emits the outputs of code that was started. */
  readonly resume: (
    ref: ExecutionRef,
    options: Run.RunOptions & Pick<Run.Resumed, "interrupts">,
  ) => Stream.Stream<Chunk | ExecutionResult, ExecutionFailure, FileSystem.FileSystem | Path.Path>
}

/** Starts a kernel, or connects to one, in a scope. */
type Start = Effect.Effect<Instance, KernelError, Scope.Scope>

/** The current kernel and the scope that it lives in. */
interface Current {
  readonly instance: Instance
  readonly scope: Scope.Closeable
  /** The execution that did not react to interrupts, if there was one. */
  stuck: Run.Run | undefined
}

/**
 * Starts the first kernel with `start`, which is used again at every reset, or connects to it with `attach`; `onOutput`
 * takes late output. The connection to the kernel ends with the scope.
 */
export const make: (
  kernels: { readonly start: Start; readonly attach?: Start | undefined },
  onOutput: LateOutput["publish"],
) => Effect.Effect<Session, KernelError, Scope.Scope> = Effect.fnUntraced(function* (kernels, onOutput) {
  const { attach, start } = kernels
  const outer = yield* Effect.scope
  const lock = yield* Semaphore.make(1)
  /** The number of resets: code for an earlier kernel is not run on a later one. */
  let generation = 0

  let current: Current | undefined
  let id = ""
  let isClosed = false
  const aborted = (detail: string) => new ExecutionAborted({ kernelId: id, detail })

  /** Starts a kernel and makes it the current one; only the start itself can be interrupted. */
  const startWith = (start: Start) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.map(startIn(outer, restore(start)), (started) => {
        const { instance } = started
        instance.output.onLateOutput(onOutput)
        current = started
        id = instance.id
        return started
      })
    )
  const startInstance = startWith(start)
  const { instance: { identity } } = yield* startWith(attach ?? start)

  /** Waits for the deletion of the kernel before the current one. */
  let awaitDeletion: Effect.Effect<unknown> = Effect.void
  const startNext = Effect.catchReason(
    startInstance,
    "KernelError",
    "ResourceLimit",
    // The kernel before may have counted.
    () => Effect.andThen(Effect.suspend(() => awaitDeletion), startInstance),
  )

  const starts = yield* Semaphore.make(1)
  /** Returns the current kernel. After a reset that was interrupted, the first caller starts a new one. */
  const currentInstance = Effect.suspend((): Effect.Effect<Current, KernelError> => {
    if (isClosed) return new KernelError({ reason: aborted("The client is closed") })
    if (current !== undefined) return Effect.succeed(current)
    return Semaphore.withPermit(
      starts,
      Effect.suspend(() => current === undefined ? startNext : currentInstance),
    )
  })

  const runningInstance = Effect.flatMap(currentInstance, ({ instance }) => running(instance))

  /** Waits for the lock and returns the kernel if it can run code. */
  const acquireIdleKernel = Effect.gen(function* () {
    const asked = generation
    // Code that was started has its turn as long as it ignores interrupts.
    if (current !== undefined) yield* responsive(current)
    const { release } = yield* acquire(lock)
    const kernel = yield* currentInstance
    if (asked !== generation) {
      return yield* new KernelError({ reason: aborted("The kernel was reset before the code began") })
    }
    yield* running(kernel.instance)
    yield* responsive(kernel)
    return { kernel, release }
  })

  const begin = Effect.fnUntraced(function* (code: string, options: Run.RunOptions) {
    yield* checkOptions(options)
    const { kernel, release } = yield* acquireIdleKernel
    return yield* Run.start(kernel.instance, code, {
      ...options,
      // The consumer may still read the output.
      onFree: release,
      onStuck: (run) => {
        kernel.stuck = run
      },
    })
  })

  /**
   * Ends the current kernel and with it the running execution. The deletion of a kernel that does not react takes
   * seconds, and runs in the background.
   */
  const discard = Effect.uninterruptible(Effect.suspend(() => {
    if (current === undefined) return Effect.void
    const { instance, scope } = current
    current = undefined
    instance.end(aborted("The kernel was reset"))
    return Effect.andThen(instance.durable.reclaim, Scope.close(scope, Exit.void)).pipe(
      Effect.uninterruptible,
      Defect.log,
      Effect.forkIn(outer),
      Effect.map((deleting) => {
        awaitDeletion = Fiber.await(deleting)
      }),
    )
  }))
  let resets = 0
  const reset = Effect.gen(function* () {
    generation++
    yield* Effect.acquireRelease(Effect.sync(() => resets++), () => Effect.sync(() => resets--))
    yield* discard
    yield* Semaphore.takeScoped(lock, 1)
    yield* currentInstance
  }).pipe(Effect.scoped, Effect.asVoid)

  const ahead = yield* Ahead.make(Effect.map(acquireIdleKernel, ({ kernel }) => kernel.instance))
  // Code that was started by an earlier client may run.
  if (attach !== undefined) {
    // One that died has output that can be resumed.
    yield* Effect.catchReason(ahead.hold, "KernelError", "KernelDied", () => Effect.void)
  }

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isClosed = true
      current?.instance.end(aborted("The client is closed"))
    })
  )

  return {
    id: () => id,
    identity,
    instance: Effect.suspend(() => {
      // Executions that run or wait fail with the same reason.
      const isReset = !isClosed && current === undefined && resets > 0
      if (isReset) return new KernelError({ reason: aborted("The kernel is being reset") })
      return runningInstance
    }),
    ifIdle: (effect) => Semaphore.withPermitsIfAvailable(lock, 1)(effect),
    interrupt: Effect.suspend((): Effect.Effect<void, KernelError> => {
      if (isClosed) return new KernelError({ reason: aborted("The client is closed") })
      return current === undefined ? Effect.void : Effect.flatMap(running(current.instance), bounded)
    }),
    reset,
    detach: Effect.flatMap(runningInstance, ({ durable }) => durable.detach),
    start: (code, options) =>
      Effect.flatMap(
        runningInstance,
        (instance) =>
          Effect.andThen(instance.durable.check, ahead.start(ExecuteRequest.make(instance, code, options))),
      ),
    resume: (ref, { interrupts, ...options }) =>
      Effect.gen(function* () {
        yield* checkOptions(options)
        const kernel = yield* currentInstance
        const resumed = { ref, interrupts }
        return yield* Run.start(kernel.instance, "", {
          ...options,
          resumed,
          onFree: Effect.void,
          onStuck: (run) => {
            kernel.stuck = run
          },
        })
      }).pipe(streamOf),
    stream: (code, options) => streamOf(begin(code, options)),
    execute: (code, options) =>
      begin(code, options).pipe(
        Effect.flatMap((run) => last(run.pull)),
        Effect.scoped,
        Effect.onExit((exit) => countOutcome(exit)),
      ),
  }
})

/** Fails while code of a kernel ignores interrupts. */
const responsive = ({ instance: { id: kernelId }, stuck }: Current): Effect.Effect<void, KernelError> =>
  stuck === undefined || stuck.finished()
    ? Effect.void
    : Effect.fail(new KernelError({ reason: new KernelUnresponsive({ kernelId }) }))

const checkOptions = (
  { images, outputLimit, timeout }: Run.RunOptions,
): Effect.Effect<unknown, KernelError> =>
  Effect.mapError(
    Options.check(Options.Execute, { images, outputLimit, timeout }),
    (reason) => new KernelError({ reason }),
  )

/** Emits the outputs of a run, and counts how it ended. */
const streamOf = <R>(run: Effect.Effect<Run.Run, ExecutionFailure, R>) =>
  run.pipe(
    Effect.map(({ pull }) => Stream.fromPull(Effect.succeed(pull))),
    Stream.unwrap,
    Stream.onExit(countOutcome),
  )

/** Starts a kernel in a scope of its own, which closes if that fails. */
const startIn = Effect.fnUntraced(function* (
  outer: Scope.Scope,
  start: Start,
) {
  const scope = yield* Scope.fork(outer)
  const instance = yield* Scope.provide(start, scope).pipe(
    Effect.onError((cause) => {
      const closing = Scope.close(scope, Exit.failCause(cause))
      return Cause.hasInterrupts(cause) ? inBackground(closing) : closing
    }),
  )
  const started: Current = { instance, scope, stuck: undefined }
  return started
})

/** Waits for the lock and returns what releases it, which happens at the latest when the scope closes. */
const acquire = Effect.fnUntraced(function* (lock: Semaphore.Semaphore) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  yield* Effect.trackDuration(Scope.provide(Semaphore.takeScoped(lock, 1), scope), Metrics.queued)
  return { release: Scope.close(scope, Exit.void) }
})

/** Closes in the background, and waits for a short time: most servers delete a kernel within it. */
const inBackground = (closing: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.flatMap(
    Effect.forkDetach(Defect.log(closing), { startImmediately: true }),
    (fiber) => Effect.asVoid(Effect.timeoutOption(Fiber.await(fiber), discardGrace)),
  )

/** Bounds the time that the server may take to pass an interrupt on. */
const bounded = ({ id, interrupt }: Instance): Effect.Effect<void, KernelError> =>
  Effect.timeoutOrElse(interrupt, {
    duration: "10 seconds",
    orElse: () =>
      new KernelError({
        reason: new ConnectionLost({ kernelId: id, detail: "No answer to an interrupt within 10 seconds" }),
      }),
  })

/** Counts executions by how they ended. */
const countOutcome = (exit: Exit.Exit<unknown, ExecutionFailure>): Effect.Effect<void> => {
  if (Exit.isSuccess(exit)) return Metric.update(executed, 1)
  const outcome = Option.match(Cause.findErrorOption(exit.cause), {
    onSome: (failure) => failure._tag === "KernelError" ? failure.reason._tag : failure._tag,
    onNone: () => "Interrupted",
  })
  return Metric.update(Metric.withAttributes(Metrics.executions, { outcome }), 1)
}
const executed = Metric.withAttributes(Metrics.executions, { outcome: "ExecutionResult" })

/** Pulls to the end; the result is the last element. */
const last = (pull: Run.Run["pull"]): Effect.Effect<
  ExecutionResult,
  ExecutionFailure,
  FileSystem.FileSystem | Path.Path
> =>
  Effect.flatMap(
    Effect.catchIf(pull, Cause.isDone, () => Effect.die("An execution ended without a result")),
    (
      batch,
    ) => {
      const element = batch[batch.length - 1]
      return element?._tag === "ExecutionResult" ? Effect.succeed(element) : last(pull)
    },
  )
