/**
 * Checks the documentation: every export has a JSDoc, every export of a public module has an example, and
 * all examples, those of the documents included, type-check.
 */
import { spawnSync } from "node:child_process"
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import process from "node:process"
import { documents } from "./documents.ts"

const folder = ".docs/examples"
const fence = /^```ts\n(.*?)^```/gms
const problems: Array<string> = []

/** Unpacks the text of a JSDoc comment. */
function uncomment(text: string): string {
  return text.replace(/^\s*\* ?/gm, "")
}

function checkExports(file: string, text: string): void {
  // What modules of the package export again.
  const isPublic = !/^src\/[^/]+\//.test(file) ||
    /((gateway|values)\/error|values\/nd_array|execution\/(output|reason))\.ts$/.test(file)
  const exported = /(\/\*\*(?:(?!\*\/).)*\*\/\n)?^export (?:declare )?(\w+) (\w+)/gms
  const documented = new Set<string>()
  for (const [, doc, kind, name = ""] of text.matchAll(exported)) {
    // The type of a class or a schema, and further signatures of a function.
    if (/^(type|function)$/.test(kind ?? "") && documented.has(name)) continue
    if (doc === undefined) problems.push(`${file}: "${name}" has no JSDoc`)
    else if (isPublic && /^(const|function|class)$/.test(kind ?? "") && !doc.includes("@example")) {
      problems.push(`${file}: "${name}" has no example`)
    }
    documented.add(name)
  }
}

rmSync(folder, { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
let count = 0
for (const file of [...documents, ...globSync("src/**/*.ts")]) {
  const text = readFileSync(file, "utf8")
  const isDocument = file.endsWith(".md")
  if (!isDocument) checkExports(file, text)
  const docs = isDocument
    ? text
    : [...text.matchAll(/\/\*\*(.*?)\*\//gs)].map(([, doc = ""]) => uncomment(doc)).join("\n")
  for (const [, code = ""] of docs.matchAll(fence)) {
    writeFileSync(`${folder}/${file.replace(/\W/g, "_")}_${++count}.ts`, code)
  }
}
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
