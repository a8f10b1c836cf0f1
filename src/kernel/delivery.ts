/**
 * The consumer's side of an execution: outputs become chunks, images become files, and all of it a result.
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
  TextChunk,
} from "../execution.ts"
import { textOf } from "../execution/representation.ts"
import * as Handlers from "./handlers.ts"
import * as Images from "./images.ts"
import * as Reducer from "./reducer.ts"
import * as Transcript from "./transcript.ts"

/** What keeps the outputs of one execution. */
export interface Delivery {
  /** Makes chunks of outputs and remembers them. */
  readonly deliver: (
    outputs: Arr.NonEmptyReadonlyArray<Reducer.Output>,
  ) => Effect.Effect<Arr.NonEmptyArray<Chunk>, never, FileSystem.FileSystem | Path.Path>
  /** Everything delivered of an execution that has come so far. */
  readonly result: (progress: Reducer.Progress) => ExecutionResult
}

/** What a value shown is made of. */
type Display = Extract<Reducer.Output, { readonly _tag: "Display" }>

/** What an execution says of where its outputs go. */
export interface DeliveryOptions extends Images.ImageOptions {
  readonly outputLimit?: number | undefined
  /** Takes each chunk, before the next one is made. */
  readonly onChunk?: ((chunk: Chunk) => Effect.Effect<void>) | undefined
}

/** An execution that has delivered nothing yet. */
export function make(options: DeliveryOptions, handlers = Handlers.make()): Delivery {
  let transcript = Transcript.empty(options.outputLimit)
  const { onChunk } = options
  const chunks = chunker(options, (chunk, area) => {
    transcript = Transcript.append(transcript, chunk, area)
  }, handlers)
  return {
    deliver: onChunk === undefined ? chunks : (outputs) =>
      Effect.tap(
        chunks(outputs),
        Effect.forEach((chunk) => handlers.run(Effect.suspend(() => onChunk(chunk))), { discard: true }),
      ),
    result: ({ executionCount, payloads, raised }) =>
      Transcript.toResult(
        raised === undefined ? transcript : Transcript.interject(transcript),
        executionCount,
        payloads,
      ),
  }
}

/** Makes chunks of outputs; tells of each of them and of the widget that shows it. */
export function chunker(
  options: Images.ImageOptions,
  onChunk: (chunk: Chunk, area: string | undefined) => void = () => {},
  handlers = Handlers.make(),
): Delivery["deliver"] {
  const remember = <C extends Chunk>(chunk: C, area: string | undefined): C => {
    onChunk(chunk, area)
    return chunk
  }
  const show = (output: Display, image?: Image): Chunk =>
    remember(
      new DisplayChunk({
        data: output.data,
        metadata: output.metadata,
        text: textOf(output.data["text/plain"]),
        image,
        displayId: output.displayId,
        update: output.update,
        executionCount: output.executionCount,
      }),
      output.area,
    )
  const write = (name: "stdout" | "stderr", text: string, area: string | undefined): Chunk =>
    remember(new TextChunk({ name, text }), area)
  const plain = (output: Reducer.Output): Chunk => {
    switch (output._tag) {
      case "Text":
        return write(output.name, output.text, output.area)
      case "Clear":
        return remember(new ClearOutput({ wait: output.wait }), output.area)
      case "Display":
        return show(output)
    }
  }
  const keep = (data: Display["data"]) =>
    Effect.filterOrFail(
      handlers.run(Images.keep(data, options)),
      Option.isSome,
      () => Images.tooLate(data),
    ).pipe(Effect.map(({ value }) => value))
  const withImage = (output: Display) =>
    Effect.map(Effect.result(keep(output.data)), (image) => {
      if (image._tag === "Success") return Arr.of(show(output, Option.getOrUndefined(image.success)))
      // The text of the execution is worth more than its image: the failure is told, not thrown.
      const complaint = `[effect-jupyter] ${image.failure.message}\n`
      return Arr.make(show(output), write("stderr", complaint, output.area))
    })
  return (outputs) =>
    outputs.some(hasImage)
      ? Effect.map(
        Effect.forEach(
          outputs,
          (output) => hasImage(output) ? withImage(output) : Effect.sync(() => Arr.of(plain(output))),
        ),
        Arr.flatten,
      )
      // There may be heaps of these, and nothing has to be done for them.
      : Effect.sync(() => Arr.map(outputs, plain))
}

function hasImage(output: Reducer.Output): output is Display {
  return output._tag === "Display" && Images.has(output.data)
}
