/**
 * Turns the outputs of one execution into chunks, saves their images, and collects all of it for the result.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import {
  type Chunk,
  ClearOutput,
  DisplayChunk,
  type ExecutionResult,
  type Image,
  type Payload,
  TextChunk,
} from "../execution.ts"
import { textOf } from "../execution/representation.ts"
import * as Images from "./images.ts"
import type { Output } from "./output.ts"
import * as Transcript from "./transcript.ts"

/** Turns outputs into chunks and saves their images. */
export type ToChunks = (
  outputs: Arr.NonEmptyReadonlyArray<Output>,
) => Effect.Effect<Arr.NonEmptyArray<Chunk>, never, FileSystem.FileSystem | Path.Path>

/** Collects the outputs of one execution. */
export interface OutputCollector {
  /** Turns outputs into chunks, which become part of the result. */
  readonly collect: ToChunks
  /** Returns the result of everything collected so far. */
  readonly result: (end: ExecutionEnd) => ExecutionResult
}

/** The parts of a result other than its outputs. */
export interface ExecutionEnd {
  readonly executionCount: number | undefined
  readonly payloads: ReadonlyArray<Payload>
  /** The exception that ended the code, if one did. */
  readonly raised: object | undefined
}

/** Runs functions of the user; an effect that takes too long has no value. */
export interface HandlerRunner {
  readonly run: <A, E, R>(handler: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E, R>
}

/** The options of an execution that concern its outputs. */
export interface CollectorOptions extends Images.ImageOptions {
  /** Bytes of text and of displays to keep. */
  readonly outputLimit?: number | undefined
  /** Takes each chunk before it becomes part of the Stream, with the number of its message if that is known. */
  readonly onChunk?: ((chunk: Chunk, position: number | undefined) => Effect.Effect<void>) | undefined
}

type Display = Extract<Output, { readonly _tag: "Display" }>

/** Makes the collector of an execution without outputs. */
export function make(options: CollectorOptions, handlers: HandlerRunner): OutputCollector {
  let transcript = Transcript.empty(options.outputLimit)
  const { onChunk } = options
  const toChunks = makeToChunks(options, handlers, (chunk, outputWidget) => {
    transcript = Transcript.append(transcript, chunk, outputWidget)
  })
  return {
    collect: onChunk === undefined ? toChunks : (outputs) =>
      Effect.map(
        Effect.forEach(outputs, (output) =>
          Effect.tap(
            toChunks([output]),
            Effect.forEach(
              (chunk) => handlers.run(Effect.suspend(() => onChunk(chunk, output.position))),
              { discard: true },
            ),
          )),
        Arr.flatten,
      ),
    result: ({ executionCount, payloads, raised }) =>
      Transcript.toResult(
        // An exception is an output: it triggers a pending clear.
        raised === undefined ? transcript : Transcript.applyPendingClear(transcript),
        executionCount,
        payloads,
      ),
  }
}

/** Makes a function that turns outputs into chunks; `onChunk` gets each of them and the widget that shows it. */
export function makeToChunks(
  options: Images.ImageOptions,
  handlers: HandlerRunner,
  onChunk: (chunk: Chunk, outputWidget: string | undefined) => void = () => {},
): ToChunks {
  const append = <C extends Chunk>(chunk: C, outputWidget: string | undefined): C => {
    onChunk(chunk, outputWidget)
    return chunk
  }
  const toDisplay = (output: Display, image?: Image): Chunk =>
    append(
      new DisplayChunk({
        data: output.data,
        metadata: output.metadata,
        text: textOf(output.data["text/plain"]),
        image,
        displayId: output.displayId,
        update: output.update,
        executionCount: output.executionCount,
        ...gapOf(output),
      }),
      output.outputWidget,
    )
  const toText = (name: "stdout" | "stderr", text: string, outputWidget: string | undefined): Chunk =>
    append(new TextChunk({ name, text }), outputWidget)
  const toChunk = (output: Output): Chunk => {
    switch (output._tag) {
      case "Text":
        return output.afterGap === undefined ? toText(output.name, output.text, output.outputWidget) : append(
          new TextChunk({ name: output.name, text: output.text, afterGap: true }),
          output.outputWidget,
        )
      case "Clear":
        return append(new ClearOutput({ wait: output.wait, ...gapOf(output) }), output.outputWidget)
      case "Display":
        return toDisplay(output)
    }
  }
  const saveImage = (data: Display["data"]) =>
    Effect.filterOrFail(
      handlers.run(Images.keep(data, options)),
      Option.isSome,
      () => Images.timeoutError(data),
    ).pipe(Effect.map(({ value }) => value))
  const withImage = (output: Display) =>
    Effect.map(Effect.result(saveImage(output.data)), (image) => {
      if (image._tag === "Success") return Arr.of(toDisplay(output, Option.getOrUndefined(image.success)))
      // An image that cannot be saved is reported on stderr: it must not cost the rest of the output.
      const warning = `[effect-jupyter] ${image.failure.message}\n`
      return Arr.make(toDisplay(output), toText("stderr", warning, output.outputWidget))
    })
  return (outputs) =>
    outputs.some(hasImage)
      ? Effect.map(
        Effect.forEach(
          outputs,
          (output) => hasImage(output) ? withImage(output) : Effect.sync(() => Arr.of(toChunk(output))),
        ),
        Arr.flatten,
      )
      // The hot path: one effect for all of them.
      : Effect.sync(() => Arr.map(outputs, toChunk))
}

function gapOf({ afterGap }: Output): { readonly afterGap?: true } {
  return afterGap === undefined ? {} : { afterGap }
}

function hasImage(output: Output): output is Display {
  return output._tag === "Display" && Images.has(output.data)
}
