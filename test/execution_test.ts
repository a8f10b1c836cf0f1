import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Equal, Schema } from "effect"
import { Buffer } from "node:buffer"
import * as Execution from "../src/execution.ts"
import * as Gateway from "../src/kernel_gateway.ts"

const image = new Execution.Image({ path: "images/1.png", mimeType: "image/png" })
const display = new Execution.DisplayChunk({
  data: { "application/json": { a: [1, null, "é"] } },
  metadata: { "image/png": { width: 1 } },
  text: undefined,
  image,
  displayId: undefined,
  executionCount: 2,
})
const partial = new Execution.ExecutionResult({
  text: "before",
  images: [image],
  displays: [display],
  executionCount: undefined,
})
const kernelId = "k-1"
const timeout = Duration.seconds(3)
const output = ["line 1", "line 2"]

const raised = new Execution.ExecutionError({
  ename: "ValueError",
  evalue: "no",
  traceback: ["frame 1", "frame 2"],
  partial,
})
const timedOut = new Execution.ExecutionTimeout({ timeout, partial })

const invalidOption = new Execution.InvalidOption({
  option: "timeout",
  value: "NaN",
  detail: "give a duration",
})

/** One reason of each kind, and the values that its message names. */
const kernelReasons: ReadonlyArray<readonly [Execution.KernelErrorReason, ReadonlyArray<string>]> = [
  [new Execution.KernelDied({ kernelId }), [kernelId]],
  [new Execution.KernelUnresponsive({ kernelId }), [kernelId]],
  [new Execution.KernelStartFailed({ kernelId, detail: "No such kernelspec" }), [kernelId]],
  [new Execution.KernelNotFound({ kernelId }), [kernelId]],
  [new Execution.ConnectionLost({ kernelId, detail: "It was closed" }), [kernelId]],
  [new Execution.ExecutionAborted({ kernelId, detail: "The client was closed" }), [kernelId]],
  [new Execution.InputRequested({ kernelId, prompt: "Name? " }), ["Name? "]],
  [new Execution.ProtocolViolation({ kernelId, detail: "It is too large" }), [kernelId]],
  [invalidOption, ["timeout"]],
  [new Execution.ResourceLimit({ detail: "Resource Limit", retryAfter: timeout }), []],
  [new Execution.Forbidden({ detail: "User is not authorized" }), ["KERNEL_USERNAME"]],
  [new Execution.NoSuchKernelspec({ kernelName: "julia", known: ["ir", "bash"] }), ["julia", "ir", "bash"]],
  [new Execution.Unsupported({ language: "bash", operation: "evaluate" }), ["bash", "evaluate"]],
  [new Execution.SessionTaken({ kernelId }), [kernelId]],
  [new Execution.OutputGone({ kernelId, missing: 10 }), [kernelId]],
  [new Execution.ServerReplaced({ kernelId, server: "http://a" }), [kernelId]],
]
const gatewayReasons: ReadonlyArray<readonly [Gateway.GatewayErrorReason, ReadonlyArray<string>]> = [
  [new Gateway.AssetsMissing({ file: "a.py", folders: ["/b"] }), ["a.py", "/b"]],
  [invalidOption, ["timeout"]],
  [new Gateway.PythonNotFound({ python: "/bin/py", detail: "There is no such file" }), ["/bin/py"]],
  [new Gateway.ProvisioningFailed({ directory: "/cache", output: [] }), ["/cache"]],
  [new Gateway.StartFailed({ detail: "It ended", output: [] }), []],
  [new Gateway.StartTimeout({ timeout, output: [] }), []],
  [new Gateway.PortInUse({ host: "127.0.0.1", port: 8888 }), ["127.0.0.1", "8888"]],
  [new Gateway.Exited({ exitCode: 137, output: [] }), []],
  [new Gateway.Unauthorized({ url: "http://a", status: 403 }), ["http://a"]],
  [new Gateway.CredentialsFailed({ url: "http://a", detail: "No vault" }), ["http://a"]],
  [new Gateway.Unreachable({ url: "http://a", detail: "No answer" }), ["http://a"]],
  [new Gateway.OptionsMismatch({ name: "notes", differences: [{ option: "port", given: "1" }] }), [
    "notes",
    "port",
  ]],
  [new Gateway.FolderRefused({ folder: "/run/a", detail: "It is of another user" }), ["/run/a"]],
]
const kernelError = (reason: Execution.KernelErrorReason) => new Execution.KernelError({ reason, partial })
const tagsOf = (reasons: ReadonlyArray<readonly [{ readonly _tag: string }, unknown]>) =>
  reasons.map(([{ _tag }]) => _tag)

