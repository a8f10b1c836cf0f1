/**
 * Checks the links of the documents: files and anchors exist, and what is published with the package links by a
 * relative path only to what is published too. Addresses of other sites are not opened.
 */
import { existsSync, globSync, readFileSync, statSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import process from "node:process"
import { documents } from "./documents.ts"

const manifest = JSON.parse(readFileSync("package.json", "utf8"))
const repository = String(manifest.repository.url).replace(/^git\+/, "").replace(/\.git$/, "")
const ownAddress = `${repository}/blob/main/`
/** npm publishes these whatever `files` says. */
const published: ReadonlyArray<string> = ["README.md", "LICENSE", "package.json", ...manifest.files]

const isPublished = (path: string): boolean =>
  published.some((entry) => path === entry || path.startsWith(`${entry}/`))

const problems: Array<string> = []
let count = 0

/** The text without code, and code spans apart. */
function parse(text: string): { readonly prose: string; readonly spans: ReadonlyArray<string> } {
  const withoutBlocks = text.replace(/^```.*?^```$/gms, "")
  const spans: Array<string> = []
  const prose = withoutBlocks.replace(/`([^`\n]+)`/g, (_, code: string) => {
    spans.push(code)
    return "`code`"
  })
  return { prose, spans }
}

/** The anchors that GitHub gives to the headings of a document. */
function anchorsOf(file: string): ReadonlySet<string> {
  const anchors = new Set<string>()
  const text = readFileSync(file, "utf8").replace(/^```.*?^```$/gms, "")
  for (const [, heading = ""] of text.matchAll(/^#{1,6} +(.+?) *#*$/gm)) {
    const slug = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").toLowerCase()
      .replace(/[^\p{L}\p{N}\p{M}_ -]/gu, "").replaceAll(" ", "-")
    let anchor = slug
    for (let number = 1; anchors.has(anchor); number++) anchor = `${slug}-${number}`
    anchors.add(anchor)
  }
  return anchors
}

/** Returns the reason for which a link is broken; `undefined` if it is not. */
function problemOf(document: string, target: string): string | undefined {
  const isAbsolute = /^https?:/.test(target)
  if (isAbsolute && !target.startsWith(ownAddress)) {
    return URL.canParse(target) ? undefined : "is not a valid address"
  }
  const [path = "", anchor] = target.replace(ownAddress, "").split("#")
  const file = isAbsolute ? path : path === "" ? document : normalize(join(dirname(document), path))
  if (!existsSync(file)) return `leads to "${file}", which does not exist`
  if (!isAbsolute && isPublished(document) && !isPublished(file)) {
    return `leads to "${file}", which is not published with the package; link to "${repository}/blob/main/${file}"`
  }
  if (anchor === undefined) return undefined
  if (statSync(file).isDirectory() || !file.endsWith(".md")) {
    return `has an anchor, but "${file}" is not a document`
  }
  return anchorsOf(file).has(anchor) ? undefined : `leads to a heading that "${file}" does not have`
}

/** A newcomer reads all of it. */
const maxReadmeBytes = 12_000
const { size } = statSync("README.md")
if (size > maxReadmeBytes) {
  problems.push(
    `README.md has ${size} bytes, more than ${maxReadmeBytes}; move details to examples/README.md`,
  )
}

for (const document of documents) {
  const { prose, spans } = parse(readFileSync(document, "utf8"))
  const inline = [...prose.matchAll(/\]\(([^)\s]+)(?: "[^"]*")?\)/g)]
  const references = [...prose.matchAll(/^\[[^\]]+\]: *(\S+)/gm)]
  for (const [, target = ""] of [...inline, ...references]) {
    count++
    const problem = problemOf(document, target)
    if (problem !== undefined) problems.push(`${document}: the link "${target}" ${problem}`)
  }
  // Files that are named, not linked, such as the tests of a promise.
  for (const span of spans) {
    if (!/^[\w.*-]+(\/[\w.*-]+)+\.(ts|py|sh|json|md)$/.test(span) || span.startsWith("node_modules/")) {
      continue
    }
    count++
    const exists = [span, join(dirname(document), span)].some((path) => globSync(path).length > 0)
    if (!exists) problems.push(`${document}: the file "${span}" does not exist`)
  }
}

process.stdout.write(problems.length === 0 ? `${count} links are valid\n` : `${problems.join("\n")}\n`)
process.exitCode = problems.length === 0 ? 0 : 1
