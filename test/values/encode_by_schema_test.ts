// @effect-diagnostics globalDate:off schemaNumber:off
/** Values of all that Effect has schemas for, by way of what would be sent, without a kernel. */
import { assert, describe, it } from "@effect/vitest"
import {
  Arbitrary,
  ByteSize,
  Cause,
  Chunk,
  DateTime,
  Duration,
  Effect,
  Exit,
  HashMap,
  HashSet,
  Option,
  Redacted,
  Result,
  Schema,
} from "effect"
import * as Decode from "../../src/values/decode.ts"
import { decodeForSchema } from "../../src/values/decode_for_schema.ts"
import * as Encode from "../../src/values/encode.ts"
import { encodeBySchema } from "../../src/values/encode_by_schema.ts"

type Codec = Schema.Codec<unknown, unknown>

/** The encoded form of a value, and the value decoded from it. */
const exchanged = Effect.fnUntraced(function* (schema: Codec, value: unknown) {
  const { buffers, text } = yield* Effect.fromResult(Encode.encode(yield* encodeBySchema(schema)(value)))
  const pythonValue = yield* Effect.fromResult(Decode.decode([new TextEncoder().encode(text), ...buffers]))
  const back = yield* decodeForSchema(schema)(pythonValue)
  return { text, back, isSame: Schema.toEquivalence(schema)(value, back) }
})

const refused = (schema: Codec, value: unknown) =>
  Effect.map(
    Effect.flip(exchanged(schema, value)),
    (error) => error._tag === "EncodeError" ? error : assert.fail(),
  )

interface Tree {
  readonly key: Redacted.Redacted
  readonly children: ReadonlyArray<Tree>
}
const Tree: Schema.Codec<Tree> = Schema.Struct({
  key: Schema.Redacted(Schema.String),
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree)),
})

class Pattern extends Schema.Class<Pattern>("Pattern")({ at: Schema.Date, regExp: Schema.RegExp }) {}

const secret = Redacted.make("hush-hush")
const moment = DateTime.makeUnsafe("2026-01-02T03:04:05.678Z")

const values: ReadonlyArray<readonly [name: string, schema: Codec, value: unknown]> = [
  ["Redacted", Schema.Redacted(Schema.String), secret],
  ["RedactedFromValue", Schema.RedactedFromValue(Schema.DateTimeUtc), Redacted.make(moment)],
  [
    "Redacted in all that has parts",
    Schema.Struct({
      array: Schema.Array(Schema.Redacted(Schema.BigInt)),
      tuple: Schema.TupleWithRest(Schema.Tuple([Schema.Int]), [
        Schema.Redacted(Schema.String),
        Schema.Boolean,
      ]),
      record: Schema.Record(Schema.String, Schema.Redacted(Schema.String)),
      union: Schema.Union([Schema.RegExp, Schema.Redacted(Schema.String)]),
      option: Schema.Option(Schema.Redacted(Schema.String)),
      map: Schema.ReadonlyMap(Schema.String, Schema.Redacted(Schema.String)),
      hashMap: Schema.HashMap(Schema.String, Schema.Redacted(Schema.String)),
      chunk: Schema.Chunk(Schema.Redacted(Schema.String)),
    }),
    {
      array: [Redacted.make(2n ** 70n)],
      tuple: [1, secret, secret, true],
      record: { a: secret },
      union: secret,
      option: Option.some(secret),
      map: new Map([["a", secret]]),
      hashMap: HashMap.make(["a", secret]),
      chunk: Chunk.make(secret),
    },
  ],
  ["a recursive one", Tree, { key: secret, children: [{ key: secret, children: [] }] }],
  [
    "sets of declared types",
    Schema.Struct({
      set: Schema.ReadonlySet(Schema.URL),
      hashSet: Schema.HashSet(Schema.TimeZone),
    }),
    {
      set: new Set([new URL("http://a.b/")]),
      hashSet: HashSet.make(DateTime.zoneMakeNamedUnsafe("Europe/Berlin")),
    },
  ],
  ["Result", Schema.Result(Schema.DateTimeUtc, Schema.Duration), Result.succeed(moment)],
  [
    "Result of a failure",
    Schema.Result(Schema.DateTimeUtc, Schema.Duration),
    Result.fail(Duration.millis(5)),
  ],
  ["Exit", Schema.Exit(Schema.Uint8Array, Schema.String, Schema.Defect()), Exit.succeed(Uint8Array.of(1))],
  ["Cause", Schema.Cause(Schema.BigInt, Schema.Defect()), Cause.fail(5n)],
  ["RegExp in a class", Pattern, new Pattern({ at: new Date(0), regExp: /x/gi })],
  ["ByteSize", Schema.ByteSize, ByteSize.bytes(2n ** 60n)],
  ["URLSearchParams", Schema.URLSearchParams, new URLSearchParams("a=1&b=2")],
]

describe("encodeBySchema", () => {
  for (const [name, schema, value] of values) {
    it.effect(`round-trips ${name}`, () =>
      Effect.gen(function* () {
        const { back, isSame } = yield* exchanged(schema, value)
        assert.isTrue(isSame, String(back))
      }))
  }

  it.effect("encodes a secret as its value if its schema allows it", () =>
    Effect.gen(function* () {
      const { text } = yield* exchanged(Schema.Struct({ key: Schema.Redacted(Schema.String) }), {
        key: secret,
      })
      assert.strictEqual(text, '{"key":"hush-hush"}')
    }))

  it.effect("refuses a secret that no schema reveals, without its value in the error", () =>
    Effect.gen(function* () {
      const Closed = Schema.Redacted(Schema.String, { disallowJsonEncode: true })
      for (
        const schema of [Schema.Struct({ key: Closed }), Schema.Unknown, Schema.Struct({ key: Schema.Any })]
      ) {
        const error = yield* refused(schema, { key: secret })
        assert.deepStrictEqual([error.valueType, error.path], ["Redacted", "$.key"])
        assert.notInclude(JSON.stringify([error, error.message, error.stack]), "hush-hush")
      }
      const Never = Schema.Struct({ key: Schema.RedactedFromValue(Schema.String, { disallowEncode: true }) })
      const error = yield* Effect.flip(exchanged(Never, { key: secret }))
      assert.strictEqual(error._tag, "SchemaError")
      assert.notInclude(error.message, "hush-hush")
    }))

  it.effect.prop(
    "round-trips any Result",
    [Schema.Array(Schema.Result(Schema.BigInt, Schema.Record(Schema.String, Schema.Uint8Array)))],
    ([value]) =>
      Effect.gen(function* () {
        const schema = Schema.Array(
          Schema.Result(Schema.BigInt, Schema.Record(Schema.String, Schema.Uint8Array)),
        )
        assert.isTrue((yield* exchanged(schema, value)).isSame)
      }),
  )

  it.effect("leaves values unchanged that Schema has fully encoded", () =>
    Effect.gen(function* () {
      const schema = Schema.Struct({ a: Schema.Array(Schema.Int), b: Schema.Option(Schema.Date) })
      const [value] = yield* Arbitrary.sampleEffect(Arbitrary.schema(schema), { count: 1 })
      const encoded = yield* Schema.encodeUnknownEffect(schema)(value)
      assert.deepStrictEqual(yield* encodeBySchema(schema)(value), encoded)
    }))
})
