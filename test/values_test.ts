// @effect-diagnostics globalDate:off schemaNumber:off
/** Values between Effect and a kernel that runs: types, texts, failures. */
import { assert, layer } from "@effect/vitest"
import {
  Arbitrary,
  BigDecimal,
  DateTime,
  Duration,
  Effect,
  Fiber,
  HashMap,
  HashSet,
  Option,
  Schema,
  Stream,
} from "effect"
import { inspect } from "node:util"
import { type Execution, KernelClient, Values } from "../src/mod.ts"
import * as Any from "./support/arbitrary.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"
import { timed } from "./support/outcome.ts"

const { KernelClient: Client } = KernelClient

const imports = `
import asyncio, array, collections, dataclasses, enum, sys, time, types, uuid
from datetime import date, datetime, time as clock, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

@dataclasses.dataclass
class Point:
    x: int
    y: object = None

class Colour(enum.Enum):
    RED = "red"

class Level(enum.IntEnum):
    LOW = 1

Pair = collections.namedtuple("Pair", "left right")

class Text(str):
    pass

async def later(value, seconds=0.01):
    await asyncio.sleep(seconds)
    return value
`

/** A kernel that has all that the expressions of these tests need. */
const prepared = Effect.tap(Client, (kernel) => kernel.execute(imports))

const utc = (iso: string) => DateTime.makeUnsafe(iso)

