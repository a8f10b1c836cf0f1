// @effect-diagnostics schemaNumber:off
/** Values at the edge of what a kernel carries: what would collapse, be cut or be lost is refused or kept. */
import { assert, layer } from "@effect/vitest"
import { Effect, Logger, Schema, Stream } from "effect"
import { KernelClient, Values } from "../src/mod.ts"
import { kernelLayer, kernelOverServer, slow } from "./support/kernel.ts"
import { prepared } from "./support/values.ts"

const definitions = `
@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int

def boom():
    raise Frozen(3)

@dataclasses.dataclass
class Lazy:
    x: int
    def __getattribute__(self, name):
        if name == "x":
            raise ValueError("no x")
        return super().__getattribute__(name)

class Letter(str, enum.Enum):
    A = "a"

def nest(depth, wrap):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    return value
`

const ready = Effect.tap(prepared, (kernel) => kernel.execute(definitions))

layer(kernelLayer(), slow)("values at the edge", (it) => {
  it.effect("set and evaluate accept 200 levels of any kind, and refuse 201", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      for (
        const wrap of ["lambda x: [x]", "lambda x: {'a': x}", "Point", "lambda x: {1: x}", "lambda x: (x,)"]
      ) {
        assert.isDefined(yield* kernel.evaluate(`nest(199, ${wrap})`, Schema.Unknown), wrap)
        const error = yield* Effect.flip(kernel.evaluate(`nest(201, ${wrap})`, Schema.Unknown))
        assert.strictEqual(error._tag, "UnsupportedValue", wrap)
      }
    }))

  it.effect("set and evaluate refuse values that would be equal on the other side", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      for (
        const expression of ["{Path('a'): 1, 'a': 2}", "{Path('a'), 'a'}", "{float('nan'), float('nan')}"]
      ) {
        const error = yield* Effect.flip(kernel.evaluate(expression, Schema.Unknown))
        assert.strictEqual(error._tag, "UnsupportedValue", expression)
      }
      assert.deepStrictEqual(
        yield* kernel.evaluate("{float('nan'), 'nan', 1, Path('b')}", Schema.ReadonlySet(Schema.Unknown)),
        new Set([NaN, "nan", 1, "b"]),
      )
      for (const value of [new Set([1, true]), new Map<unknown, string>([[1, "a"], [true, "b"]])]) {
        const error = yield* Effect.flip(kernel.set("collapsed", value))
        assert.strictEqual(error._tag, "UnsupportedValue")
        assert.include(error.message, "the same in Python")
      }
      assert.isFalse(yield* kernel.evaluate("'collapsed' in globals()", Schema.Boolean))
    }))

  it.effect("evaluate keeps the shape of an array, or refuses it", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const error = yield* Effect.flip(
        kernel.set("m", new Values.NdArray(Float64Array.of(1, 2, 3, 4), [2, 2])),
      )
      assert.strictEqual(error._tag, "UnsupportedValue")
      assert.include(error.message, "NumPy")
    }))

  it.effect("evaluate shows an exception of the user unchanged, also one of a frozen class", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      const error = yield* Effect.flip(kernel.evaluate("boom()", Schema.Unknown))
      assert.strictEqual(error._tag === "ExecutionError" ? error.ename : error._tag, "Frozen")
      assert.notInclude(error.message, "effect_jupyter")
      const cell = yield* Effect.flip(kernel.execute("boom()"))
      assert.include(cell.message, "----> 1 boom()")
    }))

  it.effect("ExecutionError has no frames of the library, wherever the code raises", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      const error = yield* Effect.flip(kernel.evaluate("[Lazy(1)]", Schema.Unknown))
      assert.include(error.message, "no x")
      assert.include(error.message, `raise ValueError("no x")`)
      assert.notInclude(error.message, "effect_jupyter")
    }))

  it.effect("evaluate fails with SyntaxError for unbalanced brackets", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      for (const expression of ["1) + (2", "1), (2", "1] + [2"]) {
        const error = yield* Effect.flip(kernel.evaluate(expression, Schema.Unknown))
        assert.strictEqual(error._tag === "ExecutionError" ? error.ename : error._tag, "SyntaxError")
      }
      assert.deepStrictEqual(yield* kernel.evaluate("\n 1,\n 2\n", Schema.Unknown), [1, 2])
      assert.strictEqual(yield* kernel.evaluate("\n(yes :=\n 3)", Schema.Int), 3)
      const squares = kernel.iterate("n * n for n in range(3)", Schema.Int)
      assert.deepStrictEqual(yield* Stream.runCollect(squares), [0, 1, 4])
    }))

  it.effect("UnsupportedValue names a class without a module", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      yield* kernel.execute("space = {}\nexec(\"Nameless = type('Nameless', (), {})\", space)")
      const error = yield* Effect.flip(kernel.evaluate("space['Nameless']()", Schema.Unknown))
      assert.strictEqual(error._tag === "UnsupportedValue" ? error.valueType : error._tag, "Nameless")
    }))

  it.effect("evaluate and call fetch no value with Schema.Void", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      assert.strictEqual(yield* kernel.evaluate("object()", Schema.Void), undefined)
    }))

  it.effect("iterate and feed accept any batch size", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      for (const batchSize of [Infinity, -Infinity, NaN, 1.5, 0]) {
        const elements = Stream.runCollect(kernel.iterate("range(3)", Schema.Int, { batchSize }))
        assert.deepStrictEqual(yield* elements, [0, 1, 2], String(batchSize))
        const sizes = Stream.runCollect(
          kernel.feed("len", Stream.range(1, 3), { returns: Schema.Int, batchSize }),
        )
        assert.deepStrictEqual(yield* sizes, batchSize === Infinity ? [3] : [1, 1, 1], String(batchSize))
      }
    }))

  it.effect("evaluate logs output and displays without onChunk, also if the schema refuses the value", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      const logged: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) =>
        void logged.push(`${logLevel} ${JSON.stringify(message)}`)
      )
      const expression = "print('said') or display({'text/html': '<b>shown</b>'}, raw=True)"
      yield* Effect.flip(kernel.evaluate(expression, Schema.Int)).pipe(
        Effect.provide(Logger.layer([logger])),
      )
      const line = logged.find((line) => line.startsWith("Info")) ?? assert.fail(logged.join("\n"))
      assert.include(line, "said")
      assert.include(line, "<b>shown</b>")
    }))

  it.effect("timeout bounds the upload and the execution together", () =>
    Effect.gen(function* () {
      const kernel = yield* kernelOverServer
      yield* kernel.execute("import time\ndef use(value): time.sleep(1.5)")
      yield* kernel.evaluate("1", Schema.Int)
      yield* kernel.execute(`
import sys
ours = sys.modules["effect_jupyter.values.executions"]
keep = ours.keep
def slowly(first):
    time.sleep(0.7)
    keep(first)
ours.keep = slowly
`)
      // Two parts take 1.4 seconds.
      const call = kernel.call("use", [new Uint8Array(9_000_000)], {
        returns: Schema.Void,
        timeout: "2300 millis",
      })
      assert.strictEqual((yield* Effect.flip(call))._tag, "ExecutionTimeout")
      assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
    }))

  it.effect("timeout bounds the first use and the execution together", () =>
    Effect.gen(function* () {
      const kernel = yield* kernelOverServer
      yield* kernel.execute(`
import time, types
Module = types.ModuleType
class Slowly(Module):
    def __init__(self, name):
        time.sleep(0.25)
        super().__init__(name)
types.ModuleType = Slowly
`)
      // Seven modules take 1.75 seconds.
      const sleep = (seconds: number) =>
        kernel.evaluate(`time.sleep(${seconds})`, Schema.Void, { timeout: "2500 millis" })
      assert.strictEqual((yield* Effect.flip(sleep(1.9)))._tag, "ExecutionTimeout")
      assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
      // The second use has nothing to load.
      yield* sleep(1.9)
      const other = yield* kernelOverServer
      yield* other.execute(`
import time, types
class Hanging(types.ModuleType):
    def __init__(self, name): time.sleep(60)
types.ModuleType = Hanging`)
      const error = yield* Effect.flip(other.evaluate("1", Schema.Int, { timeout: "500 millis" }))
      assert.strictEqual(error._tag, "ExecutionTimeout")
    }))

  it.effect("call does not split a name at characters that only look like a colon or a dot", () =>
    Effect.gen(function* () {
      const kernel = yield* ready
      for (const name of ["math\uff1afloor", "math:floor\uff0e__call__"]) {
        const error = yield* Effect.flip(kernel.call(name, [2.5], { returns: Schema.Int }))
        assert.strictEqual(error._tag, "InvalidName", name)
      }
      assert.strictEqual(yield* kernel.call("math:\uff46loor", [2.5], { returns: Schema.Int }), 2)
    }))
})
