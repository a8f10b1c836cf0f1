/** The same cells, run by Jupyter's own executor of notebooks and by this library, have the same outputs. */
import { assert, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Execution, KernelClient } from "../src/mod.ts"
import { collect, kernelLayer, slow, temporary } from "./support/kernel.ts"

/** By what they show. */
const cells: Readonly<Record<string, string>> = {
  imports: `import sys, time
from IPython.display import HTML, JSON, Latex, Markdown, SVG, Image, Math, Javascript, clear_output, display, update_display`,
  streams: "for i in range(3): print(i)\nprint('oh', file=sys.stderr)\nprint('no end', end='')",
  "a value": "[1, {'a': 'é😀'}]",
  "nothing": "None;",
  "a progress bar": `for i in range(0, 101, 10):
    print(f"\\r{i:3d}%|{'█' * (i // 10):10}|", end='', file=sys.stderr, flush=True)
print(file=sys.stderr)`,
  LaTeX: "display(Latex(r'$$\\alpha$$'), Math(r'x^2'))\nLatex(r'\\beta')",
  JSON: "JSON({'a': [1, None, {'b': 'x'}], 'big': 2**53}, expanded=True)",
  HTML: "display(HTML('<b>&amp;</b>'), metadata={'text/html': {'isolated': True}})\nMarkdown('*x*')",
  "many representations": `display({
  'text/plain': 'fallback', 'text/html': '<table></table>', 'text/latex': 'x', 'application/json': [1, 2.5],
  'application/vnd.plotly.v1+json': {'data': [{'type': 'bar', 'y': [1, None]}], 'layout': {}},
  'application/vnd.vegalite.v5+json': {'mark': 'bar', 'data': {'values': []}},
}, metadata={'application/vnd.plotly.v1+json': {'a': 1}}, raw=True)`,
  SVG: 'SVG(\'<svg xmlns="http://www.w3.org/2000/svg"><circle r="1"/></svg>\')',
  "a plot": "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);",
  Javascript: "Javascript('1 + 1')",
  "cleared at once": "display('a')\nclear_output()\ndisplay('b')",
  "cleared for the next": "for i in range(4):\n    display(i)\n    if i < 3: clear_output(wait=True)",
  "cleared for text": "display('a')\nclear_output(wait=True)\nprint('text')",
  "cleared for an error": "display('a')\nclear_output(wait=True)\nraise ValueError('gone')",
  "cleared before updates": `display('a', display_id='x'); clear_output(); update_display('b', display_id='x')
display('c')
update_display('d', display_id='x')`,
  "an update does not clear":
    `display('a', display_id='y'); clear_output(wait=True); update_display('b', display_id='y')
time.sleep(0.05)
display('c')`,
  updates: `handle = display('a', display_id=True)
display('other')
for i in range(5): handle.update(HTML(f'<i>{i}</i>'))`,
  "one id, many displays":
    "for i in range(3): display(i, display_id='many')\nupdate_display('last', display_id='many')",
  "an id again": "display('a', display_id='again')\ndisplay('b', display_id='again')",
  "an update of nothing": "update_display('a', display_id='nobody')",
  "an error": "print('before')\ndisplay('shown')\n1 / 0",
  "a syntax error": "this is not Python",
  "a display hook":
    "class A:\n    def _repr_html_(self): return '<a/>'\n    def __repr__(self): return 'A'\nA()",
  "a broken repr": "class B:\n    def __repr__(self): raise ValueError('broken')\nB()",
  "ids that are numbers":
    "display('a', display_id=5); display('b', display_id=6); update_display('c', display_id=5)",
  "an update before its display": "update_display('x', display_id='early'); display('y', display_id='early')",
  "an update with other metadata":
    "display('a', display_id='m', metadata={'a': 1}); update_display(HTML('b'), display_id='m', metadata={'b': [2]})",
  "bundles with nothing, without text, of lists": `display({}, raw=True)
display({'text/html': '<i>'}, {'application/vnd.mine+json': {'é': None}}, raw=True)
display({'text/plain': ['a\\n', 'b'], 'text/html': ['<p>\\n', '</p>']}, raw=True)`,
  "what comes with a display": `from IPython.display import publish_display_data
publish_display_data({'text/plain': 'x'}, {'a': None}, transient={'display_id': 't', 'other': [1]})
kernel = get_ipython().kernel
kernel.send_response(kernel.iopub_socket, 'display_data', {'data': {'a/b': 'x'}, 'metadata': {}, 'transient': None});`,
  "displays within displays": `class Outer:
    def __repr__(self):
        display('inner')
        return 'outer'
    def _repr_html_(self):
        display(HTML('inner'))
        return '<b>outer</b>'
display(Outer(), Outer(), display_id='nested')
Outer()`,
  "what shows itself": `class Own:
    def _ipython_display_(self): display('own', display_id='own')
class Bundle:
    def __repr__(self): return 'bundle'
    def _repr_mimebundle_(self, **options): return {'application/vnd.x+json': {'a': 1}}, {'application/vnd.x+json': {'b': 2}}
display(Own(), Bundle())
Own()`,
  "cleared twice, then at once":
    "display('a'); clear_output(wait=True); clear_output(wait=True); display('b'); clear_output(wait=True); clear_output(); display('c')",
  "cleared and updated in a loop": `handle = display('0', display_id='loop')
for i in range(200):
    clear_output(wait=True)
    display(i, display_id='loop')
    handle.update(-i)`,
  "cleared by a thread": `import threading
def work():
    display('in the thread')
    clear_output(wait=True)
    display('after')
display('before')
thread = threading.Thread(target=work)
thread.start()
thread.join()`,
  "tasks of asyncio": `import asyncio
async def work(name):
    await asyncio.sleep(0.01)
    display(name)
await asyncio.gather(work('a'), work('b'));`,
  "a plot shown and one left": "plt.plot([1, 2]); plt.show(); plt.plot([2, 1]); plt.title('é');",
  "plots of several formats": `from matplotlib_inline.backend_inline import set_matplotlib_formats
plt.rcParams['svg.hashsalt'] = 'x'
set_matplotlib_formats('jpeg', 'png')
plt.plot([3, 1])
plt.show()
set_matplotlib_formats('png')`,
  "a long DataFrame-like table": "HTML('<table>' + '<tr><td>1</td></tr>' * 1000 + '</table>')",
  // A clearing that waits stays: this is the last one, since nbclient carries it into the next cell.
  "cleared for nothing": "display('stays')\nclear_output(wait=True)",
}

