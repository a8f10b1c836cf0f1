/** Kernels of sessions over RPC, between two processes; `parity_test.ts` runs its tests over RPC as well. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, FileSystem, Layer, Schema, Stream } from "effect"
import { FetchHttpClient } from "effect/http"
import { ChildProcess } from "effect/process"
import { RpcClient, RpcSerialization } from "effect/rpc"
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import process from "node:process"
import { Execution, KernelClient, KernelRpc } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as Browser from "./support/browser.ts"
import { slow, temporary, text, texts } from "./support/kernel.ts"
import { descendants, survivors } from "./support/processes.ts"
import * as Rpc from "./support/rpc.ts"

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

const kernelOf = (key: string = randomUUID()) =>
  Effect.map(
    Effect.suspend(() => Layer.build(KernelClient.layerRpc(key))),
    (context) => Context.get(context, KernelClient.KernelClient),
  )
const reasonOf = (failure: { readonly _tag: string }) =>
  failure instanceof Execution.KernelError ? failure.reason._tag : failure._tag

describe("KernelRpc", () => {
  const image = new Execution.Image({
    path: "1.png",
    mimeType: "image/png",
    bytes: new Uint8Array([1, 2, 3]),
  })
  const display = new Execution.DisplayChunk({
    data: { "image/png": "AQID", "text/plain": "<1>", "application/json": { a: [1, null, { b: true }] } },
    metadata: { "image/png": { width: 1 } },
    text: "<1>",
    image,
    displayId: "d",
    update: true,
    executionCount: 3,
  })
  const result = new Execution.ExecutionResult({
    text: "a\u001b[1mb\ud83d\ude00",
    images: [image],
    displays: [display],
    executionCount: 3,
    payloads: [{ source: "set_next_input", text: "x" }],
  })
  const empty = new Execution.ExecutionResult({
    text: undefined,
    images: [],
    displays: [],
    executionCount: undefined,
  })
  const kernelId = undefined
  const reasons: ReadonlyArray<Execution.KernelErrorReason> = [
    new Execution.KernelDied({ kernelId: "1" }),
    new Execution.KernelUnresponsive({ kernelId }),
    new Execution.KernelStartFailed({ kernelId, detail: "d" }),
    new Execution.KernelNotFound({ kernelId: "1" }),
    new Execution.ConnectionLost({ kernelId, detail: "d" }),
    new Execution.ExecutionAborted({ kernelId: "1", detail: "d" }),
    new Execution.InputRequested({ kernelId, prompt: "p" }),
    new Execution.ProtocolViolation({ kernelId, detail: "d" }),
    new Execution.InvalidOption({ option: "timeout", value: "-1", detail: "d" }),
    new Execution.ResourceLimit({ detail: "d", retryAfter: Duration.seconds(3) }),
    new Execution.Forbidden({ detail: "d" }),
    new Execution.NoSuchKernelspec({ kernelName: "k", known: ["a"] }),
    new Execution.Unsupported({ language: "bash", operation: "evaluate" }),
    new Execution.Unsupported({ language: "", operation: "images", detail: "d" }),
  ]
  const elements = [
    new Execution.TextChunk({ name: "stderr", text: "x\r\n" }),
    display,
    new Execution.ClearOutput({ wait: true }),
    result,
    empty,
  ]
  const failures = [
    new Execution.ExecutionError({ ename: "E", evalue: "v", traceback: ["a", "b"], partial: result }),
    new Execution.ExecutionTimeout({ timeout: Duration.millis(1500), traceback: ["t"], partial: empty }),
    ...reasons.map((reason) => new Execution.KernelError({ reason })),
    new Execution.KernelError({ reason: new Execution.KernelDied({ kernelId: "1" }), partial: result }),
  ]

  it.effect("results and failures round-trip through JSON and schema-binary", () =>
    Effect.gen(function* () {
      const Elements = Schema.Array(Schema.Union([Execution.Chunk, Execution.ExecutionResult]))
      const Failures = Schema.Array(Execution.ExecutionFailure)
      const check = Effect.fnUntraced(function* <S extends Schema.Codec<unknown, unknown>>(
        schema: S,
        values: S["Type"],
      ) {
        const json = Schema.fromJsonString(Schema.toCodecJson(schema))
        assert.deepStrictEqual(
          yield* Schema.decodeEffect(json)(yield* Schema.encodeEffect(json)(values)),
          values,
        )
        const { codecFor } = Context.get(
          yield* Layer.build(RpcSerialization.layerSchemaBinary()),
          RpcSerialization.RpcSerialization,
        )
        const binary = codecFor(schema)
        assert.deepStrictEqual(
          yield* Schema.decodeUnknownEffect(binary)(yield* Schema.encodeUnknownEffect(binary)(values)),
          values,
        )
      })
      yield* check(Elements, elements)
      yield* check(Failures, failures)
    }))
})

for (
  const [protocol, serialization] of [
    ["http", "json"],
    ["http", "ndjson"],
    ["websocket", "ndjson"],
    ["socket", "binary"],
  ] as const
) {
  const environment = Layer.provideMerge(Rpc.layer(protocol, serialization), Platform.layer)
  layer(environment, slow)(`KernelClient.layerRpc over ${protocol} with ${serialization}`, (it) => {
    it.effect("execute sends output, images, failures and timeouts, and keeps the state", () =>
      Effect.gen(function* () {
        const kernel = yield* kernelOf()
        const streamed = yield* Stream.runCollect(kernel.stream(`
from IPython.display import Image, display
import base64
x = 20
print("hello")
display(Image(base64.b64decode("${png}")))
x + 1`))
        assert.deepStrictEqual(streamed.map(({ _tag }) => _tag), [
          "TextChunk",
          "DisplayChunk",
          "DisplayChunk",
          "ExecutionResult",
        ])
        const result = streamed.at(-1)
        assert.instanceOf(result, Execution.ExecutionResult)
        assert.strictEqual(result.images[0]?.bytes?.length, 70)
        assert.strictEqual(result.displays[0]?.data["image/png"], png)
        const raised = yield* Effect.flip(kernel.execute("print(x)\n1 / 0"))
        assert.instanceOf(raised, Execution.ExecutionError)
        assert.deepStrictEqual([raised.ename, raised.partial.text], ["ZeroDivisionError", "20"])
        const late = yield* Effect.flip(kernel.execute("while True: pass", { timeout: "300 millis" }))
        assert.instanceOf(late, Execution.ExecutionTimeout)
        assert.strictEqual(Duration.toMillis(late.timeout), 300)
        assert.strictEqual(yield* text(kernel.execute("x")), "20")
        assert.strictEqual(
          reasonOf(yield* Effect.flip(kernel.execute("1", { timeout: "-1 seconds" }))),
          "InvalidOption",
        )
        const refused = yield* Effect.flip(kernel.execute("1", { images: "directory" }))
        assert.strictEqual(reasonOf(refused), "Unsupported")
        assert.include(refused.message, "another process")
        assert.include((yield* kernel.complete("import jso")).matches, "json")
        assert.isTrue((yield* kernel.inspect("print")).found)
        assert.include((yield* kernel.variables).map(({ name }) => name), "x")
      }))

    it.effect("interruption ends the code, and waits until the kernel is idle", () =>
      Effect.gen(function* () {
        const kernel = yield* kernelOf()
        yield* kernel.execute("import time, signal\nn = 0")
        // It takes half a second to end.
        const fiber = yield* Effect.forkChild(
          kernel.execute("try:\n  time.sleep(60)\nexcept KeyboardInterrupt:\n  time.sleep(0.5); n = 1"),
          { startImmediately: true },
        )
        yield* Effect.sleep("500 millis")
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* kernel.evaluate("n", Schema.Int), 1)
        const running = yield* Effect.forkChild(Effect.flip(kernel.execute("time.sleep(60)")), {
          startImmediately: true,
        })
        yield* Effect.sleep("300 millis")
        yield* kernel.interrupt
        assert.strictEqual((yield* Fiber.join(running))._tag, "ExecutionError")
        const reset = yield* Effect.forkChild(Effect.flip(kernel.execute("import time; time.sleep(60)")), {
          startImmediately: true,
        })
        yield* Effect.sleep("300 millis")
        yield* kernel.reset
        assert.strictEqual(reasonOf(yield* Fiber.join(reset)), "ExecutionAborted")
        assert.strictEqual(yield* text(kernel.execute("'n' in globals()")), "False")
      }))

    it.effect("text, failures and values of any size cross", () =>
      Effect.gen(function* () {
        const kernel = yield* kernelOf()
        const length = 20_000_000
        const long = yield* kernel.execute(`print("\\u00e4" * ${length})`)
        assert.strictEqual(long.text?.length, length)
        const streamed = yield* Stream.runCollect(kernel.stream(`print("b" * ${length})`))
        assert.strictEqual(texts(streamed).join("").length, length + 1)
        const failed = yield* Effect.flip(kernel.execute(`print("c" * ${length})\n1 / 0`))
        assert.strictEqual(failed._tag === "ExecutionError" && failed.partial.text?.length, length)
        const bytes = new Uint8Array(length).fill(7)
        yield* kernel.set("bytes", bytes)
        assert.strictEqual(yield* kernel.evaluate("sum(bytes)", Schema.Int), 7 * length)
        assert.deepStrictEqual(yield* kernel.evaluate("bytes", Schema.Uint8Array), bytes)
      }))

    if (serialization === "json") {
      it.effect("what needs an answer of the client while code runs is refused", () =>
        Effect.gen(function* () {
          const kernel = yield* kernelOf()
          const refused = yield* Effect.all([
            Effect.flip(kernel.execute("input()", { onInput: () => Effect.succeed("x") })),
            Effect.flip(kernel.execute("1", { images: () => Effect.succeed("x") })),
          ], { concurrency: 2 })
          assert.deepStrictEqual(refused.map(reasonOf), ["Unsupported", "Unsupported"])
          assert.include(refused[0].message, "layerNdjson")
        }))
    }

    if (protocol !== "http") {
      it.effect(
        "no request and no answer is too large for the connection, which others use meanwhile",
        () =>
          Effect.gen(function* () {
            const kernel = yield* kernelOf()
            const other = yield* kernelOf()
            yield* other.execute("import time")
            const meanwhile = yield* Effect.forkChild(text(other.execute("time.sleep(4); 'done'")), {
              startImmediately: true,
            })
            // Serializations refuse messages of more than 16 MiB.
            const length = 17_000_000
            assert.strictEqual(
              yield* text(kernel.execute(`"\ud83d\ude00" #${"a".repeat(length)}`)),
              "'\ud83d\ude00'",
            )
            const image = yield* kernel.execute(
              `import base64
from IPython.display import Image, display
display(Image(base64.b64decode("${png}") + b"0" * ${length}))`,
              { images: ({ bytes }) => Effect.succeed(String(bytes.byteLength)) },
            )
            assert.strictEqual(image.images[0]?.path, String(70 + length))
            const late = yield* Effect.forkChild(Stream.runHead(kernel.output), { startImmediately: true })
            yield* kernel.execute(`
import sys, threading
def write():
  started.wait()
  sys.stdout.write("\\x01" * 5_000_000)
  sys.stdout.flush()
started = threading.Event()
threading.Thread(target=write).start()`)
            yield* kernel.execute("threading.Timer(0.5, started.set).start()")
            assert.isTrue((yield* Fiber.join(late))._tag === "Some")
            yield* kernel.execute(`def f(): pass\nf.__doc__ = "d" * ${length}`)
            const refused = yield* Effect.flip(kernel.inspect("f"))
            assert.strictEqual(refused._tag, "IntrospectionFailed")
            assert.include(refused.message, "one message may have")
            assert.strictEqual(yield* Fiber.join(meanwhile), "'done'")
          }),
      )
    }

    it.effect("a death is told until a reset, and a session that another client has is shared", () =>
      Effect.gen(function* () {
        const key = randomUUID()
        const ada = yield* kernelOf(key)
        const other = yield* kernelOf(key)
        yield* ada.execute("x = 1")
        assert.strictEqual(other.id, ada.id)
        assert.strictEqual(yield* text(other.execute("x")), "1")
        assert.strictEqual(reasonOf(yield* Effect.flip(ada.execute("import os; os._exit(1)"))), "KernelDied")
        assert.strictEqual(reasonOf(yield* Effect.flip(ada.execute("1"))), "KernelDied")
        assert.strictEqual(reasonOf(yield* Effect.flip(other.execute("1"))), "ExecutionAborted")
        yield* ada.reset
        assert.strictEqual(yield* text(ada.execute("'x' in globals()")), "False")
        assert.strictEqual(reasonOf(yield* Effect.flip(other.execute("1"))), "ExecutionAborted")
      }))
  })
}

/** The megabytes of memory that a process has. */
const memoryOf = (pid: number) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024

