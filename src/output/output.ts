/**
 * The output of a message of the kernel, before it becomes a chunk.
 *
 * @module
 */
import type { JsonObject } from "../jupyter/message.ts"

/** An output of the kernel. */
export type Output =
  & {
    /** The id of the widget that shows it. */
    readonly outputWidget?: string | undefined
    /** Set if outputs before this one may be lost. */
    readonly afterGap?: true | undefined
    /** The number of its message, for an execution that is resumed. */
    readonly position?: number | undefined
  }
  & (
    | { readonly _tag: "Text"; readonly name: "stdout" | "stderr"; readonly text: string }
    | {
      readonly _tag: "Display"
      /** True if it updates earlier displays. */
      readonly update: boolean
      readonly data: JsonObject
      readonly metadata: JsonObject
      readonly displayId: string | undefined
      readonly executionCount: number | undefined
    }
    | { readonly _tag: "Clear"; readonly wait: boolean }
  )
