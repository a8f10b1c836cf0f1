/**
 * JSON of a kernel, whose depth and number of values are known to be small before anything is made of it.
 *
 * @module
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { plain } from "./control_codes.ts"

/** How deep the contents of messages may be nested: walks over them are recursive. */
export const maxDepth = 256

/** How many values JSON may have: the smallest of them takes a hundred times its two bytes. */
export const maxValues = 10_000_000

/** JSON that is none, or that is nested deeper or has more values than it may. */
export class JsonError
  extends Schema.TaggedError<JsonError>("effect-jupyter/jupyter/JsonError")("JsonError", {
    detail: Schema.String,
    /** It may well be JSON, but is past a bound. */
    isTooLarge: Schema.Boolean,
  }) {
  override get message(): string {
    return this.detail
  }
}

/**
 * Parses JSON unless it is past a bound.
 *
 * @example
 * ```ts
 * import { parse } from "effect-jupyter/jupyter/json"
 * import { Result } from "effect"
 *
 * console.log(Result.isFailure(parse("[[[]]]", 2))) // => true
 * ```
 */
export function parse(text: string, depth: number = maxDepth): Result.Result<unknown, JsonError> {
  const excess = excessOf(text, depth)
  if (excess !== undefined) return Result.fail(new JsonError({ detail: excess, isTooLarge: true }))
  return Result.try({
    try: (): unknown => JSON.parse(text),
    catch: (cause) => new JsonError({ detail: plain(String(cause)), isTooLarge: false }),
  })
}

/** Tells whether a parsed value is made of more values than a number. */
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

/** A parsed value whose texts are {@link plain}. */
export function plainTexts(value: unknown): unknown {
  if (typeof value === "string") return plain(value)
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map(plainTexts)
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [plain(key), plainTexts(item)]))
}

const quote = 0x22
const comma = 0x2c
const backslash = 0x5c

/** The bound that a text is past, if it is past one. */
function excessOf(text: string, bound: number): string | undefined {
  // As almost always: native searches are far faster than a look at every character.
  if (text.length < maxValues && !hasMore(text, bound)) return undefined
  let depth = 0
  let values = 1
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code === quote) index = closing(text, index)
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

/** Whether a text has more opening brackets than a number. */
function hasMore(text: string, bound: number): boolean {
  let count = 0
  for (const bracket of ["[", "{"]) {
    for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1)) {
      if (++count > bound) return true
    }
  }
  return false
}

/** The index of the quote that closes the string which begins at `start`. */
function closing(text: string, start: number): number {
  let end = text.indexOf('"', start + 1)
  while (end >= 0) {
    let before = end
    while (text.charCodeAt(before - 1) === backslash) before--
    if ((end - before) % 2 === 0) return end
    end = text.indexOf('"', end + 1)
  }
  return text.length
}
