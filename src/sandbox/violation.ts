/**
 * Violations: actions that a sandbox denied.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import { orAbsent } from "../execution/json.ts"
import { excerpt } from "../jupyter/control_codes.ts"

/**
 * An action of sandboxed code that was denied.
 *
 * @example
 * ```ts
 * import type { Sandbox } from "effect-jupyter"
 *
 * export const hosts = (violations: ReadonlyArray<Sandbox.Violation>) =>
 *   new Set(violations.flatMap(({ host }) => host ?? [])) // Set { "example.com:443" }
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class Violation
  extends Schema.TaggedClass<Violation>("effect-jupyter/Sandbox/Violation")("Violation", {
    /** The kernel; `undefined` if the traffic does not identify it. */
    kernelId: orAbsent(Schema.String),
    /** The host and port of a connection that was denied. */
    host: orAbsent(Schema.String),
    /** The text of the sandbox, for instance `"deny network-outbound example.com:443 (...)"`. */
    detail: Schema.String,
  }) {}

/** Reads a line of the sandbox. */
export function violationOf(kernelId: string | undefined, detail: string): Violation {
  const said = excerpt(detail, 10_000)
  const host = /^deny network-outbound (\S+)/.exec(said)?.[1]
  return new Violation({ kernelId, host, detail: said })
}
