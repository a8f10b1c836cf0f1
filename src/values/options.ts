/**
 * Options of typed values.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { Chunk } from "../execution.ts"
import type { ExecuteOptions } from "../kernel/options.ts"

/**
 * Options of every operation with values.
 *
 * @category options
 * @since 0.1.0
 */
export interface ValueOptions extends ExecuteOptions {
  /**
   * Receives the output of the code as it arrives. Without it output is logged at Info when the code has ended, also
   * if the schema then refuses the value: unlike errors of the code, a `SchemaError` has no `partial`.
   */
  readonly onChunk?: ((chunk: Chunk) => Effect.Effect<void>) | undefined
  /**
   * The encoding of tables: a DataFrame as its rows, or every table as the bytes of an Arrow IPC stream, which
   * requires `pyarrow` in the kernel. `"records"` by default.
   */
  readonly tables?: "records" | "arrow" | undefined
}

/** Returns the number of elements of a batch as an integer of at least one; 1,000 by default. */
export function batchSizeOf(given = 1000): number {
  return Math.max(1, Math.min(Math.trunc(given) || 1, Number.MAX_SAFE_INTEGER))
}

/** Returns the bytes after which a batch is full as an integer of at least one; 4 MiB by default. */
export function batchBytesOf(given = 4 * 1024 * 1024): number {
  return batchSizeOf(given)
}

/**
 * Options of `set`.
 *
 * @category options
 * @since 0.1.0
 */
export interface SetOptions<S extends Schema.Constraint> extends ValueOptions {
  /** Encodes the value, which classes, results and secrets require. */
  readonly schema?: S | undefined
}

/**
 * Options of `call`.
 *
 * @category options
 * @since 0.1.0
 */
export interface CallOptions<S extends Schema.Constraint> extends ValueOptions {
  /** Decodes the returned value. With `Schema.Void` it is not fetched. */
  readonly returns: S
  /** Arguments by name; none by default. */
  readonly kwargs?: { readonly [name: string]: unknown } | undefined
}

/**
 * Options of `iterate`.
 *
 * @category options
 * @since 0.1.0
 */
export interface IterateOptions extends ValueOptions {
  /** Maximum number of elements that Python yields ahead of the consumer; 1,000 by default. */
  readonly batchSize?: number | undefined
  /** Bytes after which a batch is full; 4 MiB by default. */
  readonly batchBytes?: number | undefined
}

/**
 * Options of `feed`.
 *
 * @category options
 * @since 0.1.0
 */
export interface FeedOptions<S extends Schema.Constraint, Element extends Schema.Constraint>
  extends CallOptions<S> {
  /** Encodes an element. */
  readonly schema?: Element | undefined
  /** Maximum number of elements of a batch; 1,000 by default. */
  readonly batchSize?: number | undefined
  /** Bytes after which a batch is full, as estimated before encoding; 4 MiB by default. */
  readonly batchBytes?: number | undefined
}
