/**
 * The JSON of chunks and results: keys that are undefined are absent, and the bytes of an image occur once.
 *
 * @module
 */
import * as Base64 from "effect/encoding/Base64"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

/** Makes a schema whose value may be undefined, which is an absent key in JSON. */
export const orAbsent = <S extends Schema.Constraint>(schema: S) =>
  Schema.optionalKey(schema).pipe(
    Schema.decodeTo(
      Schema.UndefinedOr(Schema.toType(schema)),
      SchemaTransformation.transformOptional<S["Type"] | undefined, S["Type"]>({
        decode: Option.orElseSome(() => undefined),
        encode: Option.filter(Predicate.isNotUndefined),
      }),
    ),
  )

/** Makes a struct whose JSON is transformed, for `Schema.Class`, which takes a struct only. */
export function withJson<S extends Schema.Struct<Schema.Struct.Fields>>(
  struct: S,
  transformation: {
    readonly decode: (json: S["Encoded"]) => S["Encoded"]
    readonly encode: (json: S["Encoded"]) => S["Encoded"]
  },
): S["Rebuild"] {
  const json = Schema.make<Schema.Codec<S["Encoded"]>>(Schema.toEncoded(struct).ast)
  return struct.rebuild(
    json.pipe(Schema.decodeTo(struct, SchemaTransformation.transform(transformation))).ast,
  )
}

interface ImageJson {
  readonly path: string
  readonly mimeType: string
  readonly bytes?: string
}

interface DisplayJson {
  readonly data: { readonly [mimeType: string]: unknown }
  readonly image?: ImageJson
}

interface ResultJson<D extends DisplayJson> {
  readonly images: ReadonlyArray<ImageJson>
  readonly displays: ReadonlyArray<D>
}

/** Returns the bytes of an image as the kernel sends them: SVG as text, others as base64. */
const toRepresentation = (mimeType: string, bytes: string): string =>
  mimeType === "image/svg+xml" ? Result.getOrElse(Base64.decodeString(bytes), () => bytes) : bytes

/** The JSON in place of the representation that is the image. */
const reference = { $ref: "#/image/bytes" } as const

const isReference = (value: unknown): boolean =>
  Predicate.hasProperty(value, "$ref") && value.$ref === reference.$ref

/** Transforms a display: the representation that is its image refers to the bytes of `image`. */
export const display = {
  encode: <D extends DisplayJson>(display: D): D => {
    const { data, image } = display
    return image?.bytes !== undefined &&
        data[image.mimeType] === toRepresentation(image.mimeType, image.bytes)
      ? { ...display, data: { ...data, [image.mimeType]: reference } }
      : display
  },
  decode: <D extends DisplayJson>(display: D): D => {
    const { data, image } = display
    return image?.bytes !== undefined && isReference(data[image.mimeType])
      ? { ...display, data: { ...data, [image.mimeType]: toRepresentation(image.mimeType, image.bytes) } }
      : display
  },
}

/** Transforms a result: its displays have no bytes of images that are in `images` under the same path. */
export const result = {
  encode: <D extends DisplayJson, R extends ResultJson<D>>(result: R): R => {
    const known = bytesOf(result)
    const displays = result.displays.map((display) => {
      const { data, image } = display
      if (image?.bytes === undefined || known.get(image.path) !== image.bytes) return display
      if (!isReference(data[image.mimeType])) return display
      const { bytes: _, ...rest } = image
      return { ...display, image: rest }
    })
    return { ...result, displays }
  },
  decode: <D extends DisplayJson, R extends ResultJson<D>>(result: R): R => {
    const known = bytesOf(result)
    const displays = result.displays.map((display) => {
      const { data, image } = display
      if (image === undefined || image.bytes !== undefined || !isReference(data[image.mimeType])) {
        return display
      }
      const bytes = known.get(image.path)
      return bytes === undefined ? display : { ...display, image: { ...image, bytes } }
    })
    return { ...result, displays }
  },
}

const bytesOf = ({ images }: { readonly images: ReadonlyArray<ImageJson> }): ReadonlyMap<string, string> =>
  new Map(images.flatMap(({ bytes, path }) => bytes === undefined ? [] : [[path, bytes] as const]))
