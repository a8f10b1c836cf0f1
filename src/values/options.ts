/**
 * How to exchange values.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { Chunk } from "../execution.ts"
import type { ExecuteOptions } from "../kernel/options.ts"

/** How to exchange a value. */
export interface ValueOptions extends ExecuteOptions {
  /**
   * Takes what the code puts out, as it arrives. Without it output is logged at Info when the code has ended, also
   * if the schema then refuses the value: a `SchemaError` has no `partial`, as the errors of code that fails have.
   */
  readonly onChunk?: ((chunk: Chunk) => Effect.Effect<void>) | undefined
  /**
   * How tables travel: a DataFrame by its rows, or every table as the bytes of an Arrow IPC stream, for which the
   * kernel has to have `pyarrow`. `"records"` by default.
   */
  readonly tables?: "records" | "arrow" | undefined
}

/** Elements of a batch: a whole number, at least one, and 1,000 unless the options say otherwise. */
export function batchSizeOf(given = 1000): number {
  return Math.max(1, Math.min(Math.trunc(given) || 1, Number.MAX_SAFE_INTEGER))
}

/** Bytes after which a batch is full: a whole number, at least one, and 4 MiB unless the options say otherwise. */
export function batchBytesOf(given = 4 * 1024 * 1024): number {
  return batchSizeOf(given)
}

/** How to set a variable. */
export interface SetOptions<S extends Schema.Constraint> extends ValueOptions {
  /** Encodes the value; without it the value is taken as it is. Classes, results and secrets need one. */
  readonly schema?: S | undefined
}

/** How to call something. */
export interface CallOptions<S extends Schema.Constraint> extends ValueOptions {
  /** Decodes what is returned. With `Schema.Void` nothing is fetched. */
  readonly returns: S
  /** Arguments by name; none by default. */
  readonly kwargs?: { readonly [name: string]: unknown } | undefined
}

/** How to iterate. */
export interface IterateOptions extends ValueOptions {
  /** Elements that Python yields ahead of the consumer at most; 1,000 by default. */
  readonly batchSize?: number | undefined
  /** Bytes after which a batch is full; 4 MiB by default. */
  readonly batchBytes?: number | undefined
}

/** How to feed a stream. */
export interface FeedOptions<S extends Schema.Constraint, Element extends Schema.Constraint>
  extends CallOptions<S> {
  /** Encodes an element; without it elements are taken as they are. */
  readonly schema?: Element | undefined
  /** Elements of a batch, at most; 1,000 by default. */
  readonly batchSize?: number | undefined
  /** Bytes after which a batch is full, as far as its values show before they are encoded; 4 MiB by default. */
  readonly batchBytes?: number | undefined
}
