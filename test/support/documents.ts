/** The documents of the repository, and the examples of these and of the JSDoc. */
import { globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"

/** The paths of all documents, relative to the repository. */
export const documents: ReadonlyArray<string> = [
  "README.md",
  ...globSync("{.github,examples,sandbox,src,test}/**/*.md"),
].sort()

/** An example, named by its file and its number there, in a module of its own. */
export interface Example {
  readonly name: string
  readonly code: string
  readonly path: string
}

const fence = /^```ts\n(.*?)^```/gms

/** The text of all JSDoc comments. */
function comments(text: string): string {
  return [...text.matchAll(/\/\*\*(.*?)\*\//gs)].map(([, doc = ""]) => doc.replace(/^\s*\* ?/gm, "")).join(
    "\n",
  )
}

/** Writes all examples to a folder. */
export function writeExamples(folder: string): ReadonlyArray<Example> {
  mkdirSync(folder, { recursive: true })
  return [...documents, ...globSync("src/**/*.ts").sort()].flatMap((file) => {
    const text = readFileSync(file, "utf8")
    const blocks = [...(file.endsWith(".md") ? text : comments(text)).matchAll(fence)]
    return blocks.map(([, code = ""], index) => {
      const path = `${folder}/${file.replace(/\W/g, "_")}_${index + 1}.ts`
      writeFileSync(path, code)
      return { name: `${file}, example ${index + 1}`, code, path }
    })
  })
}
