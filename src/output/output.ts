/**
 * What a message of the kernel puts out, before it becomes a chunk.
 *
 * @module
 */
import type { JsonObject } from "../jupyter/message.ts"

/** An output of the kernel; `outputWidget` is the id of the widget that shows it. */
export type Output =
  | {
    readonly _tag: "Text"
    readonly name: "stdout" | "stderr"
    readonly text: string
    readonly outputWidget?: string | undefined
  }
  | {
    readonly _tag: "Display"
    /** Whether it updates an earlier display. */
    readonly update: boolean
    readonly data: JsonObject
    readonly metadata: JsonObject
    readonly displayId: string | undefined
    readonly executionCount: number | undefined
    readonly outputWidget?: string | undefined
  }
  | { readonly _tag: "Clear"; readonly wait: boolean; readonly outputWidget?: string | undefined }
