/**
 * Joins buffers and splits them, so that each message has a bounded size.
 *
 * @module
 */

/** Returns the parts one after the other. */
export function join(parts: ReadonlyArray<Uint8Array>): Uint8Array {
  const [only] = parts
  if (only !== undefined && parts.length === 1) return only
  const all = new Uint8Array(parts.reduce((sum, { byteLength }) => sum + byteLength, 0))
  let offset = 0
  for (const part of parts) {
    all.set(part, offset)
    offset += part.byteLength
  }
  return all
}

/** Returns parts of these sizes, which lie one after the other. */
export function split(all: Uint8Array, sizes: ReadonlyArray<number>): ReadonlyArray<Uint8Array> {
  let offset = 0
  return sizes.map((size) => all.subarray(offset, offset += size))
}

/** Returns buffers as parts of at most this size. */
export function ofSize(buffers: ReadonlyArray<Uint8Array>, maxSize: number): ReadonlyArray<Uint8Array> {
  return buffers.flatMap((buffer) =>
    Array.from(
      { length: Math.ceil(buffer.byteLength / maxSize) },
      (_, index) => buffer.subarray(index * maxSize, (index + 1) * maxSize),
    )
  )
}
