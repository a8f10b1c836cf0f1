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
import { type Chunk, ClearOutput, DisplayChunk, type ExecutionResult, TextChunk } from "../execution.ts"
import * as Images from "./images.ts"
import * as Reducer from "./reducer.ts"

/** What keeps the outputs of one execution. */
export interface Delivery {
  /** Makes chunks of outputs and remembers them. */
  readonly deliver: (
    outputs: Arr.NonEmptyReadonlyArray<Reducer.Output>,
  ) => Effect.Effect<Arr.NonEmptyArray<Chunk>, never, FileSystem.FileSystem | Path.Path>
  /** Everything delivered of an execution that has come so far. */
  readonly result: (progress: Reducer.Progress) => ExecutionResult
}

type Plain = Exclude<Reducer.Output, { readonly _tag: "Display" }>

/** An execution that has delivered nothing yet. */
export function make(
  options: {
    readonly imagesDir: string
    readonly images?: Images.Images | undefined
    readonly outputLimit?: number | undefined
  },
): Delivery {
  let transcript = Reducer.empty(options.outputLimit)
  const remember = <C extends Chunk>(chunk: C, update = false): C => {
    transcript = Reducer.append(transcript, chunk, update)
    return chunk
  }
  const show = Effect.fnUntraced(function* (output: Extract<Reducer.Output, { readonly _tag: "Display" }>) {
    const image = yield* Effect.result(Images.keep(output.data, options))
    const text = output.data["text/plain"]
    const chunk = new DisplayChunk({
      data: output.data,
      metadata: output.metadata,
      text: typeof text === "string" ? text : undefined,
      image: image._tag === "Success" ? Option.getOrUndefined(image.success) : undefined,
      displayId: output.displayId,
      executionCount: output.executionCount,
    })
    const shown = Arr.of<Chunk>(remember(chunk, output.update))
    if (image._tag === "Success") return shown
    // The text of the execution is worth more than its image: the failure is told, not thrown.
    const complaint = `[effect-jupyter] ${image.failure.message}\n`
    return Arr.append(shown, remember(new TextChunk({ name: "stderr", text: complaint })))
  })
  const chunkOf = (output: Plain): Chunk =>
    remember(
      output._tag === "Text"
        ? new TextChunk({ name: output.name, text: output.text })
        : new ClearOutput({ wait: output.wait }),
    )
  return {
    deliver: (outputs) =>
      isPlain(outputs) ? Effect.sync(() => Arr.map(outputs, chunkOf)) : Effect.map(
        Effect.forEach(outputs, (output) =>
          output._tag === "Display" ? show(output) : Effect.sync(() => Arr.of(chunkOf(output)))),
        Arr.flatten,
      ),
    result: ({ executionCount, raised }) =>
      Reducer.toResult(raised === undefined ? transcript : Reducer.interject(transcript), executionCount),
  }
}

/** Whether outputs are nothing but text, of which there may be heaps, and clearings: these take no effects. */
function isPlain(
  outputs: Arr.NonEmptyReadonlyArray<Reducer.Output>,
): outputs is Arr.NonEmptyReadonlyArray<Plain> {
  return outputs.every(({ _tag }) => _tag !== "Display")
}
