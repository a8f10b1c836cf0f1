/**
 * Texts and bytes that are too large for one message: a client uploads them in parts before the request that takes them.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { ExecutionAborted, KernelError } from "../execution.ts"
import * as Fragment from "./fragment.ts"
import * as Parts from "./parts.ts"

/** The id of an upload in place of a text or bytes. */
export const Uploaded = Schema.Struct({ upload: Schema.String })

/** A text, or the id under which its JSON was uploaded. */
export const Text = Schema.Union([Schema.String, Uploaded])

/** Bytes, or the id under which they were uploaded. */
export const Bytes = Schema.Union([Schema.Uint8Array, Uploaded])

/** Maximum bytes of all uploads that wait for their requests: those of the largest message to a gateway. */
const defaultMaxBytes = 1024 * 1024 * 1024

/** The bytes that a part counts beside its own. */
const partOverhead = 1024

/** The time after its last part, after which an upload that no request has taken is dropped. */
const timeToLive: Duration.Input = "1 minute"

/** A part of an upload, which a protocol may repeat. */
export interface Part {
  readonly id: string
  readonly index: number
  readonly bytes: Uint8Array
}

/** The uploads that a server has. */
export interface Uploads {
  /** Adds a part. Fails, and drops its upload, if all uploads together are too large. */
  readonly add: (part: Part) => Effect.Effect<void, KernelError>
  readonly takeBytes: (bytes: typeof Bytes.Type) => Effect.Effect<Uint8Array, KernelError>
  readonly takeText: (text: typeof Text.Type) => Effect.Effect<string, KernelError>
}

const aborted = (detail: string): KernelError =>
  new KernelError({ reason: new ExecutionAborted({ kernelId: undefined, detail }) })

/** Makes the uploads of a server. */
export const make: (maxBytes?: number) => Effect.Effect<Uploads, never, Scope.Scope> = Effect.fnUntraced(
  function* (
    maxBytes: number = defaultMaxBytes,
  ) {
    const uploads = new Map<string, { readonly parts: Array<Uint8Array>; size: number }>()
    const expiries = yield* FiberMap.make<string>()
    let total = 0

    const remove = (id: string) => {
      const upload = uploads.get(id)
      total -= upload?.size ?? 0
      uploads.delete(id)
      return upload
    }
    // Does not wait, so that requests keep their order.
    const take = (id: string): Effect.Effect<Uint8Array, KernelError> =>
      Effect.suspend(() => {
        Option.getOrUndefined(FiberMap.getUnsafe(expiries, id))?.interruptUnsafe()
        const upload = remove(id)
        return upload === undefined
          ? aborted("The value was not uploaded, or too long ago")
          : Effect.succeed(Parts.join(upload.parts))
      })
    return {
      add: Effect.fnUntraced(function* ({ bytes, id, index }) {
        const upload = uploads.get(id) ?? { parts: [], size: 0 }
        if (index < upload.parts.length) return
        if (index > upload.parts.length) {
          return yield* aborted(
            "The parts before this one went to another process, or were sent too long ago",
          )
        }
        const size = bytes.byteLength + partOverhead
        if (total + size > maxBytes) {
          remove(id)
          return yield* aborted(
            `The server has no room for more than ${maxBytes} bytes that are being sent to it; ` +
              "send less at a time, or try again later",
          )
        }
        upload.parts.push(bytes)
        upload.size += size
        total += size
        uploads.set(id, upload)
        yield* FiberMap.run(expiries, id, Effect.delay(Effect.sync(() => remove(id)), timeToLive))
      }),
      takeBytes: (bytes) => "upload" in bytes ? take(bytes.upload) : Effect.succeed(bytes),
      takeText: (text) =>
        typeof text === "string" ? Effect.succeed(text) : take(text.upload).pipe(
          Effect.map((bytes) => new TextDecoder().decode(bytes)),
          Effect.flatMap(Schema.decodeEffect(Schema.fromJsonString(Schema.String))),
          Effect.catchTag("SchemaError", () => Effect.fail(aborted("The upload is not a text"))),
        ),
    }
  },
)

type Send<E> = (part: Part) => Effect.Effect<void, E>

/** Returns buffers as one, or its id if it had to be uploaded. */
export const bytes = Effect.fnUntraced(function* <E>(buffers: ReadonlyArray<Uint8Array>, send: Send<E>) {
  const size = buffers.reduce((sum, { byteLength }) => sum + byteLength, 0)
  if (size <= Fragment.maxSize) return Parts.join(buffers)
  const id = SecureRandom.uuidV4Unsafe()
  yield* Effect.forEach(
    Parts.ofSize(buffers, Fragment.maxSize),
    (bytes, index) => send({ id, index, bytes }),
    { discard: true },
  )
  return { upload: id }
})

/** Returns a text, or the id of its JSON if it had to be uploaded. */
export const text = <E>(text: string, send: Send<E>): Effect.Effect<typeof Text.Type, E> =>
  text.length <= Fragment.maxSize
    ? Effect.succeed(text)
    // Of the JSON: UTF-8 has no surrogate that is alone.
    : Effect.map(
      bytes([new TextEncoder().encode(JSON.stringify(text))], send),
      (sent) => "upload" in sent ? sent : text,
    )
