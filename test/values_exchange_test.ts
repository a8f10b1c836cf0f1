// @effect-diagnostics globalDate:off schemaNumber:off
/** Promises about values: None, secrets, bytes in the queue, spans. */
import { assert, layer } from "@effect/vitest"
import {
  BigDecimal,
  Chunk,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Fiber,
  HashMap,
  Logger,
  Option,
} from "effect"
import { Redacted, References, Result, Schema, Stream, Tracer } from "effect"
import { Buffer } from "node:buffer"
import { KernelClient } from "../src/mod.ts"
import { kernelLayer, slow } from "./support/kernel.ts"
import { prepared } from "./support/values.ts"

const { KernelClient: Client } = KernelClient

/** Runs an effect that has to wait for its turn until `meanwhile` is over. */
const queued = <A, E>(kernel: KernelClient.Kernel, effect: Effect.Effect<A, E>, meanwhile: () => void) =>
  Effect.gen(function* () {
    const asked = yield* Deferred.make<void>()
    const gate = yield* Deferred.make<string>()
    const onInput = () => Effect.andThen(Deferred.succeed(asked, undefined), Deferred.await(gate))
    const busy = yield* Effect.forkChild(kernel.execute("input()", { onInput }))
    yield* Deferred.await(asked)
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    meanwhile()
    yield* Deferred.succeed(gate, "go on")
    yield* Fiber.join(busy)
    return yield* Fiber.join(fiber)
  })

