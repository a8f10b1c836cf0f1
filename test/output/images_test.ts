import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Option, Path, PlatformError, Schema } from "effect"
import { Buffer } from "node:buffer"
import { Image } from "../../src/execution.ts"
import type { JsonObject } from "../../src/jupyter/message.ts"
import * as Images from "../../src/output/images.ts"
import * as Platform from "../../src/platform.ts"

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
const pngBytes = new Uint8Array(Buffer.from(png, "base64"))
const svg = `<svg xmlns="http://www.w3.org/2000/svg"><text>é 😀</text></svg>\n`

/** A directory that does not exist yet, in one that is removed after the test. */
const newDirectory = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  return path.join(yield* fs.makeTempDirectoryScoped(), "deep", "images")
})
const saved = Effect.fnUntraced(function* (data: JsonObject) {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* newDirectory
  const image = yield* Effect.fromOption(yield* Images.keep(data, { imagesDir: directory }))
  assert.instanceOf(image, Image)
  assert.isTrue(image.path.startsWith(directory))
  return { ...image, bytes: yield* fs.readFile(image.path) }
})
/** The failure of an image that must not leave a file either. */
const refused = Effect.fnUntraced(function* (data: JsonObject) {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* newDirectory
  const error = yield* Effect.flip(Images.keep(data, { imagesDir: directory }))
  assert.instanceOf(error, Images.ImageError)
  if (yield* fs.exists(directory)) assert.isEmpty(yield* fs.readDirectory(directory))
  return error
})

