/**
 * Descriptions of sessions and of what happens to them.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import { KernelErrorReason } from "../execution.ts"

/**
 * A session: a key and the kernel that it has.
 *
 * @example
 * ```ts
 * import type { KernelSessions } from "effect-jupyter"
 *
 * export const idle = (sessions: ReadonlyArray<KernelSessions.Session>) =>
 *   sessions.filter(({ inUse }) => !inUse).map(({ key }) => key)
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class Session extends Schema.Class<Session>("effect-jupyter/KernelSessions/Session")({
  key: Schema.String,
  /** The id of the kernel on the server. */
  kernelId: Schema.String,
  openedAt: Schema.DateTimeUtcFromString,
  /** The time of the last `get`, or at which the last scope with the session closed. */
  lastUsedAt: Schema.DateTimeUtcFromString,
  /** True if a scope holds the session. */
  inUse: Schema.Boolean,
}) {}

const fields = {
  key: Schema.String,
  /** The id of the session's kernel. */
  kernelId: Schema.String,
} as const

/**
 * A key got a session: its kernel is ready.
 *
 * @example
 * ```ts
 * import { KernelSessions } from "effect-jupyter"
 *
 * const event = new KernelSessions.Opened({ key: "ada", kernelId: "5f0c1f1e" })
 * console.log(event._tag) // => "Opened"
 * ```
 *
 * @category events
 * @since 0.1.0
 */
export class Opened
  extends Schema.TaggedClass<Opened>("effect-jupyter/KernelSessions/Opened")("Opened", fields) {}

/**
 * The last scope with the session closed. The session stays open until `idleTimeToLive` has passed.
 *
 * @example
 * ```ts
 * import { KernelSessions } from "effect-jupyter"
 *
 * const event = new KernelSessions.Idle({ key: "ada", kernelId: "5f0c1f1e" })
 * console.log(event._tag) // => "Idle"
 * ```
 *
 * @category events
 * @since 0.1.0
 */
export class Idle extends Schema.TaggedClass<Idle>("effect-jupyter/KernelSessions/Idle")("Idle", fields) {}

/**
 * The session was closed although its time was not over, because there were more than `max`.
 *
 * @example
 * ```ts
 * import { KernelSessions } from "effect-jupyter"
 *
 * const event = new KernelSessions.Evicted({ key: "ada", kernelId: "5f0c1f1e" })
 * console.log(event._tag) // => "Evicted"
 * ```
 *
 * @category events
 * @since 0.1.0
 */
export class Evicted
  extends Schema.TaggedClass<Evicted>("effect-jupyter/KernelSessions/Evicted")("Evicted", fields) {}

/**
 * The session's kernel died, or the connection to it was lost, and its state with it. The next `get` gives a new kernel.
 *
 * @example
 * ```ts
 * import { Execution, KernelSessions } from "effect-jupyter"
 *
 * const reason = new Execution.KernelDied({ kernelId: "5f0c1f1e" })
 * const event = new KernelSessions.Died({ key: "ada", kernelId: "5f0c1f1e", reason })
 * console.log(event._tag) // => "Died"
 * ```
 *
 * @category events
 * @since 0.1.0
 */
export class Died extends Schema.TaggedClass<Died>("effect-jupyter/KernelSessions/Died")("Died", {
  ...fields,
  reason: KernelErrorReason,
}) {}

/**
 * The session has another kernel, with a new state: by a `get` after its kernel had died, or by `reset`.
 *
 * @example
 * ```ts
 * import { KernelSessions } from "effect-jupyter"
 *
 * const event = new KernelSessions.Replaced({ key: "ada", kernelId: "a31b7c22", previousId: "5f0c1f1e" })
 * console.log(event._tag) // => "Replaced"
 * ```
 *
 * @category events
 * @since 0.1.0
 */
export class Replaced
  extends Schema.TaggedClass<Replaced>("effect-jupyter/KernelSessions/Replaced")("Replaced", {
    ...fields,
    /** The id of the kernel that the session had before. */
    previousId: Schema.String,
  }) {}

/**
 * The session was closed: by `close`, after `idleTimeToLive`, or with the scope of all sessions.
 *
 * @example
 * ```ts
 * import { KernelSessions } from "effect-jupyter"
 *
 * const event = new KernelSessions.Closed({ key: "ada", kernelId: "5f0c1f1e" })
 * console.log(event._tag) // => "Closed"
 * ```
 *
 * @category events
 * @since 0.1.0
 */
export class Closed
  extends Schema.TaggedClass<Closed>("effect-jupyter/KernelSessions/Closed")("Closed", fields) {}

/**
 * The schema of {@link SessionEvent}.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { KernelSessions } from "effect-jupyter"
 *
 * const encode = Schema.encodeSync(Schema.fromJsonString(KernelSessions.SessionEvent))
 * console.log(encode(new KernelSessions.Idle({ key: "ada", kernelId: "5f0c1f1e" })))
 * ```
 *
 * @category events
 * @since 0.1.0
 */
export const SessionEvent = Schema.Union([Opened, Idle, Evicted, Died, Replaced, Closed])

/**
 * A change of a session.
 *
 * @category events
 * @since 0.1.0
 */
export type SessionEvent = typeof SessionEvent.Type
