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
import { ExecutionAborted, KernelError } from "../execution.ts"
import type { Connection } from "../kernel/connection.ts"
import * as Identity from "../kernel/identity.ts"
import type { Session } from "../kernel/session.ts"
import * as Span from "../kernel/span.ts"
import type { ValueFailure } from "./error.ts"
import { adapt } from "./adapt.ts"
import * as Neutral from "./neutral.ts"
import { batchBytesOf, batchSizeOf, type IterateOptions } from "./options.ts"
import * as Request from "./request.ts"
import type { TypedValues } from "./typed_values.ts"

/** Bound of the `finally` blocks of a generator, once they have their turn. */
const closing: Duration.Input = "10 seconds"

/** How long the consumer waits for a generator to be closed, which waits behind other executions. */
const patience: Duration.Input = "5 seconds"

/** How often a kernel that was stuck is asked again. */
const retrying: Duration.Input = "1 second"

/** Makes `iterate`; generators are closed at the latest with the scope. */
export const make: (
  session: Pick<Session, "id" | "identity">,
  requests: Request.Requests,
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
        let home: Connection | undefined
        let isOver = false
        /** What comes after the elements, if not more of them. */
        let ending: Exit.Exit<never, ValueFailure | Schema.SchemaError> | undefined

        /** An iterator lives in one kernel. */
        const atHome = (connection: Connection) =>
          Effect.suspend(() => {
            const isOther = home !== undefined && home !== connection
            home ??= connection
            const detail = "The kernel was reset, and its iterators are gone"
            return isOther
              ? new KernelError({ reason: new ExecutionAborted({ kernelId: session.id(), detail }) })
              : Effect.void
          })

        const close = requests.ask({ operation: "close", key }, {
          timeout: closing,
          kernel: atHome,
          // What its `finally` blocks put out is output, too.
          ...(options.onChunk === undefined ? {} : { onChunk: options.onChunk }),
        }).pipe(Effect.flatMap(({ exit }) => exit))
        const ignored = Effect.catch((error: ValueFailure) =>
          Effect.logDebug(`The iterator of "${expression}" did not close`, error.message)
        )
        const closed = close.pipe(
          // What the kernel is stuck in may end one day, for which the consumer does not wait.
          Effect.catchIf(isStuck, () =>
            Effect.delay(close, retrying).pipe(
              Effect.retry({ schedule: Schedule.spaced(retrying), while: isStuck }),
              ignored,
              Effect.forkIn(outer),
            )),
          ignored,
        )
        yield* Effect.addFinalizer(() =>
          isOver || home === undefined ? Effect.void : Effect.flatMap(
            Effect.forkIn(closed, outer),
            (fiber) => Effect.timeoutOption(Fiber.await(fiber), patience),
          )
        )

        const ask = Effect.gen(function* () {
          const asked = yield* requests.ask({
            operation: "pull",
            key,
            size: batchSizeOf(batchSize),
            limit: batchBytesOf(batchBytes),
            ...(home === undefined ? { expression } : {}),
          }, { ...options, kernel: atHome })
          const { answers, exit } = asked
          const partial = Exit.isSuccess(exit) ? exit.value : undefined
          const batches = answers.filter(({ kind }) => kind === "batch")
          isOver = batches.some(({ isLast }) => isLast)
          const values = yield* Effect.forEach(batches, (batch) => Request.read(asked, batch))
          const elements = yield* decode(values.flatMap((value) => Neutral.toArray(value) ?? []))
          const [complaint] = answers.flatMap((answer) => Request.refusal(asked, answer, partial) ?? [])
          ending = elements.ending ?? (Exit.isFailure(exit)
            ? Exit.failCause(exit.cause)
            : complaint !== undefined
            ? Exit.fail(complaint)
            : batches.length === 0
            ? Exit.fail(Request.failure(asked, "The kernel sent no batch"))
            : undefined)
          return elements.decoded
        })

        const pull: Effect.Effect<
          Arr.NonEmptyReadonlyArray<S["Type"]>,
          ValueFailure | Schema.SchemaError | Cause.Done,
          S["DecodingServices"]
        > = Effect.suspend(() => {
          if (ending !== undefined) return ending
          if (isOver) return Cause.done()
          return Effect.filterOrElse(ask, Arr.isReadonlyArrayNonEmpty, () => pull)
        })
        return Stream.fromPull(Effect.succeed(pull))
      }).pipe(Stream.unwrap, Span.withStreamSpan("Kernel.iterate", session))
    return iterate
  },
)

function isStuck(error: ValueFailure): boolean {
  return error._tag === "KernelError" && error.reason._tag === "KernelUnresponsive"
}

/** Decodes elements up to the first that the schema refuses. */
function decoderOf<S extends Schema.Constraint>(schema: S) {
  const fit = adapt(schema)
  const decodeAll = Schema.decodeUnknownEffect(Schema.Array(schema))
  const decodeOne = Schema.decodeUnknownEffect(schema)
  const oneByOne = Effect.fnUntraced(function* (elements: ReadonlyArray<unknown>) {
    const decoded: Array<S["Type"]> = []
    for (const element of elements) {
      const result = yield* Effect.result(decodeOne(element))
      if (result._tag === "Failure") return { decoded, ending: Exit.fail(result.failure) }
      decoded.push(result.success)
    }
    return { decoded, ending: undefined }
  })
  return (elements: ReadonlyArray<unknown>) => {
    const fitted = elements.map(fit)
    return Effect.matchEffect(decodeAll(fitted), {
      onSuccess: (decoded: ReadonlyArray<S["Type"]>) => Effect.succeed({ decoded, ending: undefined }),
      onFailure: () => oneByOne(fitted),
    })
  }
}
