/** Files of ours that run outside of the sandbox: they cannot be written wherever they are. */
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { readdirSync } from "node:fs"
import { KernelGateway, PythonEnvironment } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow } from "./support/kernel.ts"
import {
  attacker,
  entries,
  give,
  outcomes,
  py,
  repository,
  sandboxUser,
  workspace,
} from "./support/sandbox.ts"

layer(Platform.layer, slow)("what runs outside of the sandbox", (it) => {
  it.effect("18: an environment of Python in the workspace cannot be written", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { python } = yield* PythonEnvironment.make()
      const folder = yield* workspace({ "tools/py/plain.txt": "" })
      const environment = `${folder}/tools/py/.venv`
      // A virtual environment as far as Python is concerned, with the packages of the one that is there.
      const [version] = readdirSync(python.replace(/\/bin\/[^/]*$/, "/lib")).filter((name) =>
        /^python3/.test(name)
      )
      const packages = `${environment}/lib/${version}/site-packages`
      yield* fs.makeDirectory(packages, { recursive: true })
      yield* fs.makeDirectory(`${environment}/bin`)
      const target = yield* fs.realPath(python)
      yield* fs.symlink(target, `${environment}/bin/python`)
      yield* fs.writeFileString(
        `${environment}/pyvenv.cfg`,
        `home = ${target.replace(/\/[^/]*$/, "")}\ninclude-system-site-packages = false\n`,
      )
      // The second is a project that is installed in place, and that a kernel may write to.
      yield* fs.writeFileString(
        `${packages}/there.pth`,
        `${python.replace(/\/bin\/[^/]*$/, `/lib/${version}/site-packages`)}\n${folder}/tools\n`,
      )
      yield* give(environment)
      for (const path of entries(environment)) if (!path.endsWith("/python")) yield* give(path)
      const options: KernelGateway.GatewayOptions = {
        workingDir: folder,
        sandbox: sandboxUser,
        python: { python: `${environment}/bin/python` },
      }
      const gateway = yield* KernelGateway.make(options)
      const results = yield* Effect.provideService(
        Effect.flatMap(attacker(), (kernel) =>
          outcomes(
            kernel,
            `
attempt("prefix", lambda: sys.prefix)
attempt("packages", lambda: write(${py(`${packages}/planted.pth`)}))
attempt("existing", lambda: write(${py(`${packages}/there.pth`)}))
attempt("bin", lambda: os.unlink(${py(`${environment}/bin/python`)}))
attempt("rename", lambda: os.rename(${py(environment)}, ${py(`${environment}2`)}))
attempt("beside", lambda: write(${py(`${folder}/tools/py/plain.txt`)}))
attempt("parent", lambda: os.rename(${py(`${folder}/tools/py`)}, ${py(`${folder}/tools/yp`)}))
attempt("grandparent", lambda: os.rename(${py(`${folder}/tools`)}, ${py(`${folder}/loots`)}))
`,
          )),
        KernelGateway.KernelGateway,
        gateway,
      )
      assert.deepStrictEqual(results, {
        prefix: environment,
        packages: "EROFS",
        existing: "EROFS",
        bin: "EROFS",
        rename: "EBUSY",
        beside: "written",
        // Or a new folder could be put there for the next gateway to start from.
        parent: "EBUSY",
        grandparent: "EBUSY",
      })
      const own = readdirSync(`${repository}/src/python`)
      assert.include(own, "effect_jupyter")
      // Files that Python runs at every start, optional imports of the gateway's libraries, and modules of the package.
      yield* Effect.provideService(
        Effect.flatMap(attacker(), (kernel) =>
          kernel.execute(`
for name in ${py(["sitecustomize", "usercustomize", "rfc3987", ...own])}:
    with open(${py(`${folder}/tools/`)} + name + ".py", "w") as file:
        file.write(${py(`open(${py(`${folder}/outside.txt`)}, "w")`)})
`)),
        KernelGateway.KernelGateway,
        gateway,
      )
      yield* KernelGateway.make(options)
      assert.isFalse(yield* fs.exists(`${folder}/outside.txt`))
    }))

  it.effect("18: our own files and node_modules cannot be written, not even where writing is allowed", () =>
    Effect.gen(function* () {
      const folder = yield* workspace()
      const gateway = yield* KernelGateway.make({
        workingDir: folder,
        sandbox: { ...sandboxUser, allowWrite: [".", repository] },
      })
      const results = yield* Effect.provideService(
        Effect.flatMap(attacker(), (kernel) =>
          outcomes(
            kernel,
            `
repository = ${py(repository)}
for folder in ("src", "src/python", "src/sandbox", "node_modules", "node_modules/effect", "node_modules/@anthropic-ai", "node_modules/@anthropic-ai/sandbox-runtime/vendor"):
    attempt(folder, lambda: write(os.path.join(repository, folder, "effect-jupyter-planted")))
attempt("the workspace", lambda: write("planted"))
attempt("flags", lambda: os.statvfs(repository).f_flag & os.ST_RDONLY)
`,
          )),
        KernelGateway.KernelGateway,
        gateway,
      )
      assert.deepStrictEqual(results, {
        src: "EROFS",
        "src/python": "EROFS",
        "src/sandbox": "EROFS",
        node_modules: "EROFS",
        "node_modules/effect": "EROFS",
        "node_modules/@anthropic-ai": "EROFS",
        "node_modules/@anthropic-ai/sandbox-runtime/vendor": "EROFS",
        "the workspace": "written",
        // So that it was not the reason.
        flags: "0",
      })
    }))
})
