/**
 * The scripts of a kernel for tests.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import type { Kernel } from "../client/kernel.ts"
import type { Chunk, DisplayChunk, KernelErrorReason } from "../execution.ts"
import type { JsonObject } from "../jupyter/message.ts"

/**
 * An output of code: a text is written to stdout, an update changes what is displayed under its id, a prompt asks
 * `onInput` and waits for the answer.
 *
 * @category models
 * @since 0.1.0
 */
export type Output =
  | string
  | Chunk
  | { readonly update: DisplayChunk }
  | { readonly prompt: string; readonly password?: boolean | undefined }

/**
 * An exception of Python.
 *
 * @category models
 * @since 0.1.0
 */
export interface Raised {
  readonly ename: string
  readonly evalue?: string | undefined
  readonly traceback?: ReadonlyArray<string> | undefined
}

/**
 * The behavior of code; without other members it just ends.
 *
 * @category models
 * @since 0.1.0
 */
export interface Script {
  /** The code that it is for: all of it as a text, a part of it as an expression. The first script that matches counts. */
  readonly match: string | RegExp | ((code: string) => boolean)
  /** The number of executions that it applies to; any by default. */
  readonly times?: number | undefined
  /** The outputs in their order. */
  readonly chunks?: ReadonlyArray<Output> | undefined
  /** The value of the last expression: its text, or all of its representations. */
  readonly result?: string | { readonly [mimeType: string]: unknown } | undefined
  /**
   * The value of `evaluate`, `call`, `iterate` and `feed` for this code, the name or the callable: as the schema decodes it
   * or before, `None` by default; for `iterate` an iterable, which may be asynchronous. A function makes it of the
   * arguments, the last of which are those by name; it may be a generator. What it throws is an exception of the code.
   */
  readonly value?: unknown
  /**
   * The failure of the code: an exception, or the reason of a `KernelError`. A reason that ends the kernel, such as
   * `KernelDied`, is that of all executions until `reset`.
   */
  readonly error?: Raised | KernelErrorReason | undefined
  /** Time between the last chunk and the end. */
  readonly delay?: Duration.Input | undefined
  /** Time before each chunk. */
  readonly interval?: Duration.Input | undefined
}

/**
 * Members of a kernel besides executions.
 *
 * @category models
 * @since 0.1.0
 */
export type Members = Partial<Omit<Kernel, "id" | "execute" | "stream" | "interrupt" | "reset">>

/** The script for code, or the reason for which there is none. */
type Found =
  | { readonly _tag: "Script"; readonly script: Script }
  | { readonly _tag: "None"; readonly detail: string }

/** Gives what finds the scripts for code, one after the other, and counts how often each was used. */
export function taker(scripts: ReadonlyArray<Script>): (code: string) => Found {
  const uses = new Map<Script, number>()
  const isUsedUp = (script: Script) => (uses.get(script) ?? 0) >= (script.times ?? Infinity)
  return (code) => {
    const script = scripts.find((script) => !isUsedUp(script) && matches(script, code))
    if (script !== undefined) {
      uses.set(script, (uses.get(script) ?? 0) + 1)
      return { _tag: "Script", script }
    }
    const patterns = scripts.map((script) => isUsedUp(script) ? `${show(script)} (used up)` : show(script))
    const detail = `No script of the test matches the code "${code}"; there is ${
      patterns.join(", ") || "none"
    }`
    return { _tag: "None", detail }
  }
}

function show({ match }: Script): string {
  return typeof match === "string" ? `"${match}"` : typeof match === "function" ? "a function" : String(match)
}

function matches({ match }: Script, code: string): boolean {
  if (typeof match === "string") return match.trim() === code.trim()
  // An expression with the flag "g" would remember where it was.
  return typeof match === "function"
    ? match(code)
    : new RegExp(match, match.flags.replace(/[gy]/g, "")).test(code)
}

/** A message of a kernel. */
interface ScriptedMessage {
  readonly type: string
  readonly content: JsonObject
}

/** Returns the message with which a kernel sends an output. */
export function toMessage(output: Output): ScriptedMessage {
  if (typeof output === "string") return { type: "stream", content: { name: "stdout", text: output } }
  if ("prompt" in output) {
    return { type: "input_request", content: { prompt: output.prompt, password: output.password ?? false } }
  }
  if (!("_tag" in output)) return { type: "update_display_data", content: displayOf(output.update) }
  switch (output._tag) {
    case "TextChunk":
      return { type: "stream", content: { name: output.name, text: output.text } }
    case "ClearOutput":
      return { type: "clear_output", content: { wait: output.wait } }
    case "DisplayChunk":
      return { type: output.update ? "update_display_data" : "display_data", content: displayOf(output) }
  }
}

function displayOf({ data, displayId, executionCount, metadata }: DisplayChunk): JsonObject {
  return {
    data,
    metadata,
    transient: displayId === undefined ? {} : { display_id: displayId },
    ...(executionCount === undefined ? {} : { execution_count: executionCount }),
  }
}

/** Returns the content of the message with which a kernel sends the value of the last expression. */
export function resultOf(
  value: string | { readonly [mimeType: string]: unknown },
  executionCount: number,
): JsonObject {
  return {
    data: typeof value === "string" ? { "text/plain": value } : value,
    metadata: {},
    execution_count: executionCount,
  }
}
