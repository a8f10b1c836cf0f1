/**
 * The choice between the representations of a display.
 *
 * @module
 */
import * as Option from "effect/Option"

/**
 * One representation of a display.
 *
 * @category models
 * @since 0.1.0
 */
export interface Representation<MimeType extends string = string> {
  readonly mimeType: MimeType
  /** Text, base64 of an image, or the value that the kernel sent as JSON. */
  readonly data: MimeType extends `${"text" | "image"}/${string}` ? string : unknown
}

/**
 * The MIME types of displays, the best first, as JupyterLab prefers them. A `*` stands for anything: Plotly, Vega
 * and others have types of their own, with versions.
 *
 * @example
 * ```ts
 * import { Execution } from "effect-jupyter"
 *
 * console.log(Execution.preference.includes("text/html")) // => true
 * ```
 *
 * @category representations
 * @since 0.1.0
 */
export const preference: ReadonlyArray<string> = [
  "application/vnd.*+json",
  "application/json",
  "application/geo+json",
  "text/html",
  "text/markdown",
  "text/latex",
  "image/svg+xml",
  "image/png",
  "image/jpeg",
  "image/webp",
  "image/gif",
  "image/*",
  "application/javascript",
  "text/plain",
]

/**
 * Returns the representation of a display for the first of the MIME types that it has, {@link preference} by default; a
 * `*` stands for anything. A representation of the wrong JSON type, such as an image that is not text, is skipped.
 *
 * @example
 * ```ts
 * import { Option } from "effect"
 * import { Execution } from "effect-jupyter"
 *
 * const show = (display: Execution.DisplayChunk) =>
 *   Execution.best(display, ["text/html", "image/png", "text/plain"]).pipe(
 *     Option.map(({ data, mimeType }) => mimeType === "image/png" ? `<img src="data:image/png;base64,${data}">` : data)
 *   )
 * console.log(show)
 * ```
 *
 * @category representations
 * @since 0.1.0
 */
export function best<const MimeType extends string>(
  display: { readonly data: { readonly [mimeType: string]: unknown } },
  mimeTypes: ReadonlyArray<MimeType>,
): Option.Option<Representation<Expand<MimeType>>>
export function best(
  display: { readonly data: { readonly [mimeType: string]: unknown } },
): Option.Option<Representation>
export function best(
  { data }: { readonly data: { readonly [mimeType: string]: unknown } },
  mimeTypes: ReadonlyArray<string> = preference,
): Option.Option<Representation> {
  for (const wanted of mimeTypes) {
    const candidates = wanted.includes("*") ? Object.keys(data).filter(matches(wanted)) : [wanted]
    for (const mimeType of candidates) {
      if (!Object.hasOwn(data, mimeType)) continue
      const value = isText(mimeType) ? textOf(data[mimeType]) : data[mimeType]
      if (value !== undefined && value !== null) return Option.some({ mimeType, data: value })
    }
  }
  return Option.none()
}

/** The types that a preference with a `*` stands for. */
type Expand<MimeType extends string> = MimeType extends `${infer Start}*${infer End}`
  ? `${Start}${string}${Expand<End>}`
  : MimeType

function matches(pattern: string): (mimeType: string) => boolean {
  const escaped = pattern.replace(/[\\^$.|?+()[\]{}]/g, "\\$&").replaceAll("*", ".*")
  const expression = new RegExp(`^${escaped}$`, "s")
  return (mimeType) => expression.test(mimeType)
}

function isText(mimeType: string): boolean {
  return /^(?:text|image)\//.test(mimeType)
}

/** Returns a text, which may also be an array of lines as in notebook files; `undefined` for other values. */
export function textOf(source: unknown): string | undefined {
  const lines: ReadonlyArray<unknown> = Array.isArray(source) ? source : [source]
  return lines.every((line) => typeof line === "string") ? lines.join("") : undefined
}