layer(kernelLayer(), slow)("evaluate", (it) => {
  const table = <S extends Schema.ConstraintDecoder<unknown>>(
    title: string,
    rows: ReadonlyArray<readonly [expression: string, schema: S, value: NoInfer<S["Type"]>]>,
  ) =>
    it.effect(title, () =>
      Effect.gen(function* () {
        const kernel = yield* prepared
        for (const [expression, schema, value] of rows) {
          assert.deepStrictEqual(yield* kernel.evaluate(expression, schema), value, expression)
        }
      }))

  table<Schema.ConstraintDecoder<unknown>>("every type of Python by its natural schema", [
    ["None", Schema.Null, null],
    ["None", Schema.Void, undefined],
    ["None", Schema.NullOr(Schema.String), null],
    ["None", Schema.UndefinedOr(Schema.String), undefined],
    ["None", Schema.OptionFromNullOr(Schema.Int), Option.none()],
    ["[None, 1]", Schema.Array(Schema.Option(Schema.Int)), [Option.none(), Option.some(1)]],
    ["True, False", Schema.Tuple([Schema.Boolean, Schema.Boolean]), [true, false]],
    ["2**53 - 1, -1", Schema.Array(Schema.Int), [9007199254740991, -1]],
    ["2**53, -2**64, 7", Schema.Array(Schema.BigInt), [9007199254740992n, -18446744073709551616n, 7n]],
    ["10**5000", Schema.BigInt, 10n ** 5000n],
    ["1.5, -0.0, float('inf'), float('-inf')", Schema.Array(Schema.Number), [1.5, -0, Infinity, -Infinity]],
    ["float('nan')", Schema.Number, NaN],
    ["0.1 + 0.2, 5e-324, 1.7976931348623157e308", Schema.Array(Schema.Finite), [
      0.30000000000000004,
      5e-324,
      1.7976931348623157e308,
    ]],
    ["Text('s')", Schema.String, "s"],
    ["'\\ud800', '\\udfff x'", Schema.Array(Schema.String), ["\ud800", "\udfff x"]],
    ["b'\\x00\\xff', bytearray(b'a'), memoryview(b'b')", Schema.Array(Schema.Uint8Array), [
      Uint8Array.of(0, 255),
      Uint8Array.of(97),
      Uint8Array.of(98),
    ]],
    ["range(3), collections.deque([1]), {1: 2}.keys()", Schema.Array(Schema.Array(Schema.Int)), [
      [0, 1, 2],
      [1],
      [1],
    ]],
    ["{1, 2}", Schema.ReadonlySet(Schema.Int), new Set([1, 2])],
    ["frozenset({'a'})", Schema.HashSet(Schema.String), HashSet.make("a")],
    ["{3}", Schema.Array(Schema.BigInt), [3n]],
    ["{'a': 1, 'b': {}}", Schema.Struct({ a: Schema.Int, b: Schema.Struct({}) }), { a: 1, b: {} }],
    ["collections.OrderedDict(a=1)", Schema.Record(Schema.String, Schema.Int), { a: 1 }],
    ["types.MappingProxyType({'a': 1})", Schema.HashMap(Schema.String, Schema.Int), HashMap.make(["a", 1])],
    [
      "{1: 'a', (1, 2): 'b', None: 'c'}",
      Schema.ReadonlyMap(Schema.Unknown, Schema.String),
      new Map<unknown, string>([
        [1, "a"],
        [[1, 2], "b"],
        [null, "c"],
      ]),
    ],
    [
      "{'$': 'bytes', 'v': 1, '__proto__': 2}",
      Schema.Record(Schema.String, Schema.Unknown),
      JSON.parse(
        '{"$": "bytes", "v": 1, "__proto__": 2}',
      ),
    ],
    ["Point(1, Point(2))", Schema.Struct({ x: Schema.Int, y: Schema.Unknown }), {
      x: 1,
      y: { x: 2, y: null },
    }],
    ["Pair(1, 2)", Schema.Struct({ left: Schema.Int, right: Schema.Int }), { left: 1, right: 2 }],
    ["Colour.RED, Level.LOW", Schema.Tuple([Schema.Literal("red"), Schema.Literals([1, 2])]), ["red", 1]],
    ["uuid.UUID(int=1), Path('/a') / 'b', clock(1, 2, 3)", Schema.Array(Schema.String), [
      "00000000-0000-0000-0000-000000000001",
      "/a/b",
      "01:02:03",
    ]],
    ["Decimal('1.50'), 2, 10**30", Schema.Array(Schema.BigDecimal), [
      BigDecimal.fromStringUnsafe("1.50"),
      BigDecimal.fromStringUnsafe("2"),
      BigDecimal.fromBigInt(10n ** 30n),
    ]],
    ["Decimal('NaN'), Decimal('0.1')", Schema.Array(Schema.String), ["NaN", "0.1"]],
    ["timedelta(days=1, microseconds=5), timedelta(0, -1)", Schema.Array(Schema.Duration), [
      Duration.nanos(86_400_000_005_000n),
      Duration.millis(-1000),
    ]],
    ["timedelta(seconds=1.5)", Schema.String, "PT1.5S"],
  ])

  table<Schema.ConstraintDecoder<unknown>>("moments, with and without a zone, as the schema wants them", [
    [
      "datetime(2026, 1, 2, 3, 4, 5, 678901, timezone.utc)",
      Schema.String,
      "2026-01-02T03:04:05.678901+00:00",
    ],
    [
      "datetime(2026, 1, 2, 3, 4, 5, 678901, timezone.utc)",
      Schema.DateTimeUtc,
      utc("2026-01-02T03:04:05.678Z"),
    ],
    [
      "datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2)))",
      Schema.Date,
      new Date("2026-01-01T22:00:00Z"),
    ],
    ["datetime(2026, 1, 2)", Schema.DateTimeUtc, utc("2026-01-02T00:00:00Z")],
    ["datetime(2026, 1, 2)", Schema.DateTimeUtcFromString, utc("2026-01-02T00:00:00")],
    ["datetime(2026, 1, 2)", Schema.String, "2026-01-02T00:00:00"],
    ["datetime(2026, 1, 2)", Schema.DateTimeUtcFromDate, utc("2026-01-02T00:00:00Z")],
    ["date(2026, 1, 2)", Schema.Date, new Date("2026-01-02T00:00:00Z")],
    ["date(2026, 1, 2)", Schema.String, "2026-01-02"],
    ["datetime(1, 1, 1, tzinfo=timezone.utc)", Schema.DateTimeUtc, utc("0001-01-01T00:00:00Z")],
  ])

  it.effect("a zone of its own comes along", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const [berlin, offset] = yield* kernel.evaluate(
        "datetime(2026, 7, 1, tzinfo=ZoneInfo('Europe/Berlin')), datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=-3)))",
        Schema.Tuple([Schema.DateTimeZoned, Schema.DateTimeZoned]),
      )
      assert.strictEqual(DateTime.formatIsoZoned(berlin), "2026-07-01T00:00:00.000+02:00[Europe/Berlin]")
      assert.strictEqual(DateTime.formatIsoZoned(offset), "2026-07-01T00:00:00.000-03:00")
    }))

  it.effect("without a schema's say every value has a natural form", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const expression =
        "1, 2**60, 1.5, None, b'a', [Decimal('1')], {'at': datetime(2026, 1, 1, tzinfo=timezone.utc)}"
      assert.deepStrictEqual(yield* kernel.evaluate(expression, Schema.Unknown), [
        1,
        2n ** 60n,
        1.5,
        null,
        Uint8Array.of(97),
        [BigDecimal.fromStringUnsafe("1")],
        { at: utc("2026-01-01T00:00:00Z") },
      ])
    }))

  it.effect("schemas of all shapes: unions, recursion, transformations, classes", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      interface Tree {
        readonly at: Date
        readonly children: ReadonlyArray<Tree>
      }
      const Tree: Schema.Codec<Tree> = Schema.Struct({
        at: Schema.Date,
        children: Schema.Array(Schema.suspend(() => Tree)),
      })
      const day = (n: number) => new Date(Date.UTC(2026, 0, n))
      assert.deepStrictEqual(
        yield* kernel.evaluate(
          "{'at': date(2026, 1, 1), 'children': ({'at': date(2026, 1, 2), 'children': ()},)}",
          Tree,
        ),
        { at: day(1), children: [{ at: day(2), children: [] }] },
      )
      class Shape extends Schema.Class<Shape>("Shape")({
        size: Schema.BigInt,
        name: Schema.optionalKey(Schema.Trim),
      }) {}
      const shape = yield* kernel.evaluate("{'size': 1, 'name': ' a '}", Shape)
      assert.instanceOf(shape, Shape)
      assert.deepStrictEqual([shape.size, shape.name], [1n, "a"])
      const Either = Schema.Union([
        Schema.TaggedStruct("Bytes", { value: Schema.Uint8Array }),
        Schema.TaggedStruct("Time", { value: Schema.Duration }),
        Schema.Date,
        Schema.BigInt,
      ])
      assert.deepStrictEqual(
        yield* kernel.evaluate(
          "{'_tag': 'Time', 'value': timedelta(0, 1)}, {'_tag': 'Bytes', 'value': b''}, date(2026, 1, 1), 1",
          Schema.Array(Either),
        ),
        [
          { _tag: "Time", value: Duration.seconds(1) },
          { _tag: "Bytes", value: new Uint8Array() },
          day(1),
          1n,
        ],
      )
      const Renamed = Schema.Struct({ startedAt: Schema.DateTimeUtc }).pipe(
        Schema.encodeKeys({ startedAt: "started_at" }),
      )
      assert.deepStrictEqual(yield* kernel.evaluate("{'started_at': date(2026, 1, 1)}", Renamed), {
        startedAt: utc("2026-01-01T00:00:00Z"),
      })
    }))

  it.effect("what the schema refuses is a SchemaError that says where", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const refused = <S extends Schema.ConstraintDecoder<unknown>>(expression: string, schema: S) =>
        Effect.map(Effect.flip(kernel.evaluate(expression, schema)), (error) => {
          assert.strictEqual(error._tag, "SchemaError", expression)
          return error.message
        })
      assert.include(
        yield* refused("{'rows': [1, 'x']}", Schema.Struct({ rows: Schema.Array(Schema.Int) })),
        `["rows"][1]`,
      )
      yield* refused("2**53", Schema.Number)
      yield* refused("1.5", Schema.BigInt)
      yield* refused("1e300", Schema.BigInt)
      yield* refused("float('nan')", Schema.Finite)
      yield* refused("'aGk='", Schema.Uint8Array)
      yield* refused("'2026-01-01'", Schema.Date)
      yield* refused("datetime(2026, 1, 1)", Schema.DateTimeZoned)
      yield* refused("None", Schema.String)
    }))

  it.effect("what has no encoding is an UnsupportedValue with type and path, and the text before it is kept", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const unsupported = (expression: string) =>
        Effect.map(Effect.flip(kernel.evaluate(expression, Schema.Unknown)), (error) => {
          assert.instanceOf(error, Values.UnsupportedValue)
          return error instanceof Values.UnsupportedValue ? error : assert.fail()
        })
      const error = yield* unsupported("print('said') or {'rows': [0, 1, 2, {'handle': sys.stdout}]}")
      assert.strictEqual(error.path, "$.rows[3].handle")
      assert.match(error.valueType, /Stream$/)
      assert.strictEqual(error.partial?.text, "said")
      assert.include(error.message, "$.rows[3].handle")
      assert.deepInclude({ ...(yield* unsupported("{'a b': {(1, 2): lambda: 1}}")) }, {
        path: `$["a b"][(1, 2)]`,
        valueType: "function",
      })
      assert.strictEqual((yield* unsupported("Point(1, [object()])")).path, "$.y[0]")
      assert.include((yield* unsupported("(n for n in range(3))")).detail, "iterate")
      assert.strictEqual((yield* unsupported("1j")).valueType, "complex")
      assert.strictEqual((yield* unsupported("Point")).valueType, "type")
    }))

  it.effect("cycles and depth are errors, not hangs", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute(
        "cycle = {'a': []}\ncycle['a'].append(cycle)\ndeep = []\nfor _ in range(100_000): deep = [deep]",
      )
      const of = (name: string) => Effect.flip(kernel.evaluate(name, Schema.Unknown))
      assert.include((yield* of("cycle")).message, "contains itself")
      assert.include((yield* of("deep")).message, "nested deeper")
      assert.deepStrictEqual(yield* kernel.evaluate("[[a := [1], a], 5]", Schema.Unknown), [[[1], [1]], 5])
    }))

  it.effect("await, several lines, blanks and comments", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const value = (expression: string) => kernel.evaluate(expression, Schema.Int)
      assert.strictEqual(yield* value("await later(1) + await later(2)"), 3)
      assert.strictEqual(yield* value("later(4)"), 4)
      assert.strictEqual(yield* value("sum([await later(n) for n in range(3)])"), 3)
      assert.strictEqual(yield* value("\n    1 +  # one\n    2\n  "), 3)
      assert.strictEqual(yield* value("(lambda n: n + 1)(1)"), 2)
    }))

  it.effect("an exception has the traceback of the expression, without frames of ours", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute("def broken(n):\n    return 1 / n")
      const error = yield* Effect.flip(kernel.evaluate("[broken(n) for n in (1, 0)]", Schema.Unknown))
      assert.strictEqual(error._tag, "ExecutionError")
      if (error._tag !== "ExecutionError") return
      assert.strictEqual(error.ename, "ZeroDivisionError")
      assert.include(error.message, "----> 1 [broken(n) for n in (1, 0)]")
      assert.include(error.message, "return 1 / n")
      assert.notInclude(error.message, "effect_jupyter")
      const syntax = yield* Effect.flip(kernel.evaluate("x = 1", Schema.Unknown))
      assert.strictEqual(syntax._tag === "ExecutionError" ? syntax.ename : syntax._tag, "SyntaxError")
      assert.include(syntax.message, "x = 1")
      assert.notInclude(syntax.message, "effect_jupyter")
      // How IPython shows exceptions is as before.
      const cell = yield* Effect.flip(kernel.execute("broken(0)"))
      assert.include(cell.message, "broken(0)")
      assert.include((yield* Effect.flip(kernel.execute("y = = 1"))).message, "y = = 1")
    }))

  it.effect("printed text is in chunks as it comes, in the failure, and in the log", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const chunks: Array<Execution.Chunk> = []
      const onChunk = (chunk: Execution.Chunk) => Effect.sync(() => void chunks.push(chunk))
      const expression = "print('one', flush=True) or print('two', file=sys.stderr) or 3"
      assert.strictEqual(yield* kernel.evaluate(expression, Schema.Int, { onChunk }), 3)
      assert.deepStrictEqual(
        chunks.map((chunk) => chunk._tag === "TextChunk" ? [chunk.name, chunk.text] : chunk._tag),
        [["stdout", "one\n"], ["stderr", "two\n"]],
      )
      const failure = yield* Effect.flip(kernel.evaluate("print('before') or 1 / 0", Schema.Int))
      assert.strictEqual(failure._tag === "ExecutionError" ? failure.partial.text : undefined, "before")
    }))

  it.effect("leaves no names, counts as no cell, and shows no display", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const names = "sorted(name for name in globals() if not name.startswith('__'))"
      const before = yield* text(kernel.execute(names))
      yield* kernel.evaluate("1", Schema.Int)
      yield* kernel.call("math:sqrt", [4], { returns: Schema.Int })
      const result = yield* kernel.execute(names)
      assert.strictEqual(result.text?.replace(/'_i?\d+',\s*/g, ""), before?.replace(/'_i?\d+',\s*/g, ""))
      assert.strictEqual(result.executionCount, 2)
      assert.strictEqual(yield* text(kernel.execute("len(In)")), "4")
      assert.lengthOf(result.displays, 1)
    }))

  it.effect("takes its turn, keeps to timeouts, is interrupted, and leaves an idle kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      for (const sleeping of ["time.sleep(60)", "await asyncio.sleep(60)", "[n for n in iter(int, 1)]"]) {
        const [error, time] = yield* timed(
          Effect.flip(kernel.evaluate(sleeping, Schema.Unknown, { timeout: "300 millis" })),
        )
        assert.strictEqual(error._tag, "ExecutionTimeout", sleeping)
        assert.isBelow(time, 5000)
        assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
      }
      const fiber = yield* Effect.forkChild(kernel.evaluate("time.sleep(60)", Schema.Unknown), {
        startImmediately: true,
      })
      const queued = yield* Effect.forkChild(kernel.evaluate("2", Schema.Int), { startImmediately: true })
      yield* Effect.sleep("100 millis")
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* Fiber.join(queued), 2)
      const all = yield* Effect.all(
        Array.from({ length: 20 }, (_, n) => kernel.evaluate(`print(${n}) or ${n}`, Schema.Int)),
        { concurrency: "unbounded" },
      )
      assert.deepStrictEqual(all, Array.from({ length: 20 }, (_, n) => n))
    }))

  it.effect("a reset ends it, and values work in the new kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      assert.strictEqual(yield* kernel.evaluate("1", Schema.Int), 1)
      const fiber = yield* Effect.forkChild(
        Effect.flip(kernel.evaluate("__import__('time').sleep(60)", Schema.Int)),
        {
          startImmediately: true,
        },
      )
      yield* Effect.sleep("300 millis")
      yield* kernel.reset
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag === "KernelError" ? error.reason._tag : error._tag, "ExecutionAborted")
      assert.strictEqual(yield* kernel.evaluate("2", Schema.Int), 2)
    }))

  it.effect("a kernel that dies ends it", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const error = yield* Effect.flip(kernel.evaluate("__import__('os')._exit(1)", Schema.Int))
      assert.strictEqual(error._tag === "KernelError" ? error.reason._tag : error._tag, "KernelDied")
    }))
})

