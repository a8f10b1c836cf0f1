/**
 * Makes converters of values from the AST of a schema: the parts that decoding and encoding have in common.
 *
 * @module
 */
import { memoize } from "effect/Function"
import type * as SchemaAST from "effect/SchemaAST"
import * as Declaration from "./declaration.ts"

/** Converts a value. */
export type Converter = (value: unknown) => unknown

/** Makes the converter of a schema. */
export type ConverterOf = (ast: SchemaAST.AST) => Converter

/** Returns a value unchanged. */
export const identity: Converter = (value) => value

/** Memoizes a function that makes converters. That of a recursive schema is made when it is first used. */
export function walk(make: ConverterOf): ConverterOf {
  const converterOf: ConverterOf = memoize((ast: SchemaAST.AST) =>
    ast._tag === "Suspend" ? lazily(() => converterOf(ast.thunk())) : make(ast)
  )
  return converterOf
}

/** Makes a converter when it is first used. */
export function lazily(make: () => Converter): Converter {
  let converter: Converter | undefined
  return (value) => (converter ??= make())(value)
}

/** Returns a converter of all elements of an array; `identity` if none changes. */
export function elements({ elements, rest }: SchemaAST.Arrays, converterOf: ConverterOf): Converter {
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

/** Returns a converter of all properties of a record; `identity` if none changes. */
export function properties(
  { indexSignatures, propertySignatures }: SchemaAST.Objects,
  converterOf: ConverterOf,
  propertyOf: ConverterOf = converterOf,
): (record: object) => unknown {
  const known = new Map(propertySignatures.map(({ name, type }) => [String(name), propertyOf(type)]))
  const others = indexSignatures.map(({ parameter, type }) => ({
    accepts: Declaration.checker(parameter),
    convert: converterOf(type),
  }))
  if ([...known.values(), ...others.map(({ convert }) => convert)].every((one) => one === identity)) {
    return identity
  }
  return (record) =>
    Object.fromEntries(
      Object.entries(record).map(([key, item]) => {
        const convert = known.get(key) ?? others.find(({ accepts }) => accepts(key))?.convert ?? identity
        return [key, convert(item)]
      }),
    )
}

/** Returns the members of a union with a check of each; `undefined` if none changes a value. */
export function members({ types }: SchemaAST.Union, converterOf: ConverterOf):
  | ReadonlyArray<{ readonly accepts: (value: unknown) => boolean; readonly convert: Converter }>
  | undefined {
  const all = types.map((type) => ({ accepts: Declaration.checker(type), convert: converterOf(type) }))
  return all.every(({ convert }) => convert === identity) ? undefined : all
}
