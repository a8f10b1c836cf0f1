/**
 * A Python iterable as a Stream, pulled in batches.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as SecureRandom from "effect/crypto/SecureRandom"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Identity from "../kernel/identity.ts"
import type { Session } from "../kernel/session.ts"
import * as Span from "../kernel/span.ts"
import type { ValueFailure } from "./error.ts"
import { decodeForSchema, toEncodedForm } from "./decode_for_schema.ts"
import { GivenValue } from "./given_value.ts"
import { batchBytesOf, batchSizeOf, type IterateOptions } from "./options.ts"
import * as PythonValue from "./python_value.ts"
import * as Exchange from "./exchange.ts"
import type { TypedValues } from "./typed_values.ts"

/** Maximum time of the `finally` blocks of a generator, without the time in the queue. */
const closeTimeout: Duration.Input = "10 seconds"

/** Maximum time that the consumer waits for a generator to be closed, with the time in the queue. */
const closeWait: Duration.Input = "5 seconds"

/** Time between attempts to close a generator in an unresponsive kernel. */
const closeRetryDelay: Duration.Input = "1 second"

/** Makes `iterate`. Generators are closed when the scope closes, at the latest. */
export const make: (
  session: Pick<Session, "id" | "identity">,
  requests: Exchange.Requests,
) => Effect.Effect<TypedValues["iterate"], never, Scope.Scope> = Effect.fnUntraced(
  function* (session, requests) {
    const outer = yield* Effect.scope

    const iterate = <S extends Schema.Constraint>(
      expression: string,
      schema: S,
      { batchBytes, batchSize, ...options }: IterateOptions = {},
    ) =>
      Effect.gen(function* () {
        yield* Identity.requirePython(session.identity, "iterate")
        const key = SecureRandom.uuidV4Unsafe()
        const decode = decoderOf(schema)
        /** The id of the kernel that has the iterator. */
        let current: string | undefined
        let isExhausted = false
        /** The exit of the stream after the elements that were decoded; `undefined` if there are more. */
        let ending: Exit.Exit<never, ValueFailure | Schema.SchemaError> | undefined

        const onKernel = (kernelId: string): void => {
          current ??= kernelId
        }
        const close = Effect.suspend(() =>
          requests.send({ operation: "close", key }, {
            timeout: closeTimeout,
            kernelId: current,
            // Output of its `finally` blocks goes to the consumer as well.
            ...(options.onChunk === undefined ? {} : { onChunk: options.onChunk }),
          })
        ).pipe(Effect.flatMap(({ exit }) => exit))
        const ignored = Effect.catch((error: ValueFailure) =>
          Effect.logDebug(`The iterator of "${expression}" did not close`, error.message)
        )
        const closed = close.pipe(
          // An unresponsive kernel may recover later, for which the consumer does not wait.
          Effect.catchIf(isUnresponsive, () =>
            Effect.delay(close, closeRetryDelay).pipe(
              Effect.retry({ schedule: Schedule.spaced(closeRetryDelay), while: isUnresponsive }),
              ignored,
              Effect.forkIn(outer),
            )),
          ignored,
        )
        yield* Effect.addFinalizer(() =>
          isExhausted || current === undefined ? Effect.void : Effect.flatMap(
            Effect.forkIn(closed, outer),
            (fiber) => Effect.timeoutOption(Fiber.await(fiber), closeWait),
          )
        )

        const pullBatch = Effect.gen(function* () {
          const response = yield* requests.send({
            operation: "pull",
            key,
            size: batchSizeOf(batchSize),
            limit: batchBytesOf(batchBytes),
            ...(current === undefined ? { expression } : {}),
          }, { ...options, kernelId: current, onKernel })
          const { answers, exit } = response
          const partial = Exit.isSuccess(exit) ? exit.value : undefined
          const batches = answers.filter(({ kind }) => kind === "batch")
          isExhausted = batches.some(({ isLast }) => isLast)
          const values = yield* Effect.forEach(batches, (batch) => Exchange.read(response, batch))
          const elements = yield* decode(values.flatMap((value) => PythonValue.toArray(value) ?? []))
          const [error] = answers.flatMap((answer) =>
            Exchange.unsupportedError(response, answer, partial) ?? []
          )
          ending = elements.ending ?? (Exit.isFailure(exit)
            ? Exit.failCause(exit.cause)
            : error !== undefined
            ? Exit.fail(error)
            : batches.length === 0
            ? Exit.fail(Exchange.responseError(response, "The kernel sent no batch"))
            : undefined)
          return elements.decoded
        })

        const pull: Effect.Effect<
          Arr.NonEmptyReadonlyArray<S["Type"]>,
          ValueFailure | Schema.SchemaError | Cause.Done,
          S["DecodingServices"]
        > = Effect.suspend(() => {
          if (ending !== undefined) return ending
          if (isExhausted) return Cause.done()
          return Effect.filterOrElse(pullBatch, Arr.isReadonlyArrayNonEmpty, () => pull)
        })
        return Stream.fromPull(Effect.succeed(pull))
      }).pipe(Stream.unwrap, Span.withStreamSpan("Kernel.iterate", session))
    return iterate
  },
)

function isUnresponsive(error: ValueFailure): boolean {
  return error._tag === "KernelError" && error.reason._tag === "KernelUnresponsive"
}

/** Makes a decoder of elements that stops at the first that the schema refuses. */
function decoderOf<S extends Schema.Constraint>(schema: S) {
  const convert = toEncodedForm(schema)
  const decodeAll = Schema.decodeUnknownEffect(Schema.Array(schema))
  const decodeOne = decodeForSchema(schema)
  const oneByOne = Effect.fnUntraced(function* (elements: ReadonlyArray<unknown>) {
    const decoded: Array<S["Type"]> = []
    for (const element of elements) {
      const result = yield* Effect.result(decodeOne(element))
      if (result._tag === "Failure") return { decoded, ending: Exit.fail(result.failure) }
      decoded.push(result.success)
    }
    return { decoded, ending: undefined }
  })
  return (elements: ReadonlyArray<unknown>) =>
    elements.some((element) => element instanceof GivenValue)
      ? oneByOne(elements)
      : Effect.matchEffect(decodeAll(elements.map(convert)), {
        onSuccess: (decoded: ReadonlyArray<S["Type"]>) => Effect.succeed({ decoded, ending: undefined }),
        onFailure: () => oneByOne(elements),
      })
}
