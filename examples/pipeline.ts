/**
 * Several kernels in one Stream pipeline: a pool of two, work mapped over it with bounded concurrency.
 *
 * `node --conditions=effect-jupyter-source examples/pipeline.ts` runs it.
 *
 * @module
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Pool, Schema, Stream } from "effect"
import { KernelClient, KernelGateway } from "effect-jupyter"

const kernels = 2

const definitions = `
import json, os, random

def estimate(seed, samples=200_000):
    generator = random.Random(seed)
    inside = sum(generator.random()**2 + generator.random()**2 < 1 for _ in range(samples))
    print(json.dumps({"seed": seed, "samples": samples, "inside": inside, "pid": os.getpid()}))
`

const Estimate = Schema.Struct({
  seed: Schema.Int,
  samples: Schema.Int,
  inside: Schema.Int,
  pid: Schema.Int,
})
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Estimate))

const program = Effect.gen(function* () {
  // Every kernel learns the function once. The pool and its kernels end with the scope.
  const pool = yield* Pool.make({
    acquire: KernelClient.make().pipe(Effect.tap((kernel) => kernel.execute(definitions))),
    size: kernels,
  })
  // Wait until all of them are there, so that the first items need not share one.
  yield* Effect.scoped(Effect.replicateEffect(Pool.get(pool), kernels))

  const estimates = yield* Stream.range(1, 8).pipe(
    Stream.mapEffect(
      (seed) =>
        Pool.use(pool, (kernel) => kernel.execute(`estimate(${seed})`)).pipe(
          Effect.flatMap(({ text }) => decode(text)),
        ),
      { concurrency: kernels },
    ),
    Stream.tap(({ inside, samples, seed }) =>
      Console.log(`Seed ${seed}: pi is about ${4 * inside / samples}`)
    ),
    Stream.runCollect,
  )

  const inside = estimates.reduce((sum, estimate) => sum + estimate.inside, 0)
  const samples = estimates.reduce((sum, estimate) => sum + estimate.samples, 0)
  const pids = new Set(estimates.map((estimate) => estimate.pid))
  yield* Console.log(`All ${estimates.length} estimates: pi is about ${(4 * inside / samples).toFixed(3)}`)
  yield* Console.log(`Computed by ${pids.size} kernels from ${samples} samples`)
})

program.pipe(
  Effect.scoped,
  Effect.provide(KernelGateway.layer()),
  NodeRuntime.runMain,
)
