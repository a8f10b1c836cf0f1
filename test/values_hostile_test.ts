/** Values of code that goes out of its way: exceptions that cannot be shown, objects that answer no question. */
import { assert, layer } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { Execution, KernelClient, Values } from "../src/mod.ts"
import { kernelLayer, kernelOverServer, slow } from "./support/kernel.ts"
import { timed } from "./support/outcome.ts"
import { prepared } from "./support/values.ts"

const definitions = `
import builtins, io, json, unittest.mock

@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int

class Slots(Exception):
    __slots__ = ("code",)

class Sealed(Exception):
    def __setattr__(self, name, value): raise RuntimeError("sealed")
    def __delattr__(self, name): raise RuntimeError("sealed")

class Mute(Exception):
    def __str__(self): raise ValueError("no words")
    __repr__ = __str__

class Interrupting(Exception):
    def __str__(self): raise KeyboardInterrupt

class Closed(Exception):
    def __getattribute__(self, name): raise ValueError("closed " + name)

class Untraceable(Exception):
    @property
    def __traceback__(self): raise ValueError("no traceback")

class Nameless(type):
    def __getattribute__(cls, name): raise ValueError("nameless " + name)

class Anonymous(Exception, metaclass=Nameless): pass

class Base(BaseException): pass

def boom(error):
    raise error

def chained(error):
    try:
        raise error
    except BaseException:
        raise KeyError("outer")

def boom_with(batch):
    raise errors[batch[0]]

errors = {
    "Frozen": Frozen(1), "Slots": Slots(1), "Sealed": Sealed(1), "Mute": Mute(1), "Interrupting": Interrupting(1),
    "Closed": Closed(1), "Untraceable": Untraceable(1), "Anonymous": Anonymous(1), "Base": Base(1),
    "SystemExit": SystemExit(1), "KeyboardInterrupt": KeyboardInterrupt(), "GeneratorExit": GeneratorExit(),
    "StopIteration": StopIteration(1), "StopAsyncIteration": StopAsyncIteration(1),
    "CancelledError": asyncio.CancelledError(), "RecursionError": RecursionError(), "UnicodeError": UnicodeError("\\ud800"),
    "ExceptionGroup": ExceptionGroup("two", [ValueError("first"), Mute(2)]),
}

class Silent:
    def __getattribute__(self, name): raise ValueError("silent " + name)

class Anything:
    def __getattr__(self, name): return self

class Posing:
    @property
    def __class__(self): return list

class Unspeakable:
    def __repr__(self): raise ValueError("unspeakable")

class Stopping(dict):
    def items(self): raise StopIteration("mine")

class Itself(enum.Enum):
    A = 1
Itself.A._value_ = Itself.A

def nest(depth):
    value = []
    for _ in range(depth - 1): value = [value]
    return value

def depth_of(value):
    depth = 0
    while value != []: value, depth = value[0], depth + 1
    return depth + 1
`

const ready = Effect.tap(prepared, (kernel) => kernel.execute(definitions))

/** Exceptions, and the text with which they are shown. */
const raised = [
  ["Frozen", "1"],
  ["Slots", "1"],
  ["Sealed", "1"],
  ["Mute", "<exception str() failed>"],
  ["Interrupting", "<exception str() failed>"],
  ["Closed", "1"],
  ["Untraceable", "1"],
  ["Anonymous", "1"],
  ["Base", "1"],
  ["SystemExit", "1"],
  ["KeyboardInterrupt", ""],
  ["GeneratorExit", ""],
  ["StopIteration", "1"],
  ["StopAsyncIteration", "1"],
  ["CancelledError", ""],
  ["RecursionError", ""],
  ["UnicodeError", "\\ud800"],
  ["ExceptionGroup", "two (2 sub-exceptions)"],
] as const