layer(Platform.layer, slow)("KernelClient.layerRpc", (it) => {
  for (const [protocol, serialization] of [["http", "ndjson"], ["socket", "binary"]] as const) {
    it.effect(`a consumer that takes nothing holds up the server, over ${protocol}`, () =>
      Effect.gen(function* () {
        const { handle, port } = yield* Rpc.serve(protocol, serialization)
        const kernel = yield* Effect.provide(
          kernelOf(),
          yield* Layer.build(Rpc.clientLayer(port, protocol, serialization)),
        )
        const before = memoryOf(handle.pid) + memoryOf(process.pid)
        const grown = yield* kernel.stream(`for _ in range(10_000): print("x" * 100_000, flush=True)`).pipe(
          Stream.rechunk(1),
          Stream.mapEffect(() =>
            Effect.map(Effect.sleep("6 seconds"), () => memoryOf(handle.pid) + memoryOf(process.pid) - before)
          ),
          Stream.runHead,
        )
        // Of one gigabyte.
        assert.isTrue(grown._tag === "Some")
        assert.isBelow(grown._tag === "Some" ? grown.value : 0, 400)
        assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      }))
  }

  it.effect("a client that goes away interrupts its code, and a server that goes away fails what runs", () =>
    Effect.gen(function* () {
      const { handle, port } = yield* Rpc.serve("socket", "ndjson")
      const protocol = Rpc.clientLayer(port, "socket", "ndjson")
      const key = randomUUID()
      const gone = yield* Effect.exit(
        Effect.gen(function* () {
          const kernel = yield* kernelOf(key)
          return yield* kernel.execute("x = 1\nwhile True: x += 1")
        }).pipe(Effect.scoped, Effect.provide(protocol), Effect.timeout("2 seconds")),
      )
      assert.isTrue(Exit.isFailure(gone))
      const again = yield* Layer.build(Layer.provide(KernelClient.layerRpc(key), Layer.fresh(protocol)))
      const kernel = Context.get(again, KernelClient.KernelClient)
      assert.isAbove(yield* kernel.evaluate("x", Schema.Int), 1)
      const running = yield* Effect.forkChild(Effect.flip(kernel.execute("import time; time.sleep(60)")), {
        startImmediately: true,
      })
      yield* Effect.sleep("500 millis")
      const pids = descendants(handle.pid).map(({ pid }) => pid)
      yield* handle.kill({ killSignal: "SIGKILL" })
      assert.strictEqual(reasonOf(yield* Fiber.join(running)), "ConnectionLost")
      yield* Effect.sleep("2 seconds")
      assert.isUndefined(survivors(pids))
    }))

  it.effect.skipIf(Browser.chromium === undefined)(
    "a page uses a kernel over a WebSocket (Chromium)",
    () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const folder = yield* temporary
        const bundler = yield* ChildProcess.make("node_modules/.bin/rolldown", [
          "test/support/rpc_page.ts",
          "--platform=browser",
          "--format=iife",
          `--file=${folder}/page.js`,
        ], { extendEnv: true, stdin: "ignore", stdout: "ignore" })
        assert.strictEqual(yield* bundler.exitCode, 0)
        yield* fs.writeFileString(`${folder}/page.html`, `<title></title><script src="page.js"></script>`)
        const { port } = yield* Rpc.serve("websocket", "ndjson")
        const { evaluate, until } = yield* Browser.open(`file://${folder}/page.html#${port}`)
        yield* until(`document.title !== ""`)
        assert.strictEqual(yield* evaluate("document.title"), "42 4 ExecutionError")
      }).pipe(Effect.provide(FetchHttpClient.layer)),
  )

  it.effect("a key that not every serialization sends as it is, is refused before it is sent", () =>
    Effect.gen(function* () {
      for (const key of ["\ud800", "x".repeat(10_001)]) {
        assert.strictEqual(reasonOf(yield* Effect.flip(kernelOf(key))), "InvalidOption")
      }
    }).pipe(Effect.provide(Rpc.clientLayer(9, "http", "ndjson"))))

  it.effect("the group can be used without the library's client", () =>
    Effect.gen(function* () {
      const client = yield* RpcClient.make(KernelRpc.group)
      const key = randomUUID()
      const elements = yield* Stream.runCollect(
        client.execute({ key, code: "x = {'a': [1, 2.5, None]}\nprint('hi')" }),
      )
      assert.deepStrictEqual(elements.map(({ _tag }) => _tag), ["TextChunk", "ExecutionResult"])
      assert.deepStrictEqual(yield* client.evaluate({ key, expression: "x" }), { a: [1, 2.5, null] })
      yield* client.reset({ key })
      assert.deepStrictEqual(yield* client.variables({ key }), [], "a reset without knowing the session")
      yield* Stream.runDrain(client.execute({ key, code: "x = 1" }))
      const refused = yield* Effect.flip(client.evaluate({ key, expression: "object()" }))
      assert.strictEqual(refused._tag, "UnsupportedValue")
      assert.deepStrictEqual((yield* client.variables({ key })).map(({ name }) => name), ["x"])
      const { kernelId } = yield* client.open({ key })
      assert.notStrictEqual((yield* client.reset({ key })).kernelId, kernelId)
      assert.deepStrictEqual(yield* client.variables({ key }), [])
    }).pipe(Effect.provide(Rpc.layer("http", "ndjson"))))
})
