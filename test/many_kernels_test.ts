/** Many kernels of one gateway, all alive at one time; what a pool does with several gateways is in `kernel_pool_test.ts`. */
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Logger, Scope } from "effect"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow, text } from "./support/kernel.ts"
import { descendants, eventually, supervisors, survivors } from "./support/processes.ts"

/** `npm run many` has 300, which take gigabytes. */
const many = Number(Platform.variable("EFFECT_JUPYTER_TEST_KERNELS") ?? 64)
const atOneTime = { concurrency: 4 } as const

/** Log messages, of which there are none unless something fails. */
const warnings: Array<unknown> = []
const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
  if (logLevel === "Warn" || logLevel === "Error" || logLevel === "Fatal") warnings.push(message)
})

layer(Platform.layer, slow)("many kernels", (it) => {
  it.effect(
    `${many} of one gateway start, work side by side and stop, and no process stays`,
    () =>
      Effect.gen(function* () {
        const before = new Set(supervisors(process.pid).map(({ pid }) => pid))
        const gateway = yield* KernelGateway.make()
        const [supervisor] = supervisors(process.pid).filter(({ pid }) => !before.has(pid))
        if (supervisor === undefined) return yield* Effect.die("The gateway has no supervisor")
        const below = () => descendants(supervisor.pid).map(({ pid }) => pid)
        const make = KernelClient.make({ initTimeout: "90 seconds" }).pipe(
          Effect.provideService(KernelGateway.KernelGateway, gateway),
        )
        const pidOf = (kernel: KernelClient.Kernel) =>
          Effect.map(text(kernel.execute("import os; print(os.getpid())")), Number)
        // The shared memory of a gateway's kernels exists with the first one.
        const first = yield* Effect.scoped(Effect.flatMap(make, pidOf))
        yield* eventually(() => survivors([first]))
        const kept = below()

        const kernels = yield* Effect.forEach(
          Array.from({ length: many }),
          (_, number) =>
            Effect.gen(function* () {
              const scope = yield* Effect.acquireRelease(Scope.make(), Scope.close)
              const kernel = yield* Scope.provide(make, scope)
              yield* kernel.execute(`import os; number = ${number}; runs = 0`)
              return { kernel, number, stop: Scope.close(scope, Exit.void) }
            }),
          atOneTime,
        )
        assert.strictEqual(new Set(kernels.map(({ kernel }) => kernel.id)).size, many)

        // All of them work at one time, three times over, and each goes on where it was itself.
        for (const run of [1, 2, 3]) {
          const seen = yield* Effect.forEach(
            kernels,
            ({ kernel }) => text(kernel.execute("runs += 1; print(number, runs, os.getpid())")),
            { concurrency: "unbounded" },
          )
          assert.deepStrictEqual(
            seen.map((line) => line?.split(" ").slice(0, 2).join(" ")),
            kernels.map(({ number }) => `${number} ${run}`),
          )
          const pids = seen.map((line) => Number(line?.split(" ")[2]))
          const living = new Set(below())
          assert.strictEqual(new Set(pids).size, many, "each has a process of its own")
          assert.deepStrictEqual(pids.filter((pid) => !living.has(pid)), [], "which lives")
        }

        yield* Effect.forEach(kernels, ({ stop }) => stop, atOneTime)
        yield* eventually(() => survivors(below().filter((pid) => !kept.includes(pid))))
        // The gateway is none the worse for it.
        assert.notInclude(kept, yield* Effect.scoped(Effect.flatMap(make, pidOf)))
        assert.deepStrictEqual(warnings, [])
        return [supervisor.pid, ...below()]
      }).pipe(
        Effect.scoped,
        Effect.provide(Logger.layer([logger])),
        Effect.flatMap((pids) => eventually(() => survivors(pids))),
      ),
    600_000,
  )
})
