/**
 * The images of displays: written to files, passed to a function, or kept in memory.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Buffer } from "node:buffer"
import * as Defect from "../defect.ts"
import * as Platform from "../platform.ts"
import { Image } from "../execution.ts"
import { textOf } from "../execution/representation.ts"
import { excerpt } from "../jupyter/control_codes.ts"
import type { JsonObject } from "../jupyter/message.ts"
import * as Guarded from "./guarded_directory.ts"

/** An image that could not be written. */
export class ImageError
  extends Schema.TaggedError<ImageError>("effect-jupyter/kernel/ImageError")("ImageError", {
    mimeType: Schema.String,
    detail: Schema.String,
  }) {
  override get message(): string {
    return `The image of type "${this.mimeType}" could not be saved: ${this.detail}`
  }
}

/** The formats of images, the preferred one first. */
const formats = [
  { mimeType: "image/png", extension: "png", bytes: fromBase64 },
  { mimeType: "image/jpeg", extension: "jpg", bytes: fromBase64 },
  { mimeType: "image/svg+xml", extension: "svg", bytes: fromText },
  { mimeType: "image/webp", extension: "webp", bytes: fromBase64 },
  { mimeType: "image/gif", extension: "gif", bytes: fromBase64 },
  // A format of matplotlib, with `set_matplotlib_formats`.
  { mimeType: "application/pdf", extension: "pdf", bytes: fromBase64 },
] as const

const formatOf = (data: JsonObject) => formats.find(({ mimeType }) => data[mimeType] !== undefined)

/** Tells whether a display has an image. */
export function has(data: JsonObject): boolean {
  return formatOf(data) !== undefined
}

/** Makes the error of an image that was not saved before the execution had to end. */
export function timeoutError(data: JsonObject): ImageError {
  const detail = "It was not kept before the execution had to end"
  return new ImageError({ mimeType: formatOf(data)?.mimeType ?? "", detail })
}

/**
 * An image of a display.
 *
 * @category models
 * @since 0.1.0
 */
export interface ImageFile {
  /** A unique name for a file. */
  readonly name: string
  readonly mimeType: string
  readonly bytes: Uint8Array
}

/**
 * The destination of images: files in a directory, bytes in the result, or a function that returns the `path` for the
 * result.
 *
 * @category models
 * @since 0.1.0
 */
export type Images = "directory" | "bytes" | ((image: ImageFile) => Effect.Effect<string, unknown>)

/** The options that concern images. */
export interface ImageOptions {
  readonly imagesDir: string
  /** `"directory"` by default. */
  readonly images?: Images | undefined
  /** Folders that sandboxed code may write, without links on their way; no link in them is followed. */
  readonly untrusted?: ReadonlyArray<string> | undefined
}

/** Saves the image of a display, if it has one, where the options say. */
export const keep: (
  data: JsonObject,
  options: ImageOptions,
) => Effect.Effect<Option.Option<Image>, ImageError, FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function* (data, { images = "directory", imagesDir, untrusted }) {
    const read = yield* Effect.fromResult(imageOf(data))
    if (Option.isNone(read)) return Option.none()
    const { bytes, mimeType, name } = read.value
    if (images === "bytes") return Option.some(new Image({ path: name, mimeType, bytes }))
    const path = images === "directory"
      ? yield* write(read.value, imagesDir, untrusted)
      : yield* callSink(read.value, images)
    return Option.some(new Image({ path, mimeType }))
  },
)

/** Decodes the preferred image of a display. */
function imageOf(data: JsonObject): Result.Result<Option.Option<ImageFile>, ImageError> {
  const format = formatOf(data)
  if (format === undefined) return Result.succeed(Option.none())
  const { mimeType } = format
  const text = textOf(data[mimeType])
  if (text === undefined) return Result.fail(new ImageError({ mimeType, detail: "It is not text" }))
  return format.bytes(text).pipe(
    Result.flatMap((bytes) =>
      bytes.byteLength === 0 ? Result.fail(new Error("It is empty")) : Result.succeed(bytes)
    ),
    Result.map((bytes) =>
      Option.some({ mimeType, bytes, name: `${SecureRandom.uuidV4Unsafe()}.${format.extension}` })
    ),
    Result.mapError((error) => new ImageError({ mimeType, detail: error.message })),
  )
}

const write = Effect.fnUntraced(function* (
  { bytes, mimeType, name }: ImageFile,
  directory: string,
  untrusted: ReadonlyArray<string> = [],
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(directory, name)
  if (untrusted.length > 0) {
    const isWritten = yield* Guarded.locate(directory, untrusted).pipe(
      Effect.flatMap((place) =>
        place === undefined ? Effect.succeed(false) : Effect.as(Guarded.write(place, name, bytes), true)
      ),
      Effect.mapError(({ message }) => new ImageError({ mimeType, detail: message })),
      Effect.uninterruptible,
    )
    if (isWritten) return file
  }
  yield* fs.writeFile(file, bytes).pipe(
    Effect.catchReason(
      "PlatformError",
      "NotFound",
      () => Effect.andThen(makeDirectory(directory), fs.writeFile(file, bytes)),
    ),
    // A file may be incomplete if the disk is full.
    Effect.tapError(() => Effect.ignore(fs.remove(file, { force: true }))),
    Effect.mapError((error) => new ImageError({ mimeType, detail: Platform.describe(error) })),
    // An interruption must not leave an incomplete file.
    Effect.uninterruptible,
  )
  return file
})

/** Passes the image to a function of the user, whose failure is an {@link ImageError}. */
const callSink = (
  image: ImageFile,
  sink: Exclude<Images, string>,
): Effect.Effect<string, ImageError> =>
  Effect.suspend(() => sink(image)).pipe(
    Defect.log,
    Effect.catchCause((cause) =>
      Cause.hasInterrupts(cause) ? Effect.interrupt : new ImageError({
        mimeType: image.mimeType,
        detail: Cause.pretty(cause).split("\n")[0] ?? "",
      })
    ),
  )

/**
 * Makes a directory and its parents. Node's recursive `mkdir` never ends below a directory that cannot have any, such
 * as `/proc`.
 */
const makeDirectory: (
  directory: string,
) => Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function* (directory: string) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const parent = path.dirname(directory)
    yield* fs.makeDirectory(directory).pipe(
      Effect.catchReason(
        "PlatformError",
        "NotFound",
        (_, error) =>
          parent === directory
            ? Effect.fail(error)
            : Effect.andThen(makeDirectory(parent), fs.makeDirectory(directory)),
      ),
      Effect.catchReason("PlatformError", "AlreadyExists", () => Effect.void),
    )
  },
)

const space = /\s/
const spaces = /\s+/g

/** Decodes base64 with Node, in a seventh of the time of Effect's decoder; but Node skips invalid characters. */
function fromBase64(text: string): Result.Result<Uint8Array, Error> {
  const encoded = space.test(text) ? text.replaceAll(spaces, "") : text
  const padding = encoded.endsWith("==") ? 2 : encoded.endsWith("=") ? 1 : 0
  const bytes = Buffer.from(encoded, "base64")
  // Skipped characters make it shorter; "-" and "_" of the URL-safe alphabet are decoded and not skipped.
  return bytes.byteLength === encoded.length / 4 * 3 - padding && !/[-_]/.test(encoded)
    ? Result.succeed(bytes)
    : Result.fail(new Error(`Not base64 but "${excerpt(encoded, 40)}"`))
}

function fromText(text: string): Result.Result<Uint8Array, Error> {
  return Result.succeed(new TextEncoder().encode(text))
}
