/**
 * The typed values of a kernel for tests: what the scripts give, decoded by the schemas that are asked for.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import {
  type Chunk,
  ExecutionAborted,
  ExecutionError,
  type ExecutionFailure,
  ExecutionResult,
  KernelError,
} from "../execution.ts"
import { plain } from "../jupyter/control_codes.ts"
import { UnsupportedValue } from "../values/error.ts"
import { batched } from "../values/batches.ts"
import * as Encode from "../values/encode.ts"
import { encodeBySchema } from "../values/encode_by_schema.ts"
import * as Names from "../values/names.ts"
import {
  batchSizeOf,
  type CallOptions,
  type FeedOptions,
  type IterateOptions,
  type SetOptions,
  type ValueOptions,
} from "../values/options.ts"
import type { TypedValues } from "../values/typed_values.ts"
import type { Script } from "./script.ts"

/** What the values come from. */
export interface Source {
  /** Executes code by a script, and tells which. */
  readonly execute: (
    code: string,
    options: ValueOptions & { readonly onScript: (script: Script) => void },
  ) => Stream.Stream<Chunk | ExecutionResult, ExecutionFailure>
  /** The id of the current kernel. */
  readonly id: () => string
  /** Fails if the kernel can do nothing any more. */
  readonly alive: Effect.Effect<void, KernelError>
}

/** What the arguments of a request are. */
interface Arguments {
  readonly args: ReadonlyArray<unknown>
  readonly kwargs?: { readonly [name: string]: unknown } | undefined
}

/** Makes the members that exchange values: scripts match the expression, the name or the callable. */
export function make(source: Source): TypedValues {
  /** How the code ended, and the script for it. */
  const ask = Effect.fnUntraced(function* (code: string, options: ValueOptions) {
    const { onChunk, ...rest } = options
    let script: Script | undefined
    let result: ExecutionResult | undefined
    const onScript = (found: Script) => {
      script = found
    }
    const exit = yield* source.execute(code, { ...rest, onScript }).pipe(
      Stream.runForEach((element) => {
        if (element._tag !== "ExecutionResult") return onChunk?.(element) ?? Effect.void
        result = element
        return Effect.void
      }),
      Effect.exit,
    )
    if (onChunk === undefined && result !== undefined) yield* tell(result, source.id())
    return { failure: Exit.isFailure(exit) ? Exit.failCause(exit.cause) : undefined, result, script }
  })

  /** The value of the script for the code; a function makes it of the arguments. */
  const valueOf = (code: string, options: ValueOptions, given: Arguments = { args: [] }) =>
    Effect.flatMap(
      ask(code, options),
      ({ failure, script }) => failure ?? Effect.sync(() => made(script, given)),
    )

  const evaluate = Effect.fn("Kernel.evaluate")(
    function* <S extends Schema.Constraint>(expression: string, schema: S, options: ValueOptions = {}) {
      return yield* decode(schema, yield* valueOf(expression, options))
    },
  )
  const set = Effect.fn("Kernel.set")(
    function* <S extends Schema.Constraint = Schema.Unknown>(
      given: string,
      value: S["Type"],
      { schema, ...options }: SetOptions<S> = {},
    ) {
      const name = yield* Names.variable(given)
      const encoded = schema === undefined ? value : yield* encodeBySchema(schema)(value)
      yield* supported({ value: encoded })
      yield* valueOf(name, options, { args: [encoded] })
    },
  )
  const call = Effect.fn("Kernel.call")(
    function* <S extends Schema.Constraint>(
      given: string,
      args: ReadonlyArray<unknown>,
      { kwargs, returns, ...options }: CallOptions<S>,
    ) {
      const callable = yield* Names.callable(given)
      yield* supported({ args, kwargs: kwargs ?? {} })
      return yield* decode(returns, yield* valueOf(callable, options, { args, kwargs }))
    },
  )
  const feed = <S extends Schema.Constraint, E, R, Element extends Schema.Constraint = Schema.Unknown>(
    callable: string,
    stream: Stream.Stream<Element["Type"], E, R>,
    { batchBytes, batchSize, schema, ...options }: FeedOptions<S, Element>,
  ) =>
    batched(stream, { batchBytes, batchSize }).pipe(
      Stream.mapEffect((batch) =>
        schema === undefined ? call(callable, [batch], options) : Effect.flatMap(
          encodeBySchema(Schema.Array(schema))(batch),
          (encoded) => call(callable, [encoded], options),
        )
      ),
      Stream.withSpan("Kernel.feed"),
    )

  /** Elements batch by batch, of one kernel. */
  const iterate = <S extends Schema.Constraint>(
    expression: string,
    schema: S,
    { batchBytes: _, batchSize, ...options }: IterateOptions = {},
  ) =>
    Effect.gen(function* () {
      const { failure, result, script } = yield* ask(expression, options)
      // What came before a failure is emitted before it.
      if (failure !== undefined && script?.value === undefined) return yield* failure
      const home = source.id()
      const atHome = Effect.suspend(() =>
        source.id() === home ? source.alive : new KernelError({
          reason: new ExecutionAborted({
            kernelId: source.id(),
            detail: "The kernel was reset, and its iterators are gone",
          }),
        })
      )
      const iterator = yield* Effect.acquireRelease(
        iteratorOf(made(script, { args: [] }), result),
        // As a generator of Python is closed when its consumer ends.
        (iterator) => Effect.promise(() => Promise.resolve(iterator.return?.())),
      )
      const size = batchSizeOf(batchSize)
      let isFirst = true
      let isOver = false
      const pull = Effect.gen(function* () {
        if (isOver) return yield* failure ?? Cause.done()
        if (!isFirst) yield* atHome
        isFirst = false
        const batch: Array<unknown> = []
        while (batch.length < size && !isOver) {
          const step = iterator.next()
          const next = Predicate.isPromiseLike(step) ? yield* Effect.promise(() => step) : step
          if (next.done === true) isOver = true
          else batch.push(next.value)
        }
        return Arr.of(batch)
      })
      return Stream.fromPull(Effect.succeed(pull)).pipe(
        Stream.flatMap(Stream.fromIterable),
        Stream.mapEffect((element) => decode(schema, element)),
      )
    }).pipe(Stream.unwrap, Stream.withSpan("Kernel.iterate"))

  return { evaluate, set, call, iterate, feed }
}

