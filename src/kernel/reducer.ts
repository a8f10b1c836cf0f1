/**
 * An execution as a fold over messages, in two steps that know nothing of sockets or files:
 *
 * - {@link step} follows the protocol: what a message says about the execution's progress, and what it puts out.
 * - {@link append} gathers what was put out into what a notebook would show at the end.
 *
 * @module
 */
// The name `Chunk` is taken by the chunks of an execution.
import * as List from "effect/Chunk"
import * as Exit from "effect/Exit"
import * as HashSet from "effect/HashSet"
import { stripVTControlCharacters } from "node:util"
import { type Chunk, DisplayChunk, ExecutionResult, type Image } from "../execution.ts"
import { decode, type JsonObject, type Message } from "../jupyter/message.ts"
import * as FoldedText from "./folded_text.ts"

/** What the kernel said of an exception, without colour codes. */
export interface Raised {
  readonly ename: string
  readonly evalue: string
  readonly traceback: ReadonlyArray<string>
}

/** How far an execution has come. */
export interface Progress {
  /** The kernel has begun with the code: an interrupt will reach it. */
  readonly started: boolean
  /** What `execute_reply` said. */
  readonly reply: "ok" | "error" | "aborted" | undefined
  /** The kernel has put out everything and waits for the next request. */
  readonly idle: boolean
  readonly raised: Raised | undefined
  readonly executionCount: number | undefined
  /** How many messages nobody understood. */
  readonly ignored: number
}

/** What a message puts out. */
export type Output =
  | { readonly _tag: "Text"; readonly name: "stdout" | "stderr"; readonly text: string }
  | {
    readonly _tag: "Display"
    /** An update of an earlier display rather than one more. */
    readonly update: boolean
    readonly data: JsonObject
    readonly metadata: JsonObject
    readonly displayId: string | undefined
    readonly executionCount: number | undefined
  }
  | { readonly _tag: "Clear"; readonly wait: boolean }

/** The progress of an execution that was just asked for. */
export const initial: Progress = {
  started: false,
  reply: undefined,
  idle: false,
  raised: undefined,
  executionCount: undefined,
  ignored: 0,
}

/**
 * An execution is over when its reply AND its idle have arrived: they travel on different channels, and the
 * reply can overtake the output.
 */
export function isOver(progress: Progress): boolean {
  return progress.reply !== undefined && progress.idle
}

/** The progress after a message whose parent is the execution's request, and what the message puts out. */
export function step(progress: Progress, message: Message): readonly [Progress, Output?] {
  const { content, header } = message
  switch (header.msg_type) {
    case "status": {
      const status = decode.status(content)
      if (Exit.isFailure(status)) return ignored(progress)
      return [status.value.execution_state === "idle" ? { ...progress, idle: true } : progress]
    }
    case "execute_input":
      return [{ ...progress, started: true }]
    case "stream": {
      const stream = decode.stream(content)
      if (Exit.isFailure(stream)) return ignored(progress)
      const { name, text } = stream.value
      return [progress, { _tag: "Text", name, text }]
    }
    case "display_data":
    case "execute_result":
    case "update_display_data": {
      const display = decode.display(content)
      if (Exit.isFailure(display)) return ignored(progress)
      const { data, execution_count: count, metadata = {}, transient } = display.value
      return [progress, {
        _tag: "Display",
        update: header.msg_type === "update_display_data",
        data,
        metadata,
        displayId: transient?.display_id ?? undefined,
        executionCount: wholeNumber(count),
      }]
    }
    case "clear_output": {
      const clear = decode.clearOutput(content)
      return Exit.isFailure(clear)
        ? ignored(progress)
        : [progress, { _tag: "Clear", wait: clear.value.wait ?? false }]
    }
    case "error": {
      const error = decode.error(content)
      return Exit.isFailure(error) ? ignored(progress) : [{ ...progress, raised: raised(error.value) }]
    }
    case "execute_reply": {
      // A request has one reply: what else calls itself one does not change how the code ended.
      if (progress.reply === "ok" || progress.reply === "error") return ignored(progress)
      const reply = decode.executeReply(content)
      // Whatever it says, there will be no other: an execution without a reply would never end.
      if (Exit.isFailure(reply)) return [{ ...progress, reply: "aborted", ignored: progress.ignored + 1 }]
      const { execution_count: count, status } = reply.value
      return [{
        ...progress,
        reply: status === "ok" || status === "error" ? status : "aborted",
        executionCount: wholeNumber(count),
        // A syntax error comes with the reply only.
        raised: progress.raised ?? (status === "error" ? raised(reply.value) : undefined),
      }]
    }
    default:
      return ignored(progress)
  }
}