const assertReadable = (message: string): void => {
  assert.match(message, /^[A-Z]/)
  assert.notMatch(message, /\.$/)
  assert.notInclude(message, "undefined")
}

describe("messages", () => {
  it("of an exception are its name, value and traceback", () => {
    assert.strictEqual(raised.message, "ValueError: no\nframe 1\nframe 2")
  })

  it("of a timeout name the bound", () => {
    assertReadable(timedOut.message)
    assert.include(timedOut.message, "3s")
    assert.include(timedOut.message, `"timeout"`)
  })

  for (const [reason, named] of kernelReasons) {
    it(`of kernels are readable: ${reason._tag}`, () => {
      const error = kernelError(reason)
      assert.strictEqual(error.message, reason.message)
      assert.strictEqual(error.cause, reason)
      assertReadable(error.message)
      for (const value of named) assert.include(error.message, `"${value}"`)
    })
  }

  it("of kernels do without an id", () => {
    const kernelId = undefined
    const messages = [
      new Execution.KernelDied({ kernelId }),
      new Execution.KernelUnresponsive({ kernelId }),
      new Execution.KernelStartFailed({ kernelId, detail: "No such kernelspec" }),
      new Execution.KernelNotFound({ kernelId }),
      new Execution.ConnectionLost({ kernelId, detail: "It was closed" }),
      new Execution.ExecutionAborted({ kernelId, detail: "The client was closed" }),
      new Execution.InputRequested({ kernelId, prompt: "" }),
      new Execution.ProtocolViolation({ kernelId, detail: "It is too large" }),
    ].map((reason) => kernelError(reason).message)
    messages.forEach(assertReadable)
    assert.strictEqual(messages[0], `The kernel died; its state is lost, use "reset" for a new one`)
  })

  for (const [reason, named] of gatewayReasons) {
    it(`of gateways are readable: ${reason._tag}`, () => {
      const error = new Gateway.GatewayError({ reason })
      assert.strictEqual(error.message, reason.message)
      assert.strictEqual(error.cause, reason)
      assertReadable(error.message)
      for (const value of named) assert.include(error.message, `"${value}"`)
    })
  }

  it("carry their evidence", () => {
    const details = [
      new Execution.KernelStartFailed({ kernelId, detail: "It is so" }),
      new Execution.ConnectionLost({ kernelId, detail: "It is so" }),
      new Execution.ExecutionAborted({ kernelId, detail: "It is so" }),
      new Execution.ProtocolViolation({ kernelId, detail: "It is so" }),
      new Gateway.PythonNotFound({ python: "python", detail: "It is so" }),
      new Gateway.StartFailed({ detail: "It is so", output }),
      new Gateway.CredentialsFailed({ url: "http://a", detail: "It is so" }),
      new Gateway.Unreachable({ url: "http://a", detail: "It is so" }),
    ]
    for (const { message } of details) assert.include(message, "It is so")
    const logs = [
      new Gateway.ProvisioningFailed({ directory: "/cache", output }),
      new Gateway.StartFailed({ detail: "It ended", output }),
      new Gateway.StartTimeout({ timeout, output }),
      new Gateway.Exited({ exitCode: 137, output }),
    ]
    for (const { message } of logs) assert.match(message, /\nline 1\nline 2$/)
    assert.include(new Gateway.Exited({ exitCode: 137, output }).message, "137")
    assert.include(new Gateway.Exited({ exitCode: undefined, output }).message, "unknown")
    assert.include(new Gateway.StartTimeout({ timeout, output }).message, "3s")
    assert.include(new Gateway.Unauthorized({ url: "http://a", status: 403 }).message, "403")
  })

  it("are tested for every reason", () => {
    assert.deepStrictEqual(
      tagsOf(kernelReasons),
      Execution.KernelErrorReason.members.map((reason) => reason.fields._tag.schema.literal),
    )
    assert.deepStrictEqual(
      tagsOf(gatewayReasons),
      Gateway.GatewayErrorReason.members.map((reason) => reason.fields._tag.schema.literal),
    )
  })
})

