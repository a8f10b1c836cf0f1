/**
 * Checks and normalizes names of Python.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { InvalidName } from "./error.ts"

const identifier = /^[\p{XID_Start}_]\p{XID_Continue}*$/u

const keywords = new Set(
  ("False None True and as assert async await break class continue def del elif else except finally for from global " +
    "if import in is lambda nonlocal not or pass raise return try while with yield").split(" "),
)

function isIdentifier(name: string): boolean {
  return identifier.test(name) && !keywords.has(name)
}

/** Returns the name of a variable as Python's parser normalizes it. */
export function variable(given: string): Effect.Effect<string, InvalidName> {
  const name = given.normalize("NFKC")
  return isIdentifier(name)
    ? Effect.succeed(name)
    : Effect.fail(new InvalidName({ given, expected: "Python identifier" }))
}

/** Returns the normalized name of a callable: `name`, `name.attribute`, `package.module:name.attribute`. */
export function callable(given: string): Effect.Effect<string, InvalidName> {
  // Each part alone: a character that normalizes to a colon or a dot does not become a separator.
  const parts = given.split(":").map((part) => part.split(".").map((name) => name.normalize("NFKC")))
  return parts.length <= 2 && parts.every((part) => part.every(isIdentifier))
    ? Effect.succeed(parts.map((part) => part.join(".")).join(":"))
    : Effect.fail(new InvalidName({ given, expected: 'name in the kernel, nor "module:name"' }))
}
