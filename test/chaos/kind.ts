/** A kind of operation: how often it comes, what is drawn for it, and how it is done and checked. */
import type { Effect, Scope } from "effect"
import type { Dice } from "./dice.ts"
import type { Violation } from "./model.ts"
import type { Subject } from "./subject.ts"

/** The source of the kernel. */
export type Mode = "plain" | "pooled" | "proxy" | "sandboxed"

export const modes: readonly [Mode, ...ReadonlyArray<Mode>] = ["plain", "pooled", "proxy", "sandboxed"]

/** Does what was drawn; gives the outcome in a word, for the statistics. */
export type Perform<S = Subject> = (subject: S) => Effect.Effect<string, Violation, Scope.Scope>

export interface Kind<S = Subject> {
  readonly name: string
  /** The relative frequency of the kind. */
  readonly weight: number
  /** Draws what is to be done, and says it. */
  readonly draw: (dice: Dice) => { readonly parameters: object; readonly perform: Perform<S> }
}

/** A kind of which `draw` gives the parameters and `perform` does what they say. */
export const kind = <P extends object, S = Subject>(
  name: string,
  weight: number,
  draw: (dice: Dice) => P,
  perform: (subject: S, parameters: P) => Effect.Effect<string, Violation, Scope.Scope>,
): Kind<S> => ({
  name,
  weight,
  draw: (dice) => {
    const parameters = draw(dice)
    return { parameters, perform: (subject) => perform(subject, parameters) }
  },
})
