/**
 * What a kernel for tests is told to do.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import type { Kernel } from "../kernel/kernel.ts"
import type { Chunk, DisplayChunk, KernelErrorReason } from "../execution.ts"

/** What code puts out: a text is written to stdout, an update changes what is displayed under its id. */
export type Output = string | Chunk | { readonly update: DisplayChunk }

/** An exception of Python. */
export interface Raised {
  readonly ename: string
  readonly evalue?: string
  readonly traceback?: ReadonlyArray<string>
}

/** What happens when code is executed; nothing but its end if there is nothing else. */
export interface Script {
  /** The code that it is for: all of it as a text, a part of it as an expression. The first script that matches counts. */
  readonly match: string | RegExp | ((code: string) => boolean)
  /** How many executions it is for; any number by default. */
  readonly times?: number
  /** What is put out, in this order. */
  readonly chunks?: ReadonlyArray<Output>
  /** The value of the last expression: its text, or all of its representations. */
  readonly result?: string | { readonly [mimeType: string]: unknown }
  /**
   * What `evaluate`, `call`, `iterate` and `feed` get for this code, the name or the callable: as the schema decodes it
   * or before; for `iterate` an iterable. A function makes it of the arguments, the last of which are those by name.
   */
  readonly value?: unknown
  /** How the code fails: by what it raises, or by what becomes of the kernel. */
  readonly error?: Raised | KernelErrorReason
  /** How long it takes after the last chunk. */
  readonly delay?: Duration.Input
  /** How long it takes before each chunk. */
  readonly interval?: Duration.Input
}

/** What a kernel can beside executions. */
export type Members = Partial<Omit<Kernel, "id" | "execute" | "stream" | "interrupt" | "reset">>
