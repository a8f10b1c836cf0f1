/**
 * What a kernel does with values rather than text.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { InvalidName, ValueFailure } from "./error.ts"
import type { CallOptions, FeedOptions, IterateOptions, SetOptions, ValueOptions } from "./options.ts"

/**
 * Values go in and come out by schemas. All of it takes its turn among the executions of the kernel and ends as
 * these do: by timeouts, interrupts, resets and deaths. It leaves no variables in the kernel, and counts as no cell.
 */
export interface TypedValues {
  /**
   * The value of a Python expression, in which `await` is allowed. With `Schema.Void` nothing is fetched; the
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
   * Sets a variable of the kernel. The value is never part of the code, whatever is in it. It goes in as what
   * it is, or as the option `schema` encodes it, which classes and secrets need.
   *
   * What is set is what the value was when the effect began, however long it waits for its turn. Only bytes
   * and the numbers of typed arrays are not copied: they must not change, nor be transferred, before the
   * effect has ended.
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
   * Calls a function by its name in the kernel or by `"module:name"`, both with attributes if need be; the
   * module is imported. What is awaitable is awaited. Arguments go in as {@link set} has values without a
   * schema: what needs one is encoded first, by `Schema.encodeEffect`.
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
   * The elements of an iterable, a generator or an asynchronous one, or the rows of a DataFrame. Python runs as far
   * as the consumer asks, which is a batch at a time, and other executions may come in between. A batch ends
   * early, with the first element that comes 50 ms or more after it was asked for: an element that is there waits for
   * one other at most. `timeout` is the bound of a batch.
   *
   * With `tables: "arrow"` a DataFrame comes as tables of `batchSize` rows each, a table of pyarrow by its record
   * batches; both with fewer rows where these are large.
   *
   * At the end, and when the consumer ends early, a generator is closed, so that its `finally` blocks run, and so is
   * another iterator with `close` or `aclose` that the expression has made, such as `open("lines.txt")`. One that the
   * expression only names or assigns stays open, to go on with the element after the last batch: `lines`, `job.lines`,
   * `files[0]`, `(lines := open("lines.txt"))`. What a kernel is stuck in is closed when it comes back. What came
   * before a failure is emitted before it.
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
   * Feeds a stream to a function, which is called with a list of elements, batch by batch, as {@link call} does;
   * emits what it returns. The stream is pulled when the function has returned. A batch is bounded by its elements and
   * by their bytes, which must not change before their batch was taken.
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
