/**
 * The interface of typed values.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { InvalidName, ValueFailure } from "./error.ts"
import type { CallOptions, FeedOptions, IterateOptions, SetOptions, ValueOptions } from "./options.ts"

/**
 * Exchanges values with a kernel by schemas. All operations are queued with the executions of the kernel and end as they
 * do: by timeouts, interrupts, resets and the death of the kernel. They leave no variables in the kernel, and are not
 * counted as cells.
 *
 * All of them fail as executions do (`ExecutionFailure`), with `UnsupportedValue` for a value that cannot be exchanged,
 * and with `SchemaError` for one that a schema refuses; what takes a name fails with `InvalidName` for one that Python
 * does not accept.
 */
export interface TypedValues {
  /**
   * Returns the value of a Python expression, in which `await` is allowed. With `Schema.Void` it is not fetched.
   * `examples/README.md` has the table of types.
   *
   * @example
   * ```ts
   * import { Effect, Schema } from "effect"
   * import { KernelClient } from "effect-jupyter"
   *
   * export const program = Effect.gen(function*() {
   *   const kernel = yield* KernelClient.KernelClient
   *   yield* kernel.execute("from datetime import datetime, UTC\nfrom decimal import Decimal")
   *   return yield* kernel.evaluate(
   *     "{'at': datetime.now(UTC), 'price': Decimal('9.90'), 'raw': b'PNG'}",
   *     Schema.Struct({ at: Schema.DateTimeUtc, price: Schema.BigDecimal, raw: Schema.Uint8Array })
   *   )
   * })
   * ```
   */
  evaluate<S extends Schema.Constraint>(
    expression: string,
    schema: S,
    options?: ValueOptions,
  ): Effect.Effect<S["Type"], ValueFailure | Schema.SchemaError, S["DecodingServices"]>
  /**
   * Sets a variable of the kernel. The value is never part of the code. It is encoded by the option `schema`, which
   * classes and secrets require, or by its type.
   *
   * The value is encoded when the effect starts, before it waits in the queue. Only bytes and the numbers of typed
   * arrays are not copied: they must not change, nor be transferred, before the effect has ended.
   *
   * @example
   * ```ts
   * import { Effect, Schema } from "effect"
   * import { KernelClient } from "effect-jupyter"
   *
   * class Order extends Schema.Class<Order>("Order")({ id: Schema.BigInt, tags: Schema.ReadonlySet(Schema.String) }) {}
   *
   * export const program = Effect.gen(function*() {
   *   const kernel = yield* KernelClient.KernelClient
   *   yield* kernel.set("image", new Uint8Array(100_000_000)) // bytes
   *   yield* kernel.set("order", new Order({ id: 1n, tags: new Set(["new"]) }), { schema: Order }) // a dict
   * })
   * ```
   */
  set<S extends Schema.Constraint = Schema.Unknown>(
    name: string,
    value: S["Type"],
    options?: SetOptions<S>,
  ): Effect.Effect<void, ValueFailure | InvalidName | Schema.SchemaError, S["EncodingServices"]>
  /**
   * Calls a function by its name in the kernel or by `"module:name"`, both optionally with attributes; the module is
   * imported. An awaitable result is awaited. Arguments are encoded as by {@link set} without a schema; values that
   * require one are encoded first, by `Schema.encodeEffect`.
   *
   * @example
   * ```ts
   * import { Effect, Schema } from "effect"
   * import { KernelClient } from "effect-jupyter"
   *
   * export const program = Effect.gen(function*() {
   *   const kernel = yield* KernelClient.KernelClient
   *   return yield* kernel.call("statistics:quantiles", [[1, 2, 3, 4, 5]], {
   *     kwargs: { n: 4, method: "inclusive" },
   *     returns: Schema.Array(Schema.Finite)
   *   })
   * })
   * ```
   */
  call<S extends Schema.Constraint>(
    callable: string,
    args: ReadonlyArray<unknown>,
    options: CallOptions<S>,
  ): Effect.Effect<S["Type"], ValueFailure | InvalidName | Schema.SchemaError, S["DecodingServices"]>
  /**
   * Streams the elements of an iterable, a generator or an asynchronous one, or the rows of a DataFrame. Python runs
   * one batch each time the consumer pulls, and other executions may run between batches. A batch ends early, with
   * the first element that is yielded 50 ms or more after the pull: an available element waits for one other at most.
   * `timeout` applies to each batch.
   *
   * With `tables: "arrow"` a DataFrame is streamed as tables of `batchSize` rows each, a table of pyarrow by its record
   * batches; both with fewer rows if these are large.
   *
   * At the end, and when the consumer ends early, a generator is closed, so that its `finally` blocks run, and so is
   * another iterator with `close` or `aclose` that the expression created, such as `open("lines.txt")`. One that the
   * expression only names or assigns stays open, and continues with the element after the last batch: `lines`,
   * `job.lines`, `files[0]`, `(lines := open("lines.txt"))`. In an unresponsive kernel it is closed when the kernel
   * responds again. Elements before a failure are emitted before it.
   *
   * @example
   * ```ts
   * import { Effect, Schema, Stream } from "effect"
   * import { KernelClient } from "effect-jupyter"
   *
   * export const program = Effect.gen(function*() {
   *   const kernel = yield* KernelClient.KernelClient
   *   return yield* kernel.iterate("(n * n for n in range(10**12))", Schema.Int).pipe(
   *     Stream.filter((square) => square % 7 === 1),
   *     Stream.take(10),
   *     Stream.runCollect
   *   )
   * })
   * ```
   */
  iterate<S extends Schema.Constraint>(
    expression: string,
    schema: S,
    options?: IterateOptions,
  ): Stream.Stream<S["Type"], ValueFailure | Schema.SchemaError, S["DecodingServices"]>
  /**
   * Calls a function with each batch of a stream as a list, as {@link call} does, and emits the results. The stream is
   * pulled when the function has returned. A batch has a maximum number of elements and of bytes, which must not
   * change until the function has returned.
   *
   * @example
   * ```ts
   * import { Effect, Schema, Stream } from "effect"
   * import { KernelClient } from "effect-jupyter"
   *
   * export const program = Effect.gen(function*() {
   *   const kernel = yield* KernelClient.KernelClient
   *   yield* kernel.execute("total = 0\ndef add(batch):\n    global total\n    total += sum(batch)\n    return total")
   *   return yield* kernel.feed("add", Stream.range(1, 10_000), { returns: Schema.Int }).pipe(Stream.runLast)
   * })
   * ```
   */
  feed<S extends Schema.Constraint, E, R, Element extends Schema.Constraint = Schema.Unknown>(
    callable: string,
    stream: Stream.Stream<Element["Type"], E, R>,
    options: FeedOptions<S, Element>,
  ): Stream.Stream<
    S["Type"],
    E | ValueFailure | InvalidName | Schema.SchemaError,
    R | S["DecodingServices"] | Element["EncodingServices"]
  >
}
