/**
 * The end of an owner's session when another process becomes the owner.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type { KernelSessions } from "./service.ts"

type Sessions = KernelSessions["Service"]

const handovers = new WeakMap<Sessions, (key: string) => Effect.Effect<void>>()

/** Returns the sessions with the way in which they leave the kernel of a session to another process. */
export function attach(sessions: Sessions, leave: (key: string) => Effect.Effect<void>): Sessions {
  handovers.set(sessions, leave)
  return sessions
}

/** Closes a session, whose kernel stays if the sessions keep kernels. */
export const leave = (sessions: Sessions, key: string): Effect.Effect<void> =>
  handovers.get(sessions)?.(key) ?? sessions.close(key)
