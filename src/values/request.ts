/**
 * Requests for values: queued executions whose code calls the library's Python module and whose arguments are buffers.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import * as Assets from "../assets.ts"
import { ConnectionLost, ExecutionAborted, KernelError } from "../execution.ts"
import { excerpt } from "../jupyter/control_codes.ts"
import { isJsonObject, type JsonObject, type Message } from "../jupyter/message.ts"
import { defaultMaxMessageSize } from "../jupyter/socket.ts"
import type { Instance } from "../kernel/instance.ts"
import * as Identity from "../kernel/identity.ts"
import * as InternalRequest from "../kernel/internal_request.ts"
import type { ImageOptions } from "../output/images.ts"
import type { RunOptions } from "../kernel/run.ts"
import type { Session } from "../kernel/session.ts"
import * as Setup from "../kernel/setup.ts"
import type { Answer, Exchange } from "./exchange.ts"
import { GivenValue } from "./given_value.ts"

/** The MIME type of answers. */
export const mime = "application/vnd.effect-jupyter.value+json"
const modules = ["errors", "libraries", "codec", "decoder", "iterators", "requests", "executions"]
const code = "await __effect_jupyter_values__.run()"
const appendPart = (isFirst: boolean) => `__effect_jupyter_values__.keep(${isFirst ? "True" : "False"})`

/**
 * Registers modules for `import`, and the last of them as a built-in, which is not among the variables of the user. They
 * use a copy of the built-ins, which later changes do not affect.
 */
const loader = `
import builtins, sys, types
own = dict(vars(builtins))
for name, source in modules:
    name = f"effect_jupyter.values.{name}"
    module = types.ModuleType(name)
    module.__builtins__ = own
    sys.modules[name] = module
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
builtins.__effect_jupyter_values__ = module
`

/** Maximum characters of texts in an answer. */
const maxTextLength = 10_000

/** Maximum bytes of one message: many servers refuse more than 10 MB. */
const partBytes = 8_000_000

/** Maximum time that an interruption waits for the kernel, as long as for code that ignores interrupts. */
const settleTimeout: Duration.Input = "5 seconds"

/** The options of a kernel that concern its requests. */
export interface RequestsOptions extends ImageOptions {
  /** Maximum bytes of all answers to one request; 512 MiB by default. */
  readonly maxMessageSize?: number | undefined
}

/** Makes the {@link Exchange} of a session. */
export const make: (
  session: Session,
  options: RequestsOptions,
) => Effect.Effect<Exchange, never, FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function* (session, { maxMessageSize = defaultMaxMessageSize, ...where }) {
    const platform = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
    const sources = Effect.forEach(
      modules,
      (name) =>
        Effect.map(Assets.read(`python/effect_jupyter/values/${name}.py`), (source) => [name, source]),
    ).pipe(Effect.provideContext(platform))
    // Reads the files before descriptors may run out.
    yield* Effect.ignore(sources)

    /** The kernel that has the modules. */
    let installed: Instance | undefined
    const install = Effect.fnUntraced(function* (instance: Instance, operation: string) {
      const loaded = yield* Effect.mapError(sources, ({ message }) => aborted(instance.id, message))
      const { raised, reply } = yield* silently(
        instance,
        // Runs in its own namespace, so that the user gets none of its names. A JSON string is a Python string.
        `exec(${JSON.stringify(loader)}, {"modules": ${JSON.stringify(loaded)}})`,
      )
      if (reply !== "ok" && !Identity.isIPython(instance.identity)) {
        return yield* Identity.unsupported(instance.identity, operation)
      }
      if (reply !== "ok") {
        const cause = raised === undefined ? reply : `${raised.ename}: ${raised.evalue}`
        return yield* aborted(instance.id, `The kernel cannot exchange values: ${cause}`)
      }
      installed = instance
    }, settled)

    const prepare = Effect.fnUntraced(function* (
      instance: Instance,
      { buffers, operation, sizes }: {
        readonly buffers: ReadonlyArray<Uint8Array>
        readonly sizes: ReadonlyArray<number>
        readonly operation: string
      },
    ) {
      if (!instance.isDirect && installed !== instance) yield* install(instance, operation)
      // Bytes are not copied: the caller may have transferred them to a worker during the wait.
      if (buffers.some(({ byteLength }, index) => byteLength !== sizes[index])) {
        return yield* aborted(
          instance.id,
          "Bytes of the value were transferred elsewhere before they were sent",
        )
      }
      if (instance.isDirect) return { buffers }
      if (sizes.reduce((sum, size) => sum + size, 0) <= partBytes) return { buffers }
      const parts = buffers.flatMap(split)
      for (const [index, part] of parts.entries()) {
        yield* settled(silently(instance, appendPart(index === 0), [part]))
      }
      return { metadata: { sizes }, buffers: [] }
    })

    return Effect.fnUntraced(
      function* ({ buffers, operation, value }, { kernelId, onKernel = () => {}, ...options }) {
        const sizes = buffers.map(({ byteLength }) => byteLength)
        const answers: Array<Answer> = []
        const run: RunOptions = {
          ...where,
          ...options,
          images: options.images ?? where.images,
          internalRequest: {
            prepare: (instance) =>
              Effect.suspend(() => {
                if (kernelId !== undefined && instance.id !== kernelId) {
                  return aborted(session.id(), "The kernel was reset, and its iterators are gone")
                }
                onKernel(instance.id)
                return Effect.map(
                  prepare(instance, { buffers, sizes, operation }),
                  (attachment) => ({ ...attachment, value }),
                )
              }),
            maxBytes: maxMessageSize,
            isAnswer: (message) => answersOf(message).length > 0,
            take: (message) => answers.push(...answersOf(message)),
          },
        }
        const exit = yield* Effect.exit(session.execute(code, run))
        return { answers, exit, kernelId: session.id() }
      },
      Effect.provideContext(platform),
    )
  },
)

