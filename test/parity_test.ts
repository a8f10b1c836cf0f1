/** A kernel for tests does what a real one does: the same cells, member by member, in both. */
import { assert, layer } from "@effect/vitest"
import {
  Cause,
  Context,
  Effect,
  Exit,
  Fiber,
  Latch,
  Layer,
  Option,
  Redacted,
  Result,
  Schema,
  type Scope,
  Stream,
} from "effect"
import { randomUUID } from "node:crypto"
import { Execution, KernelClient, Testing } from "../src/mod.ts"
import * as Rpc from "./support/rpc.ts"
import * as Serve from "./support/serve.ts"
import { kernelLayer, slow, texts } from "./support/kernel.ts"

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

/** Code of Python, and what it does as a script. */
const cells = {
  sum: "1 + 1",
  none: "x = 1",
  outputs:
    "import sys\nprint('a', flush=True)\nprint('b', file=sys.stderr, flush=True)\ndisplay({'c': 1})\nprint('\\r 1%\\r99%', flush=True)\n6 * 7",
  raises: "print('before')\n1 / 0",
  endless: "print('begun', flush=True)\nwhile True: pass",
  counted: (n: number) => `print(${n})`,
  dies: "import os\nprint('last', flush=True)\nimport time; time.sleep(0.3); os._exit(1)",
  image:
    `from IPython.display import Image, display\nimport base64\ndisplay(Image(base64.b64decode("${png}")))`,
  live:
    "h = display('a', display_id='1')\nh.update('b')\ndisplay('c')\nfrom IPython.display import clear_output\nclear_output(wait=True)\ndisplay('d')",
  asks: "name = input('Name? ')\nprint('thanks')",
  secret: "import getpass\nname = getpass.getpass('Secret? ')",
  long: "print('x' * 10_000)",
} as const

const display = (text: string, options?: { readonly displayId: string }) =>
  Testing.display({ "text/plain": `'${text}'` }, options)

/** True if the generator of the script was closed. */
let closed = 0
const scripts: ReadonlyArray<Testing.Script> = [
  { match: cells.sum, result: "2" },
  { match: cells.none },
  {
    match: cells.outputs,
    chunks: [
      "a\n",
      new Execution.TextChunk({ name: "stderr", text: "b\n" }),
      Testing.display({ "text/plain": "{'c': 1}" }),
      "\r 1%\r99%\n",
    ],
    result: "42",
  },
  {
    match: cells.raises,
    chunks: ["before\n"],
    error: { ename: "ZeroDivisionError", evalue: "division by zero" },
  },
  { match: cells.endless, chunks: ["begun\n"], delay: "1 day" },
  { match: /^print\(\d\)$/, chunks: ["counted\n"], delay: "10 millis" },
  { match: cells.dies, chunks: ["last\n"], error: new Execution.KernelDied({ kernelId: undefined }) },
  {
    match: cells.image,
    chunks: [Testing.display({ "image/png": png, "text/plain": "<IPython.core.display.Image object>" })],
  },
  {
    match: cells.live,
    chunks: [
      display("a", { displayId: "1" }),
      { update: display("b", { displayId: "1" }) },
      display("c"),
      new Execution.ClearOutput({ wait: true }),
      display("d"),
    ],
  },
  { match: cells.asks, chunks: [{ prompt: "Name? " }, "thanks\n"] },
  { match: cells.secret, chunks: [{ prompt: "Secret? ", password: true }] },
  { match: cells.long, chunks: [`${"x".repeat(10_000)}\n`] },
  // Values.
  { match: /^class|^def|^closed = / },
  { match: "6 * 7", value: 42 },
  { match: "None" },
  { match: "print('told') or 5", chunks: ["told\n"], value: 5 },
  { match: "1 // 0", error: { ename: "ZeroDivisionError", evalue: "integer division or modulo by zero" } },
  { match: "forever()", delay: "1 day" },
  { match: "name" },
  { match: "statistics:median", value: ([a, b]: ReadonlyArray<number>) => ((a ?? 0) + (b ?? 0)) / 2 },
  { match: "power", value: (base: number, { exponent }: { readonly exponent: number }) => base ** exponent },
  { match: "range(5)", value: [0, 1, 2, 3, 4] },
  { match: "'abc'", value: "abc" },
  { match: "7", value: 7 },
  { match: "breaks()", value: [1, 2], error: { ename: "ValueError", evalue: "three" } },
  {
    match: "closes()",
    value: function* () {
      try {
        for (let i = 0;; i++) yield i
      } finally {
        closed++
      }
    },
  },
  { match: "closed", value: () => closed },
  { match: "sum", value: (batch: ReadonlyArray<number>) => batch.reduce((a, b) => a + b, 0) },
]

