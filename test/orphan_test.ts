/** Programs that are killed while they have kernels. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { ChildProcess } from "effect/process"
import { KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { descendants, eventually, supervisors, survivors } from "./support/processes.ts"

const start = ChildProcess.make("node", ["test/support/parent.ts"], {
  stdin: "ignore",
  stdout: "ignore",
  stderr: "ignore",
  forceKillAfter: "1 second",
})
const kill = (pid: number) => Effect.sync(() => process.kill(pid, "SIGKILL"))

describe("a program that is killed", () => {
  it.live("at any moment leaves no process after 5 s, and no directory", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      // From the start of the gateway to the life of a kernel with a child of its own.
      for (const moment of [300, 600, 900, 1200, 1600, 2000, 2600, 3400]) {
        const handle = yield* start
        yield* Effect.sleep(moment)
        const pids = descendants(handle.pid).map(({ pid }) => pid)
        const directories = supervisors(handle.pid).map(({ runtimeDir }) => runtimeDir)
        yield* kill(handle.pid)
        yield* eventually(() => survivors(pids), 5)
        for (const directory of directories) assert.isFalse(yield* fs.exists(directory), `after ${moment} ms`)
      }
    }).pipe(Effect.provide(Platform.layer)), 120_000)

  it.live(
    "with the supervisor leaves no process either, and the next start removes the directory",
    () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const handle = yield* start
        const hasKernel = () =>
          descendants(handle.pid).filter(({ command }) => command.includes("sleep")).length === 2
        yield* eventually(() => hasKernel() ? undefined : "no kernel yet", 60)
        const [supervisor] = supervisors(handle.pid)
        assert.isDefined(supervisor)
        if (supervisor === undefined) return
        const pids = descendants(supervisor.pid).map(({ pid }) => pid)
        yield* kill(supervisor.pid)
        yield* kill(handle.pid)
        // Includes processes that left the kernel's session.
        yield* eventually(() => survivors(pids), 5)
        assert.isTrue(yield* fs.exists(supervisor.runtimeDir))
        yield* Effect.scoped(KernelGateway.make())
        assert.isFalse(yield* fs.exists(supervisor.runtimeDir))
      }).pipe(Effect.provide(Platform.layer)),
    120_000,
  )
})
