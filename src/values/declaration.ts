/**
 * Reads the annotations of declared types, such as `Schema.Duration` or `Schema.Result`.
 *
 * @module
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"

/** Returns the name of a type that Effect declares, without the common prefix. */
export function nameOf({ annotations }: SchemaAST.Declaration): string | undefined {
  const representation = annotations?.representation
  if (!Predicate.hasProperty(representation, "id")) return undefined
  return /^effect\/schema\/(\w+)$/.exec(String(representation.id))?.[1]
}

/** Makes a function that tells whether a value is of a type. */
export function checker(ast: SchemaAST.AST): (value: unknown) => boolean {
  let check: ((value: unknown) => boolean) | undefined
  return (value) => (check ??= Schema.is(Schema.make<Schema.Constraint>(ast)))(value)
}

/** The declared types that Python has a type for. */
const counterparts = new Set<unknown>([
  "BigDecimal",
  "Date",
  "DateTimeUtc",
  "DateTimeZoned",
  "Duration",
  "Uint8Array",
])

/** Returns the codec that a type without a counterpart in Python declares for JSON; `undefined` if there is none. */
export function inParts(ast: SchemaAST.Declaration): Schema.Codec<unknown, unknown> | undefined {
  const getLink = ast.annotations?.toCodecJson ?? ast.annotations?.toCodec
  if (counterparts.has(nameOf(ast)) || !Predicate.isFunction(getLink)) return undefined
  const link: unknown = getLink(ast.typeParameters.map((type) => Schema.make<Schema.Constraint>(type)))
  if (!(link instanceof SchemaAST.Link)) return undefined
  return Schema.make<Schema.Codec<unknown, unknown>>(
    new SchemaAST.Declaration(
      ast.typeParameters,
      ast.run,
      ast.annotations,
      ast.checks,
      [link],
      ast.context,
      ast.encodingChecks,
      ast.encodingRun,
    ),
  )
}