layer(kernelLayer(), slow)("values that cross", (it) => {
  it.effect("None is null, undefined or Option.none, as the schema says", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const none = <S extends Schema.ConstraintDecoder<unknown>>(schema: S) => kernel.evaluate("None", schema)
      assert.strictEqual(yield* none(Schema.Void), undefined)
      assert.strictEqual(yield* none(Schema.Undefined), undefined)
      assert.strictEqual(yield* none(Schema.UndefinedOr(Schema.Int)), undefined)
      assert.strictEqual(yield* none(Schema.Null), null)
      assert.strictEqual(yield* none(Schema.NullOr(Schema.Int)), null)
      assert.strictEqual(yield* none(Schema.NullishOr(Schema.Int)), null)
      assert.strictEqual(yield* none(Schema.Unknown), null)
      assert.strictEqual(yield* none(Schema.Any), null)
      for (
        const schema of [
          Schema.Option(Schema.Int),
          Schema.OptionFromNullOr(Schema.Int),
          Schema.OptionFromNullishOr(Schema.Int),
          Schema.OptionFromUndefinedOr(Schema.Int),
        ]
      ) {
        assert.deepStrictEqual(yield* none<Schema.ConstraintDecoder<unknown>>(schema), Option.none())
      }
      assert.strictEqual(yield* kernel.evaluate("print('x')", Schema.Void), undefined)
      assert.strictEqual(yield* kernel.call("print", ["x"], { returns: Schema.Void }), undefined)
      assert.deepStrictEqual(
        yield* Stream.runCollect(kernel.iterate("[None, None]", Schema.Undefined)),
        [undefined, undefined],
      )
    }))

  it.effect("set distinguishes an absent key from None, unless the schema allows undefined", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const field = <S extends Schema.ConstraintDecoder<unknown>>(expression: string, a: S) =>
        kernel.evaluate(expression, Schema.Struct({ a }))
      assert.deepStrictEqual(yield* field("{'a': None}", Schema.optional(Schema.Int)), { a: undefined })
      assert.deepStrictEqual(yield* field("{}", Schema.optional(Schema.Int)), {})
      for (const expression of ["{'a': None}", "{}"]) {
        for (
          const schema of [Schema.OptionFromOptional(Schema.Int), Schema.OptionFromOptionalNullOr(Schema.Int)]
        ) {
          const value = yield* field<Schema.ConstraintDecoder<unknown>>(expression, schema)
          assert.deepStrictEqual(value, { a: Option.none() }, expression)
        }
      }
      assert.deepStrictEqual(yield* field("{}", Schema.optionalKey(Schema.Int)), {})
      const error = yield* Effect.flip(field("{'a': None}", Schema.optionalKey(Schema.Int)))
      assert.strictEqual(error._tag, "SchemaError")
    }))

  it.effect("Schema.Unknown decodes each type to its default form, as the guide says", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const rows: ReadonlyArray<readonly [expression: string, value: unknown]> = [
        ["None", null],
        ["2**53 - 1, 2**53, -1.5, True", [9007199254740991, 9007199254740992n, -1.5, true]],
        ["'a', Text('b')", ["a", "b"]],
        ["bytearray(b'a'), memoryview(b'b')", [Uint8Array.of(97), Uint8Array.of(98)]],
        ["(1,), range(1), collections.deque()", [[1], [0], []]],
        ["{1}, frozenset()", [new Set([1]), new Set()]],
        ["{'a': 1}, {1: 2}, {}", [{ a: 1 }, new Map([[1, 2]]), {}]],
        ["Point(1), Pair(1, 2)", [{ x: 1, y: null }, { left: 1, right: 2 }]],
        ["datetime(2026, 1, 1), date(2026, 1, 1)", ["2026-01-01T00:00:00", "2026-01-01"]],
        ["datetime(2026, 1, 1, tzinfo=timezone.utc)", DateTime.makeUnsafe("2026-01-01T00:00:00Z")],
        [
          "datetime(2026, 1, 1, tzinfo=ZoneInfo('UTC'))",
          DateTime.makeZonedUnsafe("2026-01-01T00:00:00Z", { timeZone: "UTC" }),
        ],
        ["clock(1), uuid.UUID(int=0), Path('/a')", [
          "01:00:00",
          "00000000-0000-0000-0000-000000000000",
          "/a",
        ]],
        ["timedelta(seconds=1)", Duration.seconds(1)],
        ["Decimal('1.5'), Decimal('nan'), Decimal('inf')", [
          BigDecimal.fromStringUnsafe("1.5"),
          "NaN",
          "Infinity",
        ]],
        ["Colour.RED, Level.LOW", ["red", 1]],
        ["array.array('d', [1]), array.array('q', [1])", [Float64Array.of(1), BigInt64Array.of(1n)]],
      ]
      for (const [expression, value] of rows) {
        assert.deepStrictEqual(yield* kernel.evaluate(expression, Schema.Unknown), value, expression)
      }
      assert.strictEqual(yield* kernel.evaluate("5.0", Schema.BigInt), 5n)
    }))

  it.effect("set sends a secret only with a schema that reveals it", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const key = Redacted.make("hush-hush")
      const seen: Array<unknown> = []
      const logger = Logger.make(({ message }) => void seen.push(message))
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          seen.push(span.attributes)
          return span
        },
      })
      const Config = Schema.Struct({ key: Schema.Redacted(Schema.String) })
      const errors = yield* Effect.gen(function* () {
        yield* kernel.set("config", { key }, { schema: Config })
        const lengths = kernel.feed("len", Stream.make({ key }), { returns: Schema.Int, schema: Config })
        assert.deepStrictEqual(yield* Stream.runCollect(lengths), [1])
        const back = yield* kernel.evaluate("config", Config)
        assert.strictEqual(Redacted.value(back.key), "hush-hush")
        return [
          yield* Effect.flip(kernel.set("config", { key })),
          yield* Effect.flip(kernel.call("len", [[{ key }]], { returns: Schema.Int })),
          yield* Effect.flip(kernel.call("dict", [], { kwargs: { key }, returns: Schema.Void })),
          yield* Effect.flip(
            Stream.runDrain(kernel.feed("len", Stream.make(key), { returns: Schema.Int })),
          ),
        ]
      }).pipe(
        Effect.withTracer(tracer),
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "All"),
      )
      assert.deepStrictEqual(
        errors.map((error) => error._tag === "UnsupportedValue" ? [error.valueType, error.path] : error._tag),
        [["Redacted", "$.key"], ["Redacted", "$.args[0][0].key"], ["Redacted", "$.kwargs.key"], [
          "Redacted",
          "$.args[0][0]",
        ]],
      )
      const all = JSON.stringify([seen, errors, errors.map(({ message, stack }) => [message, stack])])
      assert.isAbove(seen.length, 5)
      assert.notInclude(all, "hush-hush")
      assert.strictEqual(yield* kernel.evaluate("config['key']", Schema.String), "hush-hush")
    }))

  it.effect("set sends values of Effect and JavaScript as their counterparts in Python", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const buffer = Uint8Array.of(1, 2, 3).buffer
      const Half: unknown = Reflect.get(globalThis, "Float16Array")
      yield* kernel.set("values", [
        [1, , undefined],
        { gone: undefined, kept: null },
        JSON.parse('{"__proto__": 1, "constructor": 2, "": 3, "10": 4, "9": 5}'),
        [-0, NaN, -Infinity, 2n ** 100n, 1e21],
        [Option.some(1), Option.none()],
        Chunk.make(1, 2),
        HashMap.make(["a", Duration.seconds(1)]),
        new URL("http://a.b/c"),
        DateTime.makeUnsafe(0),
        [Buffer.from("ab"), buffer, new Uint8Array(buffer, 1, 1), new Uint8Array(new SharedArrayBuffer(1))],
        [Uint8ClampedArray.of(1), BigInt64Array.of(-1n), Float32Array.of(0.5)],
        typeof Half === "function" ? Reflect.construct(Half, [[1.5]]) : Float32Array.of(1.5),
        "\ud83d",
        new Map<unknown, unknown>([[[1, "a"], undefined], [null, 1]]),
        new Set([1n]),
      ])
      assert.deepStrictEqual(yield* kernel.evaluate("[ascii(value) for value in values]", Schema.Unknown), [
        "[1, None, None]",
        "{'kept': None}",
        "{'9': 5, '10': 4, '__proto__': 1, 'constructor': 2, '': 3}",
        "[-0.0, nan, -inf, 1267650600228229401496703205376, 1e+21]",
        "[1, None]",
        "[1, 2]",
        "{'a': datetime.timedelta(seconds=1)}",
        "'http://a.b/c'",
        "datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)",
        "[b'ab', b'\\x01\\x02\\x03', b'\\x02', b'\\x00']",
        "[array('B', [1]), array('q', [-1]), array('f', [0.5])]",
        "array('f', [1.5])",
        "'\\ud83d'",
        "{(1, 'a'): None, None: 1}",
        "{1}",
      ])
    }))

  it.effect("set sends Result, RegExp and classes with them by their schemas", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const Job = Schema.Struct({
        result: Schema.Result(Schema.DateTimeUtc, Schema.String),
        match: Schema.RegExp,
      })
      const job = { result: Result.succeed(DateTime.makeUnsafe(0)), match: /a/i }
      yield* kernel.set("job", job, { schema: Job })
      assert.strictEqual(yield* kernel.evaluate("job['result']['success'].year", Schema.Int), 1970)
      assert.isTrue(Schema.toEquivalence(Job)(yield* kernel.evaluate("job", Job), job))
    }))

  it.effect("set encodes a value when the effect begins, and releases its bytes at the end", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      const value = { text: "before", list: [1], at: new Date(0) }
      const bytes = Uint8Array.of(1, 2, 3)
      yield* queued(kernel, kernel.set("waited", [value, bytes]), () => {
        value.text = "after"
        value.list.push(2)
        value.at.setFullYear(2000)
      })
      bytes.fill(9)
      assert.strictEqual(
        yield* kernel.evaluate("repr(waited)", Schema.String),
        "[{'text': 'before', 'list': [1], 'at': " +
          "datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)}, b'\\x01\\x02\\x03']",
      )
    }))

  it.effect("set fails for bytes that were transferred while it waited", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      yield* kernel.set("bytes", "as before")
      for (const size of [3, 20_000_000]) {
        const { buffer } = new Uint8Array(size)
        const error = yield* Effect.flip(queued(
          kernel,
          kernel.set("bytes", new Uint8Array(buffer)),
          () => void structuredClone(buffer, { transfer: [buffer] }),
        ))
        assert.strictEqual(error._tag === "KernelError" ? error.reason._tag : error._tag, "ExecutionAborted")
        assert.include(error.message, "transferred")
        assert.strictEqual(yield* kernel.evaluate("bytes", Schema.String), "as before")
      }
    }))

  it.effect("each operation has a span with the id of the kernel, streams included", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const spans: Array<Tracer.Span> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        },
      })
      yield* Effect.gen(function* () {
        yield* kernel.set("x", 1)
        yield* kernel.evaluate("x", Schema.Int)
        yield* kernel.call("len", [[1]], { returns: Schema.Int })
        yield* Stream.runDrain(kernel.iterate("range(3)", Schema.Int))
        yield* Stream.runDrain(kernel.feed("len", Stream.range(1, 3), { returns: Schema.Int, batchSize: 2 }))
        yield* Effect.flip(Stream.runDrain(kernel.iterate("missing", Schema.Int)))
      }).pipe(Effect.withTracer(tracer))
      assert.deepStrictEqual(spans.map(({ name }) => name), [
        "Kernel.set",
        "Kernel.evaluate",
        "Kernel.call",
        "Kernel.iterate",
        "Kernel.feed",
        "Kernel.call",
        "Kernel.call",
        "Kernel.iterate",
      ])
      for (const { attributes, name } of spans) {
        assert.strictEqual(attributes.get("kernel.id"), kernel.id, name)
      }
      const feed = spans.find(({ name }) => name === "Kernel.feed")
      const parents = spans.slice(5, 7).map(({ parent }) => Option.getOrUndefined(parent)?.spanId)
      assert.deepStrictEqual(parents, [feed?.spanId, feed?.spanId])
      const exits = spans.map(({ status }) => status._tag === "Ended" ? status.exit._tag : status._tag)
      assert.deepStrictEqual(exits, [...Array.from({ length: 7 }, () => "Success"), "Failure"])
    }))
})
