/**
 * Typed values between Effect and Python: what `evaluate`, `set`, `call`, `iterate` and `feed` of a kernel carry,
 * and what can be wrong with it.
 *
 * A value keeps its type on the way. What comes from Python is decoded by a schema, which also chooses among the
 * forms that a value has in JavaScript: a `datetime` is a `Date` for `Schema.Date`, a `DateTime` for
 * `Schema.DateTimeUtc` and text for `Schema.String`. What goes to Python goes as what it is, or as its schema
 * encodes it. `examples/README.md` has the tables of all types, in the section "Typed values".
 *
 * Nothing is dropped or altered in silence: what does not travel is an {@link UnsupportedValue} that says
 * what and where. No library is imported because of a value; JSON carries what is small, buffers of the
 * messages what is binary.
 *
 * @module
 */
export { InvalidName, UnsupportedValue, type ValueFailure } from "./values/error.ts"
export { NdArray, type NumberArray } from "./values/nd_array.ts"
export type { CallOptions, FeedOptions, IterateOptions, SetOptions, ValueOptions } from "./values/options.ts"
