import { assert, it } from "@effect/vitest"
import { Effect, Exit, Schema, Stream } from "effect"
import { ExecutionResult } from "../../src/execution.ts"
import * as Identity from "../../src/kernel/identity.ts"
import * as Iterate from "../../src/values/iterate.ts"
import * as Exchange from "../../src/values/exchange.ts"

const partial = new ExecutionResult({ text: "said", images: [], displays: [], executionCount: 1 })

/** The kernel has run the code, and its answer did not arrive. */
const lost: Exchange.Response = { answers: [], exit: Exit.succeed(partial), kernelId: "k" }

it.effect("iterate fails when the kernel sends no batch, and keeps the output", () =>
  Effect.gen(function* () {
    const iterate = yield* Iterate.make({ id: () => "k", identity: Identity.ipython }, {
      send: () => Effect.succeed(lost),
    })
    const error = yield* Effect.flip(Stream.runCollect(iterate("range(3)", Schema.Int).pipe(Stream.take(1))))
    assert.strictEqual(error._tag, "KernelError")
    if (error._tag !== "KernelError") return
    assert.include(error.message, `"k" was aborted: The kernel sent no batch`)
    assert.strictEqual(error.partial, partial)
  }))

it.effect("valueOf fails with the kernel's id when the kernel sends no value, and keeps the output", () =>
  Effect.gen(function* () {
    const error = yield* Effect.flip(Exchange.valueOf(lost))
    assert.strictEqual(error._tag, "KernelError")
    if (error._tag !== "KernelError") return
    assert.include(error.message, `"k" was aborted: The kernel sent no value`)
    assert.strictEqual(error.partial, partial)
  }))
