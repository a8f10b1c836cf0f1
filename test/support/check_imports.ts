/**
 * Checks the directions of imports: a module imports only what is in a lower layer, so that no two folders import each
 * other. `src/README.md` describes the layers, and has to name each part of them.
 */
import { globSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import process from "node:process"

/**
 * The parts of `src` from top to bottom: modules, and folders, which end with a slash. Parts of one layer do not import
 * each other.
 */
const layers: ReadonlyArray<ReadonlyArray<string>> = [
  ["mod.ts"],
  // Services.
  ["kernel_pool.ts", "testing.ts", "sandbox.ts"],
  ["kernel_client.ts"],
  ["kernel_gateway.ts"],
  ["python_environment.ts"],
  // Parts.
  ["pool/", "testing/"],
  ["values/"],
  ["kernel/"],
  ["environment/"],
  ["gateway/"],
  ["sandbox/"],
  ["jupyter/"],
  // Ground.
  ["values.ts"],
  ["introspection.ts", "execution.ts"],
  ["execution/"],
  ["options/"],
  ["assets.ts"],
  ["platform.ts", "defect.ts"],
]

/** Imports that go up, with the reason. The list only shrinks: an entry that is not needed any more is an error. */
const exceptions: Readonly<Record<string, string>> = {
  "values.ts -> values/options.ts": "The public module exports the types of options again",
  "kernel/kernel.ts -> values/make.ts": "A kernel is composed of executions and values there",
  "kernel/kernel.ts -> values/typed_values.ts": "A kernel is composed of executions and values there",
}

const problems: Array<string> = []
const layerOf = new Map(layers.flatMap((parts, index) => parts.map((part) => [part, index] as const)))
const partOf = (file: string): string => file.includes("/") ? file.slice(0, file.indexOf("/") + 1) : file
const unused = new Set(Object.keys(exceptions))
const found = new Set<string>()
let count = 0

function check(from: string, to: string): void {
  const [source, target] = [partOf(from), partOf(to)]
  if (source === target) return
  count++
  const [above, below] = [layerOf.get(source), layerOf.get(target)]
  if (above === undefined || below === undefined || above < below) return
  if (unused.delete(`${from} -> ${to}`) || `${from} -> ${to}` in exceptions) return
  problems.push(
    above === below
      ? `src/${from} imports src/${to}, but "${source}" and "${target}" are in the same layer`
      : `src/${from} imports src/${to}, but "${target}" is in a layer above "${source}"`,
  )
}

for (const path of globSync("src/**/*.ts")) {
  const file = path.slice("src/".length)
  found.add(partOf(file))
  const text = readFileSync(path, "utf8")
  const imports = [
    ...text.matchAll(/^(?:import|export)\b[^"';]*?from "(\.[^"]+)"/gm),
    ...text.matchAll(/\bimport\("(\.[^"]+)"\)/g),
    ...text.matchAll(/^import "(\.[^"]+)"/gm),
  ]
  for (const [, target = ""] of imports) check(file, normalize(join(dirname(file), target)))
}

const description = readFileSync("src/README.md", "utf8")
for (const part of found) {
  if (!layerOf.has(part)) problems.push(`src/${part} is in no layer; add it to test/support/check_imports.ts`)
}
for (const part of layerOf.keys()) {
  if (!found.has(part)) problems.push(`src/${part} is a layer, but does not exist`)
  if (!description.includes(`](${part.replace(/\/$/, "")})`)) {
    problems.push(`src/README.md has no link to "${part}"`)
  }
}
for (const edge of unused) problems.push(`The exception "${edge}" is not needed any more; remove it`)

const { length } = Object.keys(exceptions)
process.stdout.write(
  problems.length === 0
    ? `${count} imports go down, ${length} known ${length === 1 ? "exception goes" : "exceptions go"} up\n`
    : `${problems.join("\n")}\n`,
)
process.exitCode = problems.length === 0 ? 0 : 1
