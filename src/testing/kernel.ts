/**
 * The kernel of tests: the queue, the interrupts and the results of a kernel around scripts.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import {
  ExecutionAborted,
  ExecutionError,
  type ExecutionFailure,
  type ExecutionResult,
  ExecutionTimeout,
  KernelError,
  type KernelErrorReason,
} from "../execution.ts"
import { IntrospectionFailed } from "../introspection.ts"
import * as Delivery from "../kernel/delivery.ts"
import type { Images } from "../kernel/images.ts"
import type { ExecuteOptions, Kernel } from "../kernel/kernel.ts"
import * as Reducer from "../kernel/reducer.ts"
import type { Run } from "../kernel/run.ts"
import type { Platform } from "../platform.ts"
import type { Members, Output, Raised, Script } from "./script.ts"
import * as Values from "./values.ts"

/** What the kernel needs besides its scripts. */
export interface KernelParts {
  readonly images?: Images
  readonly imagesDir?: string
  readonly members?: Members
  readonly platform: Context.Context<Platform>
}

/** How an execution ends. */
type End = { readonly _tag: "Done" } | { readonly _tag: "Timeout" } | KernelErrorReason | Raised

/** Makes a kernel that does what the scripts say. */
export const make: (
  scripts: ReadonlyArray<Script>,
  parts: KernelParts,
) => Effect.Effect<{ readonly kernel: Kernel; readonly executed: Effect.Effect<ReadonlyArray<string>> }> =
  Effect.fnUntraced(function* (scripts, { images = "bytes", imagesDir = "images", members = {}, platform }) {
    const turn = yield* Semaphore.make(1)
    const executed = yield* Ref.make<ReadonlyArray<string>>([])
    const uses = new Map<Script, number>()
    let generation = 0
    let id = SecureRandom.uuidV4Unsafe()
    let executionCount = 0
    /** Ends the execution that runs. */
    let stop = (_end: End): Effect.Effect<void> => Effect.void

    const find = (code: string): Script | undefined => {
      const script = scripts.find((script) =>
        matches(script, code) && (uses.get(script) ?? 0) < (script.times ?? Infinity)
      )
      if (script !== undefined) uses.set(script, (uses.get(script) ?? 0) + 1)
      return script
    }
    const aborted = (detail: string) => new ExecutionAborted({ kernelId: id, detail })

    const begin = Effect.fnUntraced(function* (
      code: string,
      options: ExecuteOptions,
      onScript: (script: Script) => void,
    ) {
      const asked = generation
      yield* Effect.acquireRelease(Semaphore.take(turn, 1), () => Semaphore.release(turn, 1), {
        interruptible: true,
      })
      if (asked !== generation) {
        return yield* new KernelError({ reason: aborted("The kernel was reset before the code began") })
      }
      yield* Ref.update(executed, Arr.append(code))
      const count = ++executionCount
      const delivery = Delivery.make({ images, imagesDir, ...options })
      const ended = yield* Deferred.make<End>()
      stop = (end) => Effect.asVoid(Deferred.succeed(ended, end))
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          stop = () => Effect.void
        })
      )
      if (options.timeout !== undefined) {
        yield* Effect.forkScoped(Effect.delay(stop({ _tag: "Timeout" }), options.timeout))
      }

      const conclude = (end: End): Effect.Effect<ExecutionResult, ExecutionFailure> => {
        const raised = "_tag" in end ? undefined : { evalue: "", traceback: [], ...end }
        const partial = delivery.result({ ...Reducer.initial, executionCount: count, raised })
        if (raised !== undefined) return new ExecutionError({ ...raised, partial })
        if (!("_tag" in end) || end._tag === "Done") return Effect.succeed(partial)
        if (end._tag !== "Timeout") return new KernelError({ reason: end, partial })
        const timeout = Duration.fromInputUnsafe(options.timeout ?? Duration.infinity)
        return new ExecutionTimeout({ timeout, partial })
      }
      const script = find(code)
      if (script !== undefined) onScript(script)
      const unmatched = aborted(`No script of the test matches the code "${code}"`)
      const { chunks = [], delay = 0, error, interval = 0, result } = script ?? {}
      const last: End = script === undefined ? unmatched : error ?? { _tag: "Done" }
      const steps: Array<{ readonly wait: Duration.Input; readonly output?: Reducer.Output }> = chunks.map((
        chunk,
      ) => ({
        wait: interval,
        output: toOutput(chunk),
      }))
      if (result === undefined) steps.push({ wait: delay })
      else steps.push({ wait: delay, output: valueOf(result, count) }, { wait: 0 })
      let index = 0
      const pull: Run["pull"] = Effect.suspend(() => {
        const step = steps[index++]
        if (step === undefined) return Cause.done()
        return Effect.raceFirst(
          Effect.map(Deferred.await(ended), (end) => ({ _tag: "End" as const, end })),
          Effect.as(step.wait === 0 ? Effect.void : Effect.sleep(step.wait), step.output),
        ).pipe(
          Effect.flatMap((next): Run["pull"] => {
            if (next !== undefined && next._tag !== "End") return delivery.deliver([next])
            index = steps.length
            return Effect.map(conclude(next?.end ?? last), (result) => Arr.of(result))
          }),
        )
      })
      return Stream.fromPull(Effect.succeed(pull))
    })

    const run = (code: string, options: ExecuteOptions, onScript: (script: Script) => void) =>
      Stream.unwrap(begin(code, options, onScript)).pipe(Stream.provideContext(platform))
    const stream: Kernel["stream"] = (code, options = {}) => run(code, options, () => {})
    const unscripted = (request: string) =>
      Effect.suspend(() =>
        new IntrospectionFailed({ kernelId: id, request, detail: `The test gives no "members.${request}"` })
      )
    const kernel: Kernel = {
      ...Values.make((code, { onScript, ...options }) => run(code, options, onScript)),
      complete: () => unscripted("complete"),
      inspect: () => unscripted("inspect"),
      isComplete: () => unscripted("isComplete"),
      history: () => unscripted("history"),
      info: unscripted("info"),
      variables: unscripted("variables"),
      // Other members that a kernel gets belong above.
      ...members,
      get id() {
        return id
      },
      stream,
      execute: (code, options) =>
        Effect.flatMap(
          Stream.runLast(stream(code, options)),
          (last) =>
            Option.isSome(last) && last.value._tag === "ExecutionResult"
              ? Effect.succeed(last.value)
              : Effect.die("A script ended without a result"),
        ),
      interrupt: Effect.suspend(() => stop({ ename: "KeyboardInterrupt" })),
      reset: Effect.suspend(() => {
        const end = stop(aborted("The kernel was reset"))
        generation++
        executionCount = 0
        id = SecureRandom.uuidV4Unsafe()
        return end
      }),
    }
    return { kernel, executed: Ref.get(executed) }
  })

function matches({ match }: Script, code: string): boolean {
  if (typeof match === "string") return match.trim() === code.trim()
  // An expression with the flag "g" would remember where it was.
  return typeof match === "function"
    ? match(code)
    : new RegExp(match, match.flags.replace(/[gy]/g, "")).test(code)
}

function toOutput(output: Output): Reducer.Output {
  if (typeof output === "string") return { _tag: "Text", name: "stdout", text: output }
  if ("update" in output) return { ...output.update, _tag: "Display", update: true }
  switch (output._tag) {
    case "TextChunk":
      return { _tag: "Text", name: output.name, text: output.text }
    case "ClearOutput":
      return { _tag: "Clear", wait: output.wait }
    case "DisplayChunk":
      return { ...output, _tag: "Display", update: false }
  }
}

function valueOf(
  value: string | { readonly [mimeType: string]: unknown },
  executionCount: number,
): Reducer.Output {
  return {
    _tag: "Display",
    update: false,
    data: typeof value === "string" ? { "text/plain": value } : value,
    metadata: {},
    displayId: undefined,
    executionCount,
  }
}
