/**
 * Whether to acknowledge at once what a server sent, which the operating system may put off for 40 ms. A server that
 * collects small messages (Nagle's algorithm, Jupyter's default) sends the next one no sooner.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Milliseconds in which connections count as busy together. */
const window = 50

/** More busy connections than this lose more by small packets than they win by early ones. */
const few = 16

/** The connections to one server. */
export interface Hurry {
  /** Adds a connection; what it gives tells whether to acknowledge now what that connection just got. */
  readonly join: Effect.Effect<Effect.Effect<boolean>>
}

/**
 * Counts the connections that get something at the same time, and hurries as long as they are few.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Hurry from "effect-jupyter/jupyter/hurry"
 *
 * export const acknowledges: Effect.Effect<boolean> = Effect.flatten(Hurry.make().join)
 * ```
 */
export function make(): Hurry {
  let since = 0
  let before = 0
  const busy = new Set<object>()
  return {
    join: Effect.sync(() => {
      const self = {}
      return Effect.map(Clock.currentTimeMillis, (now) => {
        if (now - since > window) {
          // Long silence makes everybody of then an idle one.
          before = now - since > 2 * window ? 0 : busy.size
          since = now
          busy.clear()
        }
        busy.add(self)
        return Math.max(before, busy.size) <= few
      })
    }),
  }
}