/** The value of a script. */
function made(script: Script | undefined, { args, kwargs }: Arguments): unknown {
  const value = script?.value
  return typeof value === "function" ? value(...args, ...(kwargs === undefined ? [] : [kwargs])) : value
}

/** Values that other kernels refuse are refused. */
const supported = (request: { readonly [name: string]: unknown }): Effect.Effect<void, UnsupportedValue> =>
  Effect.suspend(() => {
    const encoded = Encode.encode(request)
    if (Result.isSuccess(encoded)) return Effect.void
    const { detail, path, valueType } = encoded.failure
    return new UnsupportedValue({ detail, path: path.replace(/^\$\.value/, "$"), valueType })
  })

/** Output that nobody asked for is logged, as by other kernels. */
const tell = ({ displays, images, text }: ExecutionResult, kernel: string): Effect.Effect<void> =>
  text === undefined && images.length === 0 && displays.length === 0 ? Effect.void : Effect.annotateLogs(
    Effect.logInfo(plain(text ?? ""), ...images.map(({ path }) => path), ...displays.map(({ data }) => data)),
    { kernel },
  )

/** Scripts may give a value as the program gets it, or as it is encoded; without a value it is `None`. */
const decode = <S extends Schema.Constraint>(
  schema: S,
  value: unknown,
): Effect.Effect<S["Type"], Schema.SchemaError, S["DecodingServices"]> => {
  const decoded = Effect.catch(
    Schema.decodeUnknownEffect(Schema.toType(schema))(value),
    () => Schema.decodeUnknownEffect(schema)(value),
  )
  return value === undefined ? Effect.catch(decoded, () => decode(schema, null)) : decoded
}

/** What gives the elements of a value. */
const iteratorOf = (
  value: unknown,
  partial: ExecutionResult | undefined,
): Effect.Effect<Iterator<unknown> | AsyncIterator<unknown>, ExecutionError> =>
  Effect.suspend((): Effect.Effect<Iterator<unknown> | AsyncIterator<unknown>, ExecutionError> => {
    if (typeof value === "string" || Predicate.isIterable(value)) {
      return Effect.succeed(value[Symbol.iterator]())
    }
    if (isAsyncIterable(value)) return Effect.succeed(value[Symbol.asyncIterator]())
    const type = value === undefined || value === null ? "NoneType" : typeof value
    return new ExecutionError({
      ename: "TypeError",
      evalue: `'${type}' object is not iterable`,
      traceback: [],
      partial: partial ??
        new ExecutionResult({ text: undefined, images: [], displays: [], executionCount: undefined }),
    })
  })

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return Predicate.hasProperty(value, Symbol.asyncIterator)
}
