/**
 * A queue whose one consumer takes all elements at once. `Queue` wakes its consumer in a later turn of the event loop; this
 * one does so at the end of the current task, after all that the task offers.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

/** The elements that wait for the consumer. */
export interface BatchQueue<A, E> {
  readonly offer: (element: A) => void
  /** Ends the queue after its elements; the first error counts. */
  readonly fail: (error: E) => void
  /** Drops the elements. */
  readonly clear: () => void
  /** Waits for elements and returns all of them. Fails if there are none and the queue has ended. */
  readonly takeAll: Effect.Effect<Arr.NonEmptyArray<A>, E>
}

/** Makes an empty queue, which calls `onTake` before its elements reach the consumer. */
export function make<A, E>(onTake: () => void): BatchQueue<A, E> {
  let elements: Array<A> = []
  let end: Exit.Exit<never, E> | undefined
  let resumeTaker: ((next: BatchQueue<A, E>["takeAll"]) => void) | undefined

  const next = (): BatchQueue<A, E>["takeAll"] | undefined => {
    const batch = elements
    if (!Arr.isArrayNonEmpty(batch)) return end
    elements = []
    onTake()
    return Exit.succeed(batch)
  }
  const wake = (): void => {
    const resume = resumeTaker
    const available = resume === undefined ? undefined : next()
    if (resume === undefined || available === undefined) return
    resumeTaker = undefined
    resume(available)
  }
  const scheduleWake = (): void => {
    if (resumeTaker !== undefined) queueMicrotask(wake)
  }
  return {
    offer: (element) => {
      if (elements.length === 0) scheduleWake()
      elements.push(element)
    },
    fail: (error) => {
      if (end !== undefined) return
      end = Exit.fail(error)
      scheduleWake()
    },
    clear: () => {
      elements = []
    },
    // In one step: elements that come between a look and the wait would wake nothing.
    takeAll: Effect.callback((resume) => {
      const available = next()
      if (available !== undefined) return resume(available)
      resumeTaker = resume
      return Effect.sync(() => {
        resumeTaker = undefined
      })
    }),
  }
}
