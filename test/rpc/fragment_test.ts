/** Elements that are too large for one message, in fragments. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { Execution } from "../../src/mod.ts"
import * as Fragment from "../../src/rpc/fragment.ts"

layer(Layer.empty)("Fragment", (it) => {
  it.effect("split and join keep elements of any size and text, and no fragment has half a character", () =>
    Effect.gen(function* () {
      for (const start of ["", "a", "\ud800"]) {
        const elements = [
          new Execution.TextChunk({ name: "stdout", text: "small" }),
          new Execution.TextChunk({ name: "stdout", text: start + "\ud83d\ude00".repeat(Fragment.maxSize) }),
          new Execution.DisplayChunk({
            data: { "text/plain": '\u0001"'.repeat(Fragment.maxSize) },
            metadata: {},
            text: undefined,
            image: undefined,
            displayId: undefined,
            executionCount: undefined,
          }),
        ]
        const parts = yield* Stream.runCollect(Fragment.split(Stream.fromIterable(elements)))
        assert.isAbove(parts.length, 4)
        for (const part of parts) {
          if (part instanceof Fragment.Fragment) assert.isTrue(part.json.isWellFormed())
        }
        const joined = Fragment.join(Stream.fromIterable(parts), Fragment.isOfExecution)
        assert.deepStrictEqual(yield* Stream.runCollect(joined), elements)
      }
    }))

  it.effect("a failure of any size arrives as a failure", () =>
    Effect.gen(function* () {
      const partial = new Execution.ExecutionResult({
        text: "\u00e4".repeat(3 * Fragment.maxSize),
        images: [],
        displays: [],
        executionCount: 1,
      })
      const failure = new Execution.ExecutionError({ ename: "E", evalue: "", traceback: [], partial })
      const sent = Fragment.split(Stream.fail(failure))
      const received = yield* Effect.flip(Stream.runDrain(Fragment.join(sent, Fragment.isOfExecution)))
      assert.deepStrictEqual(received, failure)
    }))
})
