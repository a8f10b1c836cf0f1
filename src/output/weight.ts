/**
 * Estimates the memory that displays and images of an execution take.
 *
 * @module
 */
import { Buffer } from "node:buffer"
import type { DisplayChunk, Image } from "../execution.ts"

/** The bytes of a display besides its content, from the display with this number on. */
const base = 256
const free = 1000

/** The bytes of an object or array besides its members, and of a number. */
const container = 64
const primitive = 8

/** Returns the bytes of the content of a display. */
export function of({ data, displayId = "", metadata }: DisplayChunk): number {
  return ofBundle(data) + ofBundle(metadata) + displayId.length
}

/** Returns the bytes of an image. */
export function ofImage({ bytes, path }: Image): number {
  return path.length + (bytes?.byteLength ?? 0)
}

/** Returns the bytes of so many displays and images besides their content. */
export function ofCount(count: number): number {
  return base * Math.max(0, count - free)
}

function ofBundle(bundle: DisplayChunk["data"]): number {
  return Object.entries(bundle).reduce(
    (sum, [mimeType, value]) =>
      sum + mimeType.length + (typeof value === "string" ? Buffer.byteLength(value) : ofJson(value)),
    0,
  )
}

function ofJson(value: unknown): number {
  let bytes = 0
  const rest = [value]
  while (rest.length > 0) {
    const item = rest.pop()
    if (typeof item === "string") bytes += primitive + Buffer.byteLength(item)
    else if (typeof item !== "object" || item === null) bytes += primitive
    else {
      bytes += container
      if (!Array.isArray(item)) { for (const key of Object.keys(item)) bytes += primitive + key.length }
      const items: ReadonlyArray<unknown> = Array.isArray(item) ? item : Object.values(item)
      for (const inner of items) rest.push(inner)
    }
  }
  return bytes
}