describe("images", () => {
  it.effect("writes a PNG", () =>
    Effect.gen(function* () {
      const { bytes, mimeType, path } = yield* saved({ "image/png": png, "text/plain": "<Figure>" })
      assert.strictEqual(mimeType, "image/png")
      assert.match(path, /\.png$/)
      assert.deepStrictEqual(new Uint8Array(bytes), pngBytes)
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("reads base64 with line breaks and in lines", () =>
    Effect.gen(function* () {
      const lines = png.match(/.{1,40}/g) ?? []
      for (const source of [`${png}\n`, lines.join("\n"), lines.join("\r\n\t "), lines]) {
        const { bytes } = yield* saved({ "image/png": source })
        assert.deepStrictEqual(new Uint8Array(bytes), pngBytes)
      }
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("writes a JPEG", () =>
    Effect.gen(function* () {
      const { bytes, mimeType, path } = yield* saved({ "image/jpeg": "/9j/2Q==" })
      assert.strictEqual(mimeType, "image/jpeg")
      assert.match(path, /\.jpg$/)
      assert.deepStrictEqual([...bytes], [0xff, 0xd8, 0xff, 0xd9])
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("writes a WebP, a GIF and a PDF", () =>
    Effect.gen(function* () {
      for (
        const [type, extension, begin] of [
          ["image/webp", "webp", "RIFF"],
          ["image/gif", "gif", "GIF89a"],
          ["application/pdf", "pdf", "%PDF-1.4"],
        ] as const
      ) {
        const data = { [type]: Buffer.from(begin).toString("base64"), "text/plain": "<Figure>" }
        const { bytes, mimeType, path } = yield* saved(data)
        assert.strictEqual(mimeType, type)
        assert.isTrue(path.endsWith(`.${extension}`))
        assert.strictEqual(new TextDecoder().decode(bytes), begin)
      }
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("refuses an image that is empty", () =>
    Effect.gen(function* () {
      for (const data of [{ "image/png": "" }, { "image/svg+xml": [] }, { "image/jpeg": "\n" }]) {
        assert.include((yield* refused(data)).detail, "empty")
      }
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("gives names that do not clash, however many there are", () =>
    Effect.gen(function* () {
      const options = { imagesDir: "none", images: "bytes" } as const
      const names = yield* Effect.replicateEffect(Images.keep({ "image/png": png }, options), 5000)
      assert.strictEqual(new Set(names.map((image) => Option.getOrThrow(image).path)).size, 5000)
      // 122 random bits, so that names are unique without a counter.
      assert.match(
        Option.getOrThrow(names[0] ?? Option.none()).path,
        /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}\.png$/,
      )
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("writes an SVG as text or in lines", () =>
    Effect.gen(function* () {
      for (const source of [svg, svg.split(/(?<=>)/)]) {
        const { bytes, mimeType, path } = yield* saved({ "image/svg+xml": source })
        assert.strictEqual(mimeType, "image/svg+xml")
        assert.match(path, /\.svg$/)
        assert.strictEqual(new TextDecoder().decode(bytes), svg)
      }
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("takes the best of several representations", () =>
    Effect.gen(function* () {
      const all = { "image/svg+xml": svg, "image/jpeg": "/9j/2Q==", "image/png": png }
      assert.strictEqual((yield* saved(all)).mimeType, "image/png")
      const { "image/png": _, ...rest } = all
      assert.strictEqual((yield* saved(rest)).mimeType, "image/jpeg")
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("writes each image to a file of its own", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* newDirectory
      const images = yield* Effect.forEach(
        Array.from({ length: 20 }),
        () => Images.keep({ "image/png": png }, { imagesDir: directory }),
        { concurrency: "unbounded" },
      )
      const paths = new Set(images.map((image) => Option.getOrThrow(image).path))
      assert.strictEqual(paths.size, 20)
      assert.lengthOf(yield* fs.readDirectory(directory), 20)
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("writes nothing without an image", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* newDirectory
      for (const data of [{}, { "text/plain": "1", "text/html": "<img>", "video/mp4": "AAAA" }]) {
        assert.isTrue(Option.isNone(yield* Images.keep(data, { imagesDir: directory })))
      }
      assert.isFalse(yield* fs.exists(directory))
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("refuses base64 that is none", () =>
    Effect.gen(function* () {
      for (const bad of ["not base64!", "abc", "=", `${png}é`]) {
        const error = yield* refused({ "image/png": bad })
        assert.strictEqual(error.mimeType, "image/png")
        assert.match(error.message, /^The image of type "image\/png" could not be saved: ./)
      }
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("refuses what is no text", () =>
    Effect.gen(function* () {
      // The second has no text form at all: to make one throws.
      const bad: ReadonlyArray<unknown> = [{ a: 1 }, { toString: 1 }, [{ toString: 1 }], [1], 1, true, null]
      for (const mimeType of ["image/png", "image/jpeg", "image/svg+xml"]) {
        for (const source of bad) {
          const error = yield* refused({ [mimeType]: source })
          assert.strictEqual(error.mimeType, mimeType)
        }
      }
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("tells when the directory cannot be made", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const file = yield* fs.makeTempFileScoped()
      for (const directory of [file, path.join(file, "images")]) {
        const error = yield* Effect.flip(Images.keep({ "image/png": png }, { imagesDir: directory }))
        assert.instanceOf(error, Images.ImageError)
        assert.include(error.detail, file)
      }
      assert.strictEqual(yield* fs.readFileString(file), "", "The file is as it was")
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("leaves no half of an image on a full disk", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const written: Array<string> = []
      const full: FileSystem.FileSystem = {
        ...fs,
        writeFile: (path, bytes) =>
          fs.writeFile(path, bytes.subarray(0, 8)).pipe(
            Effect.andThen(Effect.sync(() => written.push(path))),
            Effect.andThen(Effect.fail(PlatformError.systemError({
              _tag: "WriteZero",
              module: "FileSystem",
              method: "writeFile",
              description: "no space left on device",
            }))),
          ),
      }
      const error = yield* refused({ "image/png": png }).pipe(
        Effect.provideService(FileSystem.FileSystem, full),
      )
      assert.include(error.detail, "no space left on device")
      assert.lengthOf(written, 1)
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("keeps the bytes instead of a file", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const imagesDir = yield* newDirectory
      const image = yield* Effect.fromOption(
        yield* Images.keep({ "image/png": png }, { imagesDir, images: "bytes" }),
      )
      assert.deepStrictEqual(new Uint8Array(image.bytes ?? []), pngBytes)
      assert.match(image.path, /^[\w-]+\.png$/)
      const codec = Schema.toCodecJson(Image)
      const json = JSON.stringify(yield* Schema.encodeEffect(codec)(image))
      assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(codec)(JSON.parse(json)), image)
      assert.isFalse(yield* fs.exists(imagesDir))
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("gives it to a function, which says where it is", () =>
    Effect.gen(function* () {
      const given: Array<Images.ImageFile> = []
      const images = (image: Images.ImageFile) =>
        Effect.sync(() => {
          given.push(image)
          return `s3://bucket/${image.name}`
        })
      const image = yield* Effect.fromOption(
        yield* Images.keep({ "image/svg+xml": svg }, { imagesDir: "none", images }),
      )
      assert.strictEqual(given[0]?.mimeType, "image/svg+xml")
      assert.strictEqual(new TextDecoder().decode(given[0]?.bytes), svg)
      assert.match(image.path, /^s3:\/\/bucket\/[\w-]+\.svg$/)
      assert.isUndefined(image.bytes)
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("tells when the function fails, however it does", () =>
    Effect.gen(function* () {
      const failing: ReadonlyArray<Exclude<Images.Images, string>> = [
        () => Effect.fail("The bucket is full"),
        () => Effect.die(new Error("The bucket is full")),
        () => {
          throw new Error("The bucket is full")
        },
      ]
      for (const images of failing) {
        const error = yield* Effect.flip(Images.keep({ "image/png": png }, { imagesDir: "none", images }))
        assert.instanceOf(error, Images.ImageError)
        assert.include(error.detail, "The bucket is full")
      }
    }).pipe(Effect.provide(Platform.layer)))
})
