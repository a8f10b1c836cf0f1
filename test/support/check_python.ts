/**
 * Checks the Python files: lint and format by ruff, types by pyright against the packages that kernels have, and the
 * unit tests of `test/python`. Ends with the line `N passed, N failed`, and with status 1 if one of these failed.
 */
import { Effect, Path } from "effect"
import { spawnSync } from "node:child_process"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { PythonEnvironment } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"
import * as ToolEnvironment from "./tool_environment.ts"

const file = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))

function succeeds(command: string, ...args: ReadonlyArray<string>): boolean {
  return spawnSync(command, args, { stdio: ["ignore", "inherit", "inherit"] }).status === 0
}

/** Runs the unit tests; a run that counts nothing counts as one failure. */
function unitTests(python: string): { readonly passed: number; readonly failed: number } {
  const args = ["-B", "-m", "unittest", "discover", "-s", file("test/python"), "-p", "*_test.py"]
  const { status, stderr } = spawnSync(python, args, {
    encoding: "utf8",
    stdio: ["ignore", "inherit", "pipe"],
  })
  process.stdout.write(stderr)
  const count = (pattern: RegExp): number => Number(pattern.exec(stderr)?.[1] ?? 0)
  const run = count(/^Ran (\d+) test/m)
  const failed = count(/\bfailures=(\d+)/) + count(/\berrors=(\d+)/)
  return run > 0 && (status === 0) === (failed === 0)
    ? { passed: run - failed, failed }
    : { passed: 0, failed: 1 }
}

const checks = Effect.gen(function* () {
  const path = yield* Path.Path
  const kernels = yield* PythonEnvironment.make()
  // Tools are not for kernels, and have an environment of their own.
  const tools = yield* ToolEnvironment.provision("test-python-tools", ["ruff==0.17.6"])
  const ruff = path.join(path.dirname(tools ?? ""), "ruff")
  const config = ["--config", file("test/python/ruff.toml"), file("src/python"), file("test")]
  const tests = unitTests(kernels.python)
  const steps = [
    succeeds(ruff, "check", ...config),
    succeeds(ruff, "format", "--check", ...config),
    succeeds(
      process.execPath,
      file("node_modules/pyright/index.js"),
      ...["--project", file("test/python/pyrightconfig.json"), "--pythonpath", kernels.python],
    ),
  ]
  const passed = steps.filter((isRight) => isRight).length
  return { passed: tests.passed + passed, failed: tests.failed + steps.length - passed }
})

const { failed, passed } = await Effect.runPromise(Effect.provide(checks, Platform.layer))
process.stdout.write(`${passed} passed, ${failed} failed\n`)
process.exitCode = failed === 0 ? 0 : 1
