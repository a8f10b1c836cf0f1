/**
 * Values that were never in Python: what the scripts of a kernel for tests give.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** A value of a script, as the schema that is asked for decodes it, or as it is encoded. */
export class GivenValue {
  readonly value: unknown
  constructor(value: unknown) {
    this.value = value
  }
}

/** Makes a decoder of given values; without a value it is `None`. */
export function decodeGiven<S extends Schema.Constraint>(
  schema: S,
): (given: GivenValue) => Effect.Effect<S["Type"], Schema.SchemaError, S["DecodingServices"]> {
  const decodeType = Schema.decodeUnknownEffect(Schema.toType(schema))
  const decodeEncoded = Schema.decodeUnknownEffect(schema)
  const decode = (value: unknown) => Effect.catch(decodeType(value), () => decodeEncoded(value))
  return ({ value }) => value === undefined ? Effect.catch(decode(value), () => decode(null)) : decode(value)
}
