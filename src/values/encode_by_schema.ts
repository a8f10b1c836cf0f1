/**
 * Encodes values by a schema to types that Python has: the encoded side of a schema may still be a `Result`, a regular
 * expression or a secret. The counterpart of `decode_for_schema.ts`.
 *
 * @module
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as Declaration from "./declaration.ts"
import { isPlain } from "./kind.ts"
import { type Converter, elements, identity, lazily, members, properties, walk } from "./schema_walk.ts"

/** Makes an encoder whose results are of types that Python has, except for values that the next step refuses. */
export function encodeBySchema<S extends Schema.Constraint>(
  schema: S,
): (value: unknown) => Effect.Effect<unknown, Schema.SchemaError, S["EncodingServices"]> {
  const encode = Schema.encodeUnknownEffect(schema)
  const convert = converterOf(SchemaAST.toEncoded(schema.ast))
  return (value) => Effect.map(encode(value), convert)
}

const converterOf = walk(make)

function make(ast: SchemaAST.AST): Converter {
  switch (ast._tag) {
    case "Arrays":
      return elements(ast, converterOf)
    case "Objects":
      return record(ast)
    case "Union":
      return union(ast)
    case "Declaration":
      return declared(ast)
    default:
      return identity
  }
}

function record(ast: SchemaAST.Objects): Converter {
  const convert = properties(ast, converterOf, property)
  return convert === identity
    ? identity
    : (value) => typeof value === "object" && value !== null && isPlain(value) ? convert(value) : value
}

/** Converts `undefined` under a required key to `null`: the key would be left out otherwise. */
function property(ast: SchemaAST.AST): Converter {
  const convert = converterOf(ast)
  if (ast.context?.isOptional === true || !Declaration.checker(ast)(undefined)) return convert
  return (value) => value === undefined ? null : convert(value)
}

function union(ast: SchemaAST.Union): Converter {
  const all = members(ast, converterOf)
  return all === undefined
    ? identity
    : (value) => (all.find(({ accepts }) => accepts(value))?.convert ?? identity)(value)
}

function declared(ast: SchemaAST.Declaration): Converter {
  const [first = identity, second = identity] = ast.typeParameters.map(converterOf)
  const isIdentity = first === identity && second === identity
  const entries = (map: Iterable<readonly [unknown, unknown]>) =>
    Array.from(map, ([key, item]) => [first(key), second(item)] as const)
  switch (Declaration.nameOf(ast)) {
    case "Option":
      return isIdentity ? identity : (value) => Option.isOption(value) ? Option.map(value, first) : value
    case "ReadonlyMap":
      return isIdentity ? identity : (value) => value instanceof Map ? new Map(entries(value)) : value
    case "HashMap":
      return isIdentity
        ? identity
        : (value) => HashMap.isHashMap(value) ? HashMap.fromIterable(entries(value)) : value
    case "ReadonlySet":
      return isIdentity
        ? identity
        : (value) => value instanceof Set ? new Set(Array.from(value, first)) : value
    case "HashSet":
      return isIdentity ? identity : (value) => HashSet.isHashSet(value) ? HashSet.map(value, first) : value
    case "Chunk":
      return isIdentity ? identity : (value) => Chunk.isChunk(value) ? Chunk.map(value, first) : value
    default:
      return inParts(ast)
  }
}

function inParts(ast: SchemaAST.Declaration): Converter {
  const schema = Declaration.inParts(ast)
  if (schema === undefined) return identity
  const encode = Schema.encodeUnknownOption(schema)
  const convert = lazily(() => converterOf(SchemaAST.toEncoded(schema.ast)))
  return (value) => Option.getOrElse(Option.map(encode(value), convert), () => value)
}
