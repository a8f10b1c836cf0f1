/**
 * A pool of warm kernels: each request gets an unused kernel at once.
 *
 * `node --conditions=effect-jupyter-source examples/pool.ts` runs it.
 *
 * @module
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Schedule } from "effect"
import { KernelGateway, KernelPool } from "effect-jupyter"

// Each kernel runs it before it is handed out.
const setup = `
import statistics

def describe(numbers):
    return f"mean {statistics.mean(numbers)}, median {statistics.median(numbers)}"
`

/** Answers one user in a kernel that is used for this answer only. */
const answer = Effect.fn("answer")(function* (code: string) {
  const pool = yield* KernelPool.KernelPool
  const kernel = yield* pool.get
  const { text } = yield* kernel.execute(code, { timeout: "30 seconds" })
  return text
}, Effect.scoped)

const program = Effect.gen(function* () {
  const pool = yield* KernelPool.KernelPool
  const areWarm = pool.state.pipe(
    Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: ({ warm }) => warm >= 2 }),
  )

  yield* Console.log("A kernel of the pool is there at once:")
  yield* areWarm
  yield* Console.log(`  ${yield* answer("print(describe([1, 2, 6]))")}`)

  yield* Console.log("What one user leaves behind, the next does not find:")
  yield* answer("secret = 'mine'; statistics.mean = lambda numbers: 'nonsense'")
  yield* Console.log(`  ${yield* answer("print('secret' in globals(), describe([1, 2, 6]))")}`)

  yield* Console.log("Six users share at most three kernels and wait for their turn:")
  const answers = yield* Effect.forEach([1, 2, 3, 4, 5, 6], (user) => answer(`print(${user} ** 2)`), {
    concurrency: "unbounded",
  })
  yield* Console.log(`  ${answers.join(", ")}`)

  yield* Console.log("A reset takes a warm kernel as well:")
  yield* areWarm
  yield* Effect.scoped(Effect.gen(function* () {
    const kernel = yield* pool.get
    yield* kernel.execute("x = 1")
    yield* kernel.reset
    const { text } = yield* kernel.execute("print('x' in globals(), describe([1, 2, 6]))")
    yield* Console.log(`  ${text}`)
  }))
})

program.pipe(
  Effect.provide(
    KernelPool.layer({ min: 2, max: 3, warm: 2, setup }).pipe(Layer.provide(KernelGateway.layer())),
  ),
  NodeRuntime.runMain,
)
