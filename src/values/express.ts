/**
 * What a schema has encoded, in forms that Python has types for: the encoded side of a schema may still be a
 * `Result`, a regular expression or a secret. The counterpart of `adapt`.
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

type Expresser = (value: unknown) => unknown

/** Encodes by a schema all the way to what Python has types for. What has none is left, to be refused. */
export function express<S extends Schema.Constraint>(
  schema: S,
): (value: unknown) => Effect.Effect<unknown, Schema.SchemaError, S["EncodingServices"]> {
  const encode = Schema.encodeUnknownEffect(schema)
  const express = expresserOf(SchemaAST.toEncoded(schema.ast))
  return (value) => Effect.map(encode(value), express)
}

const expresserOf: (ast: SchemaAST.AST) => Expresser = memoize(make)

const same: Expresser = (value) => value

function make(ast: SchemaAST.AST): Expresser {
  switch (ast._tag) {
    case "Arrays":
      return elements(ast)
    case "Objects":
      return fields(ast)
    case "Union":
      return union(ast)
    case "Suspend": {
      let inner: Expresser | undefined
      return (value) => (inner ??= expresserOf(ast.thunk()))(value)
    }
    case "Declaration":
      return declared(ast)
    default:
      return same
  }
}

function elements({ elements, rest }: SchemaAST.Arrays): Expresser {
  const first = elements.map(expresserOf)
  const [middle = same, ...last] = rest.map(expresserOf)
  if ([...first, middle, ...last].every((express) => express === same)) return same
  return (value) =>
    Array.isArray(value)
      ? value.map((item: unknown, index) =>
        (first[index] ?? last[index - value.length + last.length] ?? middle)(item)
      )
      : value
}

function fields({ indexSignatures, propertySignatures }: SchemaAST.Objects): Expresser {
  const properties = new Map(propertySignatures.map(({ name, type }) => [String(name), field(type)]))
  const others = indexSignatures.map(({ parameter, type }) => ({
    fits: Declaration.checker(parameter),
    express: expresserOf(type),
  }))
  if ([...properties.values(), ...others.map(({ express }) => express)].every((one) => one === same)) {
    return same
  }
  return (value) =>
    typeof value === "object" && value !== null && isPlain(value)
      ? Object.fromEntries(
        Object.entries(value).map(([key, item]) => {
          const express = properties.get(key) ?? others.find(({ fits }) => fits(key))?.express ?? same
          return [key, express(item)]
        }),
      )
      : value
}

/** A key that has to be there is, also if there is nothing at it: what is undefined would be left out. */
function field(ast: SchemaAST.AST): Expresser {
  const express = expresserOf(ast)
  if (ast.context?.isOptional === true || !Declaration.checker(ast)(undefined)) return express
  return (value) => value === undefined ? null : express(value)
}

function union({ types }: SchemaAST.Union): Expresser {
  const members = types.map((type) => ({ fits: Declaration.checker(type), express: expresserOf(type) }))
  if (members.every(({ express }) => express === same)) return same
  return (value) => (members.find(({ fits }) => fits(value))?.express ?? same)(value)
}

function declared(ast: SchemaAST.Declaration): Expresser {
  const [first = same, second = same] = ast.typeParameters.map(expresserOf)
  const isSame = first === same && second === same
  const entries = (map: Iterable<readonly [unknown, unknown]>) =>
    Array.from(map, ([key, item]) => [first(key), second(item)] as const)
  switch (Declaration.nameOf(ast)) {
    case "Option":
      return isSame ? same : (value) => Option.isOption(value) ? Option.map(value, first) : value
    case "ReadonlyMap":
      return isSame ? same : (value) => value instanceof Map ? new Map(entries(value)) : value
    case "HashMap":
      return isSame
        ? same
        : (value) => HashMap.isHashMap(value) ? HashMap.fromIterable(entries(value)) : value
    case "ReadonlySet":
      return isSame ? same : (value) => value instanceof Set ? new Set(Array.from(value, first)) : value
    case "HashSet":
      return isSame ? same : (value) => HashSet.isHashSet(value) ? HashSet.map(value, first) : value
    case "Chunk":
      return isSame ? same : (value) => Chunk.isChunk(value) ? Chunk.map(value, first) : value
    default:
      return inParts(ast)
  }
}

function inParts(ast: SchemaAST.Declaration): Expresser {
  const schema = Declaration.inParts(ast)
  if (schema === undefined) return same
  const encode = Schema.encodeUnknownOption(schema)
  let express: Expresser | undefined
  return (value) => {
    express ??= expresserOf(SchemaAST.toEncoded(schema.ast))
    return Option.getOrElse(Option.map(encode(value), express), () => value)
  }
}
