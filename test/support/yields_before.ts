/** A scheduler for tests of races: a fiber yields at one place of all. */
import { Scheduler } from "effect"

/** Has a fiber yield once, before its operation of this number. */
export class YieldsBefore extends Scheduler.MixedScheduler {
  #left: number
  constructor(operation: number) {
    super()
    this.#left = operation
  }
  override shouldYield(): boolean {
    return --this.#left === 0
  }
}
