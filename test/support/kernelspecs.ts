/** Kernels of other languages, and of Python without IPython, for the tests of what is not Python's own. */
import { Effect, FileSystem, Path } from "effect"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { PythonEnvironment } from "../../src/mod.ts"
import { temporary } from "./kernel.ts"

const support = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** Makes a folder for `JUPYTER_PATH` with the kernelspecs "bash", "deno" and "plain", and gives their Python. */
export const make = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  // One environment for all of them, in the cache of the user.
  const { python } = yield* PythonEnvironment.make({ packages: ["bash_kernel==0.10.0"] })
  const folder = yield* temporary
  const deno = support("../../node_modules/deno/deno")
  const specs = {
    bash: { argv: [python, "-m", "bash_kernel", "-f", "{connection_file}"], language: "bash" },
    deno: {
      argv: [deno, "jupyter", "--kernel", "--conn", "{connection_file}"],
      language: "typescript",
      // A signal ends it.
      interrupt_mode: "message",
    },
    plain: { argv: [python, support("plain_kernel.py"), "-f", "{connection_file}"], language: "python" },
  }
  for (const [name, spec] of Object.entries(specs)) {
    const directory = path.join(folder, "kernels", name)
    yield* fs.makeDirectory(directory, { recursive: true })
    const json = JSON.stringify({ display_name: name, ...spec, env: { PATH: process.env.PATH } })
    yield* fs.writeFileString(path.join(directory, "kernel.json"), json)
  }
  return { folder, python }
})