const silently = (instance: Instance, code: string, buffers: ReadonlyArray<Uint8Array> = []) =>
  Effect.catchTag(
    Setup.runSilently(instance, code, buffers),
    "Unanswered",
    ({ detail }) =>
      new KernelError({
        reason: instance.endReason() ?? new ConnectionLost({ kernelId: instance.id, detail }),
      }),
  )

/** Lets a request end when it is interrupted: the kernel must not get the next execution before. */
const settled = <A, E>(request: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.forkDetach(request, { startImmediately: true }),
      (fiber) =>
        restore(Fiber.join(fiber)).pipe(
          Effect.onInterrupt(() =>
            Effect.andThen(Effect.timeoutOption(Fiber.await(fiber), settleTimeout), Fiber.interrupt(fiber))
          ),
        ),
    )
  )

const split = (buffer: Uint8Array): ReadonlyArray<Uint8Array> =>
  Array.from(
    { length: Math.ceil(buffer.byteLength / partBytes) },
    (_, index) => buffer.subarray(index * partBytes, (index + 1) * partBytes),
  )

/** Returns the answers in a message: in a display one with all buffers, in a reply each with some of them. */
function answersOf({ buffers, content, header }: Message): ReadonlyArray<Answer> {
  if (header.msg_type === "display_data" && isJsonObject(content.data)) {
    const answer = content.data[mime]
    return isJsonObject(answer) ? [toAnswer(answer, buffers)] : []
  }
  if (header.msg_type !== InternalRequest.replyType || !Array.isArray(content.answers)) return []
  let taken = 0
  return content.answers.filter(isJsonObject).map((answer) =>
    toAnswer(answer, buffers.slice(taken, taken += Math.max(0, Number(answer.buffers)) || 0))
  )
}

function toAnswer(answer: JsonObject, buffers: ReadonlyArray<Uint8Array>): Answer {
  const text = (value: unknown): string => typeof value === "string" ? excerpt(value, maxTextLength) : ""
  const { detail, done, given, kind, path, valueType } = answer
  return {
    buffers,
    kind: text(kind),
    isLast: done === true,
    detail: text(detail),
    path: text(path),
    valueType: text(valueType),
    // No JSON is an instance of the class.
    given: given instanceof GivenValue ? given : undefined,
  }
}

function aborted(kernelId: string | undefined, detail: string): KernelError {
  return new KernelError({ reason: new ExecutionAborted({ kernelId, detail }) })
}
