// @effect-diagnostics globalDate:off schemaNumber:off
/** Values of a kernel that runs, decoded by schemas: types, texts, failures. */
import { assert, layer } from "@effect/vitest"
import { BigDecimal, DateTime, Duration, Effect, Fiber, HashMap, HashSet, Option, Schema } from "effect"
import { type Execution, KernelClient, Values } from "../src/mod.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"
import { timed } from "./support/outcome.ts"
import { prepared, utc } from "./support/values.ts"

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

  it.effect("evaluate decodes the time zone of a datetime", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const [berlin, offset] = yield* kernel.evaluate(
        "datetime(2026, 7, 1, tzinfo=ZoneInfo('Europe/Berlin')), datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=-3)))",
        Schema.Tuple([Schema.DateTimeZoned, Schema.DateTimeZoned]),
      )
      assert.strictEqual(DateTime.formatIsoZoned(berlin), "2026-07-01T00:00:00.000+02:00[Europe/Berlin]")
      assert.strictEqual(DateTime.formatIsoZoned(offset), "2026-07-01T00:00:00.000-03:00")
      // Before there were zones the clocks of Berlin were 53 minutes and 28 seconds ahead.
      const old = "datetime(1800, 1, 1, tzinfo=ZoneInfo('Europe/Berlin'))"
      assert.strictEqual(
        DateTime.formatIso(yield* kernel.evaluate(old, Schema.DateTimeZoned)),
        "1799-12-31T23:06:32.000Z",
      )
      assert.deepStrictEqual(yield* kernel.evaluate(old, Schema.DateTimeUtc), utc("1799-12-31T23:06:32Z"))
    }))

  it.effect("evaluate decodes each value to its default form with Schema.Unknown", () =>
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

  it.effect("evaluate decodes by unions, recursive schemas, transformations and classes", () =>
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

  it.effect("evaluate fails with SchemaError and the path for a value that the schema refuses", () =>
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

  it.effect("evaluate fails with UnsupportedValue, type and path, and keeps the output", () =>
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

  it.effect("evaluate refuses cycles and values that are too deep", () =>
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

  it.effect("evaluate accepts await, several lines, blanks and comments", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const value = (expression: string) => kernel.evaluate(expression, Schema.Int)
      assert.strictEqual(yield* value("await later(1) + await later(2)"), 3)
      assert.strictEqual(yield* value("later(4)"), 4)
      assert.strictEqual(yield* value("sum([await later(n) for n in range(3)])"), 3)
      assert.strictEqual(yield* value("\n    1 +  # one\n    2\n  "), 3)
      assert.strictEqual(yield* value("(lambda n: n + 1)(1)"), 2)
    }))

  it.effect("ExecutionError has the traceback of the expression, without frames of the library", () =>
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
      // IPython shows exceptions as before.
      const cell = yield* Effect.flip(kernel.execute("broken(0)"))
      assert.include(cell.message, "broken(0)")
      assert.include((yield* Effect.flip(kernel.execute("y = = 1"))).message, "y = = 1")
    }))

  it.effect("evaluate passes output to onChunk, to the failure, and to the log", () =>
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

  it.effect("evaluate leaves no names, counts as no cell, and shows no display", () =>
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

  it.effect("evaluate waits in the queue, times out, is interrupted, and leaves an idle kernel", () =>
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

  it.effect("a reset aborts evaluate, which works in the new kernel", () =>
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

  it.effect("evaluate fails with KernelDied when the kernel dies", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const error = yield* Effect.flip(kernel.evaluate("__import__('os')._exit(1)", Schema.Int))
      assert.strictEqual(error._tag === "KernelError" ? error.reason._tag : error._tag, "KernelDied")
    }))
})
