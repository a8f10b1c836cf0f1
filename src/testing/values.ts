/**
 * The typed values of a kernel for tests: what the scripts give, decoded by the schemas that are asked for.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Chunk, ExecutionFailure, ExecutionResult } from "../execution.ts"
import { batched } from "../values/batches.ts"
import type { CallOptions, FeedOptions, IterateOptions, SetOptions, ValueOptions } from "../values/options.ts"
import type { TypedValues } from "../values/typed_values.ts"
import type { Script } from "./script.ts"

/** What executes code by a script, and tells which. */
export type Execute = (
  code: string,
  options: ValueOptions & { readonly onScript: (script: Script) => void },
) => Stream.Stream<Chunk | ExecutionResult, ExecutionFailure>

/** Makes the members that exchange values: scripts match the expression, the name or the callable. */
export function make(execute: Execute): TypedValues {
  /** The value of the script for the code; a function makes it of the arguments. */
  const ask = (code: string, options: ValueOptions, args: ReadonlyArray<unknown> = []) =>
    Effect.suspend(() => {
      let script: Script | undefined
      const { onChunk = () => Effect.void, ...rest } = options
      return execute(code, {
        ...rest,
        onScript: (found) => {
          script = found
        },
      }).pipe(
        Stream.runForEach((element) => element._tag === "ExecutionResult" ? Effect.void : onChunk(element)),
        Effect.map((): unknown =>
          typeof script?.value === "function" ? script.value(...args) : script?.value
        ),
      )
    })

  const call = <S extends Schema.Constraint>(
    callable: string,
    args: ReadonlyArray<unknown>,
    { kwargs, returns, ...options }: CallOptions<S>,
  ) =>
    Effect.flatMap(
      ask(callable, options, kwargs === undefined ? args : [...args, kwargs]),
      (value) => decode(returns, value),
    )

  return {
    evaluate: <S extends Schema.Constraint>(expression: string, schema: S, options: ValueOptions = {}) =>
      Effect.flatMap(ask(expression, options), (value) => decode(schema, value)),
    set: <S extends Schema.Constraint = Schema.Unknown>(
      name: string,
      value: S["Type"],
      { schema, ...options }: SetOptions<S> = {},
    ) =>
      Effect.gen(function* () {
        const encoded = schema === undefined ? value : yield* Schema.encodeUnknownEffect(schema)(value)
        yield* ask(name, options, [encoded])
      }),
    call,
    iterate: <S extends Schema.Constraint>(
      expression: string,
      schema: S,
      { batchBytes: _, batchSize: __, ...options }: IterateOptions = {},
    ) =>
      Stream.fromEffect(ask(expression, options)).pipe(
        Stream.flatMap((value) => Stream.fromIterable(isIterable(value) ? value : [value])),
        Stream.mapEffect((element) => decode(schema, element)),
      ),
    feed: <S extends Schema.Constraint, E, R, Element extends Schema.Constraint = Schema.Unknown>(
      callable: string,
      stream: Stream.Stream<Element["Type"], E, R>,
      { batchBytes, batchSize, schema, ...options }: FeedOptions<S, Element>,
    ) =>
      batched(stream, { batchBytes, batchSize }).pipe(
        Stream.mapEffect((batch) =>
          schema === undefined ? call(callable, [batch], options) : Effect.flatMap(
            Schema.encodeUnknownEffect(Schema.Array(schema))(batch),
            (encoded) => call(callable, [Arr.fromIterable(encoded)], options),
          )
        ),
      ),
  }
}

/** Scripts may give a value as the program gets it, or as it is encoded. */
const decode = <S extends Schema.Constraint>(
  schema: S,
  value: unknown,
): Effect.Effect<S["Type"], Schema.SchemaError, S["DecodingServices"]> =>
  Effect.catch(
    Schema.decodeUnknownEffect(Schema.toType(schema))(value),
    () => Schema.decodeUnknownEffect(schema)(value),
  )

function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.iterator in value
}
