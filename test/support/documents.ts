/** The documents of the repository. */
import { globSync } from "node:fs"

/** The paths of all documents, relative to the repository. */
export const documents: ReadonlyArray<string> = [
  "README.md",
  ...globSync("{.github,examples,sandbox,src,test}/**/*.md"),
].sort()
