/** The kernel that an operation works on, and what is checked of every effect on it. */
import { Effect, Result, Stream } from "effect"
import type { Execution, KernelClient, Values } from "../../src/mod.ts"
import { type Cell, checkPartial, checkText, codeOf, Model, tagOf, Violation, violation } from "./model.ts"

/** The subject of an operation. */
export interface Subject {
  readonly kernel: KernelClient.Kernel
  readonly model: Model
  /** Begins the texts and the names of the operation, which no other one has. */
  readonly marker: string
  /** The failures that disturbances of the operation allow. */
  readonly tolerated: ReadonlySet<string>
  /** Tells whether a kernel that was stopped may count as unresponsive. */
  readonly isStoppedLong: () => boolean
  /** The output of executions that had ended. */
  readonly late: () => string
  /** Counts on another kernel of the gateway, which nothing may disturb. */
  readonly beside: Effect.Effect<void, Violation>
}

/** Makes a cell; those of one operation differ by their names. */
export const cellOf = ({ marker }: Subject, name: string, body: string, output = ""): Cell => ({
  marker: `${marker}${name}`,
  by: 1 + [...`${marker}${name}`].reduce((sum, character) => (sum * 31 + character.charCodeAt(0)) % 997, 7),
  body,
  output,
})

/** Tells whether a failure is explained by what disturbs the operation. */
export const isExplained = ({ isStoppedLong, tolerated }: Subject, tag: string): boolean =>
  tolerated.has(tag) || (tag === "KernelUnresponsive" && isStoppedLong())

/** Checks how an execution of a cell ended, and takes over what it tells. Gives the tag and the failure, if any. */
export const judge = Effect.fnUntraced(function* (
  subject: Subject,
  cell: Cell,
  outcome: Result.Result<Execution.ExecutionResult, Execution.ExecutionFailure>,
  allowed: ReadonlyArray<string>,
) {
  const { model } = subject
  if (Result.isSuccess(outcome)) {
    yield* checkText(model, cell, outcome.success.text)
    if (allowed.includes("ExecutionResult") || subject.tolerated.size > 0) return { tag: "ExecutionResult" }
    return yield* violation(`${cell.marker} succeeded, where ${allowed.join(" or ")} was expected`)
  }
  const failure = outcome.failure
  const tag = tagOf(failure)
  model.failed(tag)
  if (!allowed.includes(tag) && !isExplained(subject, tag)) {
    return yield* violation(
      `${cell.marker} failed with ${tag}, where ${allowed.join(" or ")} was expected: ${failure.message}`,
    )
  }
  // A deadline that passes while a cut is being mended is what the failure tells, and not the cut.
  const mayLose = tag === "ConnectionLost" ||
    (tag === "ExecutionTimeout" && subject.tolerated.has("ConnectionLost"))
  yield* checkPartial(model, cell, { text: failure.partial?.text, mayLose })
  return { tag, failure }
})

/** Runs a cell to its end. */
export const conduct = Effect.fnUntraced(function* (
  subject: Subject,
  cell: Cell,
  allowed: ReadonlyArray<string> = ["ExecutionResult"],
  options?: KernelClient.ExecuteOptions,
) {
  subject.model.mayAdd(cell.by)
  const outcome = yield* Effect.result(subject.kernel.execute(codeOf(cell), options))
  return yield* judge(subject, cell, outcome, allowed)
})

/** Streams a cell to its end; what came chunk by chunk has to be what the result has. */
export const conductStream = Effect.fnUntraced(function* (
  subject: Subject,
  cell: Cell,
  onChunk: (count: number) => Effect.Effect<void> = () => Effect.void,
) {
  subject.model.mayAdd(cell.by)
  let text = ""
  let chunks = 0
  const last = yield* subject.kernel.stream(codeOf(cell)).pipe(
    Stream.tap((element) => {
      if (element._tag === "TextChunk") text += element.text
      return onChunk(chunks++)
    }),
    Stream.runLast,
    Effect.result,
  )
  if (Result.isFailure(last)) {
    return yield* judge(subject, cell, Result.fail(last.failure), ["ExecutionResult"])
  }
  const element = last.success
  if (element._tag === "None" || element.value._tag !== "ExecutionResult") {
    return yield* violation(`${cell.marker}: The stream ended without a result`)
  }
  if (text.trimEnd() !== element.value.text) {
    return yield* violation(`${cell.marker}: The chunks are not the result`)
  }
  return yield* judge(subject, cell, Result.succeed(element.value), ["ExecutionResult"])
})

/** Whatever can fail beside executions. */
export type Failure =
  | Values.ValueFailure
  | Execution.KernelError
  | {
    readonly _tag: "SchemaError" | "InvalidName" | "KernelBusy" | "IntrospectionFailed"
    readonly message: string
  }

/** Checks how something else ended that the kernel was asked; gives its value, or the tag of a failure that is explained. */
export const expect = <A, R>(
  subject: Subject,
  label: string,
  effect: Effect.Effect<A, Failure, R>,
): Effect.Effect<A | undefined, Violation, R> =>
  Effect.catch(effect, (failure) => {
    const tag = tagOf(failure)
    subject.model.failed(tag)
    return isExplained(subject, tag)
      ? Effect.undefined
      : violation(`${subject.marker} ${label} failed with ${tag}: ${failure.message}`)
  })

/** Fails unless two values are the same as JSON. */
export const same = (label: string, actual: unknown, expected: unknown): Effect.Effect<void, Violation> =>
  JSON.stringify(actual) === JSON.stringify(expected) ? Effect.void : violation(
    `${label} is ${JSON.stringify(actual)?.slice(0, 300)}, not ${JSON.stringify(expected)?.slice(0, 300)}`,
  )
