/**
 * The spans of the library. They have the type of a failure and not its text, because messages and tracebacks contain
 * lines of the code and values.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"

/** Options of a span: the id of its kernel, read when the span begins. */
export interface SpanOptions {
  readonly id?: () => string
  /** True for a span without a parent; false by default. */
  readonly root?: boolean
}

/** Runs an effect in a span, if a tracer is installed. */
export const withSpan =
  (name: string, options: SpanOptions = {}) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(isTraced, (isTraced): Effect.Effect<A, E, R> =>
      isTraced
        ? Effect.acquireUseRelease(
          begin(name, options),
          (span) => Effect.withParentSpan(effect, span, { captureStackTrace: false }),
          end,
        )
        : effect)

/** Runs a stream in a span, if a tracer is installed. */
export const withStreamSpan =
  (name: string, options: SpanOptions = {}) =>
  <A, E, R>(stream: Stream.Stream<A, E, R>): Stream.Stream<A, E, R> =>
    Stream.unwrap(Effect.flatMap(isTraced, (isTraced) =>
      isTraced
        ? Effect.map(
          Effect.acquireRelease(begin(name, options), end),
          (span): Stream.Stream<A, E, R> => Stream.provideService(stream, Tracer.ParentSpan, span),
        )
        : Effect.succeed(stream)))

/** Tells whether a tracer is installed: the spans of the native one are exported nowhere. */
const isTraced = Effect.map(Effect.tracer, (tracer) => tracer !== Tracer.nativeTracer)

const begin = (name: string, { id, root = false }: SpanOptions): Effect.Effect<Tracer.Span> =>
  Effect.suspend(() =>
    Effect.makeSpan(name, { root, attributes: id === undefined ? {} : { "kernel.id": id() } })
  )

const end = (span: Tracer.Span, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeNanos, (now) => span.end(now, withoutText(span, exit)))

/** Returns the exit with the type of its failure only. */
function withoutText(span: Tracer.Span, exit: Exit.Exit<unknown, unknown>): Exit.Exit<void> {
  if (Exit.isSuccess(exit)) return Exit.void
  if (Cause.hasInterruptsOnly(exit.cause)) return Exit.failCause(Cause.interrupt())
  const type = errorType(Cause.squash(exit.cause))
  span.attribute("error.type", type)
  // A stack would be that of this function.
  return Exit.die(Object.assign(new Error(type), { name: type, stack: type }))
}

/** Returns the name of an exception, of a reason, or of an error. */
function errorType(error: unknown): string {
  const name = Predicate.hasProperty(error, "ename")
    ? error.ename
    : Predicate.hasProperty(error, "reason") && Predicate.hasProperty(error.reason, "_tag")
    ? error.reason._tag
    : Predicate.hasProperty(error, "_tag")
    ? error._tag
    : error instanceof Error
    ? error.name
    : typeof error
  // The code chooses the names of its exceptions, which may be any text.
  return typeof name === "string" && /^[\w.$]{1,100}$/u.test(name) ? name : "Error"
}
