// @effect-diagnostics schemaNumber:off
/** Values of pandas, pydantic and Arrow, in an environment that has them. */
import { assert, layer } from "@effect/vitest"
import { DateTime, Effect, Schema, Stream } from "effect"
import { KernelClient, Values } from "../src/mod.ts"
import { kernelLayer, slow } from "./support/kernel.ts"
import { utc } from "./support/values.ts"

const packages = ["pandas", "pydantic", "pyarrow"]
const { KernelClient: Client } = KernelClient

const frames = `
import pandas as pd
frame = pd.DataFrame({
    "id": [1, 2, 3],
    "price": [1.5, None, 3.0],
    "name": ["a", None, "c"],
    "at": pd.to_datetime(["2026-01-01T00:00:00Z", None, "2026-01-03T00:00:00.5Z"], format="ISO8601"),
    "count": pd.array([1, None, 3], dtype="Int64"),
    "kind": pd.Categorical(["x", "y", "x"]),
})
`

const prepared = Effect.tap(Client, (kernel) => kernel.execute(frames))

const Row = Schema.Struct({
  id: Schema.Int,
  price: Schema.Number,
  name: Schema.NullOr(Schema.String),
  at: Schema.NullOr(Schema.DateTimeUtc),
  count: Schema.NullOr(Schema.BigInt),
  kind: Schema.Literals(["x", "y"]),
})

