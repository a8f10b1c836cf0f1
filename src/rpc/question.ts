/**
 * Questions of an execution to its client.
 *
 * @module
 */
import * as Schema from "effect/Schema"

/** A question to the client of an execution, which it answers by `answer`. */
export class Question extends Schema.TaggedClass<Question>("effect-jupyter/KernelRpc/Question")("Question", {
  id: Schema.String,
  about: Schema.Union([
    Schema.TaggedStruct("Input", { prompt: Schema.String, password: Schema.Boolean }),
    Schema.TaggedStruct("Image", {
      name: Schema.String,
      mimeType: Schema.String,
      bytes: Schema.Uint8Array,
    }),
  ]),
}) {}