layer(kernelLayer(), slow)("set and call", (it) => {
  it.effect("a value is what Python calls it", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.set("value", {
        none: [null, undefined],
        numbers: [1, -0, 1.5, 2 ** 53, NaN, Infinity, 2n ** 64n],
        bytes: [Uint8Array.of(1), new ArrayBuffer(1)],
        moment: [new Date(0), DateTime.makeZonedUnsafe(0, { timeZone: "Asia/Tokyo" })],
        span: Duration.millis(1),
        decimal: BigDecimal.fromStringUnsafe("1.50"),
        map: new Map<unknown, unknown>([[[1, 2], "tuple"]]),
        set: new Set([1]),
        option: [Option.none(), Option.some("x")],
      })
      assert.deepStrictEqual(
        yield* kernel.evaluate("{key: repr(item) for key, item in value.items()}", Schema.Unknown),
        {
          none: "[None, None]",
          numbers: "[1, -0.0, 1.5, 9007199254740992.0, nan, inf, 18446744073709551616]",
          bytes: "[b'\\x01', b'\\x00']",
          moment: "[datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc), " +
            "datetime.datetime(1970, 1, 1, 9, 0, tzinfo=zoneinfo.ZoneInfo(key='Asia/Tokyo'))]",
          span: "datetime.timedelta(microseconds=1000)",
          decimal: "Decimal('1.50')",
          map: "{(1, 2): 'tuple'}",
          set: "{1}",
          option: "[None, 'x']",
        },
      )
      class Order extends Schema.Class<Order>("Order")({ id: Schema.BigInt, at: Schema.DateTimeUtc }) {}
      yield* kernel.set("order", new Order({ id: 1n, at: utc("2026-01-01T00:00:00Z") }), { schema: Order })
      assert.strictEqual(yield* kernel.evaluate("order['at'].year + order['id']", Schema.Int), 2027)
    }))

  it.effect("a value can carry anything: quotes, backslashes, line breaks, null bytes, emoji", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const nasty = `"""'''\\\n\r\u2028\0\u007f\ufeff😀👩‍🚀{}%s\\N{DASH}\ud800{"$":"bytes"}');import os#`
      yield* kernel.set("nasty", [nasty, { [nasty]: nasty }])
      assert.deepStrictEqual(yield* kernel.evaluate("nasty", Schema.Unknown), [nasty, { [nasty]: nasty }])
      assert.strictEqual(yield* kernel.evaluate("len(nasty[0])", Schema.Int), Array.from(nasty).length)
    }))

  it.effect("50 MB of text, with all of it escaped, both ways", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const long = '\0"\\\né'.repeat(10_000_000)
      yield* kernel.set("long", long)
      assert.strictEqual(yield* kernel.evaluate("len(long)", Schema.Int), 50_000_000)
      assert.isTrue((yield* kernel.evaluate("long", Schema.String)) === long)
    }), 240_000)

  it.effect("names that are none are refused by name, before anything is sent", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (const name of ["", "1a", "a b", "a.b", "class", "x\n", "x;y", "a-b", "None"]) {
        const error = yield* Effect.flip(kernel.set(name, 1))
        assert.instanceOf(error, Values.InvalidName, name)
        assert.include(error.message, `"${name}"`)
      }
      for (const name of ["", "f()", "a:b:c", ":f", "m:", "a..b", "exec('x')"]) {
        assert.instanceOf(
          yield* Effect.flip(kernel.call(name, [], { returns: Schema.Void })),
          Values.InvalidName,
          name,
        )
      }
      // What Python stores is the normalised name.
      yield* kernel.set("ﬁeld", 5)
      yield* kernel.set("größe", 6)
      assert.strictEqual(yield* kernel.evaluate("field + größe", Schema.Int), 11)
      const refused = yield* Effect.flip(kernel.set("f", { rows: [() => 1] }))
      assert.strictEqual(refused._tag === "UnsupportedValue" ? refused.path : refused._tag, "$.rows[0]")
      const schema = yield* Effect.flip(kernel.set("n", 1.5, { schema: Schema.Int }))
      assert.strictEqual(schema._tag, "SchemaError")
    }))

  it.effect("calls by name, by module and by attribute; async functions too", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute(
        "class Model:\n    def fit(self, *rows, rate=1):\n        return [len(rows), rate]\nmodel = Model()",
      )
      const ints = Schema.Array(Schema.Int)
      assert.deepStrictEqual(
        yield* kernel.call("model.fit", [1, 2], { returns: ints, kwargs: { rate: 5 } }),
        [2, 5],
      )
      assert.strictEqual(
        yield* kernel.call("json:dumps", [{ a: [1] }], { returns: Schema.String }),
        '{"a": [1]}',
      )
      assert.strictEqual(yield* kernel.call("os.path:basename", ["/a/b"], { returns: Schema.String }), "b")
      assert.strictEqual(
        yield* kernel.call("datetime.fromtimestamp", [0], { returns: Schema.DateTimeUtc }).pipe(
          Effect.map(DateTime.formatIso),
          Effect.map((iso) => iso.slice(0, 10)),
        ),
        "1970-01-01",
      )
      assert.strictEqual(yield* kernel.call("len", [[1, 2]], { returns: Schema.Int }), 2)
      assert.strictEqual(yield* kernel.call("later", ["x"], { returns: Schema.String }), "x")
      // Nobody wants what has no encoding.
      assert.isUndefined(yield* kernel.call("object", [], { returns: Schema.Void }))
    }))

  it.effect("what cannot be called is Python's own error", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const ename = (name: string, args: ReadonlyArray<unknown> = []) =>
        Effect.map(
          Effect.flip(kernel.call(name, args, { returns: Schema.Void })),
          (error) => error._tag === "ExecutionError" ? error.ename : error._tag,
        )
      assert.strictEqual(yield* ename("missing"), "NameError")
      assert.strictEqual(yield* ename("no_such_module:f"), "ModuleNotFoundError")
      assert.strictEqual(yield* ename("math:missing"), "AttributeError")
      assert.strictEqual(yield* ename("math:pi"), "TypeError")
      assert.strictEqual(yield* ename("len", [1, 2]), "TypeError")
    }))

  it.effect("TypeScript → Python → TypeScript is the identity", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const Micros = Schema.Int.check(Schema.isBetween({ minimum: -1e15, maximum: 1e15 }))
      const Text = Schema.String
      const schemas: ReadonlyArray<Schema.Codec<unknown, unknown>> = [
        Schema.Null,
        Schema.Boolean,
        Schema.Int,
        Schema.Number,
        Schema.BigInt,
        Text,
        Schema.Uint8Array,
        Schema.Array(Schema.Array(Schema.Number)),
        Schema.Tuple([Text, Schema.BigInt]),
        Schema.Record(Text, Schema.Union([Schema.BigInt, Text, Schema.Null])),
        Schema.ReadonlyMap(Schema.Int, Text),
        Schema.ReadonlyMap(Text, Schema.Uint8Array),
        Schema.HashMap(Text, Schema.Int),
        Schema.ReadonlySet(Text),
        Schema.HashSet(Schema.Int),
        Schema.Option(Schema.Int),
        Schema.Chunk(Text),
        Schema.BigDecimal,
        Schema.Json,
        Schema.Struct({
          a: Schema.optionalKey(Schema.Number),
          b: Schema.Option(Schema.BigInt),
        }),
      ]
      const moments: ReadonlyArray<Arbitrary.Arbitrary<unknown>> = [
        Arbitrary.schema(Micros).pipe(Arbitrary.map((n) => Duration.nanos(BigInt(n) * 1000n))),
        Arbitrary.schema(Micros).pipe(
          Arbitrary.map((n) =>
            utc("2000-01-01T00:00:00Z").pipe(DateTime.add({ milliseconds: Math.trunc(n / 100) }))
          ),
        ),
      ]
      let count = 0
      for (const schema of schemas) {
        const values = yield* Arbitrary.sampleEffect(Arbitrary.schema(schema), { count: 200 })
        yield* kernel.set("values", values, { schema: Schema.Array(schema) })
        const back = yield* kernel.evaluate("values", Schema.Array(schema))
        const same = Schema.toEquivalence(schema)
        values.forEach((value, index) =>
          assert.isTrue(same(value, back[index]), `${inspect(value)} became ${inspect(back[index])}`)
        )
        count += back.length
      }
      const texts = yield* Arbitrary.sampleEffect(Any.text, { count: 300 })
      yield* kernel.set("values", texts)
      assert.deepStrictEqual(yield* kernel.evaluate("values", Schema.Unknown), texts)
      const spans = yield* Arbitrary.sampleEffect(moments[0] ?? Any.text, { count: 200 })
      yield* kernel.set("values", spans)
      const backSpans = yield* kernel.evaluate("values", Schema.Array(Schema.Duration))
      assert.deepStrictEqual(
        backSpans.map(Duration.toNanos),
        spans.map((span) => Duration.isDuration(span) ? Duration.toNanos(span) : assert.fail()),
      )
      const times = yield* Arbitrary.sampleEffect(moments[1] ?? Any.text, { count: 200 })
      yield* kernel.set("values", times)
      assert.deepStrictEqual(yield* kernel.evaluate("values", Schema.Array(Schema.DateTimeUtc)), times)
      assert.strictEqual(count, schemas.length * 200)
    }))

  it.effect("numbers by the thousand: typed arrays, NumPy arrays of any shape", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const halves = Float64Array.from({ length: 10_000 }, (_, n) => n / 2)
      yield* kernel.set("halves", halves)
      // NumPy is never imported because of us.
      assert.strictEqual(yield* kernel.evaluate("type(halves).__name__", Schema.String), "array")
      assert.isFalse(yield* kernel.evaluate("'numpy' in __import__('sys').modules", Schema.Boolean))
      assert.deepStrictEqual(yield* kernel.evaluate("halves", Schema.instanceOf(Float64Array)), halves)
      yield* kernel.execute("import numpy as np")
      const arrays = [
        halves,
        Float32Array.of(1.5, NaN),
        Int8Array.of(-1),
        Int16Array.of(-2),
        Int32Array.of(-3),
        BigInt64Array.of(-4n),
        Uint16Array.of(5),
        Uint32Array.of(6),
        BigUint64Array.of(2n ** 64n - 1n),
      ]
      yield* kernel.set("arrays", arrays)
      assert.deepStrictEqual(
        yield* kernel.evaluate("[type(a).__name__ + str(a.dtype) for a in arrays][:3]", Schema.Unknown),
        ["ndarrayfloat64", "ndarrayfloat32", "ndarrayint8"],
      )
      assert.deepStrictEqual(yield* kernel.evaluate("arrays", Schema.Unknown), arrays)
      const matrix = new Values.NdArray(Float64Array.of(1, 2, 3, 4, 5, 6), [3, 2])
      yield* kernel.set("m", matrix)
      assert.deepStrictEqual(yield* kernel.evaluate("m", Schema.instanceOf(Values.NdArray)), matrix)
      const Matrix = Schema.Array(Schema.Array(Schema.Finite))
      assert.deepStrictEqual(yield* kernel.evaluate("m.T", Matrix), [[1, 3, 5], [2, 4, 6]])
      assert.deepStrictEqual(
        yield* kernel.evaluate("np.arange(24).reshape(2, 3, 4)[1, 2]", Schema.Array(Schema.BigInt)),
        [20n, 21n, 22n, 23n],
      )
      assert.deepStrictEqual(
        yield* kernel.evaluate(
          "np.int64(1), np.float32(0.5), np.bool_(True), np.str_('s'), np.datetime64('2026-01-01T00:00'), " +
            "np.timedelta64(1, 's'), np.array(['2026-01-01'], 'M8[D]'), np.array([True, False]), np.array(['a', None]), " +
            "np.ma.array([1, 2], mask=[True, False]), np.array([(1, 'x')], [('n', 'i4'), ('t', 'U1')]), np.float16(1)",
          Schema.Tuple([
            Schema.Int,
            Schema.Finite,
            Schema.Boolean,
            Schema.String,
            Schema.DateTimeUtc,
            Schema.Duration,
            Schema.Array(Schema.String),
            Schema.Array(Schema.Boolean),
            Schema.Array(Schema.NullOr(Schema.String)),
            Schema.Array(Schema.NullOr(Schema.Int)),
            Schema.Array(Schema.Struct({ n: Schema.Int, t: Schema.String })),
            Schema.Finite,
          ]),
        ),
        [
          1,
          0.5,
          true,
          "s",
          utc("2026-01-01T00:00:00Z"),
          Duration.seconds(1),
          ["2026-01-01"],
          [true, false],
          [
            "a",
            null,
          ],
          [null, 2],
          [{ n: 1, t: "x" }],
          1,
        ],
      )
      const complex = yield* Effect.flip(kernel.evaluate("{'z': np.array([1j])}", Schema.Unknown))
      assert.strictEqual(complex._tag === "UnsupportedValue" ? complex.path : complex._tag, "$.z")
    }))
})

layer(kernelLayer(), slow)("pools and streams of values", (it) => {
  it.effect("values of one kernel do not wait for another's", () =>
    Effect.gen(function* () {
      const other = yield* KernelClient.make()
      const kernel = yield* Client
      yield* other.set("x", 1)
      yield* kernel.set("x", 2)
      assert.deepStrictEqual(
        yield* Stream.runCollect(
          Stream.make(other, kernel).pipe(Stream.mapEffect((one) => one.evaluate("x", Schema.Int))),
        ),
        [1, 2],
      )
    }))
})
