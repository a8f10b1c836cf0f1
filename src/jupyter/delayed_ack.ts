/**
 * Decides when to send a TCP acknowledgement at once, which the operating system may delay by 40 ms. A server that
 * collects small messages (Nagle's algorithm, Jupyter's default) sends the next one only after it.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Milliseconds in which connections that receive something count as busy at the same time. */
const busyWindow = 50

/** With more busy connections, small packets cost more than early messages gain. */
const maxBusyConnections = 16

/**
 * Decides for all connections to one server.
 *
 * @category models
 * @since 0.1.0
 */
export interface AckPolicy {
  /** Adds a connection. The inner effect tells whether to acknowledge now what that connection has just received. */
  readonly register: Effect.Effect<Effect.Effect<boolean>>
}

/**
 * Makes a policy that counts the connections that receive something at the same time, and acknowledges at once while
 * they are few.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as DelayedAck from "effect-jupyter/jupyter/delayed_ack"
 *
 * export const shouldAckNow: Effect.Effect<boolean> = Effect.flatten(DelayedAck.make().register)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function make(): AckPolicy {
  let windowStart = 0
  let lastCount = 0
  const busy = new Set<object>()
  return {
    register: Effect.sync(() => {
      const self = {}
      return Effect.map(Clock.currentTimeMillis, (now) => {
        const elapsed = now - windowStart
        if (elapsed > busyWindow) {
          // After a whole window without messages, the earlier connections count as idle.
          lastCount = elapsed > 2 * busyWindow ? 0 : busy.size
          windowStart = now
          busy.clear()
        }
        busy.add(self)
        return Math.max(lastCount, busy.size) <= maxBusyConnections
      })
    }),
  }
}