function ignored(progress: Progress): readonly [Progress] {
  return [{ ...progress, ignored: progress.ignored + 1 }]
}

/** An execution count; what is no whole number is no reason to lose the message. */
function wholeNumber(count: number | null | undefined): number | undefined {
  return typeof count === "number" && Number.isSafeInteger(count) ? count : undefined
}

function raised(content: {
  readonly ename?: string
  readonly evalue?: string
  readonly traceback?: ReadonlyArray<string>
}): Raised {
  return {
    ename: stripVTControlCharacters(content.ename ?? "Error"),
    evalue: stripVTControlCharacters(content.evalue ?? ""),
    traceback: (content.traceback ?? []).map((frame) => stripVTControlCharacters(frame)),
  }
}

/** Everything an execution has put out so far. */
export interface Transcript {
  /** Whether there was any text at all, be it empty. */
  readonly spoken: boolean
  readonly text: FoldedText.FoldedText
  readonly displays: List.Chunk<DisplayChunk>
  /** The ids among the displays. */
  readonly displayIds: HashSet.HashSet<string>
  readonly images: List.Chunk<{ readonly image: Image; readonly displayId: string | undefined }>
  /** A clearing that waits for the next output. */
  readonly clearing: boolean
}

/** The transcript of an execution that has put out nothing; `outputLimit` are the bytes of text to keep. */
export function empty(outputLimit?: number): Transcript {
  return {
    spoken: false,
    text: FoldedText.empty(outputLimit),
    displays: List.empty(),
    displayIds: HashSet.empty(),
    images: List.empty(),
    clearing: false,
  }
}

/**
 * The transcript with one more chunk; `update` tells a display from an update of one. The rules are those of
 * JupyterLab and nbclient, for the outputs of one cell: an update does not reach displays of other executions.
 */
export function append(transcript: Transcript, chunk: Chunk, update = false): Transcript {
  if (chunk._tag === "ClearOutput") return chunk.wait ? { ...transcript, clearing: true } : clear(transcript)
  if (chunk._tag === "TextChunk") {
    const cleared = interject(transcript)
    return { ...cleared, spoken: true, text: FoldedText.append(cleared.text, chunk.text) }
  }
  const { displayId, image } = chunk
  // An update is no output: it does not trigger a clearing that waits.
  if (update) return replaceImages(replace(transcript, chunk), chunk)
  // A display under an id that is known changes the ones that are there, too.
  const cleared = interject(replace(transcript, chunk))
  return {
    ...cleared,
    spoken: cleared.spoken || chunk.text !== undefined,
    text: FoldedText.show(cleared.text, chunk.text ?? ""),
    displays: List.append(cleared.displays, chunk),
    displayIds: displayId === undefined ? cleared.displayIds : HashSet.add(cleared.displayIds, displayId),
    images: image === undefined ? cleared.images : List.append(cleared.images, { image, displayId }),
  }
}

function clear(transcript: Transcript): Transcript {
  return { ...transcript, displays: List.empty(), displayIds: HashSet.empty(), clearing: false }
}

/** The transcript with another content of the displays that have the id of this one. */
function replace(transcript: Transcript, chunk: DisplayChunk): Transcript {
  const { data, displayId, image, metadata, text } = chunk
  if (displayId === undefined || !HashSet.has(transcript.displayIds, displayId)) return transcript
  const displays = List.map(
    transcript.displays,
    (other) =>
      other.displayId === displayId ? new DisplayChunk({ ...other, data, image, metadata, text }) : other,
  )
  return { ...transcript, displays }
}

/** The transcript with the image of an update in place of those that it updates. */
function replaceImages(transcript: Transcript, { displayId, image }: DisplayChunk): Transcript {
  if (image === undefined) return transcript
  const isTarget = (other: { readonly displayId: string | undefined }) =>
    displayId !== undefined && other.displayId === displayId
  const images = List.some(transcript.images, isTarget)
    ? List.map(transcript.images, (other) => isTarget(other) ? { image, displayId } : other)
    : List.append(transcript.images, { image, displayId })
  return { ...transcript, images }
}

/** The transcript with a new output to come, be it one that is no chunk, as is what the code raised. */
export function interject(transcript: Transcript): Transcript {
  return transcript.clearing ? clear(transcript) : transcript
}

/** The result for a transcript. */
export function toResult(transcript: Transcript, executionCount: number | undefined): ExecutionResult {
  return new ExecutionResult({
    text: transcript.spoken ? FoldedText.toText(transcript.text).trim() : undefined,
    images: List.toReadonlyArray(transcript.images).map(({ image }) => image),
    displays: List.toReadonlyArray(transcript.displays),
    executionCount,
  })
}
