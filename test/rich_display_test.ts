/** Displays arrive completely: all representations, images at each destination, text as on a terminal. */
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Option, Stream } from "effect"
import { Buffer } from "node:buffer"
import { Execution, KernelClient } from "../src/mod.ts"
import { collect, kernelLayer, slow, temporary, text, texts } from "./support/kernel.ts"

const { KernelClient: Client } = KernelClient

const bundles: Readonly<Record<string, { readonly [mimeType: string]: unknown }>> = {
  "a DataFrame": {
    "text/html": '<div>\n<table border="1" class="dataframe"><tr><td>ä</td></tr></table>\n</div>',
    "text/plain": "   a\n0  ä",
  },
  Plotly: {
    "application/vnd.plotly.v1+json": {
      data: [{ type: "scatter", x: [1, 2.5, null], y: ["a", "é", ""] }],
      layout: { template: { data: {} }, title: { text: "<b>" } },
      config: { plotlyServerURL: "https://plot.ly" },
    },
    "text/html": "<div></div>",
  },
  Vega: {
    "application/vnd.vegalite.v5+json": { $schema: "x", mark: "bar", data: { values: [{ a: 1 }] } },
    "text/plain": "<VegaLite 5 object>",
  },
  LaTeX: { "text/latex": "$\\displaystyle \\int_0^1 x\\,dx$", "text/plain": "Integral" },
  JSON: { "application/json": { a: [1, true, null, { b: -0.5 }], "": "" }, "text/plain": "json" },
  "anything else": { "application/x-mine": "☃", "x/y": [[], {}], "text/plain": "x" },
}