const Mime = Schema.Record(Schema.String, Schema.Unknown)
const Output = Schema.Union([
  Schema.Struct({
    output_type: Schema.Literal("stream"),
    name: Schema.Literals(["stdout", "stderr"]),
    text: Schema.String,
  }),
  Schema.Struct({ output_type: Schema.Literal("display_data"), data: Mime, metadata: Mime }),
  Schema.Struct({
    output_type: Schema.Literal("execute_result"),
    data: Mime,
    metadata: Mime,
    execution_count: Schema.Int,
  }),
  Schema.Struct({ output_type: Schema.Literal("error"), ename: Schema.String, evalue: Schema.String }),
])
const Outputs = Schema.fromJsonString(Schema.Array(Schema.Array(Output)))

/** The outputs of each cell by Jupyter. */
const byJupyter = (python: string) =>
  Effect.flatMap(
    Effect.sync(() =>
      execFileSync(python, [fileURLToPath(new URL("support/run_cells.py", import.meta.url))], {
        input: JSON.stringify(Object.values(cells)),
        encoding: "utf8",
        maxBuffer: 1e9,
        stdio: ["pipe", "pipe", "ignore"],
      })
    ),
    (json) => Schema.decodeEffect(Outputs)(json),
  )

/** The output of an execution, in the same form. */
const run = Effect.fnUntraced(function* (kernel: KernelClient.Kernel, code: string) {
  const written = { stdout: "", stderr: "" }
  const exit = yield* Effect.result(collect(kernel.stream(code)))
  const elements = exit._tag === "Success" ? exit.success : []
  for (const element of elements) if (element._tag === "TextChunk") written[element.name] += element.text
  const error = exit._tag === "Failure" ? exit.failure : undefined
  const last = elements.at(-1)
  const result = error?.partial ?? (last?._tag === "ExecutionResult" ? last : undefined)
  assert.isDefined(result)
  return { written, result, error }
})

layer(kernelLayer(), slow)("a notebook", (it) => {
  it.effect("has the outputs that Jupyter gives it, cell by cell", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make({ imagesDir: yield* temporary })
      const python = (yield* kernel.execute("import sys; print(sys.executable)")).text ?? ""
      const fresh = yield* KernelClient.make({ imagesDir: yield* temporary })
      const expected = yield* byJupyter(python)
      assert.lengthOf(expected, Object.keys(cells).length)
      let count = 0
      for (const [index, [what, code]] of Object.entries(cells).entries()) {
        const { error, result, written } = yield* run(fresh, code)
        const outputs = expected[index] ?? []
        assert.deepStrictEqual(
          result.displays.map(({ data, executionCount, metadata }) => ({ data, metadata, executionCount })),
          outputs.flatMap((output) =>
            output.output_type === "display_data" || output.output_type === "execute_result"
              ? [{
                data: output.data,
                metadata: output.metadata,
                executionCount: output.output_type === "execute_result" ? output.execution_count : undefined,
              }]
              : []
          ),
          `The displays of: ${what}`,
        )
        const raised = outputs.find((output) => output.output_type === "error")
        assert.deepStrictEqual(
          error?._tag === "ExecutionError" ? [error.ename, error.evalue] : error,
          raised && [raised.ename, raised.evalue],
          `The error of: ${what}`,
        )
        // A clearing takes the text of a notebook along; the text here is all that was written.
        if (error !== undefined || what.startsWith("cleared")) continue
        for (const name of ["stdout", "stderr"] as const) {
          const text = outputs.flatMap((output) =>
            output.output_type === "stream" && output.name === name ? [output.text] : []
          ).join("")
          assert.strictEqual(written[name], text, `${name} of: ${what}`)
          count += text.length
        }
      }
      assert.isAbove(count, 100)
    }))

  it.effect("updates displays of earlier cells, which their results do not learn of", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const first = yield* kernel.execute("handle = display('a', display_id=True)")
      assert.deepStrictEqual(first.displays.map(({ text }) => text), ["'a'"])
      const [chunk, result] = yield* collect(kernel.stream("handle.update('b')"))
      assert.instanceOf(chunk, Execution.DisplayChunk)
      assert.deepStrictEqual([chunk.text, chunk.displayId], ["'b'", first.displays[0]?.displayId])
      assert.instanceOf(result, Execution.ExecutionResult)
      assert.deepStrictEqual([result.displays, result.text], [[], undefined])
    }))
})