/** Through JSON and back: by the codec for it, and by the schema itself, whose encoded side is JSON. */
const survives = <T>(schema: Schema.Codec<T, unknown>, value: T): void => {
  survivesBy(Schema.toCodecJson(schema), value)
  const isPlain = Schema.is(Schema.Json)(Schema.encodeSync(schema)(value))
  // Displays of kernels are JSON; other values occur in tests only.
  if (isPlain) survivesBy(schema, value)
}

const survivesBy = <T>(codec: Schema.Codec<T, unknown>, value: T): void => {
  const json = JSON.stringify(Schema.encodeSync(codec)(value))
  const parsed: unknown = JSON.parse(json)
  // V8 reads the key "\n" as "\\" if an object of the same shape had the latter: no fault of the codec.
  if (JSON.stringify(parsed) !== json) return
  const decoded = Schema.decodeUnknownSync(codec)(parsed)
  assert.strictEqual(Object.getPrototypeOf(decoded), Object.getPrototypeOf(value))
  assert.isTrue(Equal.equals(decoded, value), `${JSON.stringify(decoded)} is ${json}`)
}

describe("JSON", () => {
  const classes = {
    ExecutionFailure: Execution.ExecutionFailure,
    Image: Execution.Image,
    TextChunk: Execution.TextChunk,
    KernelOutput: Execution.KernelOutput,
    DisplayChunk: Execution.DisplayChunk,
    ClearOutput: Execution.ClearOutput,
    Chunk: Execution.Chunk,
    ExecutionResult: Execution.ExecutionResult,
    ExecutionError: Execution.ExecutionError,
    ExecutionTimeout: Execution.ExecutionTimeout,
    KernelDied: Execution.KernelDied,
    KernelUnresponsive: Execution.KernelUnresponsive,
    KernelStartFailed: Execution.KernelStartFailed,
    KernelNotFound: Execution.KernelNotFound,
    ConnectionLost: Execution.ConnectionLost,
    ExecutionAborted: Execution.ExecutionAborted,
    InputRequested: Execution.InputRequested,
    ProtocolViolation: Execution.ProtocolViolation,
    ResourceLimit: Execution.ResourceLimit,
    Forbidden: Execution.Forbidden,
    NoSuchKernelspec: Execution.NoSuchKernelspec,
    Unsupported: Execution.Unsupported,
    SessionTaken: Execution.SessionTaken,
    OutputGone: Execution.OutputGone,
    ServerReplaced: Execution.ServerReplaced,
    KernelRef: Execution.KernelRef,
    ExecutionRef: Execution.ExecutionRef,
    KernelErrorReason: Execution.KernelErrorReason,
    KernelError: Execution.KernelError,
    AssetsMissing: Gateway.AssetsMissing,
    InvalidOption: Execution.InvalidOption,
    PythonNotFound: Gateway.PythonNotFound,
    ProvisioningFailed: Gateway.ProvisioningFailed,
    StartFailed: Gateway.StartFailed,
    StartTimeout: Gateway.StartTimeout,
    PortInUse: Gateway.PortInUse,
    Exited: Gateway.Exited,
    Unauthorized: Gateway.Unauthorized,
    CredentialsFailed: Gateway.CredentialsFailed,
    Unreachable: Gateway.Unreachable,
    OptionsMismatch: Gateway.OptionsMismatch,
    FolderRefused: Gateway.FolderRefused,
    GatewayErrorReason: Gateway.GatewayErrorReason,
    GatewayError: Gateway.GatewayError,
    Kernelspec: Gateway.Kernelspec,
    RunningKernel: Gateway.RunningKernel,
  }

  it("is tested for every class", () => {
    const exported = Object.entries({ ...Execution, ...Gateway }).filter(([, value]) =>
      Schema.isSchema(value)
    )
    assert.sameMembers(exported.map(([name]) => name), Object.keys(classes))
  })

  for (const [name, schema] of Object.entries<Schema.Codec<unknown, unknown>>(classes)) {
    it.prop(`does not change ${name}`, [schema], ([value]) => survives(schema, value))
  }

  it("does not change errors with everything in them", () => {
    survives(Execution.ExecutionError, raised)
    survives(Execution.ExecutionTimeout, timedOut)
    survives(
      Execution.ExecutionTimeout,
      new Execution.ExecutionTimeout({ timeout: Duration.infinity, partial }),
    )
    for (const [reason] of kernelReasons) survives(Execution.KernelError, kernelError(reason))
    for (const [reason] of gatewayReasons) {
      survives(Gateway.GatewayError, new Gateway.GatewayError({ reason }))
    }
  })

  it("is what the encoded sides are, without what is undefined and with each image once", () => {
    const bytes = Uint8Array.from({ length: 300 }, (_, index) => index)
    const shown = (mimeType: string, data: string, path: string) => {
      const image = new Execution.Image({ path, mimeType, bytes })
      const bundle = { [mimeType]: data, "text/plain": path }
      return new Execution.DisplayChunk({
        data: bundle,
        metadata: {},
        text: path,
        image,
        displayId: undefined,
        executionCount: undefined,
      })
    }
    const png = Buffer.from(bytes).toString("base64")
    const displays = [shown("image/png", png, "a.png"), shown("image/gif", `${png}\n`, "b.gif")]
    const images = displays.flatMap(({ image }) => image === undefined ? [] : [image])
    const result = new Execution.ExecutionResult({ text: undefined, images, displays, executionCount: 1 })
    const encoded = Schema.encodeSync(Execution.ExecutionResult)(result)
    assert.isTrue(Schema.is(Schema.Json)(encoded))
    assert.notProperty(encoded, "text")
    assert.lengthOf(JSON.stringify(encoded.displays[0]).split(png), 1)
    assert.deepStrictEqual(encoded.images.map((image) => image.bytes), [png, png])
    const [first] = displays
    assert.isDefined(first)
    assert.lengthOf(JSON.stringify(Schema.encodeSync(Execution.DisplayChunk)(first)).split(png), 2)
    for (const value of [first, new Execution.TextChunk({ name: "stdout", text: "a" })]) {
      survives(Execution.Chunk, value)
    }
    survives(Execution.ExecutionResult, result)
    for (const failure of [raised, timedOut, ...kernelReasons.map(([reason]) => kernelError(reason))]) {
      assert.isTrue(Schema.is(Schema.Json)(Schema.encodeSync(Execution.ExecutionFailure)(failure)))
      survives(Execution.ExecutionFailure, failure)
    }
    for (const [reason] of gatewayReasons) {
      assert.isTrue(Schema.is(Schema.Json)(Schema.encodeSync(Gateway.GatewayErrorReason)(reason)))
    }
  })

  it("keeps classes, messages and causes down to the last display", () => {
    const codec = Schema.toCodecJson(Execution.KernelError)
    const error = kernelError(new Execution.KernelDied({ kernelId }))
    const decoded = Schema.decodeUnknownSync(codec)(
      JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error))),
    )
    assert.instanceOf(decoded.reason, Execution.KernelDied)
    assert.instanceOf(decoded.partial, Execution.ExecutionResult)
    assert.instanceOf(decoded.partial.displays[0], Execution.DisplayChunk)
    assert.instanceOf(decoded.partial.displays[0].image, Execution.Image)
    assert.deepStrictEqual(decoded.partial.displays[0].data, display.data)
    assert.strictEqual(decoded.message, error.message)
    assert.strictEqual(decoded.cause, decoded.reason)
  })

  it("has no partial result where there was none", () => {
    const codec = Schema.toCodecJson(Execution.KernelError)
    const error = new Execution.KernelError({ reason: new Execution.KernelDied({ kernelId }) })
    const json = JSON.stringify(Schema.encodeSync(codec)(error))
    assert.strictEqual(json, `{"_tag":"KernelError","reason":{"_tag":"KernelDied","kernelId":"k-1"}}`)
    assert.notProperty(Schema.decodeUnknownSync(codec)(JSON.parse(json)), "partial")
  })
})

