/**
 * Typed values between Effect and Python, which `evaluate`, `set`, `call`, `iterate` and `feed` of a kernel exchange,
 * and their errors.
 *
 * A value keeps its type. Values from Python are decoded by a schema, which also selects among the forms that a value
 * has in JavaScript: a `datetime` is a `Date` for `Schema.Date`, a `DateTime` for `Schema.DateTimeUtc` and text for
 * `Schema.String`. Values for Python are encoded by a schema or by their type. The section "Typed values" of
 * `examples/README.md` has the tables of all types.
 *
 * No value is dropped or altered: one without an encoding is an {@link UnsupportedValue} with its type and path. No
 * library is imported for a value. Small values are sent as JSON, binary ones as buffers of the messages.
 *
 * @module
 */
export { InvalidName, UnsupportedValue, type ValueFailure } from "./values/error.ts"
export { NdArray, type NumberArray } from "./values/nd_array.ts"
export type { CallOptions, FeedOptions, IterateOptions, SetOptions, ValueOptions } from "./values/options.ts"