layer(kernelLayer(), slow)("hostile values", (it) => {
  for (const [name, text] of raised) {
    it.effect(`${name} raised in evaluate, call, iterate and feed is shown by its name and frames`, () =>
      Effect.gen(function* () {
        const kernel = yield* ready
        // Python itself makes another error of it where a generator or a coroutine raises it.
        const isStop = name === "StopIteration"
        const generator = `(n if n < 2 else boom(errors["${name}"]) for n in range(3))`
        const emitted: Array<unknown> = []
        const failures = [
          [kernel.evaluate(`boom(errors["${name}"])`, Schema.Unknown), "raise error"],
          [kernel.call("boom_with", [[name]], { returns: Schema.Unknown }), "raise errors[batch[0]]"],
          [
            kernel.feed("boom_with", Stream.succeed(name), { returns: Schema.Unknown }).pipe(Stream.runDrain),
            "raise errors[batch[0]]",
          ],
          ...(isStop ? [] : [
            [kernel.evaluate(`await boom(errors["${name}"])`, Schema.Unknown), "raise error"] as const,
            [
              kernel.iterate(generator, Schema.Int).pipe(
                Stream.runForEach((n) => Effect.sync(() => void emitted.push(n))),
              ),
              "raise error",
            ] as const,
          ]),
        ] as const
        for (const [effect, line] of failures) {
          const [error, time] = yield* timed(Effect.flip(effect))
          assert.isBelow(time, 5000)
          if (error._tag !== "ExecutionError") return assert.fail(`${error._tag} ${error.message}`)
          assert.deepStrictEqual([error.ename, error.evalue], [name, text])
          const traceback = error.traceback.join("\n")
          assert.include(traceback, line)
          assert.notInclude(traceback, "effect_jupyter")
          assert.isUndefined(error.partial.text)
          assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
        }
        assert.deepStrictEqual(emitted, isStop ? [] : [0, 1])
      }))
  }

  it.effect("ExecutionError shows causes of an exception, unless they cannot be shown", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      for (const [cause, isShown] of [["Frozen(1)", true], ["Closed(1)", false], ["Anonymous(1)", false]]) {
        const error = yield* Effect.flip(kernel.evaluate(`chained(${cause})`, Schema.Unknown))
        assert.strictEqual(error._tag === "ExecutionError" ? error.ename : error._tag, "KeyError")
        assert.strictEqual(error.message.includes("During handling"), isShown, `${cause} ${error.message}`)
        assert.notInclude(error.message, "effect_jupyter")
      }
      const group = yield* Effect.flip(
        kernel.evaluate("boom(ExceptionGroup('g', [ValueError('inner')]))", Schema.Unknown),
      )
      assert.include(group.message, "ValueError: inner")
    }))

  it.effect("evaluate keeps the exception of a coroutine", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      yield* kernel.execute("async def stops(): raise StopIteration(1)\ndef own(batch): return stops()")
      for (
        const effect of [
          kernel.evaluate("stops()", Schema.Unknown),
          kernel.call("own", [[]], { returns: Schema.Unknown }),
        ]
      ) {
        const error = yield* Effect.flip(effect)
        assert.strictEqual(error._tag === "ExecutionError" ? error.ename : error._tag, "RuntimeError")
        assert.notInclude(error.message, "effect_jupyter")
      }
      // It ends no stream of ours: elements would be missing.
      const error = yield* Effect.flip(
        Stream.runCollect(kernel.iterate("[1, Stopping(), 3]", Schema.Unknown)),
      )
      assert.strictEqual(error._tag === "ExecutionError" ? error.ename : error._tag, "StopIteration")
    }))

  it.effect("evaluate refuses objects whose methods raise, by type and path", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      const long = `$[('${"x".repeat(77)}…]`
      for (
        const [expression, valueType, path] of [
          ["Silent()", "Silent", "$"],
          ["{'a': [Silent()]}", "Silent", "$.a[0]"],
          ["Anything()", "Anything", "$"],
          ["Posing()", "Posing", "$"],
          ["[unittest.mock.Mock(spec=list)]", "unittest.mock.Mock", "$[0]"],
          ["{Unspeakable(): 1}", "Unspeakable", "$[<Unspeakable>]"],
          ["{10**10_000: object()}", "object", "$[<int>]"],
          ["{('x' * 10**6,): object()}", "object", long],
          ["{'\\ud800 x': object()}", "object", `$["\\ud800 x"]`],
          ["Itself.A", "Itself", "$"],
        ] as const
      ) {
        const error = yield* Effect.flip(kernel.evaluate(expression, Schema.Unknown))
        if (!(error instanceof Values.UnsupportedValue)) return assert.fail(`${expression} ${error.message}`)
        assert.deepStrictEqual([error.valueType, error.path], [valueType, path], expression)
      }
    }))

  it.effect("UnsupportedValue names type and path of values that are too deep, also with a low recursion limit", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute("import asyncio, dataclasses, enum, sys")
      yield* kernel.execute(definitions)
      yield* kernel.execute("cycle = [1]\ncycle.append({'a': cycle})")
      const nested = (depth: number): unknown => depth === 1 ? [] : [nested(depth - 1)]
      for (const limit of [1000, 150]) {
        yield* kernel.execute(`sys.setrecursionlimit(${limit})`)
        assert.isDefined(yield* kernel.evaluate("nest(200)", Schema.Unknown))
        assert.strictEqual(
          yield* kernel.call("depth_of", [nested(190)], { returns: Schema.Int }),
          190,
          String(limit),
        )
        for (
          const [expression, path] of [["nest(201)", /^\$(\[0\]){200}$/], ["cycle", /^\$\[1\]\.a$/]] as const
        ) {
          const error = yield* Effect.flip(kernel.evaluate(expression, Schema.Unknown))
          if (!(error instanceof Values.UnsupportedValue)) return assert.fail(error.message)
          assert.strictEqual(error.valueType, "list")
          assert.match(error.path, path)
        }
        const incoming = yield* Effect.flip(kernel.set("deep", nested(300)))
        assert.strictEqual(incoming._tag, "UnsupportedValue")
        assert.strictEqual(yield* kernel.evaluate("sys.getrecursionlimit()", Schema.Int), limit)
      }
    }))

  const unreadable = Effect.fnUntraced(
    function* (
      kernel: KernelClient.Kernel,
      corruptions: ReadonlyArray<readonly [corruption: string, value: unknown]>,
    ) {
      yield* kernel.evaluate("1", Schema.Int)
      yield* kernel.execute(`
import sys
ours = sys.modules["effect_jupyter.values.requests"]
decode = ours.decode

def corrupt(change):
    """The next request is another for our side."""
    def corrupted(text, buffers):
        ours.decode = decode
        return decode(*change(bytes(text), buffers))
    ours.decode = corrupted
`)
      const bytes = Uint8Array.of(1)
      for (
        const [corruption, value] of [
          ["corrupt(lambda text, buffers: (text[:-5], buffers))", 1],
          ["corrupt(lambda text, buffers: (b'\\xff' + text, buffers))", 1],
          ["corrupt(lambda text, buffers: (b'[]', buffers))", 1],
          ["corrupt(lambda text, buffers: (text.replace(b'\"bytes\"', b'\"other\"'), buffers))", bytes],
          ["corrupt(lambda text, buffers: (text, []))", bytes],
          ["corrupt(lambda text, buffers: (text.replace(b'\"set\"', b'\"send\"'), buffers))", bytes],
          ...corruptions,
        ] as const
      ) {
        yield* kernel.execute(corruption)
        const [error, time] = yield* timed(Effect.flip(kernel.set("value", value)))
        assert.isBelow(time, 5000)
        if (error._tag !== "KernelError") return assert.fail(`${corruption} ${error._tag} ${error.message}`)
        assert.instanceOf(error.reason, Execution.ExecutionAborted)
        assert.include(error.message, "could not read the request", corruption)
        yield* kernel.set("value", 2)
        assert.strictEqual(yield* kernel.evaluate("value", Schema.Int), 2)
      }
      yield* kernel.execute("corrupt(lambda text, buffers: (b'', []))")
      const stream = yield* Effect.flip(Stream.runCollect(kernel.iterate("[1]", Schema.Int)))
      assert.include(stream.message, "could not read the request")
    },
  )

  it.effect("a request that cannot be read fails at once, and the next one succeeds", () =>
    Effect.flatMap(KernelClient.make(), (kernel) => unreadable(kernel, [])))

  it.effect("an execution whose request cannot be read fails at once, and the next one succeeds", () =>
    Effect.gen(function* () {
      const kernel = yield* kernelOverServer
      yield* kernel.evaluate("1", Schema.Int)
      yield* kernel.execute(`
import sys
executions = sys.modules["effect_jupyter.values.executions"]
kernel = get_ipython().kernel
get_parent, keep = kernel.get_parent, executions.keep

def strip():
    def stripped(*args):
        if sys._getframe(1).f_globals["__name__"] != "effect_jupyter.values.executions":
            return get_parent(*args)
        del kernel.get_parent
        return {**get_parent(*args), "buffers": []}
    kernel.get_parent = stripped

def lose(first):
    """The part of the next request is lost."""
    executions.keep = keep
`)
      yield* unreadable(kernel, [
        ["strip()", 1],
        ["executions.keep = lose", new Uint8Array(9_000_000)],
      ])
    }))

  it.effect("evaluate works after the user removed names, modules and built-ins", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.evaluate("1", Schema.Int)
      for (
        const code of [
          "list = dict = tuple = str = type = len = isinstance = __import__ = sys = get_ipython = _ = 1",
          "del list, dict, tuple, str, type, len, isinstance, __import__, sys, get_ipython",
          "import builtins, json, sys, unittest.mock",
          "builtins.print = builtins.aiter = builtins.anext = builtins.frozenset = None",
          "del builtins.print, builtins.divmod",
          "dumps = json.dumps\njson.dumps = lambda *args, **options: dumps(*args, **options)",
          "for name in [name for name in sys.modules if name.startswith('effect_') or name in ('ast', 'json', 'decimal')]:" +
          "\n    del sys.modules[name]",
          "for name in ('numpy', 'pandas', 'pydantic', 'pyarrow'): sys.modules[name] = unittest.mock.MagicMock()",
          "for name in ('numpy', 'pandas', 'pydantic', 'pyarrow'): sys.modules[name] = None",
        ]
      ) {
        yield* kernel.execute(code)
        const value = { a: [1, new Set(["x"])], numbers: Float64Array.of(1.5) }
        yield* kernel.set("value", value)
        assert.deepStrictEqual(yield* kernel.evaluate("value", Schema.Unknown), value, code)
        assert.strictEqual(yield* kernel.call("operator:add", [1, 2], { returns: Schema.Int }), 3)
        for (const expression of ["[1, 2]", "(n async for n in numbers())"]) {
          yield* kernel.execute("async def numbers():\n    yield 1\n    yield 2")
          assert.deepStrictEqual(yield* Stream.runCollect(kernel.iterate(expression, Schema.Int)), [1, 2])
        }
        const error = yield* Effect.flip(kernel.evaluate("1 / 0", Schema.Int))
        assert.strictEqual(
          error._tag === "ExecutionError" ? error.ename : error._tag,
          "ZeroDivisionError",
          code,
        )
      }
    }))

  it.effect("evaluate works with replaced streams and a megabyte of output", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      yield* kernel.execute("kept = sys.stdout, sys.stderr\nsys.stdout = sys.stderr = io.StringIO()")
      assert.strictEqual(yield* kernel.evaluate("print('hidden') or 1", Schema.Int), 1)
      const error = yield* Effect.flip(kernel.evaluate("1 / 0", Schema.Int))
      assert.strictEqual(error._tag === "ExecutionError" ? error.ename : error._tag, "ZeroDivisionError")
      yield* kernel.execute("said = sys.stdout.getvalue()\nsys.stdout, sys.stderr = kept")
      assert.strictEqual(yield* kernel.evaluate("said", Schema.String), "hidden\n")
      let length = 0
      const onChunk = (chunk: Execution.Chunk) =>
        Effect.sync(() => void (length += chunk._tag === "TextChunk" ? chunk.text.length : 0))
      assert.strictEqual(yield* kernel.evaluate("print('x' * 10**6) or 2", Schema.Int, { onChunk }), 2)
      assert.strictEqual(length, 1_000_001)
    }))

  it.effect("evaluate accepts exactly one expression, in any notation", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      yield* kernel.execute("base = 10")
      for (
        const [expression, value] of [
          ["[n + base for n in range(2)]", [10, 11]],
          ["(lambda n: n + base)(1)", 11],
          ["(kept_by := 3) + kept_by", 6],
          ["  \n\t 1 + \n 2 # three\n\n", 3],
          ["1,  # one", [1]],
          ["'''a\n b'''", "a\n b"],
          ["{\n  'a': 1,  # one\n}", { a: 1 }],
          ["'# ' ')('", "# )("],
          ["[await asyncio.sleep(0, n) for n in range(2)]", [0, 1]],
          ["()", []],
        ] as const
      ) assert.deepStrictEqual(yield* kernel.evaluate(expression, Schema.Unknown), value, expression)
      for (
        const expression of [
          "",
          " \n ",
          "# only this",
          "\n# a\n# b\n",
          "x = 1",
          "1; 2",
          "1\n2",
          "1) + (2",
          "1], [2",
          "1)\nprint(1)\n(2",
          "yield 1",
          "(yield 1)",
          "return 1",
          "import os",
          "%time 1",
          "'open",
          ")",
          "*[1]",
        ]
      ) {
        for (
          const effect of [
            kernel.evaluate(expression, Schema.Unknown),
            Stream.runDrain(kernel.iterate(expression, Schema.Unknown)),
          ]
        ) {
          const error = yield* Effect.flip(effect)
          if (error._tag !== "ExecutionError") return assert.fail(`${expression} ${error._tag}`)
          assert.strictEqual(error.ename, "SyntaxError", expression)
          assert.notInclude(error.message, "effect_jupyter")
        }
      }
      const [line = ""] = expressionOf(yield* Effect.flip(kernel.evaluate("base + (yield)", Schema.Unknown)))
      assert.strictEqual(line, "base + (yield)")
      const NUL = yield* Effect.flip(kernel.evaluate("1\0", Schema.Unknown))
      assert.strictEqual(NUL._tag, "ExecutionError")
    }))
})

/** The lines that a SyntaxError shows. */
function expressionOf(error: { readonly message: string }): ReadonlyArray<string> {
  return error.message.split("\n").map((line) => line.trim()).filter((line) => line.startsWith("base"))
}
