/**
 * Neutral values in the form that a schema decodes from: a `datetime` is a `Date` for one schema, a `DateTime` for
 * another and a string for a third. The encoded side of the schema says which.
 *
 * @module
 */
import * as BigDecimal from "effect/BigDecimal"
import * as Chunk from "effect/Chunk"
import * as DateTime from "effect/DateTime"
import { memoize } from "effect/Function"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as Declaration from "./declaration.ts"
import * as Neutral from "./neutral.ts"
import { NdArray } from "./nd_array.ts"

type Adapter = (value: unknown) => unknown

/** Gives what makes neutral values fit for a schema. What does not fit is left as it is: the schema refuses it. */
export function adapt(schema: Schema.Constraint): Adapter {
  return adapterOf(SchemaAST.toEncoded(schema.ast))
}

const adapterOf: (ast: SchemaAST.AST) => Adapter = memoize(make)

const same: Adapter = (value) => value

function make(ast: SchemaAST.AST): Adapter {
  switch (ast._tag) {
    case "String":
    case "TemplateLiteral":
      return Neutral.toText
    case "BigInt":
      return toBigInt
    case "Literal":
      return typeof ast.literal === "bigint" ? toBigInt : same
    case "Void":
    case "Undefined":
      return (value) => value === null ? undefined : value
    case "Any":
    case "Unknown":
    case "ObjectKeyword":
      return Neutral.natural
    case "Arrays":
      return elements(ast)
    case "Objects":
      return fields(ast)
    case "Union":
      return union(ast)
    case "Suspend": {
      let inner: Adapter | undefined
      return (value) => (inner ??= adapterOf(ast.thunk()))(value)
    }
    case "Declaration":
      return declared(ast)
    default:
      return same
  }
}

function toBigInt(value: unknown): unknown {
  return typeof value === "number" && Number.isSafeInteger(value) ? BigInt(value) : value
}

function elements({ elements, rest }: SchemaAST.Arrays): Adapter {
  const first = elements.map(adapterOf)
  const [middle = same, ...last] = rest.map(adapterOf)
  if ([...first, middle, ...last].every((adapter) => adapter === same)) {
    return (value) => Neutral.toArray(value) ?? value
  }
  return (value) => {
    const items = Neutral.toArray(value)
    if (items === undefined) return value
    const end = items.length - last.length
    return items.map((item, index) =>
      (first[index] ?? (index < end ? middle : last[index - end] ?? middle))(item)
    )
  }
}

function fields({ indexSignatures, propertySignatures }: SchemaAST.Objects): Adapter {
  const properties = new Map<string, Adapter>(
    propertySignatures.map(({ name, type }) => [String(name), adapterOf(type)]),
  )
  const others = indexSignatures.map(({ parameter, type }) => ({
    fits: Declaration.checker(parameter),
    adapter: adapterOf(type),
  }))
  // Without any the schema is `{}`, which everything fits.
  if (properties.size === 0 && others.length === 0) return Neutral.natural
  return (value) => {
    const record = recordOf(value)
    if (!Neutral.isRecord(record)) return record
    return Object.fromEntries(
      Object.entries(record).map(([key, item]) => {
        const adapter = properties.get(key) ?? others.find(({ fits }) => fits(key))?.adapter ?? same
        return [key, adapter(item)]
      }),
    )
  }
}

/** What an object schema reads: not the insides of a date or of an array, which to JavaScript are objects too. */
function recordOf(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value) || Neutral.isRecord(value)) {
    return value
  }
  if (value instanceof Neutral.Table) return value.record
  const isDict = value instanceof Map && Array.from(value.keys()).every((key) => typeof key === "string")
  return isDict ? Object.fromEntries(value) : noRecord
}

/** Stands for a value that is an object in JavaScript only: no schema of an encoded value takes it. */
const noRecord = Symbol("no dict")

/** The first member that fits counts. */
function union({ types }: SchemaAST.Union): Adapter {
  const members = types.map((type) => ({ fits: Declaration.checker(type), adapter: adapterOf(type) }))
  if (members.every(({ adapter }) => adapter === same)) return same
  return (value) => {
    for (const { adapter, fits } of members) {
      const candidate = adapter(value)
      if (fits(candidate)) return candidate
    }
    // A member that refuses its own form of the value must not take another.
    return members.some(({ fits }) => fits(value)) ? noRecord : value
  }
}

function declared(ast: SchemaAST.Declaration): Adapter {
  const [first = same, second = same] = ast.typeParameters.map(adapterOf)
  const collected = (collect: (items: ReadonlyArray<unknown>) => unknown): Adapter => (value) => {
    const items = Neutral.toArray(value)
    return items === undefined ? value : collect(items.map(first))
  }
  const mapped =
    (collect: (entries: ReadonlyArray<readonly [unknown, unknown]>) => unknown): Adapter => (value) => {
      const entries = value instanceof Map
        ? [...value]
        : Neutral.isRecord(value)
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
      return candidate(ast)
  }
}

/** A type of its own: whichever form of the value belongs to it; else what it is made of. */
function candidate(ast: SchemaAST.Declaration): Adapter {
  const fits = Declaration.checker(ast)
  const schema = Declaration.inParts(ast)
  if (schema === undefined) return (value) => forms(value).find(fits) ?? value
  const decode = Schema.decodeUnknownOption(schema)
  let fit: Adapter | undefined
  return (value) => {
    const form = forms(value).find(fits)
    if (form !== undefined) return form
    fit ??= adapterOf(SchemaAST.toEncoded(schema.ast))
    return Option.getOrElse(decode(fit(value)), () => value)
  }
}

function forms(value: unknown): ReadonlyArray<unknown> {
  if (value instanceof Neutral.Moment) {
    const utc = Option.toArray(value.utc)
    return [...utc, ...Option.toArray(value.zoned), ...utc.map(DateTime.toDateUtc)]
  }
  if (value instanceof Neutral.Day) {
    return Option.toArray(DateTime.make(value.iso)).flatMap((utc) => [utc, DateTime.toDateUtc(utc)])
  }
  if (value instanceof Neutral.Span) return [value.duration]
  if (value instanceof Neutral.Decimal) return Option.toArray(value.bigDecimal)
  if (typeof value === "number") return Option.toArray(BigDecimal.fromNumber(value))
  if (typeof value === "bigint") return [BigDecimal.fromBigInt(value)]
  if (value instanceof NdArray) return value.shape.length === 1 ? [value.data, value] : [value]
  return [value]
}
