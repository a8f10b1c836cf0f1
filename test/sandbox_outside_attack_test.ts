/** Kernels that leave something behind for what runs outside of the sandbox later, or at the same time. */
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { readFileSync } from "node:fs"
import process from "node:process"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow, text } from "./support/kernel.ts"
import { descendants, supervisors } from "./support/processes.ts"
import { attacker, outcomes, py, sandboxUser, workspace } from "./support/sandbox.ts"

const on = <A, E, R>(
  gateway: KernelGateway.KernelGateway["Service"],
  effect: Effect.Effect<A, E, R | KernelGateway.KernelGateway>,
) => Effect.provideService(effect, KernelGateway.KernelGateway, gateway)

layer(Platform.layer, slow)("what runs outside of the sandbox is not led astray", (it) => {
  it.effect("by programs on the PATH, be it by a link", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* workspace({ "tools/bin/there": "", "more/bin/there": "" })
      const elsewhere = yield* workspace()
      yield* fs.symlink(folder, `${elsewhere}/link`)
      const PATH = `${folder}/tools/bin:${elsewhere}/link/more/bin:${process.env["PATH"]}`
      const gateway = yield* KernelGateway.make({ workingDir: folder, sandbox: sandboxUser, env: { PATH } })
      const results = yield* on(
        gateway,
        Effect.flatMap(attacker(), (kernel) =>
          outcomes(
            kernel,
            `
# The interpreter's own folder comes first.
attempt("PATH", lambda: os.environ["PATH"].removeprefix(os.path.join(sys.prefix, "bin") + ":"))
for name in ("rm", "bwrap", "socat", "bash"):
    attempt(name, lambda: write(${py(`${folder}/tools/bin/`)} + name))
    attempt(name + " by a link", lambda: write(${py(`${folder}/more/bin/`)} + name))
attempt("rename", lambda: os.rename(${py(`${folder}/tools`)}, ${py(`${folder}/old`)}))
`,
          )),
      )
      assert.deepStrictEqual(results, {
        PATH,
        ...Object.fromEntries(["rm", "bwrap", "socat", "bash"].flatMap((name) => [
          [name, "EROFS"],
          [`${name} by a link`, "EROFS"],
        ])),
        rename: "EBUSY",
      })
    }).pipe(Effect.scoped))

  it.effect("by an active environment of Python that is not used", () =>
    Effect.gen(function* () {
      const folder = yield* workspace({ ".venv/bin/activate": "" })
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          process.env["VIRTUAL_ENV"] = `${folder}/.venv`
        }),
        () => Effect.sync(() => delete process.env["VIRTUAL_ENV"]),
      )
      const gateway = yield* KernelGateway.make({ workingDir: folder, sandbox: sandboxUser })
      const results = yield* on(
        gateway,
        Effect.flatMap(attacker(), (kernel) =>
          outcomes(
            kernel,
            `
attempt("python", lambda: write(${py(`${folder}/.venv/bin/python`)}))
attempt("activate", lambda: write(${py(`${folder}/.venv/bin/activate`)}))
attempt("beside", lambda: write(${py(`${folder}/plain.txt`)}))
`,
          )),
      )
      assert.deepStrictEqual(results, { python: "EROFS", activate: "EROFS", beside: "written" })
    }).pipe(Effect.scoped))

  it.effect("by programs that are there already: none of a folder where a kernel may write is taken", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* workspace()
      const elsewhere = yield* workspace()
      yield* fs.symlink(folder, `${elsewhere}/link`)
      for (const name of ["rm", "chmod", "bwrap", "socat", "rg", "bash"]) {
        yield* fs.writeFileString(
          `${folder}/${name}`,
          `#!/bin/sh\necho ${name} >> ${folder}/ran\nexec /usr/bin/${name} "$@"\n`,
          {
            mode: 0o755,
          },
        )
      }
      const PATH = `${folder}:${elsewhere}/link:${process.env["PATH"]}`
      yield* KernelGateway.make({ workingDir: folder, sandbox: sandboxUser, env: { PATH } }).pipe(
        Effect.flatMap((gateway) => on(gateway, Effect.scoped(KernelClient.make()))),
        Effect.scoped,
      )
      assert.isFalse(yield* fs.exists(`${folder}/ran`))
    }).pipe(Effect.scoped))

  it.effect("by variables that are meant for kernels", () =>
    Effect.gen(function* () {
      const folder = yield* workspace()
      const before = new Set(supervisors(process.pid).map(({ pid }) => pid))
      const gateway = yield* KernelGateway.make({
        workingDir: folder,
        sandbox: sandboxUser,
        env: { GCONV_PATH: `${folder}/lib`, GIVEN: "yes" },
      })
      const outside = supervisors(process.pid).filter(({ pid }) => !before.has(pid))
        .flatMap(({ pid }) => [pid, ...descendants(pid).map(({ pid }) => pid)])
      assert.isAbove(outside.length, 2)
      for (const pid of outside) {
        assert.notInclude(readFileSync(`/proc/${pid}/environ`, "latin1"), "GCONV_PATH")
      }
      const code = "import os; print(os.environ['GCONV_PATH'], os.environ['GIVEN'])"
      const printed = yield* on(
        gateway,
        Effect.flatMap(KernelClient.make(), (kernel) => text(kernel.execute(code))),
      )
      assert.strictEqual(printed, `${folder}/lib yes`)
    }).pipe(Effect.scoped))

  it.effect("by what is in the place of a file that a kernel is to write", () =>
    Effect.gen(function* () {
      const folder = yield* workspace()
      const gateway = yield* KernelGateway.make({
        workingDir: folder,
        sandbox: sandboxUser,
        env: { PYTHONPATH: folder },
      })
      const kernel = yield* on(gateway, KernelClient.make())
      for (const place of ["os.mkfifo(place)", "os.symlink('/dev/zero', place)", "os.mkdir(place)"]) {
        yield* kernel.execute(`
with open("sitecustomize.py", "w") as file:
    file.write(${py(`import os, sys\nplace = sys.orig_argv[-2] + "/started"\n${place}\n`)})
`)
        const error = yield* Effect.flip(Effect.scoped(on(gateway, KernelClient.make())))
        assert.strictEqual(error.reason._tag, "KernelStartFailed")
        assert.notInclude(error.message, "was not ready within")
        assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
      }
    }).pipe(Effect.scoped))
})