layer(kernelLayer(), slow)("rich displays", (it) => {
  for (const [what, bundle] of Object.entries(bundles)) {
    it.effect(`${what} passes through untouched`, () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        const code = `import json\ndisplay(json.loads(${
          JSON.stringify(JSON.stringify(bundle))
        }), raw=True, metadata={"x/y": {"a": [1]}})`
        const { displays, text } = yield* kernel.execute(code)
        assert.deepStrictEqual(displays.map(({ data, metadata }) => [data, metadata]), [
          [bundle, { "x/y": { a: [1] } }],
        ])
        const plain = bundle["text/plain"]
        assert.strictEqual(text, typeof plain === "string" ? plain.trimEnd() : undefined)
      }))
  }

  const shown = `from IPython.display import Image, SVG
import base64
display(SVG('<svg xmlns="http://www.w3.org/2000/svg"><circle r="1"/></svg>'))
display(Image(data=base64.b64decode('/9j/2Q=='), format='jpeg'))
display(Image(data=base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==')))
print('done')`
  const types = ["image/svg+xml", "image/jpeg", "image/png"]

  it.effect("images of all kinds become files", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const kernel = yield* KernelClient.make({ imagesDir: yield* temporary })
      const { images } = yield* kernel.execute(shown)
      assert.deepStrictEqual(images.map(({ mimeType }) => mimeType), types)
      const [svg, jpeg, png] = yield* Effect.forEach(images, ({ path }) => fs.readFile(path))
      assert.match(new TextDecoder().decode(svg), /^<svg.*<\/svg>$/)
      assert.deepStrictEqual([...(jpeg ?? [])], [0xff, 0xd8, 0xff, 0xd9])
      assert.deepStrictEqual([...(png ?? [])].slice(0, 4), [0x89, 0x50, 0x4e, 0x47])
    }))

  it.effect("or bytes of the result, and no files", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const imagesDir = yield* temporary
      const kernel = yield* KernelClient.make({ imagesDir, images: "bytes" })
      const { displays, images } = yield* kernel.execute(shown)
      assert.deepStrictEqual(images.map(({ mimeType }) => mimeType), types)
      assert.deepStrictEqual([...(images[1]?.bytes ?? [])], [0xff, 0xd8, 0xff, 0xd9])
      assert.deepStrictEqual(displays.map(({ image }) => image), [...images])
      assert.isEmpty(yield* fs.readDirectory(imagesDir))
      // One execution may want them elsewhere.
      const other = yield* kernel.execute(shown, { images: "directory" })
      assert.lengthOf(yield* fs.readDirectory(imagesDir), 3)
      assert.isUndefined(other.images[0]?.bytes)
    }))

  it.effect("or whatever a function makes of them; one that fails costs no text", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make({
        images: ({ bytes, mimeType }) =>
          mimeType === "image/jpeg" ? Effect.fail("No room") : Effect.succeed(`memory:${bytes.byteLength}`),
      })
      const elements = yield* collect(kernel.stream(shown))
      const result = elements.at(-1)
      assert.instanceOf(result, Execution.ExecutionResult)
      assert.deepStrictEqual(result.images.map(({ path }) => path.replace(/\d+/, "N")), [
        "memory:N",
        "memory:N",
      ])
      assert.lengthOf(result.displays, 3)
      assert.match(result.text ?? "", /done$/)
      assert.match(texts(elements).join(""), /The image of type "image\/jpeg" could not be saved: .*No room/)
    }))

  it.effect("a progress bar leaves its last state, and its chunks are raw", () =>
    Effect.gen(function* () {
      const elements = yield* collect((yield* Client).stream(`import sys, time
print('start', flush=True)
for i in range(0, 101, 4):
    print(f'\\r{i}%', end='', file=sys.stderr, flush=True)
print(file=sys.stderr, flush=True)
print('|\\b/\\b-\\bdone')`))
      const result = elements.at(-1)
      assert.instanceOf(result, Execution.ExecutionResult)
      assert.strictEqual(result.text, "start\n100%\ndone")
      assert.include(texts(elements).join(""), "\r96%")
    }))

  it.effect("line ends of other systems stay", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* text((yield* Client).execute("print('a\\r\\nb\\r\\nc', end='\\r')")),
        "a\r\nb\r\nc",
      )
    }))

  it.effect("the best representation of what a kernel shows", () =>
    Effect.gen(function* () {
      const { displays: [display] } = yield* (yield* Client).execute(
        "from IPython.display import HTML\nHTML('<b>x</b>')",
      )
      assert.isDefined(display)
      assert.deepStrictEqual(
        Execution.best(display),
        Option.some({ mimeType: "text/html", data: "<b>x</b>" }),
      )
    }))

  it.effect("every format of a plot, at its show and at the end of the cell", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make({ imagesDir: yield* temporary, images: "bytes" })
      const { images } = yield* kernel.execute(`import matplotlib.pyplot as plt
from matplotlib_inline.backend_inline import set_matplotlib_formats
for name in ('png', 'jpeg', 'svg', 'pdf'):
    set_matplotlib_formats(name)
    plt.plot([1, 2])
    plt.show()
plt.plot([2, 1])
plt.title('left');`)
      assert.deepStrictEqual(images.map(({ mimeType }) => mimeType), [
        "image/png",
        "image/jpeg",
        "image/svg+xml",
        "application/pdf",
        "application/pdf",
      ])
      const begin = images.map(({ bytes }) => Buffer.from(bytes ?? []).toString("latin1", 0, 5))
      assert.deepStrictEqual(begin, ["\x89PNG\r", "\xff\xd8\xff\xe0\0", "<?xml", "%PDF-", "%PDF-"])
    }))

  it.effect("two kernels write many images at once into one directory", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const imagesDir = yield* temporary
      const kernels = yield* Effect.all(
        [KernelClient.make({ imagesDir }), KernelClient.make({ imagesDir })],
        {
          concurrency: 2,
        },
      )
      const code = `import base64
for i in range(1000):
    display({'image/gif': base64.b64encode(b'%d' % i).decode()}, raw=True)`
      const results = yield* Effect.forEach(kernels, (kernel) => kernel.execute(code), { concurrency: 2 })
      const paths = results.flatMap(({ images }) => images.map(({ path }) => path))
      assert.strictEqual(new Set(paths).size, 2000)
      assert.lengthOf(yield* fs.readDirectory(imagesDir), 2000)
      for (const { images } of results) {
        assert.strictEqual(yield* fs.readFileString(images[999]?.path ?? ""), "999")
      }
    }))

  // As the output widget of ipywidgets does it; nbclient and JupyterLab route output by these messages.
  const widget = `from comm import create_comm
from IPython.display import clear_output
import sys
class Output:
    def __init__(self):
        state = {'_model_module': '@jupyter-widgets/output', '_model_name': 'OutputModel', 'msg_id': '', 'outputs': []}
        self.comm = create_comm(target_name='jupyter.widget', data={'state': state})
    def hook(self, id):
        sys.stdout.flush()
        self.comm.send({'method': 'update', 'state': {'msg_id': id}})
    def __enter__(self): self.hook(get_ipython().get_parent()['header']['msg_id'])
    def __exit__(self, type, value, traceback):
        if type: get_ipython().showtraceback((type, value, traceback))
        self.hook('')
        return True
out = Output()`

  it.effect("an output widget is cleared without the rest of the cell", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make({ imagesDir: yield* temporary })
      yield* kernel.execute(widget)
      const { displays, text } = yield* kernel.execute(`display('before')
with out:
    display('gone')
    clear_output(wait=True)
    print('text in it')
    display('inside')
    clear_output(wait=True)
display('between')
with out:
    display('inside again')
    1 / 0
display('after')`)
      assert.deepStrictEqual(displays.map(({ text }) => text), [
        "'before'",
        "'between'",
        "'inside again'",
        "'after'",
      ])
      assert.match(
        text ?? "",
        /text in it\n'inside'\n'between'\n'inside again'\n-+\nZeroDivisionError[^]*by zero\n'after'$/,
      )
      // In the next cell, it is an area of its own.
      const next = yield* kernel.execute("display('a')\nwith out: clear_output()\ndisplay('b')")
      assert.deepStrictEqual(next.displays.map(({ text }) => text), ["'a'", "'b'"])
    }))

  it.effect("text: each display, and what follows an unfinished line of the other stream, has lines of its own", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const textOf = (code: string) => Effect.map(kernel.execute(code), ({ text }) => text)
      assert.strictEqual(yield* textOf("display('a'); display('b'); print('c'); 5"), "'a'\n'b'\nc\n5")
      const bar = "import sys\nfor n in (50, 100): print(f'\\r{n}%', end='', file=sys.stderr, flush=True)\n"
      assert.strictEqual(yield* textOf(`${bar}print('done')`), "100%\ndone")
      assert.strictEqual(yield* textOf("print('\\n  x  y\\n0 1  2 \\n\\n')"), "  x  y\n0 1  2")
    }))

  it.effect("stream: a display says whether it is an update; those of a result are none", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const code = "h = display('0%', display_id=True)\nfor n in (50, 100): h.update(f'{n}%')"
      const elements = yield* collect(kernel.stream(code))
      assert.deepStrictEqual(
        elements.flatMap((element) =>
          element._tag === "DisplayChunk" ? [[element.text, element.update]] : []
        ),
        [["'0%'", false], ["'50%'", true], ["'100%'", true]],
      )
      const { displays } = yield* kernel.execute(code)
      assert.deepStrictEqual(displays.map(({ text, update }) => [text, update]), [["'100%'", false]])
    }))

  it.effect("text and displays: what a pager is to show is output, behind all other", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.execute("def f():\n    'Says so.'\n    return 6 * 7")
      for (
        const [code, part] of [
          ["len?", "Return the number of items in a container"],
          ["f??", "return 6 * 7"],
          ["%quickref", "IPython"],
          ["%prun f()", "function calls"],
        ] as const
      ) {
        const { displays, payloads, text } = yield* kernel.execute(code)
        assert.include(text, part)
        assert.lengthOf(displays, 1)
        assert.include(displays[0]?.data["text/plain"], part)
        assert.isUndefined(payloads)
      }
      const both = yield* collect(
        kernel.stream("print('before'); get_ipython().run_line_magic('pinfo', 'len'); print('after')"),
      )
      assert.deepStrictEqual(both.map(({ _tag }) => _tag), ["TextChunk", "DisplayChunk", "ExecutionResult"])
      assert.match((yield* text(kernel.execute("print('a')\nlen?"))) ?? "", /^a\n/)
      const error = yield* Effect.flip(kernel.execute("get_ipython().run_line_magic('pinfo', 'len'); 1 / 0"))
      assert.instanceOf(error, Execution.ExecutionError)
      assert.include(error.partial.text, "Return the number of items")
    }))

  it.effect("payloads: what code asks a frontend for is in the result, what is malformed is not", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const { payloads, text } = yield* kernel.execute("get_ipython().set_next_input('x = 1')")
      assert.deepStrictEqual([text, payloads?.map(({ source, text }) => [source, text])], [undefined, [[
        "set_next_input",
        "x = 1",
      ]]])
      const folder = yield* temporary
      yield* (yield* FileSystem.FileSystem).writeFileString(`${folder}/a.py`, "y = 2")
      const loaded = yield* kernel.execute(`%load ${folder}/a.py`)
      assert.include(loaded.payloads?.[0]?.text, "y = 2")
      const write = (payload: string) =>
        `get_ipython().payload_manager.write_payload(${payload}, single=False)\n`
      const odd = yield* kernel.execute(
        [
          "{'source': 'page', 'data': 7}",
          "{'source': 'page', 'data': {'text/html': '<b>'}, 'start': 0}",
          "{'source': 'unknown', 'a': [1, {'b': None}]}",
          "{'source': 7}",
          "{'source': 'ask_exit', 'keepkernel': True}",
        ].map(write).join(""),
      )
      assert.deepStrictEqual(odd.payloads, [
        { source: "unknown", a: [1, { b: null }] },
        { source: "ask_exit", keepkernel: true },
      ])
      assert.deepStrictEqual(odd.displays.map(({ data }) => data), [{ "text/html": "<b>" }])
    }))

  it.effect("an exception that is shown and caught is text", () =>
    Effect.gen(function* () {
      const { text } = yield* (yield* Client).execute(`try: 1 / 0
except ZeroDivisionError: get_ipython().showtraceback()
print('goes on')`)
      assert.match(
        text ?? "",
        /^-+\nZeroDivisionError[^]*division by zero[^]*goes on|^goes on[^]*division by zero$/,
      )
    }))

  it.effect("an exception that is shown is not lost when the kernel ends", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const code = `import time
try: 1 / 0
except ZeroDivisionError: get_ipython().showtraceback()
print('goes on', flush=True)
time.sleep(600)`
      const error = yield* kernel.stream(code).pipe(
        Stream.tap((chunk) =>
          chunk._tag === "TextChunk" && chunk.text === "goes on\n" ? kernel.reset : Effect.void
        ),
        Stream.runDrain,
        Effect.flip,
      )
      assert.strictEqual(error._tag, "KernelError")
      if (error._tag !== "KernelError") return
      assert.match(error.partial?.text ?? "", /^-+\nZeroDivisionError[^]*division by zero\ngoes on$/)
    }))

  it.effect("progress bars below one another, and what a process clears", () =>
    Effect.gen(function* () {
      const { text } = yield* (yield* Client).execute(`import subprocess, sys
for i in range(0, 101, 20):
    print(f'\\r\\x1b[32mouter {i}%\\x1b[0m', end='', file=sys.stderr, flush=True)
    for j in range(0, 101, 50):
        print(f'\\n\\rinner {j}%\\x1b[A', end='', file=sys.stderr, flush=True)
print('\\n', file=sys.stderr, flush=True)
code = "from IPython.display import clear_output; print('gone', end='', flush=True); clear_output(); print('kept')"
print(subprocess.run([sys.executable, '-c', code], capture_output=True).stdout.decode())`)
      assert.strictEqual(text, "\x1b[32mouter 100%\x1b[0m\ninner 100%\nkept")
    }))
})
