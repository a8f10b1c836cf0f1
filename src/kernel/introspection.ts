/**
 * Questions to a kernel beside its executions. While code runs, they go to a subshell of the kernel.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import * as Assets from "../assets.ts"
import type { KernelError } from "../execution.ts"
import {
  Completeness,
  Completion,
  HistoryEntry,
  Inspection,
  IntrospectionFailed,
  type KernelBusy,
  KernelInfo,
  Variable,
} from "../introspection.ts"
import { excerpt } from "../jupyter/control_codes.ts"
import * as Json from "../jupyter/json.ts"
import { isJsonObject } from "../jupyter/message.ts"
import * as Subshell from "./subshell.ts"
import * as Identity from "./identity.ts"
import type { Session } from "./session.ts"
import * as Span from "./span.ts"

/**
 * All the ways in which a question can fail.
 *
 * @category models
 * @since 0.1.0
 */
export type IntrospectionFailure = KernelBusy | IntrospectionFailed | KernelError

/**
 * How to ask.
 *
 * @category options
 * @since 0.1.0
 */
export interface AskOptions {
  /**
   * Bound of the answer, once the questions before this one are answered; 5 seconds by default, 30 for `complete`,
   * which loads the completer and reads the sources of libraries first, and for `info`.
   */
  readonly timeout?: Duration.Input | undefined
}

/**
 * What can be asked of a kernel at any time, also while it runs code if it has subshells, as ipykernel 7 has; others
 * answer when they are idle and fail with `KernelBusy` otherwise. Cursors are indices of the JavaScript string. A reset
 * and the end of the kernel end what is asked.
 *
 * Every member fails with `KernelBusy` as said, with `IntrospectionFailed` if no answer comes in time or the answer
 * cannot be understood, and with `KernelError` if the kernel ended or the connection to it is lost.
 *
 * @category models
 * @since 0.1.0
 */
export interface Introspection {
  /** What could stand at the cursor, which is at the end of the code by default. */
  complete(
    code: string,
    cursor?: number,
    options?: AskOptions,
  ): Effect.Effect<Completion, IntrospectionFailure>
  /** What the kernel knows of the name at the cursor; with `detail: 1` its source too. */
  inspect(
    code: string,
    cursor?: number,
    options?: AskOptions & { readonly detail?: 0 | 1 | undefined },
  ): Effect.Effect<Inspection, IntrospectionFailure>
  /** Whether the code could be executed as it is, or goes on. */
  isComplete(code: string, options?: AskOptions): Effect.Effect<Completeness, IntrospectionFailure>
  /** The code that this kernel has executed, oldest first; the `last` so many entries if given. */
  history(
    options?: AskOptions & { readonly last?: number | undefined },
  ): Effect.Effect<ReadonlyArray<HistoryEntry>, IntrospectionFailure>
  /** Who the kernel is. */
  readonly info: Effect.Effect<KernelInfo, IntrospectionFailure>
  /**
   * The variables of the code, in the order in which they were made, and those made last if there are more than
   * 10,000. Modules, what IPython puts there and names that begin with `_` are left out. Methods of the user's own
   * classes, as `__repr__`, run in a thread beside, and what they print is nobody's output.
   */
  readonly variables: Effect.Effect<ReadonlyArray<Variable>, IntrospectionFailure>
}

const Text = Schema.String.pipe(Schema.withDecodingDefaultKey(Effect.succeed("")))
const ExperimentalTypes = Schema.Array(
  Schema.Struct({ text: Schema.String, type: Schema.optionalKey(Schema.String) }),
)
const Reply = {
  complete: Schema.Struct({
    matches: Schema.Array(Schema.String),
    cursor_start: Schema.Int,
    cursor_end: Schema.Int,
    metadata: Schema.optionalKey(
      Schema.Struct({ _jupyter_types_experimental: Schema.optionalKey(ExperimentalTypes) }),
    ),
  }),
  inspect: Schema.Struct({
    found: Schema.Boolean,
    // Some kernels say nothing of what they did not find.
    data: Schema.NullishOr(Schema.Record(Schema.String, Schema.Unknown)).pipe(
      Schema.withDecodingDefaultKey(Effect.succeed(null)),
    ),
  }),
  isComplete: Schema.Struct({ status: Completeness.fields.status, indent: Text }),
  history: Schema.Struct({
    history: Schema.Array(Schema.Tuple([Schema.Int, Schema.Int, Schema.String])),
  }),
  info: Schema.Struct({
    implementation: Text,
    implementation_version: Text,
    protocol_version: Text,
    language_info: Schema.Struct({ name: Text, version: Text }),
    banner: Text,
    supported_features: Schema.Array(Schema.String).pipe(Schema.withDecodingDefaultKey(Effect.succeed([]))),
  }),
  variables: Schema.Struct({ variables: Schema.Array(Variable) }),
} as const

/** How many values an answer may be made of: all of them are decoded at once. */
const maxValues = 1_000_000

/** Bound of answers for which a kernel has to load or read much, or which come while it starts. */
const patient = { timeout: "30 seconds" } as const

