/** Whatever a procedure gives, and each of its failures, arrives as it was, by every serialization. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Context, Effect, Layer, Schema } from "effect"
import { RpcMessage, RpcSchema, RpcSerialization } from "effect/rpc"
import { KernelRpc } from "../../src/mod.ts"

const serializations = {
  json: RpcSerialization.layerJson,
  ndjson: RpcSerialization.layerNdjson,
  "schema-binary": RpcSerialization.layerSchemaBinary(),
}

/** Sends a value as an element of a stream, in the message that a server would send. */
const send = Effect.fnUntraced(
  function* (
    serialization: Layer.Layer<RpcSerialization.RpcSerialization>,
    schema: Schema.Codec<unknown, unknown>,
    value: unknown,
  ) {
    const { codecFor, makeUnsafe } = Context.get(
      yield* Layer.build(serialization),
      RpcSerialization.RpcSerialization,
    )
    const codec = codecFor(Schema.NonEmptyArray(schema))
    const values = yield* Schema.encodeUnknownEffect(codec)([value])
    const encoded = makeUnsafe().encode({ _tag: "Chunk", requestId: RpcMessage.RequestId("1"), values })
    const [message] = makeUnsafe().decode(encoded ?? "")
    const { values: received } = yield* Schema.decodeUnknownEffect(Schema.Struct({ values: Schema.Unknown }))(
      message,
    )
    const [first] = yield* Schema.decodeUnknownEffect(codec)(received)
    return first
  },
)

/** Values without surrogates that are alone, for which UTF-8 has no code. */
const isWellFormed = (value: unknown) => !/\\ud[89a-f]/.test(JSON.stringify(value) ?? "")

const test = (name: string, schema: Schema.Codec<unknown, unknown>) => {
  if (schema.ast._tag === "Never" || schema.ast._tag === "Void") return
  const isEqual = Schema.toEquivalence(schema)
  it.effect.prop(
    name,
    [Arbitrary.filter(Arbitrary.schema(schema), isWellFormed)],
    ([value]) =>
      Effect.gen(function* () {
        for (const [name, serialization] of Object.entries(serializations)) {
          assert.isTrue(isEqual(yield* send(serialization, schema, value), value), name)
        }
      }),
  )
}

describe("KernelRpc.group", () => {
  for (const { _tag, errorSchema, successSchema } of KernelRpc.group.requests.values()) {
    const isStream = RpcSchema.isStreamSchema(successSchema)
    test(`${_tag} sends its answers as they are`, isStream ? successSchema.success : successSchema)
    test(`${_tag} sends its failures as they are`, isStream ? successSchema.error : errorSchema)
  }
})
