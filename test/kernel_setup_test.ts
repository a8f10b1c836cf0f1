import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { Execution, KernelClient } from "../src/mod.ts"
import { collect, inSandbox, kernelLayer, slow, temporary, text, texts } from "./support/kernel.ts"

const { KernelClient: Client } = KernelClient

/** A folder whose listing a terminal would show in colours. */
const colourful = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.realPath(yield* temporary)
  yield* fs.makeDirectory(`${folder}/subfolder`)
  yield* fs.writeFileString(`${folder}/script.sh`, "#!/bin/sh\n")
  yield* fs.chmod(`${folder}/script.sh`, 0o755)
  return folder
})

layer(kernelLayer({ env: { FORCE_COLOR: "1", CLICOLOR_FORCE: "1", LS_COLORS: "di=01;34" } }), slow)(
  "set-up",
  (it) => {
    it.effect("tracebacks have no colours", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip((yield* Client).execute("def f(): raise ValueError('no')\nf()"))
        assert.instanceOf(error, Execution.ExecutionError)
        assert.notInclude(error.message, "\u001b")
        assert.strictEqual(error.message, `ValueError: no\n${error.traceback.join("\n")}`)
      }))

    const plain = (title: string, code: string) =>
      it.effect(title, () =>
        Effect.gen(function* () {
          const folder = yield* colourful
          const output = yield* text((yield* Client).execute(code.replace("FOLDER", folder)))
          assert.include(output, "script.sh")
          assert.notInclude(output, "\u001b")
        }))
    plain(
      "ls by subprocess has no colours",
      "import subprocess; print(subprocess.run(['ls', 'FOLDER'], capture_output=True, text=True).stdout)",
    )
    plain("!ls has no colours", "!ls FOLDER")
    plain("%ls has no colours", "%ls FOLDER")

    it.effect("programs are looked for in the environment of the kernel's interpreter first", () =>
      Effect.gen(function* () {
        const output = yield* text((yield* Client).execute(`
import os, shutil, subprocess, sys
folder = os.path.dirname(sys.executable)
print(os.environ["PATH"].split(os.pathsep)[0] == folder)
print(os.environ.get("VIRTUAL_ENV") == (sys.prefix if sys.prefix != sys.base_prefix else None))
prefix = "import sys; print(sys.prefix)"
print(subprocess.run(["python", "-c", prefix], capture_output=True, text=True).stdout.strip() == sys.prefix)
print(subprocess.run(["bash", "-c", f"python3 -c '{prefix}'"], capture_output=True, text=True).stdout.strip() == sys.prefix)
print(sys.prefix in subprocess.run(["pip", "--version"], capture_output=True, text=True).stdout)
print(os.path.dirname(shutil.which("jupyter")) == folder)
`))
        assert.strictEqual(output, Array.from({ length: 6 }, () => "True").join("\n"))
      }))

    it.effect("a PATH of the client's own comes after the folder of the interpreter", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ env: { PATH: "/opt/own:/usr/bin:/bin" } })
        const code = "import os, sys; os.environ['PATH'].replace(os.path.dirname(sys.executable), 'FIRST')"
        assert.strictEqual(yield* text(kernel.execute(code)), "'FIRST:/opt/own:/usr/bin:/bin'")
      }))

    it.effect("a kernel that serves its client itself runs nothing before its first execution", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        // Those of the set-up would be three more.
        const count = "kernel = get_ipython().kernel; kernel.session.message_count if kernel.requests else 0"
        assert.isAtMost(Number(yield* text(kernel.execute(count))), 4)
      }))

    const names =
      "print(sorted(name for name in globals() if name not in ('In', 'Out', 'exit', 'quit', 'get_ipython', 'open') and not name.startswith('__') and not name.strip('_') == '' and not name.startswith(('_i', '_o', '_d'))))"
    it.effect("no names leak without a working directory", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        assert.strictEqual(yield* text(kernel.execute(names)), "[]")
        assert.strictEqual(
          yield* text(kernel.execute("[name for name in dir() if 'effect' in name or 'options' in name]")),
          "[]",
        )
      }))

    it.effect("no names leak with a working directory", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ workingDir: yield* temporary })
        assert.strictEqual(yield* text(kernel.execute(names)), "[]")
      }))

    it.effect("the working directory is set, restored after each execution, and a line says so", () =>
      Effect.gen(function* () {
        const folder = yield* colourful
        const kernel = yield* KernelClient.make({ workingDir: folder })
        assert.strictEqual(yield* text(kernel.execute("import os; print(os.getcwd())")), folder)
        const elements = yield* collect(kernel.stream("os.chdir('subfolder'); print(os.getcwd())"))
        assert.strictEqual(
          texts(elements).join(""),
          `${folder}/subfolder\n[effect-jupyter] working directory restored to ${folder}\n`,
        )
        assert.strictEqual(yield* text(kernel.execute("print(os.getcwd())")), folder)
        // Also after an error, and when the directory that the code went to is gone.
        yield* Effect.flip(kernel.execute("os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); 1 / 0"))
        assert.strictEqual(yield* text(kernel.execute("print(os.getcwd())")), folder)
      }))

    it.effect("a working directory that code deletes is made again, a line says so, and errors are the code's", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const folder = `${yield* fs.realPath(yield* temporary)}/inner`
        yield* fs.makeDirectory(folder)
        if (inSandbox) yield* fs.chmod(folder, 0o777)
        const kernel = yield* KernelClient.make({ workingDir: folder })
        const line = `[effect-jupyter] working directory was deleted; made an empty one at ${folder}`
        const error = yield* Effect.flip(
          kernel.execute("import os, shutil, json; shutil.rmtree(os.getcwd()); print('x'); json.loads('{')"),
        )
        assert.instanceOf(error, Execution.ExecutionError)
        assert.strictEqual(error.ename, "JSONDecodeError")
        assert.strictEqual(error.partial.text, `x\n${line}`)
        assert.strictEqual(yield* text(kernel.execute("open('file', 'w').close(); os.listdir()")), "['file']")
        // The obstacle is reported once, and executions work.
        const blocked = yield* text(
          kernel.execute(`shutil.rmtree("${folder}"); open("${folder}", "w").close()`),
        )
        assert.include(blocked, "cannot be made again")
        assert.strictEqual(yield* text(kernel.execute("print('y')")), "y")
        const other = yield* Effect.flip(kernel.execute("def f(): return 1 / 0\nf()"))
        assert.instanceOf(other, Execution.ExecutionError)
        assert.strictEqual(other.ename, "ZeroDivisionError")
        assert.strictEqual(yield* text(kernel.execute(`os.unlink("${folder}")`)), line)
      }))

    it.effect("reset makes a working directory again that the kernel deleted and died", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const folder = `${yield* fs.realPath(yield* temporary)}/inner`
        yield* fs.makeDirectory(folder)
        if (inSandbox) yield* fs.chmod(folder, 0o777)
        const kernel = yield* KernelClient.make({ workingDir: folder })
        yield* Effect.flip(kernel.execute("import os; os.rmdir(os.getcwd()); os._exit(1)"))
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("import os; os.getcwd()")), `'${folder}'`)
      }))

    it.effect("without a working directory the kernel starts in the gateway's and may go elsewhere", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        const folder = yield* colourful
        const start = yield* text(kernel.execute("import os; os.getcwd()"))
        assert.strictEqual(start, `'${process.cwd()}'`)
        yield* kernel.execute(`os.chdir('${folder}')`)
        assert.strictEqual(yield* text(kernel.execute("os.getcwd()")), `'${folder}'`)
      }))

    it.effect("a working directory that does not exist is a typed failure that names it", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Effect.scoped(KernelClient.make({ workingDir: "/does/not/exist" })))
        assert.strictEqual(error.reason._tag, "KernelStartFailed")
        assert.include(error.message, "/does/not/exist")
      }))

    it.effect("the initialisation has a bound, which is an option and typed", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Effect.scoped(KernelClient.make({ initTimeout: "1 millis" })))
        assert.strictEqual(error.reason._tag, "KernelStartFailed")
        assert.include(error.message, "1ms")
        assert.include(error.message, "initTimeout")
      }))

    it.effect("a kernelspec that does not exist is a typed failure that names it", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Effect.scoped(KernelClient.make({ kernelName: "cobol" })))
        assert.strictEqual(error.reason._tag, "NoSuchKernelspec")
        if (error.reason._tag !== "NoSuchKernelspec") return
        assert.strictEqual(error.reason.kernelName, "cobol")
        assert.include(error.reason.known, "python3")
        assert.include(error.message, `"cobol"`)
      }))
  },
)
