/** Arbitraries of property tests. */
import { Arbitrary, Schema } from "effect"
import type { Message } from "../../src/jupyter/message.ts"

/** Characters of one to four bytes, and those that decoders and joins like to swallow. */
const characters = ["a", "Z", " ", "\n", "\0", '"', "\\", "é", "€", "\u2028", "\ufeff", "\ufffd", "😀", "👩‍🚀"]

/** Well-formed text of any width. Effect's own strings are mostly ASCII. */
export const text: Arbitrary.Arbitrary<string> = Arbitrary.array(
  Arbitrary.schema(Schema.Literals(characters)),
).pipe(Arbitrary.map((pieces) => pieces.join("")))

const asJson = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.JsonObject))

/** A JSON object as `JSON.parse` makes it: without the number -0, which JSON does not have. */
export const json: Arbitrary.Arbitrary<Schema.JsonObject> = Arbitrary.schema(Schema.JsonObject).pipe(
  // V8 reads the key "\n" as "\\" if an object of the same shape had the latter: no such keys of one character.
  Arbitrary.map((value) => asJson(JSON.stringify(value).replace(/"(\\(?:u\w{4}|[^u\\]))":/g, `"$1_":`))),
)

/** Any message, its header with foreign keys. */
export const message: Arbitrary.Arbitrary<Message> = Arbitrary.all({
  channel: text,
  id: text,
  type: text,
  extra: json,
  parentHeader: json,
  metadata: json,
  content: json,
  words: text,
  buffers: Arbitrary.array(Arbitrary.schema(Schema.Uint8Array), { maxLength: 4 }),
}).pipe(
  Arbitrary.map(({ content, extra, id, type, words, ...parts }) => ({
    ...parts,
    header: { ...extra, msg_id: id, msg_type: type },
    content: { ...content, words },
  })),
)
