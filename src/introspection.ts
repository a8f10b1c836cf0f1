/**
 * What can be asked of a kernel beside its executions, also while one runs: completions, documentation, variables.
 *
 * @module
 */
import * as Schema from "effect/Schema"

/**
 * What could stand at a place in code.
 *
 * @example
 * ```ts
 * import type { Introspection } from "effect-jupyter"
 *
 * export const apply = (code: string, { end, start }: Introspection.Completion, match: string) =>
 *   code.slice(0, start) + match + code.slice(end)
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class Completion extends Schema.Class<Completion>("effect-jupyter/Introspection/Completion")({
  /** The texts that could stand there. */
  matches: Schema.Array(Schema.String),
  /** Where the text that a match replaces begins, as an index of the JavaScript string. */
  start: Schema.Int,
  /** Where it ends. */
  end: Schema.Int,
  /** What the matches are, in the same order, if the kernel says it: `"function"`, `"module"`, `"instance"` … */
  types: Schema.Array(Schema.UndefinedOr(Schema.String)),
}) {}

/**
 * What the kernel knows of a name in code.
 *
 * @example
 * ```ts
 * import { Execution, type Introspection } from "effect-jupyter"
 *
 * export const show = (inspection: Introspection.Inspection) => Execution.best(inspection, ["text/plain"])
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class Inspection extends Schema.Class<Inspection>("effect-jupyter/Introspection/Inspection")({
  found: Schema.Boolean,
  /** The documentation by MIME type, without colour codes. */
  data: Schema.Record(Schema.String, Schema.Unknown),
}) {}

/**
 * Whether code can be executed as it is.
 *
 * @example
 * ```ts
 * import type { Introspection } from "effect-jupyter"
 *
 * export const prompt = ({ indent, status }: Introspection.Completeness) =>
 *   status === "incomplete" ? `... ${indent}` : ">>> "
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class Completeness extends Schema.Class<Completeness>("effect-jupyter/Introspection/Completeness")({
  status: Schema.Literals(["complete", "incomplete", "invalid", "unknown"]),
  /** How the next line of incomplete code is to begin. */
  indent: Schema.String,
}) {}

/**
 * Code that was executed.
 *
 * @example
 * ```ts
 * import type { Introspection } from "effect-jupyter"
 *
 * export const source = (history: ReadonlyArray<Introspection.HistoryEntry>) =>
 *   history.map((entry) => entry.code).join("\n")
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class HistoryEntry extends Schema.Class<HistoryEntry>("effect-jupyter/Introspection/HistoryEntry")({
  /** The number of the execution. */
  executionCount: Schema.Int,
  code: Schema.String,
}) {}

/**
 * Who the kernel is.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const version = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   return (yield* kernel.info).languageVersion // "3.13.1"
 * })
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class KernelInfo extends Schema.Class<KernelInfo>("effect-jupyter/Introspection/KernelInfo")({
  implementation: Schema.String,
  implementationVersion: Schema.String,
  protocolVersion: Schema.String,
  language: Schema.String,
  languageVersion: Schema.String,
  banner: Schema.String,
  /** What the kernel says that it can, for instance `"kernel subshells"`. */
  features: Schema.Array(Schema.String),
}) {}

/**
 * A variable of the code.
 *
 * @example
 * ```ts
 * import type { Introspection } from "effect-jupyter"
 *
 * export const largest = (variables: ReadonlyArray<Introspection.Variable>) =>
 *   variables.toSorted((a, b) => b.bytes - a.bytes).at(0)?.name
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class Variable extends Schema.Class<Variable>("effect-jupyter/Introspection/Variable")({
  name: Schema.String,
  /** The name of its type, with the module if it is none of Python's own: `"pandas.core.frame.DataFrame"`. */
  type: Schema.String,
  /** The memory of the object itself; all of it for arrays. */
  bytes: Schema.Finite,
  /** The lengths of an array or a table; one for lists, texts and the like; none otherwise. */
  shape: Schema.Array(Schema.Finite),
  /** The value in short; `"?"` if it raises instead of telling, and `"…"` if that takes too long. */
  repr: Schema.String,
}) {}

/**
 * The kernel runs code and cannot answer meanwhile, because it has no subshells.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const matches = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   return (yield* kernel.complete("pri")).matches
 * }).pipe(Effect.catchTag("KernelBusy", () => Effect.succeed([])))
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class KernelBusy
  extends Schema.TaggedError<KernelBusy>("effect-jupyter/Introspection/KernelBusy")("KernelBusy", {
    kernelId: Schema.String,
  }) {
  override get message(): string {
    return `The kernel "${this.kernelId}" runs code and answers nothing meanwhile; ask again when it is idle, ` +
      `or use a kernel with subshells, as ipykernel 7 has them`
  }
}

/**
 * The kernel gave no answer, or none that could be understood.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const names = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   return (yield* kernel.variables).map(({ name }) => name)
 * }).pipe(Effect.catchTag("IntrospectionFailed", (error) => Effect.as(Effect.logWarning(error.message), [])))
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class IntrospectionFailed
  extends Schema.TaggedError<IntrospectionFailed>("effect-jupyter/Introspection/IntrospectionFailed")(
    "IntrospectionFailed",
    {
      kernelId: Schema.String,
      /** What was asked. */
      request: Schema.String,
      /** What happened instead of an answer. */
      detail: Schema.String,
    },
  ) {
  override get message(): string {
    return `The kernel "${this.kernelId}" did not answer "${this.request}": ${this.detail}`
  }
}
