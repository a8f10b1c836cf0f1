/**
 * How to run one piece of code.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Images } from "../output/images.ts"
import type { InputRequest } from "./input.ts"

/** How to run one piece of code. */
export interface ExecuteOptions {
  /**
   * Bound of the execution, from when its turn comes; none by default. When it passes, the kernel is
   * interrupted and awaited, and the execution fails with `ExecutionTimeout`.
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * Bytes that the result keeps: of text the first and the last half, with a line between that says how many are left
   * out, and as many again of displays, their ids and images, with a line at the end that says how many displays are
   * left out. Chunks of a stream are not cut. 500 MB by default.
   */
  readonly outputLimit?: number | undefined
  /**
   * Answers code that calls `input()` or `getpass()`. Without it such code fails with the reason
   * `InputRequested`.
   */
  readonly onInput?: ((request: InputRequest) => Effect.Effect<string>) | undefined
  /**
   * Whether the code may ask for input; true by default. With `false`, `input()` and `getpass()` raise Jupyter's
   * `StdinNotImplementedError`, which the code can catch, and `onInput` is not asked.
   */
  readonly allowStdin?: boolean | undefined
  /** What becomes of images; what the client's options say by default. */
  readonly images?: Images | undefined
}
