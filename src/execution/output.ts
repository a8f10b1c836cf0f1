/**
 * Chunks, which an execution emits while it runs, and its result.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaJITCompiler from "effect/schema/SchemaJITCompiler"
import * as Json from "./json.ts"

const MimeBundle = Schema.Record(Schema.String, Schema.Unknown)

/**
 * An image that an execution showed.
 *
 * @example
 * ```ts
 * import { Execution } from "effect-jupyter"
 *
 * const image = new Execution.Image({ path: "images/5f0c1f1e.png", mimeType: "image/png" })
 * console.log(image.path)
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class Image extends Schema.Class<Image>("effect-jupyter/Execution/Image")({
  /**
   * The path of the file below the client's `imagesDir`, or the path that the function `images` returned; a unique name
   * if the image has its `bytes`.
   */
  path: Schema.String,
  /** `"image/png"`, `"image/jpeg"`, `"image/svg+xml"`, `"image/webp"`, `"image/gif"` or `"application/pdf"`. */
  mimeType: Schema.String,
  /** The image itself, if the option `images` is `"bytes"`; base64 in JSON. */
  bytes: Schema.optionalKey(Schema.Uint8ArrayFromBase64),
}) {}

/**
 * Set if outputs before this chunk may be lost: the connection was cut, and messages of the kernel are missing. At most
 * one chunk after each gap has it. If they do not arrive, the execution fails with `ConnectionLost` when the code ends.
 */
const afterGap = Schema.optionalKey(Schema.Literal(true))

const TextFields = Schema.TaggedStruct("TextChunk", {
  name: Schema.Literals(["stdout", "stderr"]),
  text: Schema.String,
  afterGap,
})
// Compiled because there may be millions of chunks.
SchemaJITCompiler.enable(TextFields.ast)

/**
 * Text written to stdout or stderr. A kernel flushes when it likes: chunks are not aligned to lines.
 *
 * @example
 * ```ts
 * import { Execution } from "effect-jupyter"
 *
 * const chunk = new Execution.TextChunk({ name: "stdout", text: "hello\n" })
 * console.log(chunk._tag) // => "TextChunk"
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class TextChunk extends Schema.Class<TextChunk>("effect-jupyter/Execution/TextChunk")(TextFields) {}

const DisplayFields = Json.withJson(
  Schema.TaggedStruct("DisplayChunk", {
    /** Every representation that the kernel sent, by MIME type. */
    data: MimeBundle,
    metadata: MimeBundle,
    /** The `text/plain` representation. */
    text: Json.orAbsent(Schema.String),
    /** The file with the image, if there was one. */
    image: Json.orAbsent(Image),
    /** The id under which the display can be updated. */
    displayId: Json.orAbsent(Schema.String),
    /** True if it updates the displays with its id and is not a new one; false by default. */
    update: Schema.Boolean.pipe(Schema.withConstructorDefault(Effect.succeed(false))),
    /** Set if this is the value of the cell's last expression. */
    executionCount: Json.orAbsent(Schema.Int),
    afterGap,
  }),
  Json.display,
)

// Its construction alone: the JSON of a display is rarely needed.
SchemaJITCompiler.enable(Schema.toType(DisplayFields).ast)

/**
 * A displayed value: the last expression of a cell, a plot, anything passed to `display`, or an update of these.
 *
 * In JSON the bytes of an image occur once: `data` refers to them.
 *
 * @example
 * ```ts
 * import { Execution } from "effect-jupyter"
 *
 * const show = (chunk: Execution.Chunk) =>
 *   chunk._tag === "DisplayChunk" ? chunk.image?.path ?? chunk.text : undefined
 * console.log(show(new Execution.ClearOutput({ wait: false }))) // => undefined
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class DisplayChunk
  extends Schema.Class<DisplayChunk>("effect-jupyter/Execution/DisplayChunk")(DisplayFields) {}

/**
 * The code asked for its displays to be cleared: at once, or with the next output if `wait` is true.
 *
 * @example
 * ```ts
 * import { Execution } from "effect-jupyter"
 *
 * console.log(new Execution.ClearOutput({ wait: true }).wait) // => true
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class ClearOutput
  extends Schema.TaggedClass<ClearOutput>("effect-jupyter/Execution/ClearOutput")("ClearOutput", {
    wait: Schema.Boolean,
    afterGap,
  }) {}

/**
 * The schema of {@link Chunk}.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Execution } from "effect-jupyter"
 *
 * const codec = Schema.toCodecJson(Execution.Chunk)
 * const chunk = new Execution.TextChunk({ name: "stdout", text: "hi" })
 * console.log(JSON.stringify(Schema.encodeSync(codec)(chunk)))
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export const Chunk = Schema.Union([TextChunk, DisplayChunk, ClearOutput])

/**
 * A piece of output, emitted as it arrives.
 *
 * @category models
 * @since 0.1.0
 */
