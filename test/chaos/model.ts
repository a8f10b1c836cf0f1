/** The model of a kernel: the values that its counter may have, and its usability. */
import { Effect, Schema } from "effect"
import type { Execution } from "../../src/mod.ts"

/** Something that the model does not allow. */
export class Violation extends Schema.TaggedError<Violation>()("Violation", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** Fails with a violation. */
export const violation = (detail: string): Effect.Effect<never, Violation> =>
  Effect.fail(new Violation({ detail }))

/** The outcome of an effect in the model: the tag of a failure, of its reason, or of the result. */
export type Outcome =
  | "ExecutionResult"
  | Execution.ExecutionError["_tag"]
  | Execution.ExecutionTimeout["_tag"]
  | Execution.KernelErrorReason["_tag"]
  | "Interrupted"

/** The usability of a kernel: `unsure` may fail once more, `stuck` may refuse, `dead` must fail until a reset. */
export type Life = "alive" | "unsure" | "stuck" | "dead"

/** The tag of a failure, or of its reason if it has one. */
export function tagOf(failure: unknown): string {
  if (!hasTag(failure)) return "Defect"
  return failure._tag === "KernelError" && "reason" in failure && hasTag(failure.reason)
    ? failure.reason._tag
    : failure._tag
}
const hasTag = (value: unknown): value is { readonly _tag: string } =>
  typeof value === "object" && value !== null && "_tag" in value && typeof value._tag === "string"

/** The life that a failure leaves a kernel with. */
const lives: Readonly<Record<string, Life>> = {
  KernelDied: "dead",
  KernelNotFound: "dead",
  ConnectionLost: "unsure",
  KernelUnresponsive: "stuck",
}

/** A kernel counts up from 0, which stands for a fresh kernel; the count is unknown where code may not have run. */
export class Model {
  #counts: ReadonlySet<number> = new Set([0])
  life: Life = "alive"

  /** A new kernel. */
  renew(): void {
    this.#counts = new Set([0])
    this.life = "alive"
  }

  /** Code may be run that adds to the counter. */
  mayAdd(by: number): void {
    this.#counts = new Set([...this.#counts].flatMap((count) => [count, count + by]))
  }

  /** The counter was seen. */
  see(count: number): Effect.Effect<void, Violation> {
    return Effect.suspend(() => {
      const counts = this.#counts
      if (!counts.has(count)) return violation(`The counter is ${count}, not ${[...counts].join(" or ")}`)
      this.#counts = new Set([count])
      return Effect.void
    })
  }

  /** An effect on the kernel failed. */
  failed(tag: string): void {
    this.life = lives[tag] ?? this.life
  }
}

/** Code that counts, says so in its first line, and then does something. */
export interface Cell {
  readonly marker: string
  readonly by: number
  readonly body: string
  /** The output of the body. */
  readonly output?: string
}

export const codeOf = ({ body, by, marker }: Cell): string =>
  `counter = globals().get('counter', 0) + ${by}\nprint(f'${marker} {counter}', flush=True)\n${body}`

const textOf = ({ marker, output }: Cell, count: number): string =>
  `${marker} ${count}\n${output ?? ""}`.trimEnd()

/** The count that a text begins with, if it does. */
const countIn = ({ marker }: Cell, text: string): number | undefined => {
  const count = new RegExp(`^${marker} (\\d+)(\n|$)`).exec(text)?.[1]
  return count === undefined ? undefined : Number(count)
}

/** Checks that the output is all of what the cell puts out, and nothing else. */
export const checkText = Effect.fnUntraced(function* (model: Model, cell: Cell, text: string = "") {
  const count = countIn(cell, text)
  if (count !== undefined) yield* model.see(count)
  const expected = textOf(cell, count ?? NaN)
  if (text.trimEnd() !== expected) return yield* violation(difference(expected, text))
})

/**
 * Checks that the output is the beginning of what the cell puts out. If some may be lost, parts of it may be missing,
 * and the others are there once and in order.
 */
export const checkPartial = Effect.fnUntraced(
  function* (model: Model, cell: Cell, { mayLose, text = "" }: Partial) {
    const count = countIn(cell, text)
    if (count === undefined) {
      return text === "" || mayLose ? undefined : yield* violation(`The output begins with ${shown(text)}`)
    }
    yield* model.see(count)
    const expected = textOf(cell, count)
    if (mayLose ? isSubsequence(text.trimEnd(), expected) : expected.startsWith(text.trimEnd())) return
    return yield* violation(difference(expected, text))
  },
)

/** Output of an execution that failed. */
export interface Partial {
  readonly text: string | undefined
  readonly mayLose: boolean
}

function isSubsequence(text: string, of: string): boolean {
  let at = -1
  return [...text].every((character) => (at = of.indexOf(character, at + 1)) >= 0)
}

function difference(expected: string, actual: string): string {
  let at = 0
  while (at < expected.length && expected[at] === actual[at]) at++
  return `The output differs at ${at} (${expected.length} characters expected, ${actual.length} came): ` +
    `${shown(expected.slice(Math.max(0, at - 40)))} expected, ${
      shown(actual.slice(Math.max(0, at - 40)))
    } came`
}

/** A text as it can be printed. */
export const shown = (text: string): string =>
  JSON.stringify(text.length > 160 ? `${text.slice(0, 160)}…` : text)
