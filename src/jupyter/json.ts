/**
 * Parses JSON of a kernel after a check of its depth and its number of values.
 *
 * @module
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { plain } from "./control_codes.ts"

/**
 * Maximum depth of message contents, which recursive functions process.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxDepth = 256

/**
 * Maximum number of values in JSON: a value of two bytes takes a hundred times as much memory.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxValues = 10_000_000

/**
 * A text is not JSON, or is past the limit of its depth or its number of values.
 *
 * @category errors
 * @since 0.1.0
 */
export class JsonError
  extends Schema.TaggedError<JsonError>("effect-jupyter/jupyter/JsonError")("JsonError", {
    detail: Schema.String,
    /** True if it is past a limit, and may be JSON. */
    isTooLarge: Schema.Boolean,
  }) {
  override get message(): string {
    return this.detail
  }
}

/**
 * Parses JSON. Fails if it is not valid or past a limit.
 *
 * @example
 * ```ts
 * import { parse } from "effect-jupyter/jupyter/json"
 * import { Result } from "effect"
 *
 * console.log(Result.isFailure(parse("[[[]]]", 2))) // => true
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export function parse(text: string, depth: number = maxDepth): Result.Result<unknown, JsonError> {
  const excess = excessOf(text, depth)
  if (excess !== undefined) return Result.fail(new JsonError({ detail: excess, isTooLarge: true }))
  return Result.try({
    try: (): unknown => JSON.parse(text),
    catch: (cause) => new JsonError({ detail: plain(String(cause)), isTooLarge: false }),
  })
}

/**
 * Tells whether a parsed value consists of more than `bound` values.
 *
 * @category utils
 * @since 0.1.0
 */
export function hasMoreValues(value: unknown, bound: number): boolean {
  const rest = [value]
  let count = 0
  while (rest.length > 0) {
    const item = rest.pop()
    if (++count > bound) return true
    if (typeof item !== "object" || item === null) continue
    const items: ReadonlyArray<unknown> = Array.isArray(item) ? item : Object.values(item)
    if (count + rest.length + items.length > bound) return true
    for (const inner of items) rest.push(inner)
  }
  return false
}

/**
 * Returns a parsed value whose texts have no control codes, as {@link plain} returns them.
 *
 * @category utils
 * @since 0.1.0
 */
export function plainTexts(value: unknown): unknown {
  if (typeof value === "string") return plain(value)
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map(plainTexts)
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [plain(key), plainTexts(item)]))
}

const quote = 0x22
const comma = 0x2c
const backslash = 0x5c

/** Returns a description of the limit that a text is past; `undefined` if it is within all. */
function excessOf(text: string, bound: number): string | undefined {
  if (text.length <= bound) return undefined
  // The usual case: native searches are far faster than a scan of every character.
  if (text.length < maxValues && !hasMoreBrackets(text, bound)) return undefined
  let depth = 0
  let values = 1
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code === quote) index = closingQuote(text, index)
    else if (code === comma) values++
    else if ((code | 0x20) === 0x7b) {
      depth++
      values++
    } else if ((code | 0x20) === 0x7d) depth--
    else continue
    if (depth > bound) return `It is nested deeper than ${bound} levels`
    if (values > maxValues) return `It has more than ${maxValues} values`
  }
  return undefined
}

/** Tells whether a text has more than `bound` opening brackets. */
function hasMoreBrackets(text: string, bound: number): boolean {
  let count = 0
  for (const bracket of ["[", "{"]) {
    for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1)) {
      if (++count > bound) return true
    }
  }
  return false
}

/** Returns the index of the quote that closes the string which begins at `start`. */
function closingQuote(text: string, start: number): number {
  let end = text.indexOf('"', start + 1)
  while (end >= 0) {
    let before = end
    while (text.charCodeAt(before - 1) === backslash) before--
    if ((end - before) % 2 === 0) return end
    end = text.indexOf('"', end + 1)
  }
  return text.length
}
