/** Programs that run as an ordinary user, with a /tmp of their own, for tests that may run as root. */
import { Effect, FileSystem } from "effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { PythonEnvironment } from "../../src/mod.ts"
import { give, isRoot, repository } from "./sandbox.ts"

const run = promisify(execFile)

/**
 * Runs a program of this folder, which prints JSON, as an ordinary user; its arguments are an interpreter of Python,
 * a folder of its own and those given. With root, `prepare` is a shell command that runs as root in the new /tmp first.
 */
export const asOrdinaryUser = Effect.fnUntraced(function* (
  program: string,
  { args = [], prepare = "true" }: { readonly args?: ReadonlyArray<string>; readonly prepare?: string } = {},
) {
  const fs = yield* FileSystem.FileSystem
  const { python } = yield* PythonEnvironment.make()
  const folder = yield* Effect.orDie(
    fs.makeTempDirectoryScoped({ directory: "/var/tmp", prefix: "effect-jupyter-test-" }),
  )
  yield* give(folder)
  const file = fileURLToPath(new URL(program, import.meta.url))
  const command = [
    process.execPath,
    "--no-warnings",
    "--conditions=effect-jupyter-source",
    file,
    python,
    folder,
    ...args,
  ]
  const environment = python.replace(/\/bin\/[^/]*$/, "")
  const base = (yield* fs.realPath(python)).replace(/\/bin\/[^/]*$/, "")
  const identity = JSON.stringify({
    uid: 65534,
    gid: 65534,
    paths: [repository, folder, environment, base, process.execPath],
  })
  const become = [
    python,
    "-I",
    "-S",
    `${repository}/src/python/effect_jupyter/sandbox/user.py`,
    identity,
    ...command,
  ]
  const script = `mount -t tmpfs -o mode=1777 none /tmp && (${prepare}) && exec "$@"`
  const [name = "", ...words] = isRoot ? ["unshare", "--mount", "sh", "-c", script, "sh", ...become] : command
  const { stdout } = yield* Effect.promise(() =>
    run(name, words, {
      env: { ...process.env, HOME: folder, TMPDIR: folder, XDG_CACHE_HOME: `${folder}/cache` },
      timeout: 60_000,
    })
  )
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "null")
})
