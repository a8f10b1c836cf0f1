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
  ["mod.ts", "cli/"],
  // Services.
  ["testing.ts"],
  ["kernel_rpc.ts", "kernel_cluster.ts"],
  ["kernel_sessions.ts"],
  ["kernel_pool.ts", "jupyter_hub.ts", "sandbox.ts", "values.ts"],
  ["kernel_client.ts"],
  ["kernel_gateway.ts"],
  ["python_environment.ts"],
  // Parts.
  ["cluster/"],
  ["rpc/"],
  ["sessions/"],
  ["pool/", "testing/"],
  ["client/"],
  ["values/"],
  ["kernel/"],
  ["output/"],
  ["environment/"],
  ["gateway/"],
  ["sandbox/"],
  ["jupyter/"],
  // Ground.
  ["introspection.ts", "execution.ts"],
  ["execution/"],
  ["options/"],
  ["assets.ts"],
  ["platform.ts", "defect.ts", "batch_queue.ts"],
]

const problems: Array<string> = []
const layerOf = new Map(layers.flatMap((parts, index) => parts.map((part) => [part, index] as const)))
const partOf = (file: string): string => file.includes("/") ? file.slice(0, file.indexOf("/") + 1) : file
const found = new Set<string>()
let count = 0

function check(from: string, to: string): void {
  const [source, target] = [partOf(from), partOf(to)]
  if (source === target) return
  count++
  const [above, below] = [layerOf.get(source), layerOf.get(target)]
  if (above === undefined || below === undefined || above < below) return
  problems.push(
    above === below
      ? `src/${from} imports src/${to}, but "${source}" and "${target}" are in the same layer`
      : `src/${from} imports src/${to}, but "${target}" is in a layer above "${source}"`,
  )
}

const runtimeImport = /^(?:import|export) (?:(?!type\b)(?:\*(?: as \w+)?|\{[^}]*\}|\w+) from )?"([^"]+)"/gm

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

/** The modules that run in a browser, with all that they import. */
const portable = ["kernel_rpc.ts"]
const reached = new Set(portable)
for (const file of reached) {
  // An import of types only is not there at run time.
  for (const [, target = ""] of readFileSync(`src/${file}`, "utf8").matchAll(runtimeImport)) {
    if (target.startsWith(".")) reached.add(normalize(join(dirname(file), target)))
    else if (!target.startsWith("effect/")) {
      problems.push(
        `src/${file} imports "${target}", which browsers do not have, but ${portable.join(", ")} needs it`,
      )
    }
  }
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

process.stdout.write(problems.length === 0 ? `${count} imports go down\n` : `${problems.join("\n")}\n`)
process.exitCode = problems.length === 0 ? 0 : 1
