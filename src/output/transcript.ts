/**
 * Collects the chunks of an execution into what a notebook would show in the end. All functions are pure.
 *
 * @module
 */
// The name `Chunk` is taken by the chunks of an execution.
import * as List from "effect/Chunk"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import {
  type Chunk,
  DisplayChunk,
  ExecutionResult,
  type Image,
  type Payload,
  type TextChunk,
} from "../execution.ts"
import * as TerminalText from "./terminal/terminal_text.ts"
import * as Weight from "./weight.ts"

/** A display. All displays with the same id have the same content, which is in `contents`. */
interface DisplayEntry {
  readonly displayId: string | undefined
  readonly executionCount: number | undefined
  /** Its content if it has no id. */
  readonly chunk: DisplayChunk | undefined
  readonly outputWidget: string | undefined
  /** The generation of its output widget when it was added. */
  readonly generation: number
}

/** The state of an output widget. */
interface WidgetState {
  /** The number of times it was cleared: displays of earlier generations are stale. */
  readonly generation: number
  /** The number of its displays of the current generation. */
  readonly count: number
  /** True if it is cleared before the next output. */
  readonly pendingClear: boolean
}

/** An image; `sequence` orders images and their updates. */
interface ImageEntry {
  readonly image: Image
  readonly displayId: string | undefined
  readonly sequence: number
}

/**
 * The outputs of an execution so far. Appending a chunk takes constant time, and what was cleared or replaced is not
 * kept.
 */
export interface Transcript {
  /** True if there was any text, even if it was empty. */
  readonly hasText: boolean
  readonly text: TerminalText.TerminalText
  /** The source of the last text: text of another source begins a new line. */
  readonly source: TextChunk["name"] | "display" | undefined
  readonly displays: List.Chunk<DisplayEntry>
  /** The contents of displays by id. */
  readonly contents: HashMap.HashMap<string, DisplayChunk>
  /** The number of stale displays among `displays`. */
  readonly staleCount: number
  readonly images: List.Chunk<ImageEntry>
  /** The display ids of `images`. */
  readonly imageIds: HashSet.HashSet<string>
  /** The latest update by display id; it replaces the images before it. */
  readonly imageUpdates: HashMap.HashMap<string, ImageEntry>
  /** The number of images and updates so far. */
  readonly sequence: number
  /** True if it is cleared before the next output. */
  readonly pendingClear: boolean
  readonly widgets: HashMap.HashMap<string, WidgetState>
  /** The bytes that displays and images take, see `weight.ts`. */
  readonly displayBytes: number
  readonly imageBytes: number
  /** The number of displays and updates that were left out because of the limit. */
  readonly omittedCount: number
}

/** The maximum number of output widgets; displays in further widgets are not cleared with them. */
const maxWidgets = 10_000

/** Returns the transcript of an execution without outputs; `outputLimit` is the number of bytes to keep. */
export function empty(outputLimit?: number): Transcript {
  return {
    hasText: false,
    text: TerminalText.empty(outputLimit),
    source: undefined,
    displays: List.empty(),
    contents: HashMap.empty(),
    staleCount: 0,
    images: List.empty(),
    imageIds: HashSet.empty(),
    imageUpdates: HashMap.empty(),
    sequence: 0,
    pendingClear: false,
    widgets: HashMap.empty(),
    displayBytes: 0,
    imageBytes: 0,
    omittedCount: 0,
  }
}

/**
 * Adds a chunk, which an output widget shows if `widget` is given. The rules are those of JupyterLab and nbclient for the
 * outputs of one cell: an update does not affect displays of other executions. The displays of an output widget are
 * part of the result, and cleared with the widget.
 */
export function append(transcript: Transcript, chunk: Chunk, widget?: string): Transcript {
  const outputWidget = widget === undefined || isKnown(transcript, widget) ? widget : undefined
  if (chunk._tag === "ClearOutput") {
    if (outputWidget !== widget) return transcript
    if (!chunk.wait) return clear(transcript, outputWidget)
    return outputWidget === undefined
      ? { ...transcript, pendingClear: true }
      : withWidget(transcript, outputWidget, { ...widgetOf(transcript, outputWidget), pendingClear: true })
  }
  if (chunk._tag === "TextChunk") {
    const cleared = appendText(applyPendingClear(transcript, outputWidget), chunk.name, chunk.text)
    return cleared.hasText ? cleared : { ...cleared, hasText: true }
  }
  // An update is not an output: it does not trigger a pending clear.
  if (chunk.update) return updateImage(replace(transcript, chunk), chunk)
  // A display with a known id also changes the existing ones.
  const cleared = appendDisplayText(applyPendingClear(transcript, outputWidget), chunk.text)
  const { displayId, image } = chunk
  const withImage = image === undefined ? cleared : appendImage(cleared, image, displayId)
  const before = displayId === undefined
    ? undefined
    : Option.getOrUndefined(HashMap.get(cleared.contents, displayId))
  const room = reserve(
    withImage,
    Weight.of(chunk) + (outputWidget?.length ?? 0) - (before === undefined ? 0 : Weight.of(before)),
  )
  return room === undefined ? omit(withImage) : appendDisplay(room, chunk, outputWidget)
}

