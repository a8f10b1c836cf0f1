/** The times for which the kernel was stopped, and the polls of its server that can have found it so. */
import { minStoppedPolls } from "../../src/kernel/gateway_kernel.ts"

/** Milliseconds by which a poll and its answer may be late on a machine that has much else to do. */
const lateness = 1000

interface Span {
  readonly from: number
  readonly until: number
}

/** The stops of one kernel, which is polled at an interval in milliseconds. */
export class Stops {
  readonly #pollInterval: number
  #spans: Array<Span> = []

  constructor(pollInterval: number) {
    this.#pollInterval = pollInterval
  }

  /** The kernel is stopped; the result is to be called when it goes on. */
  begin(from: number): (until: number) => void {
    const before = this.#spans
    this.#spans = [...before, { from, until: Infinity }]
    return (until) => {
      this.#spans = [...before, { from, until }]
    }
  }

  /** A new kernel. */
  clear(): void {
    this.#spans = []
  }

  /**
   * Tells whether the last polls, as many as make a kernel count as stopped, can all have found it stopped. They do not
   * show that it ran between them, so that several short stops are one to them if the interval is as short as here.
   */
  canCountAsOne(now: number): boolean {
    const found = (polls: number, { from, until }: Span): boolean =>
      polls === 0 || this.#spans.some((span) => {
        const first = Math.max(from, span.from)
        const last = Math.min(until, span.until)
        const before = { from: first - this.#pollInterval - lateness, until: last - this.#pollInterval }
        return first <= last && found(polls - 1, before)
      })
    return found(minStoppedPolls, { from: now - lateness, until: now })
  }
}
