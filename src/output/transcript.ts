/**
 * What an execution has put out, gathered chunk by chunk into what a notebook would show at the end.
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

/** A display, whose content is that of all displays with its id. */
interface DisplayEntry {
  readonly displayId: string | undefined
  readonly executionCount: number | undefined
  /** What it shows if it has no id. */
  readonly chunk: DisplayChunk | undefined
  readonly area: string | undefined
  /** How often its area had been cleared. */
  readonly age: number
}

/** A widget that shows outputs. */
interface Area {
  /** How often it was cleared. */
  readonly age: number
  /** How many displays it has. */
  readonly count: number
  /** A clearing that waits for the next output. */
  readonly clearing: boolean
}

/** An image and when it was shown. */
interface ShownImage {
  readonly image: Image
  readonly displayId: string | undefined
  readonly at: number
}

/**
 * Everything an execution has put out so far. One more chunk takes the same time however much there is, and what is
 * not shown any more is let go.
 */
export interface Transcript {
  /** Whether there was any text at all, be it empty. */
  readonly hasText: boolean
  readonly text: TerminalText.TerminalText
  /** What the last text was written to or is part of: what comes from elsewhere begins a line. */
  readonly source: TextChunk["name"] | "display" | undefined
  readonly displays: List.Chunk<DisplayEntry>
  /** What is shown under an id. */
  readonly contents: HashMap.HashMap<string, DisplayChunk>
  /** The displays that areas have been cleared of but which are still among `displays`. */
  readonly gone: number
  readonly images: List.Chunk<ShownImage>
  /** The ids among the images. */
  readonly imageIds: HashSet.HashSet<string>
  /** The latest update of each of them, in the place of all images before it. */
  readonly imageUpdates: HashMap.HashMap<string, ShownImage>
  /** How many images there were. */
  readonly at: number
  /** A clearing that waits for the next output. */
  readonly clearing: boolean
  readonly areas: HashMap.HashMap<string, Area>
  /** How many bytes the displays take, and how many the images. */
  readonly displayBytes: number
  readonly imageBytes: number
  /** How many displays and updates would have taken more than there may be. */
  readonly left: number
}

/** How many widgets are told apart: what others show is not cleared with them. */
const mostAreas = 10_000

/** The transcript of an execution that has put out nothing; `outputLimit` are the bytes to keep of all of it. */
export function empty(outputLimit?: number): Transcript {
  return {
    hasText: false,
    text: TerminalText.empty(outputLimit),
    source: undefined,
    displays: List.empty(),
    contents: HashMap.empty(),
    gone: 0,
    images: List.empty(),
    imageIds: HashSet.empty(),
    imageUpdates: HashMap.empty(),
    at: 0,
    clearing: false,
    areas: HashMap.empty(),
    displayBytes: 0,
    imageBytes: 0,
    left: 0,
  }
}

/**
 * The transcript with one more chunk, shown by the widget `area` if there is one. The rules are those of JupyterLab and
 * nbclient, for the outputs of one cell: an update does not reach displays of other executions. What an output widget
 * shows is among the displays, and cleared with it.
 */
export function append(transcript: Transcript, chunk: Chunk, widget?: string): Transcript {
  const area = widget === undefined || isKnown(transcript, widget) ? widget : undefined
  if (chunk._tag === "ClearOutput") {
    if (area !== widget) return transcript
    if (!chunk.wait) return clear(transcript, area)
    return area === undefined
      ? { ...transcript, clearing: true }
      : withArea(transcript, area, { ...areaOf(transcript, area), clearing: true })
  }
  if (chunk._tag === "TextChunk") {
    const cleared = write(applyPendingClear(transcript, area), chunk.name, chunk.text)
    return cleared.hasText ? cleared : { ...cleared, hasText: true }
  }
  // An update is no output: it does not trigger a clearing that waits.
  if (chunk.update) return updateImage(replace(transcript, chunk), chunk)
  // A display under an id that is known changes the ones that are there, too.
  const cleared = show(applyPendingClear(transcript, area), chunk.text)
  const { displayId, image } = chunk
  const shownImage = image === undefined ? cleared : appendImage(cleared, image, displayId)
  const before = displayId === undefined
    ? undefined
    : Option.getOrUndefined(HashMap.get(cleared.contents, displayId))
  const room = makeRoom(
    shownImage,
    Weight.of(chunk) + (area?.length ?? 0) - (before === undefined ? 0 : Weight.of(before)),
  )
  return room === undefined ? leaveOut(shownImage) : appendDisplay(room, chunk, area)
}