/** Adds a display whose bytes are reserved. */
function appendDisplay(
  transcript: Transcript,
  chunk: DisplayChunk,
  outputWidget: string | undefined,
): Transcript {
  const { displayId, executionCount } = chunk
  const { generation, count } = widgetOf(transcript, outputWidget)
  const shown = {
    displayId,
    executionCount,
    outputWidget,
    generation,
    chunk: displayId === undefined ? chunk : undefined,
  }
  const { contents, displays } = transcript
  const next: Transcript = {
    ...transcript,
    displays: List.append(displays, shown),
    contents: displayId === undefined ? contents : HashMap.set(contents, displayId, chunk),
  }
  return outputWidget === undefined
    ? next
    : withWidget(next, outputWidget, { generation, count: count + 1, pendingClear: false })
}

function isKnown({ widgets }: Transcript, outputWidget: string): boolean {
  return HashMap.size(widgets) < maxWidgets || HashMap.has(widgets, outputWidget)
}

/** Reserves bytes for displays; returns `undefined` if that exceeds the limit. */
function reserve(transcript: Transcript, bytes: number): Transcript | undefined {
  const displayBytes = Math.max(0, transcript.displayBytes + bytes)
  if (hasRoom(transcript, displayBytes + transcript.imageBytes)) return { ...transcript, displayBytes }
  return transcript.staleCount === 0 ? undefined : reserve(compact(transcript), bytes)
}

/** Tells whether displays and images may take so many bytes; their limit is that of the text. */
function hasRoom({ sequence, displays, staleCount, text }: Transcript, bytes: number): boolean {
  return bytes + Weight.ofCount(List.size(displays) - staleCount + sequence) <= text.kept.limit
}

function omit(transcript: Transcript): Transcript {
  return { ...transcript, omittedCount: transcript.omittedCount + 1 }
}

/** Appends text of a stream. It begins a new line after text of another source, unless it starts with a line end. */
function appendText(transcript: Transcript, source: TextChunk["name"], text: string): Transcript {
  if (text === "") return transcript
  const { source: last } = transcript
  const isContinued = last === undefined || last === source || (last !== "display" && /^[\r\n]/.test(text))
  const before = isContinued ? transcript.text : TerminalText.breakLine(transcript.text)
  return { ...transcript, source, text: TerminalText.append(before, text) }
}

/** Appends the text of a display, which has lines of its own. */
function appendDisplayText(transcript: Transcript, text: string | undefined): Transcript {
  if (text === undefined) return transcript
  const shown: Transcript = { ...transcript, hasText: true }
  return text === ""
    ? shown
    : { ...shown, source: "display", text: TerminalText.appendBlock(shown.text, text) }
}

function widgetOf(transcript: Transcript, outputWidget: string | undefined): WidgetState {
  return outputWidget === undefined
    ? { generation: 0, count: 0, pendingClear: transcript.pendingClear }
    : Option.getOrElse(
      HashMap.get(transcript.widgets, outputWidget),
      () => ({ generation: 0, count: 0, pendingClear: false }),
    )
}

function withWidget(transcript: Transcript, outputWidget: string, value: WidgetState): Transcript {
  return { ...transcript, widgets: HashMap.set(transcript.widgets, outputWidget, value) }
}

function clear(transcript: Transcript, outputWidget: string | undefined): Transcript {
  // Output widgets are displays of the cell, and cleared with it.
  if (outputWidget === undefined) {
    return {
      ...transcript,
      displays: List.empty(),
      contents: HashMap.empty(),
      staleCount: 0,
      pendingClear: false,
      widgets: HashMap.empty(),
      displayBytes: 0,
    }
  }
  const { generation, count } = widgetOf(transcript, outputWidget)
  const cleared = withWidget(transcript, outputWidget, {
    generation: generation + 1,
    count: 0,
    pendingClear: false,
  })
  const staleCount = transcript.staleCount + count
  // Compacting only when half is stale keeps the time per clear constant on average.
  return staleCount * 2 > List.size(transcript.displays)
    ? compact({ ...cleared, staleCount })
    : { ...cleared, staleCount }
}

