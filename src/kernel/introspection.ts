/**
 * Introspection of a kernel: requests that are not executions. While code runs, a subshell of the kernel answers them.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
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
 * The errors of introspection.
 *
 * @category models
 * @since 0.1.0
 */
export type IntrospectionFailure = KernelBusy | IntrospectionFailed | KernelError

/**
 * Options of an introspection request.
 *
 * @category options
 * @since 0.1.0
 */
export interface AskOptions {
  /**
   * Maximum time for the answer, without the time in the queue; 5 seconds by default, 30 for `info` and for `complete`,
   * which first loads the completer and reads sources of libraries.
   */
  readonly timeout?: Duration.Input | undefined
}

/**
 * Introspects a kernel and its code. A kernel with subshells, such as ipykernel 7, also answers while it runs code.
 *
 * Every member fails with `KernelBusy` if the kernel runs code and has no subshells, with `IntrospectionFailed` if the
 * answer is not valid or does not arrive in time, and with `KernelError` if the kernel ends, is reset or loses its
 * connection. `variables` needs a Python kernel, and fails with the reason `Unsupported` for others.
 *
 * @category models
 * @since 0.1.0
 */
export interface Introspection {
  /** Returns the completions at the cursor, an index of the JavaScript string; the end of the code by default. */
  complete(
    code: string,
    cursor?: number,
    options?: AskOptions,
  ): Effect.Effect<Completion, IntrospectionFailure>
  /** Returns the documentation of the name at the cursor, with its source code if `detail` is 1; 0 by default. */
  inspect(
    code: string,
    cursor?: number,
    options?: AskOptions & { readonly detail?: 0 | 1 | undefined },
  ): Effect.Effect<Inspection, IntrospectionFailure>
  /** Tells whether code is complete, or continues on the next line. */
  isComplete(code: string, options?: AskOptions): Effect.Effect<Completeness, IntrospectionFailure>
  /** Returns the code that this kernel has executed, oldest first; only the latest `last` entries if it is given. */
  history(
    options?: AskOptions & { readonly last?: number | undefined },
  ): Effect.Effect<ReadonlyArray<HistoryEntry>, IntrospectionFailure>
  /** Returns the implementation, the language and the versions of the kernel. */
  readonly info: Effect.Effect<KernelInfo, IntrospectionFailure>
  /**
   * Returns the variables in the order of their creation; the last 10,000 if there are more. Modules, variables of
   * IPython and names that begin with `_` are left out. Methods of the user's classes, such as `__repr__`, run in another
   * thread, and their output is discarded.
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
    // Some kernels omit it if they found nothing.
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

/** Maximum number of JSON values of an answer, all of which are decoded at once. */
const maxValues = 1_000_000

/** The timeout of requests that are answered during the start, or for which the kernel loads and reads much. */
const longTimeout = { timeout: "30 seconds" } as const

/** Makes the introspection of a kernel. */
export const make: (session: Session) => Effect.Effect<Introspection, never, FileSystem.FileSystem> = Effect
  .fnUntraced(function* (session) {
    const source = yield* Assets.prefetch("python/effect_jupyter/kernel/variables.py")

    const askKernel = Subshell.make(session)
    const ask = Effect.fnUntraced(function* <S extends Schema.ConstraintDecoder<unknown>>(
      question: Subshell.Request,
      schema: S,
      options?: AskOptions,
    ) {
      const { content, instance } = yield* askKernel(question, options?.timeout ?? "5 seconds")
      const failed = (detail: string) =>
        new IntrospectionFailed({ kernelId: instance.id, request: question.type, detail })
      if (Json.hasMoreValues(content, maxValues)) {
        return yield* failed(`The answer has more than ${maxValues} values`)
      }
      // The code of the history is returned unchanged, with control codes.
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
          const reply = yield* ask(asked, Reply.complete, {
            timeout: options?.timeout ?? longTimeout.timeout,
          })
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
          longTimeout,
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

/** Converts an index: Jupyter counts code points, JavaScript counts UTF-16 code units. */
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
