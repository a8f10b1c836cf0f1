/**
 * The results of introspection: completions, documentation, variables and other facts about a kernel and its code.
 *
 * @module
 */
import * as Schema from "effect/Schema"

/**
 * The completions at a position in code.
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
  /** The texts to insert, of which one replaces the text from `start` to `end`. */
  matches: Schema.Array(Schema.String),
  /** The start of the replaced text, as an index of the JavaScript string. */
  start: Schema.Int,
  /** The end of the replaced text. */
  end: Schema.Int,
  /** The kinds of the matches in the same order, as far as they are known, for instance `"function"` or `"module"`. */
  types: Schema.Array(Schema.UndefinedOr(Schema.String)),
}) {}

/**
 * The documentation of a name in code.
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
  /** The documentation by MIME type, without color codes; empty if the name was not found. */
  data: Schema.Record(Schema.String, Schema.Unknown),
}) {}

/**
 * The completeness of code: `"complete"` and `"invalid"` code can be executed, `"incomplete"` code continues on the next
 * line, and of `"unknown"` code the kernel cannot tell.
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
  /** The indentation of the next line of incomplete code. */
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
 * Identifies the kernel, its language and their versions.
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
  /** The optional features of the kernel, for instance `"kernel subshells"`. */
  features: Schema.Array(Schema.String),
}) {}

/**
 * A variable in the namespace of the kernel.
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
  /** The name of its type, with the module unless it is built in, for instance `"pandas.core.frame.DataFrame"`. */
  type: Schema.String,
  /** The bytes of the object without the objects that it refers to; those of arrays with their elements. */
  bytes: Schema.Finite,
  /** The dimensions of an array or a table, the length of another collection or text; empty for other values. */
  shape: Schema.Array(Schema.Finite),
  /** The abbreviated `repr` of the value; `"?"` if `repr` raises, and `"…"` if it takes too long. */
  repr: Schema.String,
}) {}

/**
 * The kernel runs code and cannot answer at the same time, because it has no subshells.
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
    return `The kernel "${this.kernelId}" is running code and cannot answer; ask again when it is idle, ` +
      `or use a kernel with subshells, such as ipykernel 7`
  }
}

/**
 * The kernel did not answer in time, or its answer was not valid.
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
      /** The type of the request, for instance `"complete_request"`. */
      request: Schema.String,
      /** The reason, such as a timeout. */
      detail: Schema.String,
    },
  ) {
  override get message(): string {
    return `The kernel "${this.kernelId}" did not answer "${this.request}": ${this.detail}`
  }
}
