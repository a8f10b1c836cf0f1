/**
 * Packs the package and uses it as strangers do: installed by npm and pnpm, bundled, on Bun and on Deno, each with the
 * README's first program and a real kernel. `npm run try-package`; needs the npm registry.
 */
import { spawnSync } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import process from "node:process"
import { fileURLToPath } from "node:url"

const repository = fileURLToPath(new URL("../..", import.meta.url))
const folder = realpathSync(mkdtempSync(join(tmpdir(), "effect-jupyter-package-")))
const manifest = JSON.parse(readFileSync(join(repository, "package.json"), "utf8"))
const pinned = (name: string): string => `${name}@${manifest.devDependencies[name]}`

// Not what npm tells its scripts: the projects here are others.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name)))
const node = join(repository, "node_modules", ".bin")

interface Ran {
  readonly status: number | null
  readonly output: string
}

function run(
  cwd: string,
  command: string,
  args: ReadonlyArray<string>,
  extra: Record<string, string> = {},
): Ran {
  const { status, stderr, stdout } = spawnSync(command, args, {
    cwd,
    encoding: "utf8",
    env: { ...env, PATH: `${node}${delimiter}${env.PATH ?? ""}`, ...extra },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 300_000,
  })
  return { status, output: `${stdout ?? ""}${stderr ?? ""}` }
}

let failed = 0

/** Reports a step; one that does not end as it should shows what it put out. */
function check(name: string, { output, status }: Ran, isRight = status === 0): boolean {
  process.stdout.write(`${isRight ? "ok    " : "FAILED"} ${name}\n${isRight ? "" : output}`)
  if (!isRight) failed++
  return isRight
}

const answers = (ran: Ran): boolean => ran.status === 0 && ran.output.includes("x is 20\n21\n")

/** A project of its own with the README's first program. */
function project(name: string): string {
  const cwd = join(folder, name)
  mkdirSync(cwd)
  const [, program = ""] = /```ts\n([\s\S]*?)```/.exec(readFileSync(join(repository, "README.md"), "utf8")) ??
    []
  writeFileSync(join(cwd, "main.mjs"), program)
  writeFileSync(join(cwd, "package.json"), JSON.stringify({ name, private: true, type: "module" }))
  return cwd
}

/** A program whose kernel is in a sandbox, or that says why it is not. */
const sandboxed = `
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { KernelClient, KernelGateway } from "effect-jupyter"
const settings = process.geteuid?.() === 0 ? { user: { uid: 65534, gid: 65534 } } : true
Effect.flatMap(KernelClient.KernelClient, (kernel) => kernel.execute("6 * 7")).pipe(
  Effect.flatMap(({ text }) => Console.log("sandboxed: " + text)),
  Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer({ sandbox: settings })))),
  NodeRuntime.runMain,
)
`

try {
  const pack = run(repository, "npm", ["pack", "--pack-destination", folder, "--json"])
  if (!check("npm pack", pack)) throw new Error("There is no package to try")
  const tarball = join(folder, `effect-jupyter-${manifest.version}.tgz`)
  // The line of the README, with this package for the published one.
  const wanted = [tarball, pinned("effect"), pinned("@effect/platform-node")]
  check("publint", run(folder, "npx", ["--yes", "publint@0.3.25", "--strict", tarball]))
  const types = ["--yes", "@arethetypeswrong/cli@0.18.5", tarball, "--profile", "esm-only"]
  check("attw", run(folder, "npx", [...types, "--exclude-entrypoints", "./package.json"]))

  const npm = project("npm")
  check("npm install", run(npm, "npm", ["install", ...wanted]))
  const onNode = run(npm, "node", ["main.mjs"])
  check("npm: the program on Node", onNode, answers(onNode))
  const onDeno = run(npm, "deno", ["run", "-A", "--node-modules-dir=manual", "main.mjs"])
  check("npm: the program on Deno", onDeno, answers(onDeno))
  const onBun = run(npm, "npx", ["--yes", "bun@1.4.5", "main.mjs"])
  check("npm: the program on Bun", onBun, answers(onBun))

  writeFileSync(join(npm, "sandboxed.mjs"), sandboxed)
  const without = run(npm, "node", ["sandboxed.mjs"])
  const command = "npm install @anthropic-ai/sandbox-runtime@"
  check("sandbox: without its runtime it names the command", without, without.output.includes(command))
  check("sandbox: npm install", run(npm, "npm", ["install", pinned("@anthropic-ai/sandbox-runtime")]))
  const inside = run(npm, "node", ["sandboxed.mjs"])
  check("sandbox: the program", inside, inside.status === 0 && inside.output.includes("sandboxed: 42"))

  const pnpm = project("pnpm")
  const strict = ["--config.strict-peer-dependencies=true", "--config.store-dir=../pnpm-store"]
  check("pnpm add, strict peers", run(pnpm, "npx", ["--yes", "pnpm@10", "add", ...strict, ...wanted]))
  const isolated = run(pnpm, "node", ["main.mjs"])
  check("pnpm: the program on Node", isolated, answers(isolated))

  /** Bundles the program into a folder without modules beside it. */
  const bundle = (name: string, file: string, ...args: ReadonlyArray<string>): string => {
    const cwd = join(folder, name)
    mkdirSync(cwd)
    const common = ["main.mjs", "--bundle", "--platform=node", `--outfile=${join(cwd, file)}`]
    check(`${name}: esbuild`, run(npm, "npx", ["--yes", "esbuild@0.28.2", ...common, ...args]))
    return cwd
  }
  const external = bundle("external", "main.mjs", "--format=esm", "--packages=external")
  cpSync(join(external, "main.mjs"), join(npm, "external.mjs"))
  const asExternal = run(npm, "node", ["external.mjs"])
  check("external: the program", asExternal, answers(asExternal))

  // `ws` is CommonJS; the usual name of what is imported here is that of an import of the bundle.
  const banner =
    "import { createRequire as bundledRequire } from 'node:module'; const require = bundledRequire(import.meta.url);"
  const whole = bundle("bundled", "main.mjs", "--format=esm", `--banner:js=${banner}`)
  const alone = run(whole, "node", ["main.mjs"])
  const says = alone.output.includes("AssetsMissing") && alone.output.includes("EFFECT_JUPYTER_ASSETS")
  check("bundled: without the files it says so", alone, says && alone.status !== 0)
  cpSync(join(whole, "main.mjs"), join(npm, "bundled.mjs"))
  const inPlace = run(npm, "node", ["bundled.mjs"])
  check("bundled: with the package installed", inPlace, answers(inPlace))
  const common = bundle("common", "main.cjs", "--format=cjs")
  const python = join(npm, "node_modules", "effect-jupyter", "dist")
  const named = run(common, "node", ["main.cjs"], { EFFECT_JUPYTER_ASSETS: python })
  check("common: the folder named by the variable", named, answers(named))
  for (const [cwd, file] of [[whole, "main.mjs"], [common, "main.cjs"]] as const) {
    cpSync(join(python, "python"), join(cwd, "python"), { recursive: true })
    const beside = run(cwd, "node", [file])
    check(`${file}: with the folder "python" beside it`, beside, answers(beside))
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.stdout.write(`${failed} failed\n`)
process.exitCode = failed === 0 ? 0 : 1
