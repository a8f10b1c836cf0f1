/** Messages that no program has a use for, which code in a kernel sends in the name of its execution. */
import { assert, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import process from "node:process"
import { type Execution, KernelClient } from "../src/mod.ts"
import { kernelLayer, slow } from "./support/kernel.ts"

const { KernelClient: Client } = KernelClient
const MB = 1024 * 1024

/** Sends messages past ipykernel: `forge` as they are, `answer` as the answer to the request that runs. */
const definitions = `
import json, sys
kernel = get_ipython().kernel
session, socket = kernel.session, kernel.iopub_socket

def forge(kind, content, buffers=None, header=None, raw=None, metadata=None):
    message = session.msg(kind, content={}, parent=kernel.get_parent())
    message["header"].update(header or {})
    parts = [session.pack(part) for part in (message["header"], message["parent_header"], metadata or {})]
    parts.append(session.pack(content) if raw is None else raw)
    socket.send_multipart(
        [b"kernel." + kind.encode(), b"<IDS|MSG>", session.sign(parts), *parts, *(buffers or [])], copy=True
    )

def show(data, **options):
    forge("display_data", {"data": data, "metadata": {}}, **options)

mime = "application/vnd.effect-jupyter.value+json"
def answer(value, *buffers):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    show({mime: {"kind": "value"}}, buffers=[text, *buffers])

def answers(value, *buffers):
    exchange = sys.modules["effect_jupyter.values.requests"].Exchange
    answer = exchange.answer
    def forged(self, content, *_):
        exchange.answer = answer
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._send(content, [text, *buffers])
    exchange.answer = forged

def replies(*given, buffers=()):
    handler = kernel.shell_handlers.get("effect_jupyter_value_request")
    if handler is None:
        return answers(b"not JSON")  # requests travel as executions
    values = handler.__self__
    sender = values._sender
    class Forging:
        def send(self, channel, kind, content, parent, **options):
            values._sender = sender
            sender.send(channel, kind, {**content, "answers": given}, parent, buffers=[*buffers])
    values._sender = Forging()
`

const prepared = Client.pipe(
  Effect.tap((kernel) => kernel.execute(definitions)),
  Effect.tap((kernel) => kernel.evaluate("1", Schema.Int)),
)

/** Fails the test unless the effect fails with this reason; and the next execution works. */
const refused = Effect.fnUntraced(function* <A, E extends { readonly _tag: string }>(
  effect: Effect.Effect<A, E | Execution.ExecutionFailure>,
  what: string,
) {
  const kernel = yield* Client
  const error = yield* Effect.flip(effect)
  if (!("reason" in error)) return assert.fail(`${what}: ${error._tag}`)
  assert.strictEqual(error.reason._tag, "ProtocolViolation", `${what}: ${error.reason.message}`)
  assert.strictEqual((yield* kernel.execute("print('next')")).text, "next", what)
  return error.reason.message
})

layer(kernelLayer({}, { maxMessageSize: 32 * MB }), slow)("forged messages", (it) => {
  it.effect("an execution that sends a message past a bound fails with ProtocolViolation, the next one works", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const before = process.memoryUsage.rss()
      for (
        const [code, detail] of [
          ["show({}, buffers=[b''] * 200_000)", "200006 parts, which are more than 65536"],
          ["show({}, header={'msg_id': 'x' * 10**6})", "more than 65536"],
          ["show({}, header={'msg_id': 'x' * 2000})", "more than 1024 characters"],
          ["show({}, header={'more': 'x' * 10**5})", "more than 65536"],
          ["show({}, metadata={'more': 'x' * 10**6})", "more than 65536"],
          [`show({}, raw=b'{"data":' + b'[' * 17_000 + b']' * 17_000 + b'}')`, "deeper than 256 levels"],
          [`show({}, raw=b'{"data":' + b'{"a":' * 2000 + b'1' + b'}' * 2001)`, "deeper than 256 levels"],
          [`show({}, raw=b'{"data":{"a":[' + b'{},' * 10_000_000 + b'1]}}')`, "more than 10000000 values"],
          ["show({'text/plain': 'x' * 33 * 1024 * 1024})", "the 33554432 bytes of the option"],
        ] as const
      ) {
        const message = yield* refused(kernel.execute(`print('before')\n${code}`), code)
        assert.include(message, detail, code)
      }
      assert.isBelow(process.memoryUsage.rss() - before, 500 * MB)
    }))

  it.effect("outputLimit bounds displays, their ids and images, says what is left out, and the memory stays", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const before = process.memoryUsage.rss()
      for (
        const code of [
          "for n in range(500): show({'text/html': f'{n}' + 'x' * 10**6})",
          "for n in range(20_000): forge('display_data', {'data': {}, 'metadata': {}, 'transient': {'display_id': f'{n}' + 'x' * 1000}})",
          "for n in range(20_000): show({'application/json': {'a': [{}] * 100}})",
          'for n in range(20_000): show({}, metadata={}, raw=b\'{"data":{},"metadata":{"a":"\' + b\'x\' * 1000 + b\'"}}\')',
          "from IPython.display import display\nh = display(0, display_id='a')\nfor n in range(200): forge('update_display_data', {'data': {'text/html': 'x' * 10**6 * n}, 'metadata': {}, 'transient': {'display_id': 'a'}}) if n < 3 else None",
        ]
      ) {
        const { displays, text } = yield* kernel.execute(`print('before')\n${code}\nprint('after')`, {
          outputLimit: 1_000_000,
        })
        assert.match(text ?? "", /^before\n(0\n)?after\n\[effect-jupyter\] \d+ displays left out, /, code)
        assert.isBelow(JSON.stringify(displays).length, 1_500_000, code)
        const next = yield* kernel.execute("display(1)\n2", { outputLimit: 1_000_000 })
        assert.deepStrictEqual([next.text, next.displays.length], ["1\n2", 2])
      }
      assert.isBelow(process.memoryUsage.rss() - before, 500 * MB)
    }))

  it.effect("text with more codes than text is read in time, and bounded by outputLimit", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (
        const code of [
          "print('x' * 10**6 + '\\x1b[1K' * 10**5)",
          "print('\\x1b[999Gx\\n' * 10**5)",
          "print('\\b\\n' * 10**5)",
          "print('x' * 10**6 + '\\x1b[2Kx' * 10**5)",
          "import sys\nfor n in range(3000): print('x' * 1000); print('y', end='', file=sys.stderr)",
        ]
      ) {
        const started = performance.now()
        const { text = "" } = yield* kernel.execute(code, { outputLimit: 1_000_000 })
        assert.isBelow(text.length, 1_000_100, code)
        assert.isBelow(performance.now() - started, 20_000, code)
      }
    }))

  it.effect("introspection refuses an answer of too many values, and loses control codes", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute("kernel = get_ipython().kernel\ndef complete(code, cursor):\n    return answer")
      yield* kernel.execute(
        "kernel.do_complete = complete\nanswer = {'status': 'ok', 'matches': ['a'] * 2_000_000, 'cursor_start': 0, 'cursor_end': 0, 'metadata': {}}",
      )
      const error = yield* Effect.flip(kernel.complete("a"))
      assert.strictEqual(error._tag, "IntrospectionFailed")
      assert.include(error.message, "more than 1000000 values")
      yield* kernel.execute("answer['matches'] = ['a\\x1b]0;title\\x07b']")
      assert.deepStrictEqual((yield* kernel.complete("a")).matches, ["ab"])
      yield* kernel.execute("class Loud:\n    def __repr__(self): return '\\x1b[31mred\\x07'\nloud = Loud()")
      const variables = yield* kernel.variables
      assert.strictEqual(variables.find(({ name }) => name === "loud")?.repr, "red")
    }))

  it.effect("evaluate refuses an answer that announces what it does not have", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const before = process.memoryUsage.rss()
      const array = (shape: string, bytes: string) =>
        `{'$': 'array', 'dtype': 'f8', 'shape': ${shape}, 'v': 1}, ${bytes}`
      for (
        const forged of [
          "{'$': 'frame', 'columns': [], 'rows': 50_000_000, 'v': []}",
          "[{'$': 'frame', 'columns': [], 'rows': 900_000, 'v': []}] * 2",
          "{'$': 'frame', 'columns': ['a'], 'rows': 50_000_000, 'v': [[1]]}",
          "{'$': 'frame', 'columns': ['a'], 'rows': -1, 'v': [[]]}",
          "{'$': 'frame', 'columns': ['a'], 'rows': 1.5, 'v': [[1]]}",
          "{'$': 'frame', 'columns': ['a'], 'rows': 'NaN', 'v': [[1]]}",
          "{'$': 'frame', 'columns': ['a', 'b'], 'rows': 1, 'v': [[1]]}",
          "{'$': 'frame', 'columns': ['a'], 'rows': 1, 'v': [7]}",
          array("[10**9, 10**9]", "bytes(8)"),
          array("[10**9, 0]", "b''"),
          array("[2**40, 2**40, 0]", "b''"),
          array("[10**6, *[1] * 60]", "bytes(8 * 10**6)"),
          array("[1] * 65", "bytes(8)"),
          array("[2]", "bytes(15)"),
          array("[-1, -2]", "bytes(16)"),
          array("[1.5]", "bytes(12)"),
          array("[None]", "bytes(8)"),
          "{'$': 'array', 'dtype': 'f9', 'shape': [1], 'v': 1}, bytes(9)",
          "{'$': 'array', 'dtype': 'b1', 'shape': [10**9, 0], 'v': 1}, b''",
          "[{'$': 'bytes', 'v': 1}] * 10**5, bytes(10**5)",
          "{'$': 'bytes', 'v': 2}, b''",
          "{'$': 'int', 'v': 'f' * 8_000_000}",
          // Written in decimal digits, say by the failure of a schema, they would take seconds each.
          "{'$': 'int', 'v': 'f' * 500_000}",
          "[{'$': 'int', 'v': 'f' * 100_000}] * 20",
          "[{'$': 'decimal', 'v': '1' * 10_000}] * 1000",
          "{'$': 'int', 'v': 'z'}",
          "{'$': 'int', 'v': [1]}",
          "{'$': 'float', 'v': '1' * 10**6}",
          "{'$': 'timedelta', 'v': '1' * 10**6}",
          "{'$': 'datetime', 'v': '2' * 10**6}",
          "{'$': 'decimal', 'v': '1' * 8_000_000}",
          "{'$': '\\x1b]0;title\\x07', 'v': 1}",
          "b'[' * 17_000 + b']' * 17_000",
          "b'[' * 500 + b']' * 500",
          `b'{"$":"set","v":[' * 400 + b']}' * 400`,
          `b'{"$":"map","v":[[1,' * 300 + b'1' + b']]}' * 300`,
          "b'[' + b'{},' * 10_000_000 + b'1]'",
          "b'not JSON'",
        ]
      ) {
        yield* kernel.execute(`answers(${forged})`)
        const message = yield* refused(kernel.evaluate("1", Schema.Unknown), forged)
        assert.notMatch(message, new RegExp("[\x00-\x08\x0b-\x1f\x7f-\x9f]"))
      }
      assert.isBelow(process.memoryUsage.rss() - before, 500 * MB)
    }))

  it.effect("evaluate refuses a reply whose answers have other buffers than it says", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const before = process.memoryUsage.rss()
      for (
        const forged of [
          "{'kind': 'value'}",
          "{'kind': 'value', 'buffers': 3}",
          "{'kind': 'value', 'buffers': '1e9'}, {'kind': 'value', 'buffers': -1}",
          "*[{'kind': 'value', 'buffers': n % 2 and 60_000 or -60_000} for n in range(100_001)], buffers=[b''] * 60_000",
          "5, None, {'kind': 7, 'buffers': {}}",
        ]
      ) {
        yield* kernel.execute(`replies(${forged})`)
        yield* refused(kernel.evaluate("1", Schema.Unknown), forged)
      }
      assert.isBelow(process.memoryUsage.rss() - before, 300 * MB)
    }))

  it.effect("evaluate keeps no more answers than a message may have bytes", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const before = process.memoryUsage.rss()
      const flood = "[answer(1, bytes(10**6)) for _ in range(200)] and None"
      assert.include(yield* refused(kernel.evaluate(flood, Schema.Unknown), flood), "33554432 bytes")
      assert.isBelow(process.memoryUsage.rss() - before, 300 * MB)
    }))

  it.effect("onInput is called for no more requests than a kernel can wait for", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      const code = "for _ in range(1000): session.send(kernel.stdin_socket, 'input_request', " +
        "{'prompt': '\\x1b[31m?', 'password': False}, kernel.get_parent(), ident=kernel._parent_ident['shell'])"
      let calls = 0
      const onInput = () => Effect.andThen(Effect.sync(() => calls++), Effect.never)
      yield* refused(kernel.execute(code, { onInput }), code)
      assert.isAtMost(calls, 16)
      const error = yield* Effect.flip(kernel.execute(code))
      assert.strictEqual(error._tag === "KernelError" ? error.reason._tag : error._tag, "InputRequested")
      assert.notInclude(error.message, "\x1b")
    }))

  it.effect("evaluate takes no decimal for a BigDecimal that calculating with takes all memory", () =>
    Effect.gen(function* () {
      const kernel = yield* prepared
      yield* kernel.execute("from decimal import Decimal")
      for (const text of ["1E+999999999", "1E-999999999", "1E+999999999999999999"]) {
        assert.strictEqual(yield* kernel.evaluate(`Decimal('${text}')`, Schema.Unknown), text)
        const error = yield* Effect.flip(kernel.evaluate(`Decimal('${text}')`, Schema.BigDecimal))
        assert.strictEqual(error._tag, "SchemaError")
      }
    }))

  it.effect("ExecutionError has no control codes, and reads a megabyte of them in no time", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (
        const code of ["\\x1b]a;", "\\x1b[", "\\x9d", "\\x1bP0", "\\x1b[1;", "\\x1b]8;;x\\x07", "\\x1b \\r"]
      ) {
        const started = performance.now()
        const error = yield* Effect.flip(kernel.execute(`raise ValueError("${code}" * 200_000)`))
        assert.isBelow(performance.now() - started, 10_000, code)
        assert.strictEqual(error._tag, "ExecutionError")
        assert.notMatch(error.message, new RegExp("[\x00-\x08\x0b-\x1f\x7f-\x9f]"), code)
      }
    }))
})