export type Chunk = typeof Chunk.Type

const Payload = Schema.StructWithRest(Schema.Struct({ source: Schema.String }), [MimeBundle])

/**
 * A request of the code to the frontend, as the kernel sent it: `"set_next_input"` of `%load`, `"edit_magic"`,
 * `"ask_exit"` and others. Text for a pager, as of `len?`, is output instead.
 *
 * @example
 * ```ts
 * import type { Execution } from "effect-jupyter"
 *
 * export const nextInput = ({ payloads = [] }: Execution.ExecutionResult) =>
 *   payloads.find(({ source }) => source === "set_next_input")?.text
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export type Payload = typeof Payload.Type

const ResultFields = Json.withJson(
  Schema.TaggedStruct("ExecutionResult", {
    /**
     * Everything written or shown as text, in order of arrival, without the line breaks at its ends and without white
     * space at its end; `undefined` if nothing was. Each display has lines of its own, and where stdout follows an
     * unfinished line of stderr, or the other way round, a new line begins, as a notebook shows them. Text
     * that was overwritten is not part of it, as in a terminal: after `\r`, `\b` and codes that move the cursor.
     */
    text: Json.orAbsent(Schema.String),
    /** The images in the order they were shown. */
    images: Schema.Array(Image),
    /**
     * The displays that a notebook would show below this cell at the end: updated, and without those that were
     * cleared. The displays of output widgets are among them. Updates of displays of earlier executions come as chunks
     * only.
     */
    displays: Schema.Array(DisplayChunk),
    /** The number of the execution in its kernel, from 1. */
    executionCount: Json.orAbsent(Schema.Int),
    /** The requests of the code to the frontend, if there are any: to set the next input, to edit a file, to exit. */
    payloads: Schema.optionalKey(Schema.Array(Payload)),
  }),
  Json.result,
)

/**
 * All output of an execution, or its output up to its failure.
 *
 * In JSON the `bytes` of an image are in `images` alone, to which its display refers by the `path`.
 *
 * @example
 * ```ts
 * import { Execution } from "effect-jupyter"
 *
 * const paths = (result: Execution.ExecutionResult) => result.images.map((image) => image.path)
 * console.log(paths)
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class ExecutionResult
  extends Schema.Class<ExecutionResult>("effect-jupyter/Execution/ExecutionResult")(ResultFields) {}

/**
 * Output that arrived after its execution had ended: of a thread, a timer, a task.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const logged = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   yield* kernel.output.pipe(
 *     Stream.runForEach(({ chunk, executionCount }) =>
 *       chunk._tag === "TextChunk" ? Effect.logInfo(`[${executionCount}] ${chunk.text}`) : Effect.void
 *     ),
 *     Effect.forkScoped
 *   )
 *   yield* kernel.execute("import threading; threading.Timer(1, print, ['late']).start()")
 * })
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class KernelOutput
  extends Schema.TaggedClass<KernelOutput>("effect-jupyter/Execution/KernelOutput")("KernelOutput", {
    chunk: Chunk,
    /** The id of its execution, which logs at Debug have as `execution`; undefined if unknown. */
    executionId: Json.orAbsent(Schema.String),
    /** The `executionCount` of the result of that execution. */
    executionCount: Json.orAbsent(Schema.Int),
    /** The number of outputs before this one that were dropped because the consumer was too slow; usually 0. */
    missed: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(0))),
  }) {}
