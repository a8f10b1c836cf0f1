/** Programs that run as an ordinary user, with a /tmp of their own, for tests that may run as root. */
import { Effect, FileSystem, Schema } from "effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { PythonEnvironment } from "../../src/mod.ts"
import { give, isRoot, repository, write } from "./sandbox.ts"

const run = promisify(execFile)

/**
 * Runs a program of this folder, which prints JSON, as an ordinary user; its arguments are an interpreter of Python and
 * a folder of its own. With root, `prepare` is a shell command that runs as root in the new /tmp first.
 */
export const asOrdinaryUser = (program: string, { prepare = "true" }: { readonly prepare?: string } = {}) =>
  Effect.flatMap(place, ({ folder, python, ...place }) => {
    const file = fileURLToPath(new URL(program, import.meta.url))
    const options = ["--no-warnings", "--conditions=effect-jupyter-source"]
    return Effect.map(
      become({ folder, python, ...place }, [process.execPath, ...options, file, python, folder], prepare),
      (output) => JSON.parse(output.trim().split("\n").at(-1) ?? "null"),
    )
  })

/** The part of Vitest's report that is read. */
const Report = Schema.fromJsonString(Schema.Struct({
  numPassedTests: Schema.Int,
  testResults: Schema.Array(Schema.Struct({
    message: Schema.String,
    assertionResults: Schema.Array(Schema.Struct({
      fullName: Schema.String,
      status: Schema.String,
      failureMessages: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String))),
    })),
  })),
}))

/** Runs tests of a file as an ordinary user; gives how many passed, and what the others say. */
export const testsAsOrdinaryUser = Effect.fnUntraced(function* (file: string, name = "") {
  const own = yield* place
  const report = `${own.folder}/report.json`
  const words = [
    "--project",
    "plain",
    "--configLoader",
    "native",
    "--no-cache",
    "--reporter=json",
    "-t",
    name,
  ]
  const vitest = `${repository}/node_modules/vitest/vitest.mjs`
  const command = [process.execPath, vitest, "run", ...words, `--outputFile=${report}`, `test/${file}`]
  const output = yield* become(own, command, "mkdir -m 777 /tmp/claude")
  const text = yield* Effect.orElseSucceed(
    Effect.flatMap(FileSystem.FileSystem, (fs) => fs.readFileString(report)),
    () => output,
  )
  const { numPassedTests, testResults } = yield* Effect.orDie(Schema.decodeEffect(Report)(text))
  const failures = testResults.flatMap(({ assertionResults, message }) => [
    ...(message === "" ? [] : [message]),
    ...assertionResults.filter(({ status }) => status === "failed").map(({ failureMessages, fullName }) =>
      `${fullName}: ${failureMessages?.join("\n") ?? ""}`
    ),
  ])
  return { passed: numPassedTests, failures }
})

/** A folder of the user, and the interpreter, which is that of these tests. */
const place = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const { python } = yield* PythonEnvironment.make()
  const folder = yield* Effect.orDie(
    fs.makeTempDirectoryScoped({ directory: "/var/tmp", prefix: "effect-jupyter-test-" }),
  )
  yield* give(folder)
  const environment = python.replace(/\/bin\/[^/]*$/, "")
  const base = (yield* Effect.orDie(fs.realPath(python))).replace(/\/bin\/[^/]*$/, "")
  // The user's cache has the same environment.
  const cached = `${folder}/cache/effect-jupyter/${environment.split("/").at(-2)}`
  yield* write(`${cached}/current`, python)
  for (const path of ["cache", "cache/effect-jupyter"]) yield* give(`${folder}/${path}`)
  return { folder, python, paths: [repository, folder, environment, base, process.execPath] }
})

/** Runs a command as the user, and gives what it prints. */
const become = (
  { folder, paths, python }: Effect.Success<typeof place>,
  command: ReadonlyArray<string>,
  prepare: string,
) => {
  const identity = JSON.stringify({ uid: 65534, gid: 65534, paths })
  const drop = [python, "-I", "-S", `${repository}/src/python/effect_jupyter/sandbox/user.py`, identity]
  const script = `mount -t tmpfs -o mode=1777 none /tmp && (${prepare}) && exec "$@"`
  const [name = "", ...words] = isRoot
    ? ["unshare", "--mount", "sh", "-c", script, "sh", ...drop, ...command]
    : command
  const env = { ...process.env, HOME: folder, TMPDIR: folder, XDG_CACHE_HOME: `${folder}/cache` }
  return Effect.promise(() =>
    run(name, words, { cwd: repository, env, timeout: 300_000, maxBuffer: 64 * 1024 * 1024 }).then(
      ({ stdout }) => stdout,
      // Tests that fail are told by their report.
      (error: { readonly stdout?: string }) => error.stdout ?? "",
    )
  )
}
