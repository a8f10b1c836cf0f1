/**
 * A kernel as its client sees it: executions in a queue, interrupts, and resets that replace the kernel.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import {
  type Chunk,
  ExecutionAborted,
  type ExecutionFailure,
  type ExecutionResult,
  KernelError,
  KernelUnresponsive,
} from "../execution.ts"
import type { Connection } from "./connection.ts"
import * as Run from "./run.ts"

/** A kernel that can be replaced. */
export interface Session {
  /** The id of the current kernel. */
  readonly id: () => string
  readonly stream: (
    code: string,
    options: Run.RunOptions,
  ) => Stream.Stream<Chunk | ExecutionResult, ExecutionFailure, FileSystem.FileSystem | Path.Path>
  readonly execute: (
    code: string,
    options: Run.RunOptions,
  ) => Effect.Effect<ExecutionResult, ExecutionFailure, FileSystem.FileSystem | Path.Path>
  readonly interrupt: Effect.Effect<void, KernelError>
  readonly reset: Effect.Effect<void, KernelError>
}

/** One kernel and the scope that it lives in. */
interface Incarnation {
  readonly connection: Connection
  readonly scope: Scope.Closeable
  /** The execution that did not react to interrupts, if there was one. */
  stuck: Run.Run | undefined
}

/** Starts the first kernel with `start`, which is used again at every reset. The kernel ends with the scope. */
export const make: (
  start: Effect.Effect<Connection, KernelError, Scope.Scope>,
) => Effect.Effect<Session, KernelError, Scope.Scope> = Effect.fnUntraced(function* (start) {
  const outer = yield* Effect.scope
  const turn = yield* Semaphore.make(1)
  /** Which reset the kernel comes from: what was asked of an earlier kernel is not run on a later one. */
  let generation = 0

  const incarnate = Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const scope = yield* Scope.fork(outer)
      const connection = yield* restore(Scope.provide(start, scope)).pipe(
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
      )
      const incarnation: Incarnation = { connection, scope, stuck: undefined }
      return incarnation
    })
  )
  let current: Incarnation | undefined = yield* incarnate
  let id = current.connection.id

  /** The kernel to use; a new one if the last reset was cut short. */
  const alive = Effect.gen(function* () {
    if (current === undefined) {
      current = yield* incarnate
      id = current.connection.id
    }
    return current
  })

  /** Waits for the turn, which ends with the scope, and gives the kernel if it can run code. */
  const enter = Effect.gen(function* () {
    const asked = generation
    yield* Semaphore.takeScoped(turn, 1)
    if (asked !== generation) {
      return yield* new KernelError({
        reason: new ExecutionAborted({ kernelId: id, detail: "The kernel was reset before the code began" }),
      })
    }
    const incarnation = yield* alive
    const { connection, stuck } = incarnation
    if (Deferred.isDoneUnsafe(connection.ended)) {
      return yield* new KernelError({ reason: yield* Deferred.await(connection.ended) })
    }
    if (stuck !== undefined && !stuck.settled()) {
      return yield* new KernelError({ reason: new KernelUnresponsive({ kernelId: connection.id }) })
    }
    return incarnation
  })

  const begin = Effect.fnUntraced(function* (code: string, options: Run.RunOptions) {
    const incarnation = yield* enter
    return yield* Run.start(incarnation.connection, code, {
      ...options,
      onStuck: (run) => {
        incarnation.stuck = run
      },
    })
  })

  const reset = Effect.gen(function* () {
    generation++
    const previous = current
    if (previous !== undefined) {
      const reason = new ExecutionAborted({
        kernelId: previous.connection.id,
        detail: "The kernel was reset",
      })
      // Ends the running execution, which hands over the turn.
      Deferred.doneUnsafe(previous.connection.ended, Exit.succeed(reason))
    }
    yield* Semaphore.takeScoped(turn, 1)
    const replaced = current
    current = undefined
    if (replaced !== undefined) yield* Effect.forkIn(Scope.close(replaced.scope, Exit.void), outer)
    yield* alive
  }).pipe(Effect.scoped)

  return {
    id: () => id,
    interrupt: Effect.suspend(() => current === undefined ? Effect.void : current.connection.interrupt),
    reset,
    stream: (code, options) =>
      begin(code, options).pipe(
        Effect.map((run) => Stream.fromPull(Effect.succeed(run.pull))),
        Stream.unwrap,
      ),
    execute: (code, options) =>
      begin(code, options).pipe(
        Effect.flatMap((run) => last(run.pull)),
        Effect.scoped,
      ),
  }
})

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
