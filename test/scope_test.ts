import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random } from "effect"
import { readdirSync } from "node:fs"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import { descendants, eventually, processes, supervisors, survivors } from "./support/processes.ts"

/** Everything a scope can be closed in: starting, connecting, executing, resetting. */
const program = Effect.gen(function* () {
  const gateway = yield* KernelGateway.make()
  const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
  return yield* Effect.forever(Effect.gen(function* () {
    yield* kernel.execute("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
    yield* Effect.ignore(kernel.execute("import time; time.sleep(0.2)", { timeout: "100 millis" }))
    yield* kernel.reset
  }))
})

/** Runtime directories that no process has any use for. */
function orphanedDirectories(): string | undefined {
  const commands = processes().map(({ command }) => command.join(" "))
  const orphans = readdirSync("/tmp").filter((name) =>
    /^effect-jupyter-[0-9a-f]{12}$/.test(name) && !commands.some((command) => command.includes(name))
  )
  return orphans.length === 0 ? undefined : orphans.join(", ")
}

describe("closing the scope", () => {
  const rounds = 16
  it.live("at any moment leaves no process and no directory", () =>
    Effect.gen(function* () {
      for (let round = 0; round < rounds; round++) {
        // Early rounds end while the gateway starts, late ones in executions and resets.
        const moment = yield* Random.nextBetween(0, 1 + round * 400)
        const fiber = yield* Effect.forkChild(Effect.scoped(program), { startImmediately: true })
        yield* Effect.sleep(moment)
        const pids = descendants(process.pid).map(({ pid }) => pid)
        yield* Fiber.interrupt(fiber)
        assert.isUndefined(survivors(pids), `round ${round}, closed after ${moment} ms`)
        assert.lengthOf(supervisors(process.pid), 0)
      }
      yield* eventually(orphanedDirectories)
    }), 240_000)
})