/** Removes stale displays. */
function compact(transcript: Transcript): Transcript {
  const displays = List.filter(transcript.displays, (shown) => isVisible(transcript, shown))
  const ids = new Set(List.toReadonlyArray(displays).map(({ displayId }) => displayId))
  const contents = HashMap.filter(transcript.contents, (_, id) => ids.has(id))
  const rest = List.reduce(
    displays,
    0,
    (sum, { outputWidget = "", chunk }) =>
      sum + (chunk === undefined ? 0 : Weight.of(chunk)) + outputWidget.length,
  )
  const displayBytes = HashMap.reduce(contents, rest, (sum, chunk) => sum + Weight.of(chunk))
  return { ...transcript, displays, contents, staleCount: 0, displayBytes }
}

/** Tells whether a display was not cleared with its output widget. */
function isVisible(transcript: Transcript, { generation, outputWidget }: DisplayEntry): boolean {
  return outputWidget === undefined || widgetOf(transcript, outputWidget).generation === generation
}

/** Replaces the content of the displays that have the id of this one. */
function replace(transcript: Transcript, chunk: DisplayChunk): Transcript {
  const { contents } = transcript
  const { displayId } = chunk
  const before = displayId === undefined ? undefined : Option.getOrUndefined(HashMap.get(contents, displayId))
  if (displayId === undefined || before === undefined) return transcript
  const room = reserve(transcript, Weight.of(chunk) - Weight.of(before))
  if (room === undefined) return omit(transcript)
  return {
    ...room,
    contents: HashMap.set(room.contents, displayId, new DisplayChunk({ ...chunk, update: false })),
  }
}

function appendImage(transcript: Transcript, image: Image, displayId: string | undefined): Transcript {
  const { sequence, displayBytes, imageIds, images } = transcript
  const imageBytes = transcript.imageBytes + Weight.ofImage(image)
  if (!hasRoom(transcript, displayBytes + imageBytes)) return transcript
  return {
    ...transcript,
    imageBytes,
    sequence: sequence + 1,
    images: List.append(images, { image, displayId, sequence }),
    imageIds: displayId === undefined ? imageIds : HashSet.add(imageIds, displayId),
  }
}

/** Replaces the images with the id of this one by its image. */
function updateImage(transcript: Transcript, { displayId, image }: DisplayChunk): Transcript {
  const { sequence, displayBytes, imageIds, imageUpdates } = transcript
  if (image === undefined) return transcript
  if (displayId === undefined || !HashSet.has(imageIds, displayId)) {
    return appendImage(transcript, image, displayId)
  }
  const before = Option.getOrUndefined(HashMap.get(imageUpdates, displayId))
  const imageBytes = transcript.imageBytes + Weight.ofImage(image) -
    (before === undefined ? 0 : Weight.ofImage(before.image))
  if (!hasRoom(transcript, displayBytes + imageBytes)) return omit(transcript)
  return {
    ...transcript,
    imageBytes,
    sequence: sequence + 1,
    imageUpdates: HashMap.set(imageUpdates, displayId, { image, displayId, sequence }),
  }
}

/** Clears what is to be cleared before the next output, which may also be an exception. */
export function applyPendingClear(transcript: Transcript, outputWidget?: string): Transcript {
  return widgetOf(transcript, outputWidget).pendingClear ? clear(transcript, outputWidget) : transcript
}

/** Returns the result of an execution. */
export function toResult(
  transcript: Transcript,
  executionCount: number | undefined,
  payloads: ReadonlyArray<Payload> = [],
): ExecutionResult {
  return new ExecutionResult({
    text: textOf(transcript),
    images: imagesOf(transcript),
    displays: displaysOf(transcript),
    executionCount,
    ...(payloads.length === 0 ? {} : { payloads }),
  })
}

function textOf({ omittedCount, hasText, text }: Transcript): string | undefined {
  const shown = hasText ? TerminalText.toText(text).replace(/^[\r\n]+/, "").trimEnd() : undefined
  if (omittedCount === 0) return shown
  const note = `[effect-jupyter] ${omittedCount} display${
    omittedCount === 1 ? "" : "s"
  } left out, past the option "outputLimit"`
  return shown === undefined || shown === "" ? note : `${shown}\n${note}`
}

function displaysOf(transcript: Transcript): Array<DisplayChunk> {
  return List.toReadonlyArray(transcript.displays).flatMap((shown) => {
    const { chunk, displayId, executionCount } = shown
    if (!isVisible(transcript, shown)) return []
    if (displayId === undefined) return chunk === undefined ? [] : [chunk]
    return Option.match(HashMap.get(transcript.contents, displayId), {
      onNone: () => [],
      onSome: (content) =>
        content.executionCount === executionCount
          ? [content]
          : [new DisplayChunk({ ...content, executionCount })],
    })
  })
}

function imagesOf({ imageUpdates, images }: Transcript): Array<Image> {
  return List.toReadonlyArray(images).map(({ sequence, displayId, image }) => {
    const update = displayId === undefined
      ? undefined
      : Option.getOrUndefined(HashMap.get(imageUpdates, displayId))
    return update === undefined || update.sequence < sequence ? image : update.image
  })
}
