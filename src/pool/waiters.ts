/**
 * The requests for a kernel that wait, in the order in which they are served.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Exit from "effect/Exit"
import type { KernelError } from "../execution.ts"

/** A request for an `A`. */
export interface Request<A> {
  readonly hasPriority: boolean
  readonly answer: Deferred.Deferred<A, KernelError>
  /** The `A` that was assigned to it. */
  assigned: A | undefined
}

/** The requests that wait. */
export interface Waiters<A> {
  readonly size: () => number
  /** Adds a request; those with priority precede others. */
  readonly add: (hasPriority: boolean) => Request<A>
  /** Answers the first request. */
  readonly answer: (value: A) => void
  /** Removes a request that was not answered. */
  readonly remove: (request: Request<A>) => void
  /** Fails all requests. */
  readonly failAll: (error: KernelError) => void
}

/** Makes a queue of requests. */
export function make<A>(): Waiters<A> {
  const requests: Array<Request<A>> = []
  return {
    size: () => requests.length,
    add: (hasPriority) => {
      const request: Request<A> = { hasPriority, answer: Deferred.makeUnsafe(), assigned: undefined }
      const others = requests.findIndex((each) => !each.hasPriority)
      requests.splice(hasPriority && others >= 0 ? others : requests.length, 0, request)
      return request
    },
    answer: (value) => {
      const request = requests.shift()
      if (request === undefined) return
      request.assigned = value
      Deferred.doneUnsafe(request.answer, Exit.succeed(value))
    },
    remove: (request) => {
      const index = requests.indexOf(request)
      if (index >= 0) requests.splice(index, 1)
    },
    failAll: (error) => {
      for (const { answer } of requests.splice(0)) Deferred.doneUnsafe(answer, Exit.fail(error))
    },
  }
}
