/** Calls that are interrupted at every step: their fiber yields after a few operations, and is interrupted there. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Option, References, Schema, Stream } from "effect"
import { KernelClient, Testing } from "../../src/mod.ts"

const scripts: ReadonlyArray<Testing.Script> = [
  { match: "text", chunks: ["a"], result: "1" },
  { match: "number", value: 1 },
]

const calls: ReadonlyArray<
  readonly [name: string, call: (kernel: KernelClient.Kernel) => Effect.Effect<unknown, unknown>]
> = [
  ["execute", ({ execute }) => execute("text", { timeout: "10 seconds" })],
  ["stream", ({ stream }) => Stream.runDrain(stream("text"))],
  ["evaluate", ({ evaluate }) => evaluate("number", Schema.Finite)],
  ["inspect", ({ inspect }) => Effect.flip(inspect("text"))],
  ["reset", ({ reset }) => reset],
]

for (const [name, call] of calls) {
  it.live(
    `${name} that is interrupted at any step lets later calls run`,
    () =>
      Effect.forEach(Array.from({ length: 150 }, (_, steps) => steps), (steps) =>
        Effect.gen(function* () {
          const kernel = yield* KernelClient.KernelClient
          const fiber = yield* Effect.forkChild(
            Effect.provideService(call(kernel), References.MaxOpsBeforeYield, 3),
          )
          for (let step = 0; step < steps; step++) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          const later = Effect.andThen(kernel.execute("text"), Effect.flip(kernel.inspect("text")))
          const ran = yield* Effect.timeoutOption(later, "10 seconds")
          assert.isTrue(Option.isSome(ran), `after ${steps} steps`)
        }).pipe(Effect.provide(Testing.layer(scripts))), { concurrency: "unbounded", discard: true }),
    60_000,
  )
}
