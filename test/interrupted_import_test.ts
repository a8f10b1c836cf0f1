/** An interrupt leaves nothing half done that is not the code's: no module of a library, and no traceback. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, FileSystem, Stream } from "effect"
import type { Execution } from "../src/mod.ts"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { nobody, temporary, text } from "./support/kernel.ts"

/** Interrupts the kernel, from within, where the first module below a package begins to load. */
const interruptWhenLoading = (name: string) => `
import os, signal, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("${name}."):
            sys.meta_path.remove(Finder)
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(1000))
sys.meta_path.insert(0, Finder)`

const modules = {
  "lazy.py": `
def load(name):
    return getattr(__import__(name), "x")`,
  "interrupted.py": `
import os, signal
os.kill(os.getpid(), signal.SIGINT)
sum(range(1000))
x = 1`,
  "endless.py": `
import time
print("begun", flush=True)
time.sleep(60)`,
}

const failure = <A>(effect: Effect.Effect<A, Execution.ExecutionFailure>) =>
  Effect.map(
    Effect.flip(effect),
    (error) => error._tag === "ExecutionError" ? error : assert.fail(error.message),
  )

/** Runs code, interrupts it when it has put out something, and gives how it ended and when. */
const interrupted = (kernel: KernelClient.Kernel, code: string) =>
  kernel.stream(code).pipe(Stream.tap(() => kernel.interrupt), Stream.runDrain, failure, Effect.timed)

const sandbox = { allowWrite: ["."], ...(process.geteuid?.() === 0 ? { user: nobody } : {}) }

describe("an interrupt", { concurrent: false }, () => {
  for (
    const [kind, options] of [["forked", {}], ["started", { fork: false }], ["sandboxed", {
      sandbox,
    }]] as const
  ) {
    it.live(
      `of a kernel that is ${kind} leaves no traceback empty and no module half loaded`,
      () =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const workingDir = yield* temporary
          for (const [name, source] of Object.entries(modules)) {
            yield* fs.writeFileString(`${workingDir}/${name}`, source)
          }
          yield* fs.chmod(workingDir, 0o777)
          const gateway = yield* KernelGateway.make({ workingDir, ...options })
          const kernel = yield* Effect.provideService(
            KernelClient.make(),
            KernelGateway.KernelGateway,
            gateway,
          )
          for (const library of ["stack_data", "pygments", "executing"]) {
            yield* kernel.execute(interruptWhenLoading(library))
            for (const _ of [1, 2]) {
              const { ename, traceback } = yield* failure(kernel.execute("1 / 0"))
              assert.strictEqual(ename, "ZeroDivisionError")
              assert.match(traceback.join("\n"), /----> 1 1 \/ 0/)
            }
            yield* kernel.execute("if Finder in sys.meta_path: sys.meta_path.remove(Finder)")
          }

          // An interrupt while a library imports a module hits the code afterwards.
          const first = yield* failure(kernel.execute("import lazy; lazy.load('interrupted')"))
          assert.strictEqual(first.ename, "KeyboardInterrupt")
          assert.strictEqual(yield* text(kernel.execute("sys.modules['interrupted'].x")), "1")

          // Imports by the code itself, and imports without an end, are interrupted.
          const [ofCode, own] = yield* interrupted(kernel, "import endless")
          assert.deepStrictEqual([own.ename, Duration.toSeconds(ofCode) < 5], ["KeyboardInterrupt", true])
          const [ofLibrary, late] = yield* interrupted(kernel, "lazy.load('endless')")
          assert.deepStrictEqual([late.ename, Duration.toSeconds(ofLibrary) < 8], ["KeyboardInterrupt", true])
          const missing = yield* failure(kernel.execute("lazy.load('no_such_module')"))
          assert.notInclude(missing.message, "find_and_load")
          assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
        }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
      90_000,
    )
  }
})
