/**
 * Notebooks with the outputs that Jupyter stored in them: run again by this library, their cells have the same ones.
 * Those in `notebooks` were written for this test and run by `jupyter nbconvert --execute`'s executor.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Schema } from "effect"
import { Buffer } from "node:buffer"
import { fileURLToPath } from "node:url"
import { Execution, KernelClient } from "../src/mod.ts"
import { collect, kernelLayer, slow, temporary } from "./support/kernel.ts"

/** Notebooks hold texts as lists of lines. */
const Text = Schema.Union([Schema.String, Schema.Array(Schema.String)])
const Mime = Schema.Record(Schema.String, Schema.Unknown)
const Output = Schema.Union([
  Schema.Struct({
    output_type: Schema.Literal("stream"),
    name: Schema.Literals(["stdout", "stderr"]),
    text: Text,
  }),
  Schema.Struct({
    output_type: Schema.Literals(["display_data", "execute_result"]),
    data: Mime,
    metadata: Mime,
    execution_count: Schema.optionalKey(Schema.Int),
  }),
  Schema.Struct({
    output_type: Schema.Literal("error"),
    ename: Schema.String,
    evalue: Schema.String,
    traceback: Schema.Array(Schema.String),
  }),
])
const Cell = Schema.Union([
  Schema.Struct({ cell_type: Schema.Literal("code"), source: Text, outputs: Schema.Array(Output) }),
  Schema.Struct({ cell_type: Schema.Literals(["markdown", "raw"]) }),
])
const Notebook = Schema.fromJsonString(Schema.Struct({ cells: Schema.Array(Cell) }))

const join = (text: typeof Text.Type): string => typeof text === "string" ? text : text.join("")

/** A PNG differs from one version of the library that draws to the next, its size does not. */
const sizeOf = (png: unknown): string => {
  const bytes = Buffer.from(String(png), "base64")
  assert.strictEqual(bytes.toString("latin1", 1, 4), "PNG")
  return `${bytes.readUInt32BE(16)} x ${bytes.readUInt32BE(20)}`
}

/** A bundle without what differs from run to run. */
const lasting = (data: typeof Mime.Type): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(data).map(([type, value]) => {
      if (type === "image/png") return [type, sizeOf(value)]
      const isText = type.startsWith("text/") || type === "image/svg+xml"
      return [type, isText ? String(Array.isArray(value) ? value.join("") : value) : value]
    }),
  )

const stored = Effect.fnUntraced(function* (name: string) {
  const fs = yield* FileSystem.FileSystem
  const file = fileURLToPath(new URL(`notebooks/${name}.ipynb`, import.meta.url))
  const { cells } = yield* Schema.decodeEffect(Notebook)(yield* fs.readFileString(file))
  return cells.filter((cell) => cell.cell_type === "code")
})

layer(kernelLayer(), slow)("stored outputs", (it) => {
  for (const [name, atLeast] of [["standard_library", 12], ["numbers_and_plots", 9]] as const) {
    it.effect(`of ${name}`, () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ imagesDir: yield* temporary })
        const cells = yield* stored(name)
        assert.isAtLeast(cells.length, atLeast)
        for (const { outputs, source } of cells) {
          const code = join(source)
          const elements: Array<Execution.Chunk | Execution.ExecutionResult> = []
          const exit = yield* Effect.result(collect(kernel.stream(code)))
          if (exit._tag === "Success") elements.push(...exit.success)
          const error = exit._tag === "Failure" ? exit.failure : undefined
          const last = elements.at(-1)
          const result = error?.partial ?? (last?._tag === "ExecutionResult" ? last : undefined)
          assert.deepStrictEqual(
            result?.displays.map(({ data, executionCount, metadata }) => [
              lasting(data),
              metadata,
              executionCount,
            ]),
            outputs.flatMap((output) =>
              output.output_type === "display_data" || output.output_type === "execute_result"
                ? [[lasting(output.data), output.metadata, output.execution_count]]
                : []
            ),
            code,
          )
          const raised = outputs.find((output) => output.output_type === "error")
          assert.deepStrictEqual(
            error?._tag === "ExecutionError" ? [error.ename, error.evalue] : error,
            raised && [raised.ename, raised.evalue],
            code,
          )
          const written = { stdout: "", stderr: "" }
          for (const output of outputs) {
            if (output.output_type === "stream") written[output.name] += join(output.text)
          }
          if (error === undefined) {
            const streamed = { stdout: "", stderr: "" }
            for (const element of elements) {
              if (element._tag === "TextChunk") streamed[element.name] += element.text
            }
            assert.deepStrictEqual(streamed, written, code)
          } else assert.include(result?.text ?? "", written.stdout.trim(), code)
        }
      }))
  }
})
