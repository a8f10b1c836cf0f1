/**
 * Typed values of a kernel, over what exchanges its requests.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Identity from "../kernel/identity.ts"
import type { Session } from "../kernel/session.ts"
import * as Span from "../kernel/span.ts"
import { batched } from "./batches.ts"
import { decodeForSchema } from "./decode_for_schema.ts"
import { encodeBySchema } from "./encode_by_schema.ts"
import * as Exchange from "./exchange.ts"
import * as Iterate from "./iterate.ts"
import * as Names from "./names.ts"
import type { CallOptions, FeedOptions, SetOptions, ValueOptions } from "./options.ts"
import type { TypedValues } from "./typed_values.ts"

/** Makes the typed values of a kernel. */
export const make: (
  session: Pick<Session, "id" | "identity">,
  exchange: Exchange.Exchange,
) => Effect.Effect<TypedValues, never, Scope.Scope> = Effect.fnUntraced(
  function* (session, exchange) {
    const requests = Exchange.requests(exchange)

    const evaluate = Effect.fnUntraced(
      function* <S extends Schema.Constraint>(expression: string, schema: S, options: ValueOptions = {}) {
        yield* Identity.requirePython(session.identity, "evaluate")
        const response = yield* requests.send(
          { operation: "evaluate", expression, discard: isVoid(schema) },
          options,
        )
        const value = yield* Exchange.valueOf(response)
        return yield* decodeForSchema(schema)(value)
      },
      Span.withSpan("Kernel.evaluate", session),
    )

    const set = Effect.fnUntraced(
      function* <S extends Schema.Constraint = Schema.Unknown>(
        given: string,
        value: S["Type"],
        { schema, ...options }: SetOptions<S> = {},
      ) {
        yield* Identity.requirePython(session.identity, "set")
        const name = yield* Names.variable(given)
        const encoded = schema === undefined ? value : yield* encodeBySchema(schema)(value)
        const response = yield* requests.send({ operation: "set", name, value: encoded }, options)
        yield* Exchange.valueOf(response)
      },
      Span.withSpan("Kernel.set", session),
    )

    const call = Effect.fnUntraced(
      function* <S extends Schema.Constraint>(
        given: string,
        args: ReadonlyArray<unknown>,
        { kwargs = {}, returns, ...options }: CallOptions<S>,
      ) {
        yield* Identity.requirePython(session.identity, "call")
        const callable = yield* Names.callable(given)
        const request = { operation: "call", callable, args, kwargs, discard: isVoid(returns) }
        const response = yield* requests.send(request, options)
        const value = yield* Exchange.valueOf(response)
        return yield* decodeForSchema(returns)(value)
      },
      Span.withSpan("Kernel.call", session),
    )

    const feed = <S extends Schema.Constraint, E, R, Element extends Schema.Constraint = Schema.Unknown>(
      callable: string,
      stream: Stream.Stream<Element["Type"], E, R>,
      { batchBytes, batchSize, schema, ...options }: FeedOptions<S, Element>,
    ) => {
      const encode = schema === undefined ? undefined : encodeBySchema(Schema.Array(schema))
      return Stream.unwrap(
        Effect.as(
          Identity.requirePython(session.identity, "feed"),
          batched(stream, { batchBytes, batchSize }),
        ),
      ).pipe(
        Stream.mapEffect((batch) =>
          encode === undefined
            ? call(callable, [batch], options)
            : Effect.flatMap(encode(batch), (encoded) => call(callable, [encoded], options))
        ),
        Span.withStreamSpan("Kernel.feed", session),
      )
    }

    return { evaluate, set, call, iterate: yield* Iterate.make(session, requests), feed }
  },
)

/** Tells whether the value is not fetched. */
function isVoid({ ast }: Schema.Constraint): boolean {
  return ast._tag === "Void" && ast.encoding === undefined
}
