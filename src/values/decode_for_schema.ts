/**
 * Decodes values of Python by a schema. The encoded side of the schema selects the form of a value: a `datetime` is a
 * `Date` for one schema, a `DateTime` for another and a string for a third.
 *
 * @module
 */
import * as BigDecimal from "effect/BigDecimal"
import * as Chunk from "effect/Chunk"
import * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as Declaration from "./declaration.ts"
import { decodeGiven, GivenValue } from "./given_value.ts"
import * as PythonValue from "./python_value.ts"
import { NdArray } from "./nd_array.ts"
import { type Converter, elements, identity, lazily, members, properties, walk } from "./schema_walk.ts"

/** Makes a decoder of {@link PythonValue Python values}. */
export function decodeForSchema<S extends Schema.Constraint>(
  schema: S,
): (value: unknown) => Effect.Effect<S["Type"], Schema.SchemaError, S["DecodingServices"]> {
  const decode = Schema.decodeUnknownEffect(schema)
  const convert = toEncodedForm(schema)
  return (value) => value instanceof GivenValue ? decodeGiven(schema)(value) : decode(convert(value))
}

/**
 * Makes a function that converts Python values to the form that a schema decodes. Values that have no such form are
 * returned unchanged, so that the schema refuses them.
 */
export function toEncodedForm(schema: Schema.Constraint): Converter {
  return converterOf(SchemaAST.toEncoded(schema.ast))
}

const converterOf = walk(make)

function make(ast: SchemaAST.AST): Converter {
  switch (ast._tag) {
    case "String":
    case "TemplateLiteral":
      return PythonValue.toText
    case "BigInt":
      return toBigInt
    case "Literal":
      return typeof ast.literal === "bigint" ? toBigInt : identity
    case "Void":
    case "Undefined":
      return (value) => value === null ? undefined : value
    case "Any":
    case "Unknown":
    case "ObjectKeyword":
      return PythonValue.toDefaultForm
    case "Arrays": {
      const convert = elements(ast, converterOf)
      return (value) => {
        const items = PythonValue.toArray(value)
        return items === undefined ? value : convert(items)
      }
    }
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

function toBigInt(value: unknown): unknown {
  return typeof value === "number" && Number.isSafeInteger(value) ? BigInt(value) : value
}

function record(ast: SchemaAST.Objects): Converter {
  // Without properties the schema is `{}`, which accepts any value.
  if (ast.propertySignatures.length + ast.indexSignatures.length === 0) return PythonValue.toDefaultForm
  const convert = properties(ast, converterOf)
  return (value) => {
    const record = recordOf(value)
    return PythonValue.isRecord(record) ? convert(record) : record
  }
}

/** Returns the record that an object schema decodes; {@link notRecord} for objects of JavaScript that are not a `dict`. */
function recordOf(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value) || PythonValue.isRecord(value)) {
    return value
  }
  if (value instanceof PythonValue.Table) return value.record
  const isDict = value instanceof Map && Array.from(value.keys()).every((key) => typeof key === "string")
  return isDict ? Object.fromEntries(value) : notRecord
}

/** Replaces a value that is an object in JavaScript only. No schema of an encoded value accepts it. */
const notRecord = Symbol("not a dict")

/** Converts by the first member that accepts the result. */
function union(ast: SchemaAST.Union): Converter {
  const all = members(ast, converterOf)
  if (all === undefined) return identity
  return (value) => {
    for (const { convert, accepts } of all) {
      const candidate = convert(value)
      if (accepts(candidate)) return candidate
    }
    // A member that refuses the converted form must not accept the original one.
    return all.some(({ accepts }) => accepts(value)) ? notRecord : value
  }
}

function declared(ast: SchemaAST.Declaration): Converter {
  const [first = identity, second = identity] = ast.typeParameters.map(converterOf)
  const collected = (collect: (items: ReadonlyArray<unknown>) => unknown): Converter => (value) => {
    const items = PythonValue.toArray(value)
    return items === undefined ? value : collect(items.map(first))
  }
  const mapped =
    (collect: (entries: ReadonlyArray<readonly [unknown, unknown]>) => unknown): Converter => (value) => {
      const entries = value instanceof Map
        ? [...value]
        : PythonValue.isRecord(value)
        ? Object.entries(value)
        : undefined
      return entries === undefined
        ? value
        : collect(entries.map(([key, item]) => [first(key), second(item)] as const))
    }
  switch (Declaration.nameOf(ast)) {
    case "Option":
      return (value) => value === null ? Option.none() : Option.some(first(value))
    case "Redacted":
      return (value) => Redacted.make(first(value))
    case "ReadonlyMap":
      return mapped((entries) => new Map(entries))
    case "HashMap":
      return mapped(HashMap.fromIterable)
    case "ReadonlySet":
      return collected((items) => new Set(items))
    case "HashSet":
      return collected(HashSet.fromIterable)
    case "Chunk":
      return collected(Chunk.fromIterable)
    default:
      return firstForm(ast)
  }
}

/** Converts to the first form that a declared type accepts, else by the schema of its parts. */
function firstForm(ast: SchemaAST.Declaration): Converter {
  const accepts = Declaration.checker(ast)
  const schema = Declaration.inParts(ast)
  if (schema === undefined) return (value) => forms(value).find(accepts) ?? value
  const decode = Schema.decodeUnknownOption(schema)
  const convert = lazily(() => toEncodedForm(schema))
  return (value) => {
    const form = forms(value).find(accepts)
    if (form !== undefined) return form
    return Option.getOrElse(decode(convert(value)), () => value)
  }
}

function forms(value: unknown): ReadonlyArray<unknown> {
  if (value instanceof PythonValue.Moment) {
    const utc = Option.toArray(value.utc)
    return [...utc, ...Option.toArray(value.zoned), ...utc.map(DateTime.toDateUtc)]
  }
  if (value instanceof PythonValue.Day) {
    return Option.toArray(DateTime.make(value.iso)).flatMap((utc) => [utc, DateTime.toDateUtc(utc)])
  }
  if (value instanceof PythonValue.Span) return [value.duration]
  if (value instanceof PythonValue.Decimal) return Option.toArray(value.bigDecimal)
  if (typeof value === "number") return Option.toArray(BigDecimal.fromNumber(value))
  if (typeof value === "bigint") return [BigDecimal.fromBigInt(value)]
  if (value instanceof NdArray) return value.shape.length === 1 ? [value.data, value] : [value]
  return [value]
}
