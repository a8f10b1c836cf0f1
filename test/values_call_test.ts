// @effect-diagnostics globalDate:off schemaNumber:off
/** Values that go into a kernel, whatever is in them, and functions that are called with them. */
import { assert, layer } from "@effect/vitest"
import { BigDecimal, DateTime, Duration, Effect, Option, Schema } from "effect"
import { KernelClient, KernelPool, Values } from "../src/mod.ts"
import { kernelLayer, slow } from "./support/kernel.ts"
import { prepared, utc } from "./support/values.ts"

const { KernelClient: Client } = KernelClient

layer(kernelLayer(), slow)("set and call", (it) => {
  it.effect("set sends each value as its Python type", () =>
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

  it.effect("set and evaluate keep quotes, backslashes, line breaks, null bytes and emoji", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const nasty = `"""'''\\\n\r\u2028\0\u007f\ufeff😀👩‍🚀{}%s\\N{DASH}\ud800{"$":"bytes"}');import os#`
      yield* kernel.set("nasty", [nasty, { [nasty]: nasty }])
      assert.deepStrictEqual(yield* kernel.evaluate("nasty", Schema.Unknown), [nasty, { [nasty]: nasty }])
      assert.strictEqual(yield* kernel.evaluate("len(nasty[0])", Schema.Int), Array.from(nasty).length)
    }))

  it.effect("set and evaluate transfer 50 MB of text that JSON escapes", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const long = '\0"\\\né'.repeat(10_000_000)
      yield* kernel.set("long", long)
      assert.strictEqual(yield* kernel.evaluate("len(long)", Schema.Int), 50_000_000)
      assert.isTrue((yield* kernel.evaluate("long", Schema.String)) === long)
    }), 240_000)

  it.effect("set and call fail with InvalidName for an invalid name, before anything is sent", () =>
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
      // Python stores the normalized name.
      yield* kernel.set("ﬁeld", 5)
      yield* kernel.set("größe", 6)
      assert.strictEqual(yield* kernel.evaluate("field + größe", Schema.Int), 11)
      const refused = yield* Effect.flip(kernel.set("f", { rows: [() => 1] }))
      assert.strictEqual(refused._tag === "UnsupportedValue" ? refused.path : refused._tag, "$.rows[0]")
      const schema = yield* Effect.flip(kernel.set("n", 1.5, { schema: Schema.Int }))
      assert.strictEqual(schema._tag, "SchemaError")
    }))

  it.effect("call finds functions by name, module and attribute, and awaits async ones", () =>
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
      // The result has no encoding, and is not fetched.
      assert.isUndefined(yield* kernel.call("object", [], { returns: Schema.Void }))
    }))

  it.effect("call fails with Python's own error for a value that is not callable", () =>
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

  it.effect("evaluate works in kernels of a pool, also after a reset", () =>
    Effect.gen(function* () {
      const pool = yield* KernelPool.make({ max: 2, setup: "x = 20" })
      const kernel = yield* pool.get
      assert.strictEqual(yield* kernel.evaluate("x + 1", Schema.Int), 21)
      yield* kernel.set("x", 1)
      yield* kernel.reset
      assert.strictEqual(yield* kernel.evaluate("x + 1", Schema.Int), 21)
    }))

  it.effect("set affects no other kernel", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const other = yield* KernelClient.make()
      yield* other.set("mine", 1)
      yield* kernel.set("mine", 2)
      assert.deepStrictEqual(
        yield* Effect.forEach([other, kernel], (one) => one.evaluate("mine", Schema.Int), { concurrency: 2 }),
        [1, 2],
      )
    }))
})
