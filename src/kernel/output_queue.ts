/**
 * The outputs of one execution between the kernel and the consumer. When too many bytes wait, the connection is not read
 * any further, except for the last messages of code that was stopped.
 *
 * @module
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
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
  readonly discard: Effect.Effect<void>
  /** Ends the outputs: the kernel ended the execution, unless there is a reason. */
  readonly end: (reason: EndReason | undefined) => void
  /** Waits for outputs and returns all of them. Fails with the reason of the end, or is done. */
  readonly takeAll: Effect.Effect<Arr.NonEmptyArray<Output>, EndReason | Cause.Done>
}

/** Bytes of output that wait for the consumer before the connection is not read any further. */
const highWaterMark = 32 * 1024 * 1024

/** Makes an empty queue; `pause` and `resume` stop and continue the reading of the connection. */
export const make = (
  { pause, resume }: { readonly pause: () => void; readonly resume: () => void },
): Effect.Effect<OutputQueue> =>
  Effect.map(Queue.unbounded<Output, EndReason | Cause.Done>(), (queue) => {
    let isDraining = false
    let isDiscarding = false
    let waitingBytes = 0
    let leftOutBytes = 0
    const offerAlways = (output: Output): void => void Queue.offerUnsafe(queue, output)
    return {
      offerAlways,
      offer: (output, bytes) => {
        if (isDiscarding) return
        if (isDraining && waitingBytes > highWaterMark) {
          leftOutBytes += bytes
          return
        }
        Queue.offerUnsafe(queue, output)
        waitingBytes += bytes
        if (waitingBytes > highWaterMark && !isDraining) pause()
      },
      drain: () => {
        isDraining = true
        resume()
      },
      discard: Effect.suspend(() => {
        isDiscarding = true
        return Effect.ignore(Queue.clear(queue))
      }),
      end: (reason) => {
        if (leftOutBytes > 0) {
          offerAlways({
            _tag: "Text",
            name: "stderr",
            text: `[effect-jupyter] about ${leftOutBytes} bytes left out\n`,
          })
        }
        Queue.failCauseUnsafe(queue, Cause.fail(reason ?? Cause.Done()))
      },
      takeAll: Effect.map(Queue.takeAll(queue), (outputs) => {
        const wasFull = waitingBytes > highWaterMark
        // First of all: the reader goes on within the resumption and may have to pause the connection again.
        waitingBytes = 0
        if (wasFull) resume()
        return outputs
      }),
    }
  })
