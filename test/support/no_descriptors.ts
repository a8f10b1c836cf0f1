/** A program that has no descriptors left for a while: prints what its kernel and its attempts at others come to. */
import { Effect, Result, Schema } from "effect"
import { execFileSync } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import process from "node:process"
import { KernelClient, KernelGateway } from "../../src/mod.ts"

const exhausted = Effect.acquireRelease(
  Effect.sync(() => {
    const opened: Array<number> = []
    try {
      for (;;) opened.push(openSync("/dev/null", "r"))
    } catch {
      return opened
    }
  }),
  (opened) => Effect.sync(() => opened.forEach((descriptor) => closeSync(descriptor))),
)
const outcome = <A, E extends { readonly message: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(
    Effect.result(Effect.scoped(effect)),
    Result.match({ onFailure: ({ message }) => message, onSuccess: String }),
  )
const use = (kernel: KernelClient.Kernel) =>
  Effect.gen(function* () {
    yield* kernel.set("x", [1, 2])
    return `${yield* kernel.evaluate("sum(x)", Schema.Finite)} ${
      (yield* kernel.variables).map(({ name }) => name)
    }`
  })

const program = Effect.gen(function* () {
  const gateway = yield* KernelGateway.make()
  const make = Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
  const kernel = yield* make
  execFileSync("prlimit", ["--pid", String(process.pid), "--nofile=200:"])
  const during = yield* Effect.scoped(Effect.gen(function* () {
    yield* exhausted
    return [
      yield* outcome(use(kernel)),
      yield* outcome(Effect.flatMap(make, use)),
      yield* outcome(KernelGateway.make()),
    ]
  }))
  const after = [yield* outcome(use(kernel)), yield* outcome(Effect.flatMap(make, use))]
  const env = { LONG: "x".repeat(200_000) }
  return { during, after, long: yield* outcome(KernelGateway.make({ env })) }
})

process.stdout.write(`${JSON.stringify(await Effect.runPromise(Effect.scoped(program)))}\n`)