describe("guards", () => {
  const gone = new Execution.KernelDied({ kernelId })
  const taken = new Gateway.PortInUse({ host: "127.0.0.1", port: 1 })
  const others = [undefined, null, 1, "x", {}, { _tag: "KernelError" }, new Error("no"), raised, gone, taken]

  it("tell kernel errors", () => {
    assert.isTrue(Execution.isKernelError(kernelError(gone)))
    for (const other of [...others, new Gateway.GatewayError({ reason: taken })]) {
      assert.isFalse(Execution.isKernelError(other))
    }
  })

  it("tell gateway errors", () => {
    assert.isTrue(Gateway.isGatewayError(new Gateway.GatewayError({ reason: taken })))
    for (const other of [...others, kernelError(gone)]) assert.isFalse(Gateway.isGatewayError(other))
  })

  it.effect("narrow what a program failed with", () =>
    Effect.gen(function* () {
      const caught = yield* Effect.flip(Effect.catchIf(
        Effect.fail<Execution.ExecutionFailure>(raised),
        Execution.isKernelError,
        ({ reason }) => Effect.succeed(reason),
      ))
      assert.strictEqual(caught, raised)
    }))
})

describe("catchReason", () => {
  const failing = (reason: Execution.KernelErrorReason): Effect.Effect<string, Execution.ExecutionFailure> =>
    Effect.fail(kernelError(reason))

  it.effect("catches the one reason of a kernel error", () =>
    Effect.gen(function* () {
      const died = new Execution.KernelDied({ kernelId })
      const caught = (reason: Execution.KernelErrorReason) =>
        Effect.catchReason(failing(reason), "KernelError", "KernelDied", (reason) =>
          Effect.succeed(`${reason._tag} ${reason.kernelId}`))
      assert.strictEqual(yield* caught(died), "KernelDied k-1")
      const other = yield* Effect.flip(caught(new Execution.KernelNotFound({ kernelId })))
      assert.isTrue(Execution.isKernelError(other))
    }))

  it.effect("catches several reasons", () =>
    Effect.gen(function* () {
      for (const [reason] of kernelReasons) {
        const caught = yield* failing(reason).pipe(
          Effect.catchReasons("KernelError", {
            KernelDied: () => Effect.succeed("dead"),
            ConnectionLost: ({ detail }) => Effect.succeed(detail),
          }),
          Effect.catch((error) => Effect.succeed(error._tag)),
        )
        const expected = { KernelDied: "dead", ConnectionLost: "It was closed" }
        assert.strictEqual(
          caught,
          Object.entries(expected).find(([tag]) => tag === reason._tag)?.[1] ?? "KernelError",
        )
      }
    }))

  it.effect("catches the reasons of a gateway error", () =>
    Effect.gen(function* () {
      const taken = new Gateway.PortInUse({ host: "127.0.0.1", port: 8888 })
      const caught = yield* Effect.catchReason(
        Effect.fail(new Gateway.GatewayError({ reason: taken })),
        "GatewayError",
        "PortInUse",
        ({ port }) => Effect.succeed(port),
      )
      assert.strictEqual(caught, 8888)
    }))
})
