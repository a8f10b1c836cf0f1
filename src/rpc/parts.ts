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

/** Returns the buffers after a buffer with their number and their lengths. */
export function pack(buffers: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> {
  const header = new DataView(new ArrayBuffer(4 * (1 + buffers.length)))
  header.setUint32(0, buffers.length)
  for (const [index, { byteLength }] of buffers.entries()) header.setUint32(4 * (1 + index), byteLength)
  return [new Uint8Array(header.buffer), ...buffers]
}

/** Returns the buffers that were packed and joined; `undefined` if the lengths are not those of the bytes. */
export function unpack(all: Uint8Array): ReadonlyArray<Uint8Array> | undefined {
  const header = new DataView(all.buffer, all.byteOffset, all.byteLength)
  const count = all.byteLength < 4 ? Infinity : header.getUint32(0)
  let offset = 4 * (1 + count)
  if (offset > all.byteLength) return undefined
  const buffers = Array.from({ length: count }, (_, index) => {
    const length = header.getUint32(4 * (1 + index))
    return all.subarray(offset, offset += length)
  })
  return offset === all.byteLength ? buffers : undefined
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
