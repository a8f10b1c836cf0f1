/** Uploads of clients, which a server keeps until the request that takes them. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Uploads from "../../src/rpc/uploads.ts"

const mebibyte = 1024 * 1024

layer(Layer.empty)("Uploads", (it) => {
  it.effect("bytes and text are whole after an upload in parts, which is taken once", () =>
    Effect.gen(function* () {
      const uploads = yield* Uploads.make()
      let parts = 0
      const send = (part: Uploads.Part) => {
        parts++
        // As a protocol that lost the answer.
        return Effect.andThen(uploads.add(part), uploads.add(part))
      }
      const small = yield* Uploads.text("a", send)
      assert.strictEqual(small, "a")
      const long = '\ud800é"\n'.repeat(mebibyte)
      const sent = yield* Uploads.text(long, send)
      assert.isAbove(parts, 4)
      assert.strictEqual(yield* uploads.takeText(sent), long)
      assert.include((yield* Effect.flip(uploads.takeText(sent))).message, "not uploaded")
      const bytes = new Uint8Array(3 * mebibyte + 1).fill(7)
      const uploaded = yield* Uploads.bytes([bytes, new Uint8Array([8])], send)
      assert.deepStrictEqual(yield* uploads.takeBytes(uploaded), new Uint8Array([...bytes, 8]))
      yield* uploads.add({ id: "no text", index: 0, bytes: new Uint8Array([1]) })
      assert.include((yield* Effect.flip(uploads.takeText({ upload: "no text" }))).message, "not a text")
      const second = yield* Effect.flip(uploads.add({ id: "moved", index: 1, bytes }))
      assert.include(second.message, "another process")
    }))

  it.effect("uploads are dropped a minute after their last part, also without further requests", () =>
    Effect.gen(function* () {
      const uploads = yield* Uploads.make()
      yield* uploads.add({ id: "a", index: 0, bytes: new Uint8Array([1]) })
      yield* TestClock.adjust("50 seconds")
      yield* uploads.add({ id: "a", index: 1, bytes: new Uint8Array([2]) })
      yield* TestClock.adjust("50 seconds")
      assert.deepStrictEqual(yield* uploads.takeBytes({ upload: "a" }), new Uint8Array([1, 2]))
      yield* uploads.add({ id: "b", index: 0, bytes: new Uint8Array([1]) })
      yield* TestClock.adjust("61 seconds")
      assert.include((yield* Effect.flip(uploads.takeBytes({ upload: "b" }))).message, "too long ago")
    }))

  it.effect("uploads that are too large together are refused, and there is room again", () =>
    Effect.gen(function* () {
      const uploads = yield* Uploads.make(10 * mebibyte)
      const bytes = new Uint8Array(mebibyte)
      const fill = (id: string) =>
        Effect.forEach(Array.from({ length: 6 }), (_, index) => uploads.add({ id, index, bytes }), {
          discard: true,
        })
      yield* fill("a")
      assert.strictEqual((yield* Effect.flip(fill("b"))).reason._tag, "ExecutionAborted")
      assert.include((yield* Effect.flip(uploads.takeBytes({ upload: "b" }))).message, "not uploaded")
      yield* TestClock.adjust("61 seconds")
      yield* fill("b")
      yield* uploads.takeBytes({ upload: "b" })
      // Empty ones count, too.
      const many = Effect.forEach(
        Array.from({ length: 11_000 }),
        (_, index) =>
          uploads.add({ id: String(index % 10), index: Math.floor(index / 10), bytes: new Uint8Array(0) }),
        { discard: true },
      )
      assert.strictEqual((yield* Effect.flip(many)).reason._tag, "ExecutionAborted")
    }))
})
