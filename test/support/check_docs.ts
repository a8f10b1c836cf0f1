/**
 * Checks the documentation: every export has a JSDoc, every public one an example, @category and @since, public modules
 * name what they export of others, and all examples, those of the documents included, type-check.
 */
import { spawnSync } from "node:child_process"
import { globSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import process from "node:process"
import { writeExamples } from "./documents.ts"

const folder = ".docs/examples"
const reexport = /^export (?:type )?\{([^}]*)\} from "([^"]+)"/gm
const problems: Array<string> = []

/** The exports of the public modules by their file; all exports of a public file. */
const publicNames = new Map<string, ReadonlySet<string> | "all">()
const subpaths: Record<string, unknown> = JSON.parse(readFileSync("package.json", "utf8")).exports
for (const subpath of Object.keys(subpaths).filter((path) => path !== "./package.json")) {
  for (const file of globSync(`src/${subpath === "." ? "mod" : subpath.slice("./".length)}.ts`)) {
    publicNames.set(file, "all")
    for (const [, names = "", from = ""] of readFileSync(file, "utf8").matchAll(reexport)) {
      const named = names.split(",").map((name) => name.trim().replace(/^type /, "")).filter((name) =>
        name !== ""
      )
      const target = normalize(join(dirname(file), from))
      const known = publicNames.get(target)
      if (known !== "all") publicNames.set(target, new Set([...known ?? [], ...named]))
    }
  }
}

function checkExports(file: string, text: string): void {
  const names = publicNames.get(file)
  if (names !== undefined && /^export \* from/m.test(text)) {
    problems.push(`${file}: exports everything of another module; name what is public`)
  }
  const exported = /(\/\*\*(?:(?!\*\/).)*\*\/\n)?^export (?:declare )?(\w+) (\w+)/gms
  const documented = new Set<string>()
  for (const [, doc, kind, name = ""] of text.matchAll(exported)) {
    // The type of a class or a schema, and further signatures of a function.
    if (/^(type|function)$/.test(kind ?? "") && documented.has(name)) continue
    const isPublic = names === "all" || names?.has(name) === true
    if (doc === undefined) problems.push(`${file}: "${name}" has no JSDoc`)
    else if (
      isPublic && !file.startsWith("src/jupyter/") && /^(const|function|class)$/.test(kind ?? "") &&
      !doc.includes("@example")
    ) problems.push(`${file}: "${name}" has no example`)
    if (isPublic && doc !== undefined && !(/@category [a-z]/.test(doc) && /@since \d/.test(doc))) {
      problems.push(`${file}: "${name}" has no @category and @since`)
    }
    documented.add(name)
  }
}

for (const file of globSync("src/**/*.ts")) checkExports(file, readFileSync(file, "utf8"))

rmSync(folder, { recursive: true, force: true })
const count = writeExamples(folder).length
writeFileSync(
  `${folder}/tsconfig.json`,
  JSON.stringify({
    extends: "../../tsconfig.json",
    compilerOptions: {
      noUnusedLocals: false,
      plugins: [{ name: "@effect/language-service", diagnosticSeverity: { globalConsole: "off" } }],
    },
    include: ["*.ts"],
  }),
)
const { status, stdout } = spawnSync("tsc", ["-p", folder], { encoding: "utf8" })
if (status !== 0) problems.push(stdout)
else rmSync(folder, { recursive: true })
process.stdout.write(problems.length === 0 ? `${count} examples type-check\n` : `${problems.join("\n")}\n`)
process.exitCode = problems.length === 0 ? 0 : 1
