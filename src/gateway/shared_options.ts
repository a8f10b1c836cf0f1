/**
 * The options that all programs of a shared gateway have to agree on.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Path from "effect/Path"
import type { Rules } from "../sandbox/rules.ts"
import type { OptionsMismatch } from "./error.ts"
import type { ProcessOptions } from "./process.ts"

/** The values of options as JSON. */
export type Values = Readonly<Record<string, string>>

/** The version of what programs and the gateway tell each other. */
const protocol = 1

/** Returns the options of a program, with that of the sandbox by its permissions. */
export const make = Effect.fnUntraced(function* ({ sandbox, ...process }: ProcessOptions) {
  const path = yield* Path.Path
  const options: Readonly<Record<string, unknown>> = {
    protocol,
    python: process.python.includes("/") ? path.resolve(process.python) : process.python,
    host: process.host,
    port: process.port,
    workingDir: process.workingDir,
    fork: process.fork,
    preload: process.preload,
    outputRetention: process.outputRetention,
    sandbox: sandbox !== undefined,
    ...(sandbox === undefined ? {} : permissionsOf(sandbox.host.rules)),
  }
  return Object.fromEntries(
    Object.entries(options).flatMap(([option, value]) =>
      value === undefined ? [] : [[option, JSON.stringify(value)] as const]
    ),
  )
})

const permissionsOf = ({ parentProxy, ...rules }: Rules) =>
  Object.fromEntries(
    Object.entries({ ...rules, upstreamProxy: parentProxy }).map((
      [name, value],
    ) => [`sandbox.${name}`, value]),
  )

/** Its address may have a password. */
const secretOption = "sandbox.upstreamProxy"

/** Returns the options that differ. */
export function differences(running: Values, given: Values): OptionsMismatch["differences"] {
  return [...new Set([...Object.keys(running), ...Object.keys(given)])].flatMap((option) => {
    const [there, here] = [valueOf(running, option), valueOf(given, option)]
    if (there === here) return []
    if (option === secretOption) return [{ option }]
    return [{
      option,
      ...(there === undefined ? {} : { running: there }),
      ...(here === undefined ? {} : { given: here }),
    }]
  })
}

const valueOf = (values: Values, option: string): string | undefined => values[option]
