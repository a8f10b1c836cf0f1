/**
 * Arrays of numbers of any number of dimensions.
 *
 * @module
 */

/**
 * The typed arrays that hold the numbers of an array.
 *
 * @category models
 * @since 0.1.0
 */
export type NumberArray =
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Float32Array
  | Float64Array

/**
 * An array of numbers of any number of dimensions, in the order of C: the last index runs fastest. It is a NumPy
 * array in the kernel, where NumPy is imported; where it is not, one of several dimensions is an
 * {@link UnsupportedValue}. Without a shape it has one dimension.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { type KernelClient, Values } from "effect-jupyter"
 *
 * export const square = Effect.fn("square")(function*(kernel: KernelClient.Kernel) {
 *   yield* kernel.execute("import numpy as np")
 *   yield* kernel.set("m", new Values.NdArray(Float64Array.of(1, 2, 3, 4), [2, 2]))
 *   return yield* kernel.evaluate("m @ m", Schema.instanceOf(Values.NdArray))
 * })
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class NdArray {
  /** The numbers, the last index fastest. */
  readonly data: NumberArray
  /** The length of each dimension. */
  readonly shape: ReadonlyArray<number>
  /** Makes an array, of one dimension unless a shape is given. */
  constructor(data: NumberArray, shape: ReadonlyArray<number> = [data.length]) {
    this.data = data
    this.shape = shape
  }
}