const definitions = `closed = 0
def power(base, exponent): return base ** exponent
def breaks():
    yield 1
    yield 2
    raise ValueError("three")
def closes():
    global closed
    try:
        i = 0
        while True:
            yield i
            i += 1
    finally:
        closed += 1
def forever():
    while True: pass`

const reasonOf = (error: { readonly _tag: string }) =>
  error instanceof Execution.KernelError ? error.reason._tag : error._tag
const tags = (elements: ReadonlyArray<{ readonly _tag: string }>) => elements.map(({ _tag }) => _tag)

/** The tests of a kernel, of which each has one of its own. */
const suite = <R, E>(
  name: string,
  environment: Layer.Layer<R, E>,
  make: Effect.Effect<KernelClient.Kernel, Execution.KernelError, Scope.Scope | R>,
) => {
  layer(environment, slow)(name, (it) => {
    /** A test with a kernel of its own. */
    const test = (
      title: string,
      body: (kernel: KernelClient.Kernel) => Effect.Effect<unknown, unknown, Scope.Scope>,
    ) => it.effect(title, () => Effect.scoped(Effect.flatMap(make, body)))

    /** Code that runs and has begun. */
    const running = Effect.fnUntraced(function* (kernel: KernelClient.Kernel, code: string) {
      const begun = yield* Latch.make()
      const fiber = yield* kernel.stream(code).pipe(
        Stream.tap(() => begun.open),
        Stream.runDrain,
        Effect.flip,
        Effect.forkScoped,
      )
      yield* begun.await
      return fiber
    })
    const waiting = (effect: Effect.Effect<unknown, Execution.ExecutionFailure>) =>
      Effect.forkScoped(Effect.flip(effect), { startImmediately: true })
    const isUsable = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
      assert.strictEqual((yield* kernel.execute(cells.sum)).text, "2")
    })

    test("execute and stream: chunks in order, then the result", (kernel) =>
      Effect.gen(function* () {
        const elements = yield* Stream.runCollect(kernel.stream(cells.outputs))
        assert.deepStrictEqual(texts(elements), ["a\n", "b\n", "\r 1%\r99%\n"])
        assert.deepStrictEqual(tags(elements), [
          "TextChunk",
          "TextChunk",
          "DisplayChunk",
          "TextChunk",
          "DisplayChunk",
          "ExecutionResult",
        ])
        const result = elements.at(-1)
        assert.instanceOf(result, Execution.ExecutionResult)
        assert.strictEqual(result.text, "a\nb\n{'c': 1}\n99%\n42")
        assert.deepStrictEqual(result.displays.map(({ executionCount, text }) => [text, executionCount]), [
          ["{'c': 1}", undefined],
          ["42", 1],
        ])
        const silent = yield* kernel.execute(cells.none)
        assert.deepStrictEqual([silent.text, silent.executionCount, silent.displays], [undefined, 2, []])
        assert.deepStrictEqual((yield* kernel.execute(cells.live)).displays.map(({ text }) => text), ["'d'"])
        const limited = yield* kernel.execute(cells.long, { outputLimit: 100 })
        assert.isBelow(limited.text?.length ?? 0, 300)
        assert.include(limited.text, "9901 bytes")
      }))

    test("execute: images", (kernel) =>
      Effect.gen(function* () {
        const { images, text } = yield* kernel.execute(cells.image)
        assert.strictEqual(text, "<IPython.core.display.Image object>")
        assert.deepStrictEqual(images.map(({ bytes, mimeType }) => [mimeType, bytes?.length]), [[
          "image/png",
          70,
        ]])
        const sent: Array<string> = []
        const uploaded = yield* kernel.execute(cells.image, {
          images: ({ name }) => Effect.sync(() => `s3://${sent.push(name)}`),
        })
        assert.deepStrictEqual(uploaded.images.map(({ path }) => path), ["s3://1"])
        const failed = yield* kernel.execute(cells.image, { images: () => Effect.fail("full") })
        assert.include(failed.text, "[effect-jupyter]")
      }))

    test("execute: what code raises", (kernel) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(kernel.execute(cells.raises))
        assert.instanceOf(error, Execution.ExecutionError)
        assert.deepStrictEqual(
          [error.ename, error.evalue, error.partial.text, error.partial.executionCount],
          ["ZeroDivisionError", "division by zero", "before", 1],
        )
        yield* isUsable(kernel)
      }))

    test("execute: a timeout", (kernel) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(kernel.execute(cells.endless, { timeout: "500 millis" }))
        assert.instanceOf(error, Execution.ExecutionTimeout)
        assert.strictEqual(error.partial.text, "begun")
        yield* isUsable(kernel)
      }))

    test("execute: input", (kernel) =>
      Effect.gen(function* () {
        const asked: Array<KernelClient.InputRequest> = []
        const onInput = (request: KernelClient.InputRequest) =>
          Effect.sync(() => {
            asked.push(request)
            return "Ada"
          })
        assert.include((yield* kernel.execute(cells.asks, { onInput })).text, "thanks")
        yield* kernel.execute(cells.secret, { onInput })
        assert.deepStrictEqual(asked, [
          { prompt: "Name? ", password: false },
          { prompt: "Secret? ", password: true },
        ])
        for (const options of [{}, { onInput: () => Effect.die("no") }]) {
          const error = yield* Effect.flip(kernel.execute(cells.asks, options))
          assert.instanceOf(error, Execution.KernelError)
          assert.strictEqual(error.reason._tag, "InputRequested")
          assert.include(error.message, "Name? ")
        }
        for (const [code, evalue] of [[cells.asks, "raw_input"], [cells.secret, "getpass"]] as const) {
          const error = yield* Effect.flip(kernel.execute(code, { onInput, allowStdin: false }))
          assert.instanceOf(error, Execution.ExecutionError)
          assert.strictEqual(error.ename, "StdinNotImplementedError")
          assert.include(error.evalue, evalue)
        }
        yield* isUsable(kernel)
      }))

    test("execute: one at a time, in the order they were asked for; some withdrawn", (kernel) =>
      Effect.gen(function* () {
        const order: Array<number> = []
        const fibers = yield* Effect.forEach([1, 2, 3, 4, 5], (n) =>
          Effect.forkScoped(
            Effect.map(kernel.execute(cells.counted(n)), ({ executionCount }) => {
              order.push(n)
              return executionCount
            }),
            { startImmediately: true },
          ))
        const withdrawn = fibers[2]
        if (withdrawn !== undefined) yield* Fiber.interrupt(withdrawn)
        const counts = yield* Effect.forEach(
          fibers.filter((fiber) => fiber !== withdrawn),
          (fiber) => Fiber.join(fiber),
        )
        assert.deepStrictEqual(order, [1, 2, 4, 5])
        assert.deepStrictEqual(counts, [1, 2, 3, 4])
      }))

    test("stream: a consumer that uses the kernel, is slow, or ends early", (kernel) =>
      Effect.gen(function* () {
        // The kernel is done although the consumer is not, and its timeout is not that of the consumer.
        const nested: Array<string | undefined> = []
        yield* kernel.stream(cells.outputs, { timeout: "2 seconds" }).pipe(
          Stream.rechunk(1),
          Stream.runForEach((element) =>
            element._tag === "TextChunk" && nested.length === 0
              ? Effect.map(
                Effect.delay(kernel.execute(cells.sum), "2500 millis"),
                ({ text }) => nested.push(text),
              )
              : Effect.void
          ),
        )
        assert.deepStrictEqual(nested, ["2"])
        const first = yield* Stream.runCollect(Stream.take(kernel.stream(cells.endless), 1))
        assert.deepStrictEqual(tags(first), ["TextChunk"])
        yield* isUsable(kernel)
      }))

    test("interruption of the fiber, and interrupt", (kernel) =>
      Effect.gen(function* () {
        const begun = yield* Latch.make()
        const fiber = yield* kernel.stream(cells.endless).pipe(
          Stream.runForEach(() => begun.open),
          Effect.forkScoped,
        )
        yield* begun.await
        yield* Fiber.interrupt(fiber)
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        yield* isUsable(kernel)
        yield* kernel.interrupt
        yield* isUsable(kernel)

        const code = yield* running(kernel, cells.endless)
        yield* kernel.interrupt
        const error = yield* Fiber.join(code)
        assert.instanceOf(error, Execution.ExecutionError)
        assert.deepStrictEqual([error.ename, error.partial.text], ["KeyboardInterrupt", "begun"])
        yield* isUsable(kernel)
      }))

    test("reset", (kernel) =>
      Effect.gen(function* () {
        const { id } = kernel
        yield* kernel.execute(cells.sum)
        const first = yield* running(kernel, cells.endless)
        const second = yield* waiting(kernel.execute(cells.sum))
        const third = yield* waiting(Effect.orDie(kernel.evaluate("6 * 7", Schema.Int)))
        yield* Fiber.interrupt(third)
        yield* kernel.reset
        const errors = [yield* Fiber.join(first), yield* Fiber.join(second)]
        assert.deepStrictEqual(errors.map(reasonOf), ["ExecutionAborted", "ExecutionAborted"])
        const [ran, waited] = errors
        assert.include(ran?.message, "The kernel was reset")
        assert.instanceOf(ran, Execution.KernelError)
        assert.strictEqual(ran.partial?.text, "begun")
        assert.include(waited?.message, "The kernel was reset before the code began")
        assert.notStrictEqual(kernel.id, id)
        assert.strictEqual((yield* kernel.execute(cells.sum)).executionCount, 1)
      }))

    test("death: of what runs, what waits, and all that is asked until a reset", (kernel) =>
      Effect.gen(function* () {
        const first = yield* running(kernel, cells.dies)
        const second = yield* waiting(kernel.execute(cells.sum))
        const died = yield* Fiber.join(first)
        assert.instanceOf(died, Execution.KernelError)
        assert.deepStrictEqual([died.reason._tag, died.partial?.text], ["KernelDied", "last"])
        assert.strictEqual(reasonOf(yield* Fiber.join(second)), "KernelDied")
        const asked: ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string }>> = [
          kernel.execute(cells.sum),
          Stream.runDrain(kernel.stream(cells.sum)),
          kernel.evaluate("6 * 7", Schema.Int),
          kernel.set("name", 1),
          kernel.call("statistics:median", [[1, 2]], { returns: Schema.Finite }),
          Stream.runDrain(kernel.iterate("range(5)", Schema.Int)),
          Stream.runDrain(kernel.feed("sum", Stream.make(1), { returns: Schema.Int })),
          kernel.interrupt,
          kernel.complete("a"),
          kernel.inspect("a"),
          kernel.isComplete("a"),
          kernel.history(),
          kernel.info,
          kernel.variables,
        ]
        for (const effect of asked) assert.strictEqual(reasonOf(yield* Effect.flip(effect)), "KernelDied")
        yield* kernel.reset
        yield* isUsable(kernel)
      }))

    test("evaluate, set and call", (kernel) =>
      Effect.gen(function* () {
        yield* kernel.execute(definitions)
        assert.strictEqual(yield* kernel.evaluate("6 * 7", Schema.Int), 42)
        assert.isNull(yield* kernel.evaluate("None", Schema.NullOr(Schema.String)))
        assert.isUndefined(yield* kernel.evaluate("None", Schema.Void))
        const chunks: Array<string> = []
        const onChunk = (chunk: Execution.Chunk) => Effect.sync(() => void chunks.push(...texts([chunk])))
        assert.strictEqual(yield* kernel.evaluate("print('told') or 5", Schema.Int, { onChunk }), 5)
        assert.strictEqual(chunks.join(""), "told\n")
        yield* kernel.set("name", { a: [1n, new Uint8Array(3), undefined] })
        assert.strictEqual(yield* kernel.call("statistics:median", [[1, 2]], { returns: Schema.Finite }), 1.5)
        assert.strictEqual(
          yield* kernel.call("power", [2], { kwargs: { exponent: 10 }, returns: Schema.Int }),
          1024,
        )
        const failures: ReadonlyArray<readonly [string, Effect.Effect<unknown, { readonly _tag: string }>]> =
          [
            ["SchemaError", kernel.evaluate("6 * 7", Schema.String)],
            ["ExecutionError", kernel.evaluate("1 // 0", Schema.Int)],
            ["ExecutionTimeout", kernel.evaluate("forever()", Schema.Int, { timeout: "300 millis" })],
            ["InvalidName", kernel.set("no name", 1)],
            ["InvalidName", kernel.call("a:b:c", [], { returns: Schema.Void })],
            ["UnsupportedValue", kernel.set("name", Symbol("none"))],
            ["UnsupportedValue", kernel.call("power", [() => 1], { returns: Schema.Void })],
            ["SchemaError", kernel.set("name", -1, { schema: Schema.Finite.check(Schema.isGreaterThan(0)) })],
          ]
        for (const [tag, effect] of failures) assert.strictEqual((yield* Effect.flip(effect))._tag, tag)
        const unsupported = yield* Effect.flip(kernel.set("name", { a: [Symbol("none")] }))
        assert.include(unsupported.message, `"$.a[0]"`)
        yield* isUsable(kernel)
      }))

    test("set encodes by its schema to what Python has types for, or refuses it", (kernel) =>
      Effect.gen(function* () {
        class Order extends Schema.Class<Order>("Order")({ id: Schema.BigInt }) {}
        const set = <S extends Schema.Codec<unknown, unknown>>(schema: S, value: S["Type"]) =>
          Effect.result(kernel.set("name", value, { schema }))
        const outcomes = yield* Effect.all([
          set(Schema.Redacted(Schema.String), Redacted.make("secret")),
          set(Schema.Struct({ a: Schema.Redacted(Schema.Int) }), { a: Redacted.make(1) }),
          set(Schema.Array(Schema.Redacted(Schema.String)), [Redacted.make("a")]),
          set(Schema.Result(Schema.Int, Schema.String), Result.succeed(1)),
          set(Schema.RegExp, /a/g),
          set(Schema.Option(Schema.Int), Option.some(1)),
          set(Order, new Order({ id: 1n })),
          set(Schema.Struct({ a: Schema.UndefinedOr(Schema.Int) }), { a: undefined }),
          set(Schema.Symbol, Symbol("none")),
        ])
        assert.deepStrictEqual(
          outcomes.map((outcome) => outcome._tag === "Failure" ? outcome.failure._tag : "Success"),
          [...Array<string>(8).fill("Success"), "UnsupportedValue"],
        )
        const batches = kernel.feed("sum", Stream.make(Redacted.make(1), Redacted.make(2)), {
          returns: Schema.Int,
          schema: Schema.Redacted(Schema.Int),
        })
        assert.deepStrictEqual(yield* Stream.runCollect(batches), [3])
      }))

    test("iterate", (kernel) =>
      Effect.gen(function* () {
        yield* kernel.execute(definitions)
        assert.deepStrictEqual(yield* Stream.runCollect(kernel.iterate("range(5)", Schema.Int)), [
          0,
          1,
          2,
          3,
          4,
        ])
        assert.deepStrictEqual(yield* Stream.runCollect(kernel.iterate("'abc'", Schema.String)), [
          "a",
          "b",
          "c",
        ])
        const seen: Array<number> = []
        const note = Stream.runForEach((n: number) => Effect.sync(() => void seen.push(n)))
        const broken = yield* Effect.flip(note(kernel.iterate("breaks()", Schema.Int)))
        assert.instanceOf(broken, Execution.ExecutionError)
        assert.deepStrictEqual([seen, broken.ename, broken.evalue], [[1, 2], "ValueError", "three"])
        const single = yield* Effect.flip(Stream.runDrain(kernel.iterate("7", Schema.Int)))
        assert.instanceOf(single, Execution.ExecutionError)
        assert.strictEqual(single.ename, "TypeError")
        assert.match(single.evalue, /^'(int|number)' object is not iterable$/)

        // Other executions come in between, and the generator is closed when its consumer ends.
        const before = yield* kernel.evaluate("closed", Schema.Int)
        const few = yield* kernel.iterate("closes()", Schema.Int, { batchSize: 2 }).pipe(
          Stream.tap(() => isUsable(kernel)),
          Stream.take(5),
          Stream.runCollect,
        )
        assert.deepStrictEqual(few, [0, 1, 2, 3, 4])
        assert.strictEqual(yield* kernel.evaluate("closed", Schema.Int), before + 1)

        const lost = yield* kernel.iterate("closes()", Schema.Int, { batchSize: 2 }).pipe(
          Stream.tap((n) => n === 3 ? kernel.reset : Effect.void),
          Stream.runDrain,
          Effect.flip,
        )
        assert.strictEqual(reasonOf(lost), "ExecutionAborted")
        assert.include(lost.message, "The kernel was reset, and its iterators are gone")
        yield* isUsable(kernel)
      }))

    test("feed", (kernel) =>
      Effect.gen(function* () {
        const sums = kernel.feed("sum", Stream.range(1, 5), { returns: Schema.Int, batchSize: 2 })
        assert.deepStrictEqual(yield* Stream.runCollect(sums), [3, 7, 5])
        const failed = yield* Effect.flip(
          Stream.runDrain(kernel.feed("sum", Stream.fail("broken"), { returns: Schema.Int })),
        )
        assert.strictEqual(failed, "broken")
      }))

    it.effect("a client that is closed", () =>
      Effect.gen(function* () {
        const [kernel, fiber] = yield* Effect.scoped(Effect.gen(function* () {
          const kernel = yield* make
          const begun = yield* Latch.make()
          const fiber = yield* kernel.stream(cells.endless).pipe(
            Stream.runForEach(() => begun.open),
            Effect.flip,
            Effect.forkDetach,
          )
          yield* begun.await
          return [kernel, fiber] as const
        }))
        for (
          const effect of [
            Fiber.join(fiber),
            Effect.flip(kernel.execute(cells.sum)),
            Effect.flip(kernel.interrupt),
          ]
        ) {
          const error: Execution.ExecutionFailure = yield* effect
          assert.strictEqual(reasonOf(error), "ExecutionAborted")
          assert.include(error.message, "The client is closed")
        }
      }))
  })
}

suite("a real kernel", kernelLayer(), KernelClient.make({ images: "bytes" }))
suite("a kernel of effect-jupyter serve", Serve.layer(), KernelClient.make({ images: "bytes" }))
suite(
  "a kernel for tests",
  Layer.empty,
  Effect.map(
    Layer.build(Testing.layer(scripts)),
    (context) => Context.get(context, KernelClient.KernelClient),
  ),
)
for (const [protocol, serialization] of [["http", "ndjson"], ["socket", "binary"]] as const) {
  suite(
    `a kernel of another process (${protocol}, ${serialization})`,
    Rpc.layer(protocol, serialization),
    Effect.map(
      Effect.suspend(() => Layer.build(KernelClient.layerRpc(randomUUID()))),
      (context) => Context.get(context, KernelClient.KernelClient),
    ),
  )
}
