/** The files that are no modules are found wherever the library runs, and one that is missing is told by its name. */
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Path } from "effect"
import process from "node:process"
import * as Assets from "../src/assets.ts"
import { KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow, temporary } from "./support/kernel.ts"

/** Sets the variable for the time of the scope. */
const named = (folder: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      process.env.EFFECT_JUPYTER_ASSETS = folder
    }),
    () =>
      Effect.sync(() => {
        delete process.env.EFFECT_JUPYTER_ASSETS
      }),
  )

const main = "python/effect_jupyter/gateway/main.py"

layer(Platform.layer, slow)("Assets", (it) => {
  it.effect("find looks in the folder of EFFECT_JUPYTER_ASSETS first, then next to the module", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const own = yield* Assets.find(main)
      assert.isTrue(yield* fs.exists(own))
      const folder = yield* temporary
      yield* fs.makeDirectory(path.join(folder, path.dirname(main)), { recursive: true })
      yield* fs.writeFileString(path.join(folder, main), "copied")
      yield* named(folder)
      assert.strictEqual(yield* Assets.find(main), path.join(folder, main))
      assert.strictEqual(yield* Assets.read(main), "copied")
      assert.strictEqual(
        yield* Assets.find("python/effect_jupyter/gateway/supervisor.py"),
        path.join(path.dirname(own), "supervisor.py"),
      )
      assert.include(yield* Assets.find("sandbox/helper.js", "sandbox/helper.ts"), "helper")
    }))

  it.effect("find fails with AssetsMissing, which names file, folders and what to do", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      yield* named(folder)
      const missing = yield* Effect.flip(Assets.find("python/none.py"))
      assert.strictEqual(missing.folders[0], folder)
      for (const part of ["python/none.py", folder, "EFFECT_JUPYTER_ASSETS", "external"]) {
        assert.include(missing.message, part)
      }
      assert.include(new KernelGateway.GatewayError({ reason: missing }).message, "python/none.py")
    }))
})
