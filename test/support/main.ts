/**
 * The test command: format, lint, types, documents, imports, Python, tests, and the quickstart on Deno. Runs all steps
 * whatever happens and ends with the line `N passed, N failed`, followed by `, N skipped` if the program of a test is not
 * installed.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import process from "node:process"

const folder = mkdtempSync(join(tmpdir(), "effect-jupyter-test-"))
const report = join(folder, "vitest.json")

function succeeds(command: string, args: ReadonlyArray<string>): boolean {
  process.stdout.write(`\n> ${command} ${args.join(" ")}\n`)
  return spawnSync(command, args, { stdio: ["ignore", "inherit", "inherit"] }).status === 0
}

/** The counts of Vitest's report; a run without a report counts as one failure. */
function vitest(): {
  readonly passed: number
  readonly failed: number
  readonly skipped: ReadonlyArray<string>
} {
  const succeeded = succeeds("vitest", [
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
  ])
  try {
    const { numFailedTests, numPassedTests, testResults } = JSON.parse(readFileSync(report, "utf8"))
    const results: ReadonlyArray<{ readonly status: string; readonly fullName: string }> = testResults
      .flatMap(({ assertionResults }: { readonly assertionResults: unknown }) => assertionResults)
    return {
      passed: numPassedTests,
      // A file that cannot be loaded has no tests that could fail.
      failed: succeeded ? numFailedTests : Math.max(1, numFailedTests),
      skipped: results.filter(({ status }) => ["pending", "skipped"].includes(status)).map(({ fullName }) =>
        fullName
      ),
    }
  } catch {
    return { passed: 0, failed: 1, skipped: [] }
  }
}

/** Checks and unit tests of the Python files; a run that counts nothing counts as one failure. */
function python(): { readonly passed: number; readonly failed: number } {
  process.stdout.write("\n> node test/support/check_python.ts\n")
  const { stdout } = spawnSync("node", ["test/support/check_python.ts"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  })
  process.stdout.write(stdout)
  const [, passed, failed] = /^(\d+) passed, (\d+) failed$/m.exec(stdout) ?? []
  return { passed: Number(passed ?? 0), failed: Number(failed ?? 1) }
}

const steps = [
  succeeds("deno", ["fmt", "--check"]),
  succeeds("deno", ["lint"]),
  succeeds("tsc", ["-p", "tsconfig.json"]),
  succeeds("node", ["test/support/check_docs.ts"]),
  succeeds("node", ["--conditions=effect-jupyter-source", "test/support/run_docs.ts"]),
  succeeds("node", ["test/support/check_links.ts"]),
  succeeds("node", ["test/support/check_imports.ts"]),
]
const ofPython = python()
const tests = vitest()
steps.push(succeeds("deno", ["run", "-A", "--conditions=effect-jupyter-source", "examples/quickstart.ts"]))
rmSync(folder, { recursive: true })

const passed = tests.passed + ofPython.passed + steps.filter((step) => step).length
const failed = tests.failed + ofPython.failed + steps.filter((step) => !step).length
const skipped = tests.skipped.length === 0 ? "" : `, ${tests.skipped.length} skipped`
for (const name of tests.skipped) {
  process.stdout.write(`\nSkipped, because its program is not installed: ${name}`)
}
process.stdout.write(`\n${passed} passed, ${failed} failed${skipped}\n`)
process.exitCode = failed === 0 ? 0 : 1
