/**
 * The location of managed environments of Python.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Path from "effect/Path"
import * as Platform from "../platform.ts"

/** Returns a folder in the user's cache; one in the working directory for a user without a home. */
export const folder: Effect.Effect<string, never, Path.Path> = Effect.gen(function* () {
  const path = yield* Path.Path
  const cache = Platform.variable("XDG_CACHE_HOME")
  const home = yield* Platform.home
  return cache !== undefined
    ? path.join(cache, "effect-jupyter")
    : home !== undefined
    ? path.join(home, ".cache", "effect-jupyter")
    : path.resolve(".effect-jupyter")
})
