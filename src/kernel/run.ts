/**
 * One execution on one connection: the request goes out, outputs come in, and whatever happens the kernel is
 * idle again afterwards, or known not to be.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import {
  type Chunk,
  ClearOutput,
  ConnectionLost,
  DisplayChunk,
  ExecutionAborted,
  ExecutionError,
  type ExecutionFailure,
  type ExecutionResult,
  ExecutionTimeout,
  KernelError,
  type KernelErrorReason,
  KernelUnresponsive,
  TextChunk,
} from "../execution.ts"
import { executeContent, request } from "../jupyter/message.ts"
import type { Connection } from "./connection.ts"
import * as Images from "./images.ts"
import * as Reducer from "./reducer.ts"

/** How to run a piece of code. */
export interface RunOptions {
  readonly timeout?: Duration.Input | undefined
  /** Bytes of text to keep. */
  readonly outputLimit?: number | undefined
  /** Neither counted nor kept in the kernel's history. */
  readonly silent?: boolean
  readonly imagesDir: string
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
  /** Whether the kernel is done with the code. */
  readonly settled: () => boolean
}

/** Why an execution ends although the kernel did not end it. */
type Verdict = { readonly _tag: "Timeout" } | KernelErrorReason

/** How long to wait for the code to begin before it is interrupted: earlier, an interrupt has no effect. */
const beginning: Duration.Input = "500 millis"

/** How long to wait after each interrupt. The sum bounds every interruption and every timeout. */
const patience: ReadonlyArray<Duration.Input> = ["2 seconds", "3 seconds"]

/**
 * Sends the code. When the scope closes before the kernel is done, it is interrupted and awaited. `onStuck`
 * is called with the run if the kernel does not react.
 */
export const start: (
  connection: Connection,
  code: string,
  options: RunOptions & { readonly onStuck: (run: Run) => void },
) => Effect.Effect<Run, KernelError, Scope.Scope> = Effect.fnUntraced(
  function* (connection, code, options) {
    const { channel, id: kernelId } = connection
    const silent = options.silent ?? false
    const id = SecureRandom.uuidV4Unsafe()
    const outputs = yield* Queue.unbounded<Reducer.Output, Verdict | Cause.Done>()
    const settled = yield* Deferred.make<void>()
    const started = yield* Deferred.make<void>()
    let progress = Reducer.initial
    let isSettled = false
    let verdict: Verdict | undefined

    /** No more outputs: either the kernel is done, or nobody waits for it any longer. */
    const finish = (cause: Cause.Cause<Verdict | Cause.Done>): void => {
      Queue.failCauseUnsafe(outputs, cause)
    }
    const settle = (): void => {
      channel.forget(id)
      // First of all: each of the next lines may run the consumer, to whom the kernel must count as idle.
      isSettled = true
      Deferred.doneUnsafe(settled, Exit.void)
      Deferred.doneUnsafe(started, Exit.void)
      finish(Cause.fail(verdict ?? Cause.Done()))
    }
    channel.listen(id, (message) => {
      const [next, output] = Reducer.step(progress, message)
      progress = next
      if (output !== undefined) Queue.offerUnsafe(outputs, output)
      if (next.started) Deferred.doneUnsafe(started, Exit.void)
      if (Reducer.isOver(next)) settle()
    })
    yield* Deferred.await(connection.ended).pipe(
      Effect.flatMap((reason) =>
        Effect.sync(() => {
          verdict ??= reason
          settle()
        })
      ),
      Effect.forkScoped({ startImmediately: true }),
    )

    const interruptAndWait = Effect.gen(function* () {
      yield* Effect.timeoutOption(Deferred.await(started), beginning)
      for (const wait of patience) {
        if (isSettled) return
        // Whether the request arrived shows in whether the kernel becomes idle.
        yield* Effect.ignore(connection.interrupt)
        yield* Effect.timeoutOption(Deferred.await(settled), wait)
      }
      if (isSettled) return
      yield* Effect.logWarning("The kernel ignores interrupts").pipe(Effect.annotateLogs("kernel", kernelId))
      verdict = new KernelUnresponsive({ kernelId })
      options.onStuck(run)
      finish(Cause.fail(verdict))
    })
    yield* Effect.addFinalizer(() => isSettled ? Effect.void : interruptAndWait)

    let transcript = Reducer.empty(options.outputLimit)
    let delivered = false
    const remember = (chunk: Chunk, update = false): Chunk => {
      transcript = Reducer.append(transcript, chunk, update)
      return chunk
    }
    const deliver = Effect.fnUntraced(function* (output: Reducer.Output) {
      switch (output._tag) {
        case "Text":
          return Arr.of(remember(new TextChunk({ name: output.name, text: output.text })))
        case "Clear":
          return Arr.of(remember(new ClearOutput({ wait: output.wait })))
        case "Display": {
          const image = yield* Effect.result(Images.save(output.data, options.imagesDir))
          const text = output.data["text/plain"]
          const chunk = new DisplayChunk({
            data: output.data,
            metadata: output.metadata,
            text: typeof text === "string" ? text : undefined,
            image: image._tag === "Success" ? Option.getOrUndefined(image.success) : undefined,
            displayId: output.displayId,
            executionCount: output.executionCount,
          })
          const shown = Arr.of(remember(chunk, output.update))
          if (image._tag === "Success") return shown
          // The text of the execution is worth more than its image: the failure is told, not thrown.
          const complaint = `[effect-jupyter] ${image.failure.message}\n`
          return Arr.append(shown, remember(new TextChunk({ name: "stderr", text: complaint })))
        }
      }
    })
    const conclude = (): Effect.Effect<ExecutionResult, ExecutionFailure> => {
      const result = Reducer.toResult(transcript, progress.executionCount)
      if (progress.reply === "ok") return Effect.succeed(result)
      return Effect.fail(
        progress.reply === "error" && progress.raised !== undefined
          ? new ExecutionError({ ...progress.raised, partial: result })
          : new KernelError({
            reason: new ExecutionAborted({ kernelId, detail: "The kernel did not run the code" }),
            partial: result,
          }),
      )
    }
    const fail = (verdict: Verdict): ExecutionFailure => {
      const partial = Reducer.toResult(transcript, progress.executionCount)
      return verdict._tag === "Timeout"
        ? new ExecutionTimeout({
          timeout: Duration.fromInputUnsafe(options.timeout ?? Duration.infinity),
          partial,
        })
        : new KernelError({ reason: verdict, partial })
    }
    const end = (reason: Verdict | Cause.Done): Run["pull"] => {
      if (!Cause.isDone(reason)) return Effect.fail(fail(reason))
      if (delivered) return Cause.done()
      delivered = true
      return Effect.map(conclude(), (result) => Arr.of(result))
    }
    const run: Run = {
      pull: Queue.takeAll(outputs).pipe(
        Effect.matchEffect({
          onSuccess: (batch) => Effect.map(Effect.forEach(batch, deliver), Arr.flatten),
          onFailure: end,
        }),
      ),
      settled: () => isSettled,
    }

    yield* channel.send(request("execute_request", {
      id,
      session: connection.session,
      content: executeContent(code, { silent, allowStdin: false }),
    })).pipe(
      Effect.mapError((error) =>
        new KernelError({ reason: new ConnectionLost({ kernelId, detail: error.detail }) })
      ),
    )
    if (options.timeout !== undefined) {
      yield* Effect.sleep(options.timeout).pipe(
        Effect.andThen(Effect.sync(() => {
          verdict ??= { _tag: "Timeout" }
        })),
        Effect.andThen(interruptAndWait),
        Effect.forkScoped,
      )
    }
    return run
  },
)
