/** Results and failures where an Effect application sends them as JSON: AI tools, whose results MCP sends, and HttpApi. */
import { NodeHttpServer } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import { Tool, Toolkit } from "effect/ai"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpApiTest } from "effect/http-api"
import { Execution, KernelClient, Testing } from "../../src/mod.ts"

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR4nGNgYAAAAAMAASsJTYQAAAAASUVORK5CYII="

const Parameters = Schema.Struct({ code: Schema.String })
const { ExecutionFailure, ExecutionResult } = Execution
const PythonTools = Toolkit.make(
  Tool.make("python", {
    parameters: Parameters,
    success: ExecutionResult,
    failure: ExecutionFailure,
    failureMode: "return",
  }),
)
const Api = HttpApi.make("api").add(
  HttpApiGroup.make("kernel").add(
    HttpApiEndpoint.post("run", "/run", {
      payload: Parameters,
      success: ExecutionResult,
      error: ExecutionFailure,
    }),
  ),
)
const run = Effect.map(
  KernelClient.KernelClient,
  (kernel) => ({ code }: typeof Parameters.Type) => kernel.execute(code),
)

const services = Layer.mergeAll(
  PythonTools.toLayer(Effect.map(run, (python) => ({ python }))),
  HttpApiBuilder.group(
    Api,
    "kernel",
    (handlers) => Effect.map(run, (run) => handlers.handle("run", ({ payload }) => run(payload))),
  ),
).pipe(
  Layer.provideMerge(Testing.layer([
    { match: "x = 6" },
    { match: "plot()", chunks: [Testing.display({ "image/png": png, "text/plain": "<Figure>" })] },
    {
      match: "1 / 0",
      chunks: ["before\n"],
      error: { ename: "ZeroDivisionError", evalue: "division by zero" },
    },
    { match: "exit()", error: new Execution.KernelDied({ kernelId: undefined }) },
  ])),
  Layer.provideMerge(NodeHttpServer.layerHttpServices),
)

layer(services)("ExecutionResult and ExecutionFailure", (it) => {
  const viaTool = Effect.fnUntraced(function* (code: string) {
    const toolkit = yield* PythonTools
    const last = yield* Stream.runLast(yield* toolkit.handle("python", { code }))
    return yield* Effect.fromOption(last)
  })
  const viaApi = Effect.fnUntraced(function* (code: string) {
    const client = yield* HttpApiTest.groups(Api, ["kernel"])
    return yield* client.kernel.run({ payload: { code } })
  })

  for (const code of ["x = 6", "plot()"]) {
    it.effect(`success of an AI tool and of an endpoint: ${code}`, () =>
      Effect.gen(function* () {
        const { encodedResult, isFailure, result } = yield* viaTool(code)
        assert.isFalse(isFailure)
        assert.isTrue(Schema.is(Schema.Json)(encodedResult))
        const decoded = yield* Schema.decodeUnknownEffect(ExecutionResult)(
          JSON.parse(JSON.stringify(encodedResult)),
        )
        assert.deepStrictEqual(decoded, result)
        assert.isAtMost(JSON.stringify(encodedResult).split(png).length, 2, "An image is there once")
        const { images, text } = yield* viaApi(code)
        assert.deepStrictEqual([text, images.length], code === "x = 6" ? [undefined, 0] : ["<Figure>", 1])
      }))
  }

  it.effect("failure of an AI tool and of an endpoint", () =>
    Effect.gen(function* () {
      for (const code of ["1 / 0", "exit()"]) {
        const { encodedResult, isFailure } = yield* viaTool(code)
        assert.isTrue(isFailure)
        const decoded = yield* Schema.decodeUnknownEffect(ExecutionFailure)(
          JSON.parse(JSON.stringify(encodedResult)),
        )
        const error = yield* Effect.flip(viaApi(code))
        assert.strictEqual(error._tag, decoded._tag)
        assert.strictEqual(error.message.split("\n")[0], decoded.message.split("\n")[0])
      }
    }))

  it.effect("have JSON schemas, which AI tools and MCP need", () =>
    Effect.sync(() => {
      const { definitions } = Schema.toJsonSchemaDocument(ExecutionResult)
      assert.notInclude(JSON.stringify(definitions), "undefined")
      assert.isDefined(Schema.toJsonSchemaDocument(ExecutionFailure))
    }))
})