/** Adds a display for which there is room. */
function appendDisplay(transcript: Transcript, chunk: DisplayChunk, area: string | undefined): Transcript {
  const { displayId, executionCount } = chunk
  const { age, count } = areaOf(transcript, area)
  const shown = { displayId, executionCount, area, age, chunk: displayId === undefined ? chunk : undefined }
  const { contents, displays } = transcript
  const next: Transcript = {
    ...transcript,
    displays: List.append(displays, shown),
    contents: displayId === undefined ? contents : HashMap.set(contents, displayId, chunk),
  }
  return area === undefined ? next : withArea(next, area, { age, count: count + 1, clearing: false })
}

function isKnown({ areas }: Transcript, area: string): boolean {
  return HashMap.size(areas) < mostAreas || HashMap.has(areas, area)
}

/** The transcript with so many bytes more taken by displays, if there is room. */
function makeRoom(transcript: Transcript, bytes: number): Transcript | undefined {
  const displayBytes = Math.max(0, transcript.displayBytes + bytes)
  if (hasRoom(transcript, displayBytes + transcript.imageBytes)) return { ...transcript, displayBytes }
  return transcript.gone === 0 ? undefined : makeRoom(tidy(transcript), bytes)
}

/** Whether displays and images may take so many bytes: as many as the text may. */
function hasRoom({ at, displays, gone, text }: Transcript, bytes: number): boolean {
  return bytes + Weight.ofCount(List.size(displays) - gone + at) <= text.kept.limit
}

function leaveOut(transcript: Transcript): Transcript {
  return { ...transcript, left: transcript.left + 1 }
}

/** The transcript with text of a stream, which begins a line behind other output unless it goes to one itself. */
function write(transcript: Transcript, source: TextChunk["name"], text: string): Transcript {
  if (text === "") return transcript
  const { source: last } = transcript
  const isContinued = last === undefined || last === source || (last !== "display" && /^[\r\n]/.test(text))
  const before = isContinued ? transcript.text : TerminalText.breakLine(transcript.text)
  return { ...transcript, source, text: TerminalText.append(before, text) }
}

/** The transcript with the text of a display, which has lines of its own. */
function show(transcript: Transcript, text: string | undefined): Transcript {
  if (text === undefined) return transcript
  const shown: Transcript = { ...transcript, hasText: true }
  return text === "" ? shown : { ...shown, source: "display", text: TerminalText.show(shown.text, text) }
}

function areaOf(transcript: Transcript, area: string | undefined): Area {
  return area === undefined
    ? { age: 0, count: 0, clearing: transcript.clearing }
    : Option.getOrElse(HashMap.get(transcript.areas, area), () => ({ age: 0, count: 0, clearing: false }))
}

function withArea(transcript: Transcript, area: string, value: Area): Transcript {
  return { ...transcript, areas: HashMap.set(transcript.areas, area, value) }
}

function clear(transcript: Transcript, area: string | undefined): Transcript {
  // The widgets go with the rest.
  if (area === undefined) {
    return {
      ...transcript,
      displays: List.empty(),
      contents: HashMap.empty(),
      gone: 0,
      clearing: false,
      areas: HashMap.empty(),
      displayBytes: 0,
    }
  }
  const { age, count } = areaOf(transcript, area)
  const cleared = withArea(transcript, area, { age: age + 1, count: 0, clearing: false })
  const gone = transcript.gone + count
  // Now and then, or every clearing would take as long as there are displays.
  return gone * 2 > List.size(transcript.displays) ? tidy({ ...cleared, gone }) : { ...cleared, gone }
}

