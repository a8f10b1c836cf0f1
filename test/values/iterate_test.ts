import { assert, it } from "@effect/vitest"
import { Effect, Exit, Schema, Stream } from "effect"
import { ExecutionResult } from "../../src/execution.ts"
import * as Identity from "../../src/kernel/identity.ts"
import * as Iterate from "../../src/values/iterate.ts"
import * as Request from "../../src/values/request.ts"

const partial = new ExecutionResult({ text: "said", images: [], displays: [], executionCount: 1 })

/** The kernel has run the code, and its answer did not arrive. */
const lost: Request.Asked = { answers: [], exit: Exit.succeed(partial), kernelId: "k" }

it.effect("a batch that does not arrive is no end of the stream", () =>
  Effect.gen(function* () {
    const iterate = yield* Iterate.make({ id: () => "k", identity: Identity.ipython }, {
      ask: () => Effect.succeed(lost),
    })
    const error = yield* Effect.flip(Stream.runCollect(iterate("range(3)", Schema.Int).pipe(Stream.take(1))))
    assert.strictEqual(error._tag, "KernelError")
    if (error._tag !== "KernelError") return
    assert.include(error.message, `"k" was aborted: The kernel sent no batch`)
    assert.strictEqual(error.partial, partial)
  }))

it.effect("a value that does not arrive is an error that says of which kernel, and keeps the output", () =>
  Effect.gen(function* () {
    const error = yield* Effect.flip(Request.valueOf(lost))
    assert.strictEqual(error._tag, "KernelError")
    if (error._tag !== "KernelError") return
    assert.include(error.message, `"k" was aborted: The kernel sent no value`)
    assert.strictEqual(error.partial, partial)
  }))
