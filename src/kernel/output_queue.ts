/**
 * The outputs of one execution between the kernel and the consumer. When too many bytes wait, the connection is not read
 * any further, except for the last messages of code that was stopped.
 *
 * @module
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Effect from "effect/Effect"
import * as BatchQueue from "../batch_queue.ts"
import type { Output } from "../output/output.ts"
import type { EndReason } from "./outcome.ts"

/** The outputs that wait for the consumer. */
export interface OutputQueue {
  /** Adds an output of a message with so many bytes. */
  readonly offer: (output: Output, bytes: number) => void
  /** Adds an output whatever waits before it. */
  readonly offerAlways: (output: Output) => void
  /** Reads on whatever waits, and leaves out what there is no room for. */
  readonly drain: () => void
  /** Drops what waits and what comes, as the consumer is gone. */
  readonly discard: () => void
  /** Ends the outputs: the kernel ended the execution, unless there is a reason. */
  readonly end: (reason: EndReason | undefined) => void
  /** Waits for outputs and returns all of them. Fails with the reason of the end, or is done. */
  readonly takeAll: Effect.Effect<Arr.NonEmptyArray<Output>, EndReason | Cause.Done>
}

/** Bytes of output that wait for the consumer before the connection is not read any further. */
const highWaterMark = 32 * 1024 * 1024

/** Makes an empty queue; `pause` and `resume` stop and continue the reading of the connection. */
export function make(
  { pause, resume }: { readonly pause: () => void; readonly resume: () => void },
): OutputQueue {
  let isDraining = false
  let isDiscarding = false
  let waitingBytes = 0
  let leftOutBytes = 0
  const queue = BatchQueue.make<Output, EndReason | Cause.Done>(() => {
    const wasFull = waitingBytes > highWaterMark
    // First of all: the reader goes on within the resumption and may have to pause the connection again.
    waitingBytes = 0
    if (wasFull) resume()
  })
  return {
    offerAlways: queue.offer,
    offer: (output, bytes) => {
      if (isDiscarding) return
      if (isDraining && waitingBytes > highWaterMark) {
        leftOutBytes += bytes
        return
      }
      queue.offer(output)
      waitingBytes += bytes
      if (waitingBytes > highWaterMark && !isDraining) pause()
    },
    drain: () => {
      isDraining = true
      resume()
    },
    discard: () => {
      isDiscarding = true
      queue.clear()
    },
    end: (reason) => {
      if (leftOutBytes > 0) {
        queue.offer({
          _tag: "Text",
          name: "stderr",
          text: `[effect-jupyter] about ${leftOutBytes} bytes left out\n`,
        })
      }
      queue.fail(reason ?? Cause.Done())
    },
    takeAll: queue.takeAll,
  }
}