/** The transcript without the displays that areas have been cleared of. */
function tidy(transcript: Transcript): Transcript {
  const displays = List.filter(transcript.displays, (shown) => isThere(transcript, shown))
  const ids = new Set(List.toReadonlyArray(displays).map(({ displayId }) => displayId))
  const contents = HashMap.filter(transcript.contents, (_, id) => ids.has(id))
  const rest = List.reduce(
    displays,
    0,
    (sum, { area = "", chunk }) => sum + (chunk === undefined ? 0 : Weight.of(chunk)) + area.length,
  )
  const displayBytes = HashMap.reduce(contents, rest, (sum, chunk) => sum + Weight.of(chunk))
  return { ...transcript, displays, contents, gone: 0, displayBytes }
}

function isThere(transcript: Transcript, { age, area }: DisplayEntry): boolean {
  return area === undefined || areaOf(transcript, area).age === age
}

/** The transcript with another content of the displays that have the id of this one. */
function replace(transcript: Transcript, chunk: DisplayChunk): Transcript {
  const { contents } = transcript
  const { displayId } = chunk
  const before = displayId === undefined ? undefined : Option.getOrUndefined(HashMap.get(contents, displayId))
  if (displayId === undefined || before === undefined) return transcript
  const room = makeRoom(transcript, Weight.of(chunk) - Weight.of(before))
  if (room === undefined) return leaveOut(transcript)
  return {
    ...room,
    contents: HashMap.set(room.contents, displayId, new DisplayChunk({ ...chunk, update: false })),
  }
}

function appendImage(transcript: Transcript, image: Image, displayId: string | undefined): Transcript {
  const { at, displayBytes, imageIds, images } = transcript
  const imageBytes = transcript.imageBytes + Weight.ofImage(image)
  if (!hasRoom(transcript, displayBytes + imageBytes)) return transcript
  return {
    ...transcript,
    imageBytes,
    at: at + 1,
    images: List.append(images, { image, displayId, at }),
    imageIds: displayId === undefined ? imageIds : HashSet.add(imageIds, displayId),
  }
}

/** The transcript with the image of an update in place of those that it updates. */
function updateImage(transcript: Transcript, { displayId, image }: DisplayChunk): Transcript {
  const { at, displayBytes, imageIds, imageUpdates } = transcript
  if (image === undefined) return transcript
  if (displayId === undefined || !HashSet.has(imageIds, displayId)) {
    return appendImage(transcript, image, displayId)
  }
  const before = Option.getOrUndefined(HashMap.get(imageUpdates, displayId))
  const imageBytes = transcript.imageBytes + Weight.ofImage(image) -
    (before === undefined ? 0 : Weight.ofImage(before.image))
  if (!hasRoom(transcript, displayBytes + imageBytes)) return leaveOut(transcript)
  return {
    ...transcript,
    imageBytes,
    at: at + 1,
    imageUpdates: HashMap.set(imageUpdates, displayId, { image, displayId, at }),
  }
}

/** The transcript with a new output to come, be it one that is no chunk, as is what the code raised. */
export function applyPendingClear(transcript: Transcript, area?: string): Transcript {
  return areaOf(transcript, area).clearing ? clear(transcript, area) : transcript
}

/** The result for a transcript. */
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

function textOf({ left, hasText, text }: Transcript): string | undefined {
  const shown = hasText ? TerminalText.toText(text).replace(/^[\r\n]+/, "").trimEnd() : undefined
  if (left === 0) return shown
  const note = `[effect-jupyter] ${left} display${
    left === 1 ? "" : "s"
  } left out, past the option "outputLimit"`
  return shown === undefined || shown === "" ? note : `${shown}\n${note}`
}

function displaysOf(transcript: Transcript): Array<DisplayChunk> {
  return List.toReadonlyArray(transcript.displays).flatMap((shown) => {
    const { chunk, displayId, executionCount } = shown
    if (!isThere(transcript, shown)) return []
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
  return List.toReadonlyArray(images).map(({ at, displayId, image }) => {
    const update = displayId === undefined
      ? undefined
      : Option.getOrUndefined(HashMap.get(imageUpdates, displayId))
    return update === undefined || update.at < at ? image : update.image
  })
}
