/**
 * Options of an execution.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Chunk, ExecutionRef } from "../execution.ts"
import type { Images } from "../output/images.ts"
import type { InputRequest } from "./input.ts"

/** Options of an execution. */
export interface ExecuteOptions {
  /**
   * Maximum time of the execution, without the time in the queue; none by default. After it the kernel is interrupted,
   * and the execution fails with `ExecutionTimeout` when the kernel is idle.
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * Maximum bytes of the text of the result, and again of its displays and images; 500 MB each by default. Of longer
   * text the beginning and the end are kept, with a note of the number of bytes between. Further displays are left out,
   * with a note of their number at the end. The chunks of a stream are complete.
   */
  readonly outputLimit?: number | undefined
  /**
   * Answers `input()` and `getpass()` of the code. Without it an execution that calls them fails with the reason
   * `InputRequested`.
   */
  readonly onInput?: ((request: InputRequest) => Effect.Effect<string>) | undefined
  /**
   * Allows the code to ask for input; true by default. If it is false, `input()` and `getpass()` raise Jupyter's
   * `StdinNotImplementedError`, which the code can catch, and `onInput` is not called.
   */
  readonly allowStdin?: boolean | undefined
  /** The destination of images; that of the client's options by default. */
  readonly images?: Images | undefined
}

/** Options of code that is started. */
export interface StartCodeOptions extends Pick<ExecuteOptions, "allowStdin"> {}

/** Options of the outputs of code that was started. */
export interface ResumeOptions extends Omit<ExecuteOptions, "allowStdin"> {
  /**
   * Takes each chunk before the stream emits it, and a reference from which the outputs after the chunk are resumed. A
   * program that stores both together takes every chunk once, even if it is killed in between.
   */
  readonly onChunk?: ((chunk: Chunk, ref: ExecutionRef) => Effect.Effect<void>) | undefined
  /**
   * Interrupts the code if the consumer of the stream ends early, or has no answer to `input()`, as `stream` does; false
   * by default: the code goes on, and can be resumed again.
   */
  readonly interrupts?: boolean | undefined
}
