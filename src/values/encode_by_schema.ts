/**
 * Encodes values by a schema to types that Python has: the encoded side of a schema may still be a `Result`, a regular
 * expression or a secret. The counterpart of `decode_for_schema.ts`.
 *
 * @module
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import { memoize } from "effect/Function"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as Declaration from "./declaration.ts"
import { isPlain } from "./kind.ts"

type Converter = (value: unknown) => unknown

/** Makes an encoder whose results are of types that Python has, except for values that the next step refuses. */
export function encodeBySchema<S extends Schema.Constraint>(
  schema: S,
): (value: unknown) => Effect.Effect<unknown, Schema.SchemaError, S["EncodingServices"]> {
  const encode = Schema.encodeUnknownEffect(schema)
  const convert = converterOf(SchemaAST.toEncoded(schema.ast))
  return (value) => Effect.map(encode(value), convert)
}

const converterOf: (ast: SchemaAST.AST) => Converter = memoize(make)

const identity: Converter = (value) => value

function make(ast: SchemaAST.AST): Converter {
  switch (ast._tag) {
    case "Arrays":
      return elements(ast)
    case "Objects":
      return fields(ast)
    case "Union":
      return union(ast)
    case "Suspend": {
      let inner: Converter | undefined
      return (value) => (inner ??= converterOf(ast.thunk()))(value)
    }
    case "Declaration":
      return declared(ast)
    default:
      return identity
  }
}

function elements({ elements, rest }: SchemaAST.Arrays): Converter {
  const first = elements.map(converterOf)
  const [middle = identity, ...last] = rest.map(converterOf)
  if ([...first, middle, ...last].every((convert) => convert === identity)) return identity
  return (value) =>
    Array.isArray(value)
      ? value.map((item: unknown, index) =>
        (first[index] ?? last[index - value.length + last.length] ?? middle)(item)
      )
      : value
}

function fields({ indexSignatures, propertySignatures }: SchemaAST.Objects): Converter {
  const properties = new Map(propertySignatures.map(({ name, type }) => [String(name), field(type)]))
  const others = indexSignatures.map(({ parameter, type }) => ({
    accepts: Declaration.checker(parameter),
    convert: converterOf(type),
  }))
  if ([...properties.values(), ...others.map(({ convert }) => convert)].every((one) => one === identity)) {
    return identity
  }
  return (value) =>
    typeof value === "object" && value !== null && isPlain(value)
      ? Object.fromEntries(
        Object.entries(value).map(([key, item]) => {
          const convert = properties.get(key) ?? others.find(({ accepts }) => accepts(key))?.convert ??
            identity
          return [key, convert(item)]
        }),
      )
      : value
}

/** Converts `undefined` under a required key to `null`: the key would be left out otherwise. */
function field(ast: SchemaAST.AST): Converter {
  const convert = converterOf(ast)
  if (ast.context?.isOptional === true || !Declaration.checker(ast)(undefined)) return convert
  return (value) => value === undefined ? null : convert(value)
}

function union({ types }: SchemaAST.Union): Converter {
  const members = types.map((type) => ({ accepts: Declaration.checker(type), convert: converterOf(type) }))
  if (members.every(({ convert }) => convert === identity)) return identity
  return (value) => (members.find(({ accepts }) => accepts(value))?.convert ?? identity)(value)
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
  let convert: Converter | undefined
  return (value) => {
    convert ??= converterOf(SchemaAST.toEncoded(schema.ast))
    return Option.getOrElse(Option.map(encode(value), convert), () => value)
  }
}
