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
import { type Chunk, DisplayChunk, ExecutionResult, type Image, type TextChunk } from "../execution.ts"
import * as FoldedText from "./folded_text.ts"

/** A display, whose content is that of all displays with its id. */
interface Shown {
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
  readonly spoken: boolean
  readonly text: FoldedText.FoldedText
  /** What the last text was written to or is part of: what comes from elsewhere begins a line. */
  readonly source: TextChunk["name"] | "display" | undefined
  readonly displays: List.Chunk<Shown>
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
}

/** The transcript of an execution that has put out nothing; `outputLimit` are the bytes of text to keep. */
export function empty(outputLimit?: number): Transcript {
  return {
    spoken: false,
    text: FoldedText.empty(outputLimit),
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
  }
}

/**
 * The transcript with one more chunk, shown by the widget `area` if there is one. The rules are those of JupyterLab and nbclient, for the outputs of one cell: an
 * update does not reach displays of other executions. What an output widget shows is among the displays, and cleared
 * with it.
 */
export function append(transcript: Transcript, chunk: Chunk, area?: string): Transcript {
  if (chunk._tag === "ClearOutput") {
    if (!chunk.wait) return clear(transcript, area)
    return area === undefined
      ? { ...transcript, clearing: true }
      : withArea(transcript, area, { ...areaOf(transcript, area), clearing: true })
  }
  if (chunk._tag === "TextChunk") {
    const cleared = write(interject(transcript, area), chunk.name, chunk.text)
    return cleared.spoken ? cleared : { ...cleared, spoken: true }
  }
  // An update is no output: it does not trigger a clearing that waits.
  if (chunk.update) return updateImage(replace(transcript, chunk), chunk)
  // A display under an id that is known changes the ones that are there, too.
  const cleared = show(interject(transcript, area), chunk.text)
  const { displayId, executionCount, image } = chunk
  const { age, count } = areaOf(cleared, area)
  const shown = { displayId, executionCount, area, age, chunk: displayId === undefined ? chunk : undefined }
  const next: Transcript = {
    ...cleared,
    displays: List.append(cleared.displays, shown),
    contents: displayId === undefined ? cleared.contents : HashMap.set(cleared.contents, displayId, chunk),
  }
  const counted = area === undefined ? next : withArea(next, area, { age, count: count + 1, clearing: false })
  return image === undefined ? counted : appendImage(counted, image, displayId)
}

/** The transcript with text of a stream, which begins a line behind other output unless it goes to one itself. */
function write(transcript: Transcript, source: TextChunk["name"], text: string): Transcript {
  if (text === "") return transcript
  const { source: last } = transcript
  const isContinued = last === undefined || last === source || (last !== "display" && /^[\r\n]/.test(text))
  const before = isContinued ? transcript.text : FoldedText.breakLine(transcript.text)
  return { ...transcript, source, text: FoldedText.append(before, text) }
}

/** The transcript with the text of a display, which has lines of its own. */
function show(transcript: Transcript, text: string | undefined): Transcript {
  if (text === undefined) return transcript
  const shown: Transcript = { ...transcript, spoken: true }
  return text === "" ? shown : { ...shown, source: "display", text: FoldedText.show(shown.text, text) }
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
  return { ...transcript, displays, contents, gone: 0 }
}

function isThere(transcript: Transcript, { age, area }: Shown): boolean {
  return area === undefined || areaOf(transcript, area).age === age
}

/** The transcript with another content of the displays that have the id of this one. */
function replace(transcript: Transcript, chunk: DisplayChunk): Transcript {
  const { contents } = transcript
  return chunk.displayId === undefined || !HashMap.has(contents, chunk.displayId) ? transcript : {
    ...transcript,
    contents: HashMap.set(contents, chunk.displayId, new DisplayChunk({ ...chunk, update: false })),
  }
}

function appendImage(transcript: Transcript, image: Image, displayId: string | undefined): Transcript {
  const { at, imageIds, images } = transcript
  return {
    ...transcript,
    at: at + 1,
    images: List.append(images, { image, displayId, at }),
    imageIds: displayId === undefined ? imageIds : HashSet.add(imageIds, displayId),
  }
}

/** The transcript with the image of an update in place of those that it updates. */
function updateImage(transcript: Transcript, { displayId, image }: DisplayChunk): Transcript {
  const { at, imageIds, imageUpdates } = transcript
  if (image === undefined) return transcript
  return displayId === undefined || !HashSet.has(imageIds, displayId)
    ? appendImage(transcript, image, displayId)
    : {
      ...transcript,
      at: at + 1,
      imageUpdates: HashMap.set(imageUpdates, displayId, { image, displayId, at }),
    }
}

/** The transcript with a new output to come, be it one that is no chunk, as is what the code raised. */
export function interject(transcript: Transcript, area?: string): Transcript {
  return areaOf(transcript, area).clearing ? clear(transcript, area) : transcript
}

/** The result for a transcript. */
export function toResult(transcript: Transcript, executionCount: number | undefined): ExecutionResult {
  return new ExecutionResult({
    text: transcript.spoken
      ? FoldedText.toText(transcript.text).replace(/^[\r\n]+/, "").trimEnd()
      : undefined,
    images: imagesOf(transcript),
    displays: displaysOf(transcript),
    executionCount,
  })
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
