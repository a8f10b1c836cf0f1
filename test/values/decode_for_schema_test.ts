// @effect-diagnostics globalDate:off schemaNumber:off
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Option, Schema } from "effect"
import { toEncodedForm } from "../../src/values/decode_for_schema.ts"
import * as PythonValue from "../../src/values/python_value.ts"
import { NdArray } from "../../src/values.ts"

const moment = new PythonValue.Moment("2026-01-01T00:00:00+00:00", undefined)

/** Objects of JavaScript that are not a `dict` in Python. */
const noDicts: ReadonlyArray<object> = [
  moment,
  new PythonValue.Day("2026-01-01"),
  new PythonValue.Span(1n),
  new PythonValue.Decimal("1"),
  new NdArray(Float64Array.of(1)),
  Uint8Array.of(97),
  new Set(["a"]),
  new Map<unknown, unknown>([[1, "a"], ["b", "c"]]),
  [1],
]

const decoded = <S extends Schema.ConstraintDecoder<unknown>>(schema: S, value: unknown) =>
  Schema.decodeUnknownOption(schema)(toEncodedForm(schema)(value))

const optional = Schema.Struct({
  iso: Schema.optionalKey(Schema.String),
  micros: Schema.optionalKey(Schema.BigInt),
  text: Schema.optionalKey(Schema.String),
})

describe("toEncodedForm", () => {
  for (const value of noDicts) {
    const name = value.constructor.name
    for (
      const [title, schema] of [
        ["Record", Schema.Record(Schema.String, Schema.Unknown)],
        ["Struct of optional keys", optional],
        ["Union of it", Schema.Union([Schema.Null, optional])],
        ["Struct with it inside", Schema.Union([Schema.Null, Schema.Struct({ a: optional })])],
      ] as const
    ) {
      it(`refuses ${name} for a ${title}`, () => {
        assert.deepStrictEqual(
          decoded<Schema.ConstraintDecoder<unknown>>(
            schema,
            title === "Struct with it inside" ? { a: value } : value,
          ),
          Option.none(),
        )
      })
    }
  }

  it("converts a dict with string keys to a record", () => {
    const value = new Map([["a", 1], ["b", 2]])
    assert.deepStrictEqual(
      decoded(Schema.Record(Schema.String, Schema.BigInt), value),
      Option.some({ a: 1n, b: 2n }),
    )
    assert.deepStrictEqual(decoded(Schema.Struct({ a: Schema.Int }), value), Option.some({ a: 1 }))
  })

  it("converts a table to a record of its columns", () => {
    const table = new PythonValue.Table(["a"], 2, [[1, 2]])
    assert.deepStrictEqual(
      decoded(Schema.Record(Schema.String, Schema.Array(Schema.Int)), table),
      Option.some({ a: [1, 2] }),
    )
  })

  it("does not convert a value of a later union member to an earlier struct", () => {
    assert.deepStrictEqual(
      decoded(Schema.Union([Schema.Struct({ iso: Schema.String }), Schema.DateTimeUtc]), moment),
      Option.some(DateTime.makeUnsafe("2026-01-01T00:00:00Z")),
    )
  })
})