/** Makes the part of a kernel that answers questions. */
export const make: (session: Session) => Effect.Effect<Introspection, never, FileSystem.FileSystem> = Effect
  .fnUntraced(function* (session) {
    const fs = yield* FileSystem.FileSystem
    const source = Effect.provideService(
      Assets.read("python/effect_jupyter/kernel/variables.py"),
      FileSystem.FileSystem,
      fs,
    )
    // Early, while there are descriptors.
    yield* Effect.ignore(source)

    const ask = Effect.fnUntraced(function* <S extends Schema.ConstraintDecoder<unknown>>(
      question: Subshell.Request,
      schema: S,
      options?: AskOptions,
    ) {
      const { connection, content } = yield* Subshell.ask(session, question, options?.timeout ?? "5 seconds")
      const failed = (detail: string) =>
        new IntrospectionFailed({ kernelId: connection.id, request: question.type, detail })
      if (Json.hasMoreValues(content, maxValues)) {
        return yield* failed(`The answer has more than ${maxValues} values`)
      }
      // Code that was executed stays as it was.
      const answer = question.type === "history_request" ? content : Json.plainTexts(content)
      return yield* Effect.mapError(
        Schema.decodeUnknownEffect(schema)(answer),
        (error) => failed(excerpt(error.message, 1000)),
      )
    })
    return {
      complete: Effect.fnUntraced(
        function* (code: string, cursor: number = code.length, options?: AskOptions) {
          const asked = Subshell.requestOf("complete", { code, cursor_pos: toCodePoints(code, cursor) })
          const reply = yield* ask(asked, Reply.complete, { timeout: options?.timeout ?? patient.timeout })
          const types = reply.metadata?._jupyter_types_experimental ?? []
          return new Completion({
            matches: reply.matches,
            start: toIndex(code, reply.cursor_start),
            end: toIndex(code, reply.cursor_end),
            types: reply.matches.map((match, index) =>
              types[index]?.text === match ? types[index].type : undefined
            ),
          })
        },
        Span.withSpan("Kernel.complete", session),
      ),
      inspect: Effect.fnUntraced(
        function* (
          code: string,
          cursor: number = code.length,
          options: AskOptions & { readonly detail?: 0 | 1 | undefined } = {},
        ) {
          const reply = yield* ask(
            Subshell.requestOf("inspect", {
              code,
              cursor_pos: toCodePoints(code, cursor),
              detail_level: options.detail ?? 0,
            }),
            Reply.inspect,
            options,
          )
          return new Inspection({ found: reply.found, data: reply.data ?? {} })
        },
        Span.withSpan("Kernel.inspect", session),
      ),
      isComplete: Effect.fnUntraced(function* (code: string, options?: AskOptions) {
        return new Completeness(
          yield* ask(Subshell.requestOf("is_complete", { code }), Reply.isComplete, options),
        )
      }, Span.withSpan("Kernel.isComplete", session)),
      history: Effect.fnUntraced(
        function* (options: AskOptions & { readonly last?: number | undefined } = {}) {
          const asked = Subshell.requestOf("history", {
            hist_access_type: "range",
            output: false,
            raw: true,
            session: 0,
            start: 1,
            stop: null,
          })
          const { history } = yield* ask(asked, Reply.history, options)
          const { last = history.length } = options
          return history.slice(history.length - Math.min(history.length, Math.max(0, last))).map(
            ([, executionCount, code]) => new HistoryEntry({ executionCount, code }),
          )
        },
        Span.withSpan("Kernel.history", session),
      ),
      info: Effect.gen(function* () {
        const reply = yield* ask(
          { ...Subshell.requestOf("kernel_info"), isForControl: true },
          Reply.info,
          patient,
        )
        return new KernelInfo({
          implementation: reply.implementation,
          implementationVersion: reply.implementation_version,
          protocolVersion: reply.protocol_version,
          language: reply.language_info.name,
          languageVersion: reply.language_info.version,
          banner: reply.banner,
          features: reply.supported_features,
        })
      }).pipe(Span.withSpan("Kernel.info", session)),
      variables: Effect.gen(function* () {
        yield* Identity.requirePython(session.identity, "variables")
        const asked: Subshell.Request = {
          type: "comm_open",
          content: {
            comm_id: Subshell.newId(),
            target_name: "effect_jupyter_variables",
            data: {
              source: yield* Effect.mapError(
                source,
                ({ message: detail }) =>
                  new IntrospectionFailed({ kernelId: session.id() ?? "", request: "variables", detail }),
              ),
            },
          },
          pick: ({ content, header }) =>
            header.msg_type === "comm_msg" && isJsonObject(content.data) ? content.data : undefined,
        }
        return (yield* ask(asked, Reply.variables)).variables
      }).pipe(Span.withSpan("Kernel.variables", session)),
    }
  })

/** Jupyter counts characters where JavaScript counts halves of some. */
function toCodePoints(code: string, index: number): number {
  return Array.from(code.slice(0, Math.max(0, index))).length
}

function toIndex(code: string, codePoints: number): number {
  let index = 0
  for (let count = 0; count < codePoints && index < code.length; count++) {
    index += (code.codePointAt(index) ?? 0) > 0xffff ? 2 : 1
  }
  return index
}