layer(kernelLayer({ python: { packages } }), slow)("tables", (it) => {
  it.effect("evaluate does not import pandas", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.evaluate("[1]", Schema.Unknown)
      yield* kernel.set("x", Float64Array.of(1))
      const loaded =
        "[name for name in ('numpy', 'pandas', 'pydantic', 'pyarrow') if name in __import__('sys').modules]"
      assert.deepStrictEqual(yield* kernel.evaluate(loaded, Schema.Unknown), [])
    }), 180_000)

  it.effect("evaluate decodes a DataFrame as rows or columns", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const rows = yield* kernel.evaluate("frame", Schema.Array(Row))
      assert.deepStrictEqual(rows, [
        { id: 1, price: 1.5, name: "a", at: utc("2026-01-01T00:00:00Z"), count: 1n, kind: "x" },
        { id: 2, price: NaN, name: null, at: null, count: null, kind: "y" },
        { id: 3, price: 3, name: "c", at: utc("2026-01-03T00:00:00.5Z"), count: 3n, kind: "x" },
      ])
      const Columns = Schema.Struct({
        id: Schema.Array(Schema.BigInt),
        name: Schema.Array(Schema.NullOr(Schema.String)),
      })
      assert.deepStrictEqual(yield* kernel.evaluate("frame", Columns), {
        id: [1n, 2n, 3n],
        name: ["a", null, "c"],
      })
      assert.deepStrictEqual(yield* kernel.evaluate("{'f': frame[['id']].iloc[:0]}", Schema.Unknown), {
        f: [],
      })
    }))

  it.effect("evaluate decodes Series, Index, Timestamp, Timedelta and missing values", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const value = <S extends Schema.ConstraintDecoder<unknown>>(expression: string, schema: S) =>
        kernel.evaluate(expression, schema)
      assert.deepStrictEqual(yield* value("frame['id'] * 2", Schema.Array(Schema.Int)), [2, 4, 6])
      assert.deepStrictEqual(
        yield* value("frame['id']", Schema.instanceOf(BigInt64Array)),
        BigInt64Array.of(1n, 2n, 3n),
      )
      assert.deepStrictEqual(yield* value("frame['price']", Schema.Array(Schema.Unknown)), [1.5, NaN, 3])
      assert.deepStrictEqual(
        yield* value("frame.groupby('kind', observed=True)['id'].sum().index", Schema.Unknown),
        [
          "x",
          "y",
        ],
      )
      assert.deepStrictEqual(yield* value("frame['id'].mean()", Schema.Finite), 2)
      assert.deepStrictEqual(yield* value("pd.NaT, pd.NA", Schema.Unknown), [null, null])
      const stamp = yield* value(
        "pd.Timestamp('2026-01-01T00:00:00.123456789', tz='Europe/Berlin')",
        Schema.DateTimeZoned,
      )
      assert.strictEqual(DateTime.formatIsoZoned(stamp), "2026-01-01T00:00:00.123+01:00[Europe/Berlin]")
      assert.strictEqual(yield* value("pd.Timedelta('1 day 1us')", Schema.String), "PT86400.000001S")
      assert.deepStrictEqual(yield* value("pd.Series({'a': 1, 'b': 2}).to_dict()", Schema.Unknown), {
        a: 1,
        b: 2,
      })
    }))

  it.effect("evaluate refuses tables without an encoding, with the path", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const error = (expression: string) =>
        Effect.map(
          Effect.flip(kernel.evaluate(expression, Schema.Unknown)),
          (error) => error._tag === "UnsupportedValue" ? [error.path, error.valueType] : [error._tag],
        )
      assert.deepStrictEqual(yield* error("{'f': pd.DataFrame({'a': [1, {'b': object()}]})}"), [
        "$.f[1].a.b",
        "object",
      ])
      assert.deepStrictEqual(yield* error("pd.DataFrame([[1, 2]], columns=['a', 'a'])"), [
        "$",
        "pandas.DataFrame",
      ])
    }))

  it.effect("iterate emits the rows of a DataFrame in slices", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute(
        "big = pd.DataFrame({'n': range(10_000), 's': [f'row {n}' for n in range(10_000)]})",
      )
      const Big = Schema.Struct({ n: Schema.Int, s: Schema.String })
      const rows = yield* Stream.runCollect(kernel.iterate("big", Big, { batchSize: 3000 }))
      assert.deepStrictEqual(rows, Array.from({ length: 10_000 }, (_, n) => ({ n, s: `row ${n}` })))
      const some = yield* Stream.runCollect(
        kernel.iterate("big", Big, { batchBytes: 1000 }).pipe(Stream.take(100)),
      )
      assert.strictEqual(some.at(-1)?.n, 99)
      assert.deepStrictEqual(yield* Stream.runCollect(kernel.iterate("big.iloc[:0]", Big)), [])
      const emitted: Array<unknown> = []
      const error = yield* kernel.iterate("pd.DataFrame({'n': [1, 2, object()], 's': ''})", Big).pipe(
        Stream.runForEach((row) => Effect.sync(() => void emitted.push(row.n))),
        Effect.flip,
      )
      assert.deepStrictEqual(emitted, [1, 2])
      assert.deepInclude({ ...error }, { _tag: "UnsupportedValue", path: "$[2].n" })
    }))

  it.effect(
    "iterate bounds slices of large rows by bytes, as a DataFrame and as Arrow",
    () =>
      Effect.gen(function* () {
        const kernel = yield* prepared
        yield* kernel.execute(`
import sys
import pyarrow as pa
wide = pd.DataFrame({"n": range(100), "s": ["x" * 1_000_000] * 100})
table = pa.Table.from_pandas(wide)
exchange = sys.modules["effect_jupyter.values.requests"].Exchange
send, sizes = exchange.answer, []
def answer(self, content, text=b"", buffers=()):
    sizes.append(len(text) + sum(map(len, buffers)))
    return send(self, content, text, buffers)
exchange.answer = answer
`)
        const Wide = Schema.Struct({ n: Schema.Int, s: Schema.String })
        const numbers = yield* kernel.iterate("wide", Wide).pipe(Stream.map(({ n }) => n), Stream.runCollect)
        assert.deepStrictEqual(numbers, Array.from({ length: 100 }, (_, n) => n))
        for (const expression of ["wide", "table"]) {
          const parts = yield* Stream.runCollect(
            kernel.iterate(expression, Schema.Uint8Array, { tables: "arrow" }),
          )
          yield* kernel.execute("exchange.answer = send")
          yield* kernel.set("parts", parts)
          assert.isTrue(
            yield* kernel.evaluate(
              "pa.concat_tables([pa.ipc.open_stream(part).read_all() for part in parts]).equals(table)",
              Schema.Boolean,
            ),
          )
          yield* kernel.execute("exchange.answer = answer")
        }
        yield* kernel.execute("exchange.answer = send")
        assert.isAtMost(Math.max(...yield* kernel.evaluate("sizes", Schema.Array(Schema.Int))), 8_500_000)
        yield* kernel.execute("del wide, table, parts")
      }),
    180_000,
  )

  it.effect("evaluate keeps arrays and columns of each type, or refuses them by type and path", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute("import numpy as np\ncircle = np.empty(2, object)\ncircle[0] = circle")
      const value = (expression: string) => kernel.evaluate(expression, Schema.Unknown)
      for (
        const [expression, expected] of [
          ["np.array(5), np.array('x'), np.array(None)", [5, "x", null]],
          ["np.array([[1, 2], [3, 4]], '>i4')[:, ::-1].tolist()", [[2, 1], [4, 3]]],
          ["np.array([1.5], '>f8'), np.array([1], '>u2')", [Float64Array.of(1.5), Uint16Array.of(1)]],
          ["np.array(['2026-01-01', 'NaT'], 'M8[D]'), np.datetime64('NaT')", [["2026-01-01", null], null]],
          ["np.array([(1, (2.5, 'x'))], [('a', 'i4'), ('b', [('c', 'f8'), ('d', 'U1')])])", [
            { a: 1, b: { c: 2.5, d: "x" } },
          ]],
          ["np.array([(1, [1, 2])], [('a', 'i4'), ('b', 'i4', (2,))])", [{ a: 1, b: [1, 2] }]],
          ["pd.DataFrame({'v': [1]}, index=pd.MultiIndex.from_tuples([('a', 1)]))", [{ v: 1 }]],
          ["pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([('a', 1)]))", [{ "('a', 1)": 1 }]],
          ["pd.MultiIndex.from_tuples([('a', 1), ('b', 2)])", [["a", 1], ["b", 2]]],
          ["pd.DataFrame({'b': pd.array([True, None], 'boolean'), 'f': pd.array([1.5, None], 'Float64')})", [
            { b: true, f: 1.5 },
            { b: null, f: null },
          ]],
          ["pd.Series(['a', None, float('nan'), pd.NA])", ["a", null, null, null]],
          ["pd.Categorical(['a', None]).tolist()", ["a", NaN]],
        ] as const
      ) assert.deepStrictEqual(yield* value(expression), expected, expression)
      const reversed = yield* kernel.evaluate(
        "np.array([[1, 2], [3, 4]], '>i4')[:, ::-1]",
        Schema.instanceOf(Values.NdArray),
      )
      assert.deepStrictEqual(reversed, new Values.NdArray(Int32Array.of(2, 1, 4, 3), [2, 2]))
      for (
        const [expression, type, path] of [
          ["circle", "list", /^\$(\[0\]){200}$/],
          ["pd.DataFrame({'a': [1], 'c': [[circle]]})", "list", /^\$\[0\]\.c(\[0\]){199}$/],
          ["{'s': pd.Series([1j])}", "complex", /^\$\.s\[0\]$/],
          ["[pd.Period('2026-01')]", "pandas.Period", /^\$\[0\]$/],
        ] as const
      ) {
        const error = yield* Effect.flip(value(expression))
        if (error._tag !== "UnsupportedValue") return assert.fail(error.message)
        assert.strictEqual(error.valueType.replace(/\._libs.*\./, "."), type)
        assert.match(error.path, path)
      }
    }))

  it.effect("evaluate and set exchange Arrow tables with the option tables", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const bytes = yield* kernel.evaluate("frame", Schema.Uint8Array, { tables: "arrow" })
      yield* kernel.set("arrow", bytes)
      yield* kernel.execute("import pyarrow as pa\nback = pa.ipc.open_stream(arrow).read_pandas()")
      assert.isTrue(yield* kernel.evaluate("back.equals(frame)", Schema.Boolean))
      const table = yield* kernel.evaluate("pa.table({'a': [1]})", Schema.Uint8Array, { tables: "arrow" })
      assert.isAbove(table.length, 100)
      const error = yield* Effect.flip(kernel.evaluate("pa.table({'a': [1]})", Schema.Unknown))
      assert.include(error.message, `"tables"`)
      const parts = yield* Stream.runCollect(
        kernel.iterate("(frame for _ in range(2))", Schema.Uint8Array, { tables: "arrow" }),
      )
      assert.deepStrictEqual(parts, [bytes, bytes])
    }))

  it.effect("iterate with Arrow emits slices of a DataFrame and record batches of a table, and refuses a column", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const slices = (expression: string) =>
        Stream.runCollect(
          kernel.iterate(expression, Schema.Uint8Array, { tables: "arrow", batchSize: 2 }),
        )
      yield* kernel.execute(
        "import pyarrow as pa\ndef join(parts):\n    return pa.concat_tables([pa.ipc.open_stream(p).read_all() for p in parts])",
      )
      for (
        const [expression, same] of [
          ["frame", "join(parts).to_pandas().equals(frame)"],
          ["pa.Table.from_pandas(frame)", "join(parts).to_pandas().equals(frame)"],
        ] as const
      ) {
        const parts = yield* slices(expression)
        assert.lengthOf(parts, 2)
        yield* kernel.set("parts", parts)
        assert.isTrue(yield* kernel.evaluate(same, Schema.Boolean), expression)
      }
      for (const expression of ["pa.array([1])", "pa.chunked_array([[1]])"]) {
        const error = yield* Effect.flip(kernel.evaluate(expression, Schema.Uint8Array, { tables: "arrow" }))
        assert.strictEqual(error._tag, "UnsupportedValue", expression)
      }
    }))

  it.effect("evaluate keeps times of NumPy and pandas exactly, or refuses them by type and path", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute("import numpy as np")
      const value = (expression: string) => kernel.evaluate(expression, Schema.Unknown)
      const texts = (expression: string) => kernel.evaluate(expression, Schema.Array(Schema.String))
      const refused = (expression: string) =>
        Effect.map(
          Effect.flip(value(expression)),
          (error) => error._tag === "UnsupportedValue" ? [error.valueType, error.path] : [error.message],
        )
      for (
        const [expression, valueType, path] of [
          ["np.array(['2026-01-01', '20000-01-01'], 'M8[D]')", "numpy.datetime64", "$[1]"],
          ["np.array([['20000-01-01']], 'M8[s]')", "numpy.datetime64", "$[0][0]"],
          ["np.array([10**18], 'm8[s]')", "numpy.timedelta64", "$[0]"],
          ["np.array([1000, 1500], 'm8[ns]')", "numpy.timedelta64", "$[1]"],
          ["np.array(['2026-01-01T00:00:00.123456789'], 'M8[ns]')", "numpy.datetime64", "$[0]"],
          ["np.datetime64('2026-01-01T00:00:00.123456789')", "numpy.datetime64", "$"],
          ["np.array([(1500,)], [('a', 'm8[ns]')])", "numpy.timedelta64", "$[0].a"],
          ["[pd.Timedelta('1500ns')]", "pandas.Timedelta", "$[0]"],
          ["pd.Series([pd.Timedelta('1500ns')])", "pandas.Timedelta", "$[0]"],
        ] as const
      ) {
        const [type = "", at] = yield* refused(expression)
        assert.deepStrictEqual([type.replace(/\._libs.*\./, "."), at], [valueType, path], expression)
      }
      const day = "2026-01-01T00:00:00"
      assert.deepStrictEqual(yield* texts("np.array(['2026-01-01'], 'M8[D]')"), ["2026-01-01"])
      assert.deepStrictEqual(yield* texts("np.array(['2026-01-01'], 'M8[ns]')"), [day])
      assert.deepStrictEqual(yield* texts("np.array([1000, 2000], 'm8[ns]')"), ["PT0.000001S", "PT0.000002S"])
      assert.strictEqual(yield* kernel.evaluate("np.array('2026-01-01', 'M8[ns]')", Schema.String), day)
      const masked = "np.ma.array(np.array(['2026-01-01', 'NaT', '2026-01-01'], 'M8[ns]'), mask=[0, 0, 1])"
      assert.deepStrictEqual(yield* kernel.evaluate(masked, Schema.Array(Schema.NullOr(Schema.String))), [
        day,
        null,
        null,
      ])
      assert.deepStrictEqual(
        yield* kernel.evaluate(
          "np.array([[('2026-01-01', 1)], [('2026-01-01', 2)]], [('at', 'M8[ns]'), ('n', 'i4')])",
          Schema.Array(Schema.Array(Schema.Struct({ at: Schema.String, n: Schema.Int }))),
        ),
        [[{ at: day, n: 1 }], [{ at: day, n: 2 }]],
      )
      assert.deepStrictEqual(yield* value("np.zeros((2, 2), [('a', 'i4')])"), [
        [{ a: 0 }, { a: 0 }],
        [{ a: 0 }, { a: 0 }],
      ])
      assert.deepStrictEqual(yield* value("np.zeros((0, 2), [('a', 'i4')])"), [])
    }))

  it.effect("evaluate decodes pydantic models", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute(`
from datetime import datetime, timezone
from decimal import Decimal
import pydantic
class Item(pydantic.BaseModel):
    price: Decimal
    raw: bytes = b""
class Order(pydantic.BaseModel):
    id: int
    at: datetime
    items: list[Item] = []
    other: object = None
    @pydantic.computed_field
    @property
    def total(self) -> Decimal:
        return sum(item.price for item in self.items)
order = Order(id=1, at=datetime(2026, 1, 1, tzinfo=timezone.utc), items=[Item(price="1.10", raw=b"a")])
`)
      const Order = Schema.Struct({
        id: Schema.BigInt,
        at: Schema.DateTimeUtc,
        items: Schema.Array(Schema.Struct({ price: Schema.String, raw: Schema.Uint8Array })),
        total: Schema.String,
      })
      assert.deepStrictEqual(yield* kernel.evaluate("order", Order), {
        id: 1n,
        at: utc("2026-01-01T00:00:00Z"),
        items: [{ price: "1.10", raw: Uint8Array.of(97) }],
        total: "1.10",
      })
      yield* kernel.set("given", { id: 2, at: utc("2026-01-01T00:00:00Z"), items: [{ price: "2" }] })
      assert.strictEqual(yield* kernel.evaluate("Order.model_validate(given).total", Schema.String), "2")
    }))
})
