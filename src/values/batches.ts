/**
 * Groups the elements of a stream into batches, with limits for the number of elements and their bytes.
 *
 * @module
 */
import * as Arr from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { batchBytesOf, batchSizeOf } from "./options.ts"

type Batches<A> = Arr.NonEmptyReadonlyArray<Arr.NonEmptyReadonlyArray<A>>

/** Groups elements into batches. A batch ends with the element that fills it; elements before a failure are emitted. */
export const batched = <A, E, R>(
  stream: Stream.Stream<A, E, R>,
  options: { readonly batchSize?: number | undefined; readonly batchBytes?: number | undefined },
): Stream.Stream<Arr.NonEmptyReadonlyArray<A>, E, R> =>
  Stream.transformPull(stream, (upstream) =>
    Effect.sync(() => {
      const size = batchSizeOf(options.batchSize)
      const limit = batchBytesOf(options.batchBytes)
      let elements: Iterator<A> = [][Symbol.iterator]()
      let batch: Array<A> = []
      let bytes = 0
      let ending: Cause.Cause<E | Cause.Done> | undefined
      const isFull = () => batch.length >= size || bytes >= limit

      const pull: Pull.Pull<Batches<A>, E, void, R> = Effect.suspend(() => {
        while (!isFull()) {
          const next = elements.next()
          if (next.done === true) break
          batch.push(next.value)
          bytes += estimateBytes(next.value, limit)
        }
        if (Arr.isArrayNonEmpty(batch) && (isFull() || ending !== undefined)) {
          const full = batch
          batch = []
          bytes = 0
          return Effect.succeed(Arr.of(full))
        }
        return ending !== undefined ? Effect.failCause(ending) : next
      })
      const next = Effect.matchCauseEffect(upstream, {
        onSuccess: (chunk) => {
          elements = chunk[Symbol.iterator]()
          return pull
        },
        onFailure: (cause) => {
          ending = cause
          return pull
        },
      })
      return pull
    }))

/** Returns roughly the bytes of a value when it is encoded. Stops counting at the limit. */
function estimateBytes(value: unknown, limit: number): number {
  let bytes = 0
  const rest = [value]
  const seen = new Set<object>()
  const add = (part: unknown): void => void rest.push(part)
  while (rest.length > 0 && bytes < limit) {
    const item = rest.pop()
    bytes += 8
    if (typeof item === "string") bytes += lengthInUtf8(item)
    if (typeof item !== "object" || item === null) continue
    if (ArrayBuffer.isView(item) || item instanceof ArrayBuffer) {
      bytes += item.byteLength
      continue
    }
    // Values of Effect refer to themselves: a BigDecimal to its normalized form, a Chunk to the empty one.
    if (seen.has(item)) continue
    seen.add(item)
    if (Array.isArray(item) || item instanceof Set) item.forEach(add)
    else if (item instanceof Map) [...item].forEach(add)
    // The encoder reports the exceptions of getters.
    else Result.getOrElse(Result.try(() => Object.entries(item)), () => []).forEach(add)
  }
  return bytes
}

const notAscii = /[^\0-\x7f]/

/** Returns the bytes of a text, if no surrogate in it is alone. */
function lengthInUtf8(text: string): number {
  if (!notAscii.test(text)) return text.length
  let bytes = 0
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    // The two units of a pair have two bytes each.
    bytes += unit < 0x80 ? 1 : unit < 0x800 || (unit >= 0xd800 && unit < 0xe000) ? 2 : 3
  }
  return bytes
}
