/** The types of the public functions, as the contract spells them. */
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import type { DateTime, Duration, Layer, Redacted, Scope } from "effect"
import { Context, Effect, Schema, SchemaTransformation, Stream } from "effect"
import { Entity, type Sharding } from "effect/cluster"
import type { Rpc, RpcClient, RpcGroup } from "effect/rpc"
import * as KernelCluster from "../src/kernel_cluster.ts"
import * as Library from "../src/mod.ts"
import {
  Execution,
  JupyterHub,
  KernelClient,
  KernelGateway,
  KernelPool,
  KernelRpc,
  KernelSessions,
  PythonEnvironment,
  Sandbox,
  Testing,
  Values,
} from "../src/mod.ts"

describe("the public contract", () => {
  it("the entry exports one namespace per public module", () => {
    assert.includeMembers(Object.keys(Library), [
      "Execution",
      "Introspection",
      "JupyterHub",
      "KernelClient",
      "KernelGateway",
      "KernelPool",
      "KernelRpc",
      "KernelSessions",
      "PythonEnvironment",
      "Sandbox",
      "Testing",
      "Values",
    ])
  })

  it("KernelGateway", () => {
    type Gateway = KernelGateway.KernelGateway["Service"]
    expectTypeOf<Gateway>().toEqualTypeOf<{
      readonly url: string
      readonly token: Redacted.Redacted<string> | undefined
      readonly join: Effect.Effect<void, KernelGateway.GatewayError>
      readonly kernelspecs: Effect.Effect<ReadonlyArray<KernelGateway.Kernelspec>, KernelGateway.GatewayError>
      readonly kernels: Effect.Effect<ReadonlyArray<KernelGateway.RunningKernel>, KernelGateway.GatewayError>
    }>()
    expectTypeOf(KernelGateway.make).toEqualTypeOf<
      (
        options?: KernelGateway.GatewayOptions,
      ) => Effect.Effect<Gateway, KernelGateway.GatewayError | Sandbox.SandboxError, Scope.Scope>
    >()
    expectTypeOf(KernelGateway.layer).returns.toEqualTypeOf<
      Layer.Layer<KernelGateway.KernelGateway, KernelGateway.GatewayError | Sandbox.SandboxError>
    >()
    expectTypeOf(KernelGateway.layerRemote).returns.toEqualTypeOf<
      Layer.Layer<KernelGateway.KernelGateway, KernelGateway.GatewayError>
    >()
    expectTypeOf(KernelGateway.layerRemote).toBeCallableWith({ url: "", token: "", headers: {} })
    expectTypeOf(KernelGateway.layerShared).returns.toEqualTypeOf<
      Layer.Layer<KernelGateway.KernelGateway, KernelGateway.GatewayError | Sandbox.SandboxError>
    >()
    expectTypeOf(KernelGateway.layerShared).toBeCallableWith({
      name: "",
      idleTimeToLive: "1 hour",
      sandbox: true,
    })
    expectTypeOf(KernelGateway.stopShared).returns.toEqualTypeOf<
      Effect.Effect<void, KernelGateway.GatewayError>
    >()
    expectTypeOf<KernelGateway.GatewayOptions>().toMatchTypeOf<{
      readonly host?: string | undefined
      readonly port?: number | undefined
      readonly workingDir?: string | undefined
      readonly env?: Record<string, string> | undefined
      readonly sandbox?: boolean | Sandbox.Permissions | { readonly settings: string } | undefined
      readonly python?: PythonEnvironment.Options | undefined
      readonly logLevel?: "Debug" | "Info" | "Warn" | "Error" | undefined
      readonly startTimeout?: Duration.Input | undefined
    }>()
    expectTypeOf<KernelGateway.GatewayError["reason"]["_tag"]>().toEqualTypeOf<
      | "AssetsMissing"
      | "InvalidOption"
      | "PythonNotFound"
      | "ProvisioningFailed"
      | "StartFailed"
      | "StartTimeout"
      | "PortInUse"
      | "Exited"
      | "Unauthorized"
      | "CredentialsFailed"
      | "Unreachable"
      | "OptionsMismatch"
      | "FolderRefused"
    >()
    assert.isFunction(KernelGateway.layerConfig)
  })

  it("servers that are not ours", () => {
    const remote = {
      url: "",
      token: Effect.succeed({ token: "", expiresAt: 0 }),
      headers: Effect.succeed({}),
      user: "",
      startConcurrency: 2,
    }
    expectTypeOf(KernelGateway.layerRemote).toBeCallableWith(remote)
    expectTypeOf(KernelClient.make).toBeCallableWith({ user: "" })
    expectTypeOf(JupyterHub.layer).toBeCallableWith({ hub: "", token: "", user: "", server: "", options: {} })
    expectTypeOf(JupyterHub.layer).returns.toEqualTypeOf<
      Layer.Layer<KernelGateway.KernelGateway | JupyterHub.UserServer, KernelGateway.GatewayError>
    >()
    expectTypeOf(JupyterHub.make).returns.toEqualTypeOf<
      Effect.Effect<JupyterHub.UserServer["Service"], KernelGateway.GatewayError, Scope.Scope>
    >()
    expectTypeOf<JupyterHub.UserServer["Service"]["progress"]>().toEqualTypeOf<
      Stream.Stream<JupyterHub.Progress, KernelGateway.GatewayError>
    >()
    expectTypeOf<Execution.ResourceLimit["isRetryable"]>().toEqualTypeOf<boolean>()
  })

  it("Sandbox", () => {
    expectTypeOf<Sandbox.Permissions>().toEqualTypeOf<{
      readonly allowNet?: ReadonlyArray<string> | undefined
      readonly allowWrite?: ReadonlyArray<string> | undefined
      readonly denyRead?: ReadonlyArray<string> | undefined
      readonly allowRead?: ReadonlyArray<string> | undefined
      readonly strict?: boolean | undefined
      readonly allowGit?: boolean | undefined
      readonly allowHome?: boolean | undefined
      readonly user?: { readonly uid: number; readonly gid: number } | undefined
      readonly limits?: Sandbox.Limits | undefined
      readonly upstreamProxy?: string | undefined
    }>()
    expectTypeOf<Sandbox.Limits>().toEqualTypeOf<{
      readonly memory?: number | undefined
      readonly processes?: number | undefined
      readonly fileSize?: number | undefined
      readonly cpuTime?: Duration.Input | undefined
    }>()
    expectTypeOf<Sandbox.SandboxError["reason"]["_tag"]>().toEqualTypeOf<
      | "ToolMissing"
      | "NamespacesDisabled"
      | "InvalidSettings"
      | "RunningAsRoot"
      | "StartFailed"
      | "UnsupportedPlatform"
    >()
    expectTypeOf(KernelClient.make).toBeCallableWith({ sandbox: { allowNet: [] } })
  })

  it("KernelClient", () => {
    expectTypeOf<KernelClient.KernelClient["Service"]>().toEqualTypeOf<KernelClient.Kernel>()
    type Typed = "evaluate" | "set" | "call" | "iterate" | "feed"
    expectTypeOf<Omit<KernelClient.Kernel, Typed | keyof KernelClient.Introspection>>().toEqualTypeOf<{
      readonly id: string
      execute(
        code: string,
        options?: KernelClient.ExecuteOptions,
      ): Effect.Effect<Execution.ExecutionResult, Execution.ExecutionFailure>
      stream(
        code: string,
        options?: KernelClient.ExecuteOptions,
      ): Stream.Stream<Execution.Chunk | Execution.ExecutionResult, Execution.ExecutionFailure>
      readonly output: Stream.Stream<Execution.KernelOutput>
      readonly interrupt: Effect.Effect<void, Execution.KernelError>
      readonly reset: Effect.Effect<void, Execution.KernelError>
      readonly detach: Effect.Effect<Execution.KernelRef, Execution.KernelError>
      start(
        code: string,
        options?: KernelClient.StartCodeOptions,
      ): Effect.Effect<Execution.ExecutionRef, Execution.KernelError>
      resume(
        ref: Execution.ExecutionRef,
        options?: KernelClient.ResumeOptions,
      ): Stream.Stream<Execution.Chunk | Execution.ExecutionResult, Execution.ExecutionFailure>
    }>()
    expectTypeOf<Extract<Typed, keyof KernelClient.Kernel>>().toEqualTypeOf<Typed>()
    expectTypeOf<KernelClient.ClientOptions>().toMatchTypeOf<{
      readonly workingDir?: string | undefined
      readonly imagesDir?: string | undefined
      readonly kernelName?: string | undefined
      readonly env?: Record<string, string> | undefined
      readonly initTimeout?: Duration.Input | undefined
      readonly pingInterval?: Duration.Input | undefined
      readonly maxMessageSize?: number | undefined
    }>()
    expectTypeOf<KernelClient.ExecuteOptions>().toMatchTypeOf<{
      readonly timeout?: Duration.Input | undefined
      readonly outputLimit?: number | undefined
    }>()
    expectTypeOf(KernelClient.make).toEqualTypeOf<
      (
        options?: KernelClient.ClientOptions,
      ) => Effect.Effect<
        KernelClient.Kernel,
        Execution.KernelError,
        KernelGateway.KernelGateway | Scope.Scope
      >
    >()
    expectTypeOf(KernelClient.layer).returns.toEqualTypeOf<
      Layer.Layer<KernelClient.KernelClient, Execution.KernelError, KernelGateway.KernelGateway>
    >()
    assert.isFunction(KernelClient.layerConfig)
    expectTypeOf(KernelClient.attach).toEqualTypeOf<
      (
        ref: Execution.KernelRef,
        options?: KernelClient.AttachOptions,
      ) => Effect.Effect<
        KernelClient.Kernel,
        Execution.KernelError,
        KernelGateway.KernelGateway | Scope.Scope
      >
    >()
    expectTypeOf(KernelClient.layerAttach).returns.toEqualTypeOf<
      Layer.Layer<KernelClient.KernelClient, Execution.KernelError, KernelGateway.KernelGateway>
    >()
  })

  it("typed values", () => {
    const Row = Schema.Struct({ at: Schema.DateTimeUtc, count: Schema.BigInt })
    type Failure = Execution.ExecutionFailure | Values.UnsupportedValue | Schema.SchemaError
    type Call = Failure | Values.InvalidName
    const check = (kernel: KernelClient.Kernel, rows: Stream.Stream<typeof Row.Type, "upstream">) => {
      expectTypeOf(kernel.evaluate("rows", Schema.Array(Row))).toEqualTypeOf<
        Effect.Effect<ReadonlyArray<typeof Row.Type>, Failure>
      >()
      expectTypeOf(kernel.set("x", Symbol("anything"), { timeout: "1 second" })).toEqualTypeOf<
        Effect.Effect<void, Call>
      >()
      expectTypeOf(kernel.set<typeof Row>).parameter(1).toEqualTypeOf<typeof Row.Type>()
      expectTypeOf(kernel.call("f", [1, "a"], { returns: Row, kwargs: { key: true } })).toEqualTypeOf<
        Effect.Effect<typeof Row.Type, Call>
      >()
      expectTypeOf(kernel.iterate("f()", Row, { batchSize: 1, batchBytes: 1 })).toEqualTypeOf<
        Stream.Stream<typeof Row.Type, Failure>
      >()
      expectTypeOf(kernel.feed("f", rows, { returns: Schema.Int, schema: Row, batchSize: 1 })).toEqualTypeOf<
        Stream.Stream<number, "upstream" | Call>
      >()
    }
    assert.isFunction(check)
    expectTypeOf<Values.ValueFailure>().toEqualTypeOf<Execution.ExecutionFailure | Values.UnsupportedValue>()
    expectTypeOf<Values.ValueOptions>().toMatchTypeOf<KernelClient.ExecuteOptions>()
    expectTypeOf<Values.UnsupportedValue>().toMatchTypeOf<{
      readonly _tag: "UnsupportedValue"
      readonly valueType: string
      readonly path: string
      readonly detail: string
      readonly partial?: Execution.ExecutionResult
    }>()
    expectTypeOf<Values.InvalidName["_tag"]>().toEqualTypeOf<"InvalidName">()
    assert.isFunction(Values.NdArray)
  })

  it("typed values infer from their schemas, and need what these need", () => {
    class Decoding extends Context.Service<Decoding, number>()("Decoding") {}
    class Encoding extends Context.Service<Encoding, number>()("Encoding") {}
    const Served = Schema.String.pipe(
      Schema.decodeTo(
        Schema.Int,
        SchemaTransformation.transformEffect({
          decode: () => Decoding,
          encode: () => Effect.map(Encoding, String),
        }),
      ),
    )
    class Order extends Schema.Class<Order>("Order")({ id: Schema.BigInt }) {}
    type Failure = Values.ValueFailure | Schema.SchemaError
    type Call = Failure | Values.InvalidName
    const check = (kernel: KernelClient.Kernel, orders: Stream.Stream<Order, never, "upstream">) => {
      expectTypeOf(kernel.evaluate("1", Schema.Finite)).toEqualTypeOf<Effect.Effect<number, Failure>>()
      expectTypeOf(kernel.evaluate("order", Order)).toEqualTypeOf<Effect.Effect<Order, Failure>>()
      expectTypeOf(kernel.evaluate("f()", Schema.Void)).toEqualTypeOf<Effect.Effect<void, Failure>>()
      expectTypeOf(kernel.evaluate("x", Served)).toEqualTypeOf<Effect.Effect<number, Failure, Decoding>>()
      expectTypeOf(kernel.iterate("xs", Served)).toEqualTypeOf<Stream.Stream<number, Failure, Decoding>>()
      expectTypeOf(kernel.call("f", [], { returns: Served })).toEqualTypeOf<
        Effect.Effect<number, Call, Decoding>
      >()
      expectTypeOf(kernel.set("x", 1, { schema: Served })).toEqualTypeOf<
        Effect.Effect<void, Call, Encoding>
      >()
      expectTypeOf(kernel.feed("f", orders, { returns: Served, schema: Order })).toEqualTypeOf<
        Stream.Stream<number, Call, "upstream" | Decoding>
      >()
      expectTypeOf(kernel.feed("f", Stream.make(1), { returns: Schema.Void, schema: Served })).toEqualTypeOf<
        Stream.Stream<void, Call, Encoding>
      >()
      return [
        // @ts-expect-error a value that is none of the schema
        kernel.set("x", "one", { schema: Served }),
        // @ts-expect-error a stream of other elements
        kernel.feed("f", Stream.make("one"), { returns: Served, schema: Served }),
        // @ts-expect-error what is returned has to be decoded, if only by Schema.Void
        kernel.call("f", [], {}),
      ]
    }
    assert.isFunction(check)
  })

  it("options accept undefined under exactOptionalPropertyTypes", () => {
    type Refuses<T> = {
      [K in keyof T]-?: Pick<T, K> extends Required<Pick<T, K>> ? never
        : { [P in K]: undefined } extends Pick<T, K> ? never
        : K
    }[keyof T]
    type Argument<F> = F extends (code: never, cursor: never, options?: infer O) => unknown ? NonNullable<O>
      : never
    expectTypeOf<
      | Refuses<KernelGateway.GatewayOptions>
      | Refuses<KernelGateway.RemoteOptions>
      | Refuses<PythonEnvironment.Options>
      | Refuses<Sandbox.Permissions>
      | Refuses<Sandbox.SettingsFile>
      | Refuses<Sandbox.Limits>
      | Refuses<KernelClient.ClientOptions>
      | Refuses<KernelClient.ExecuteOptions>
      | Refuses<KernelClient.AttachOptions>
      | Refuses<KernelClient.StartCodeOptions>
      | Refuses<KernelClient.ResumeOptions>
      | Refuses<KernelClient.AskOptions>
      | Refuses<Argument<KernelClient.Kernel["inspect"]>>
      | Refuses<KernelPool.PoolOptions>
      | Refuses<KernelSessions.SessionsOptions>
      | Refuses<Values.ValueOptions>
      | Refuses<Values.SetOptions<Schema.Schema<string>>>
      | Refuses<Values.CallOptions<Schema.Schema<string>>>
      | Refuses<Values.IterateOptions>
      | Refuses<Values.FeedOptions<Schema.Schema<string>, Schema.Schema<string>>>
      | Refuses<Testing.Options>
      | Refuses<Testing.PoolOptions>
      | Refuses<Testing.Script>
      | Refuses<Testing.Raised>
    >().toBeNever()
    // An option that is undefined has its default.
    expectTypeOf(KernelGateway.layer).toBeCallableWith({ sandbox: undefined, python: { python: undefined } })
  })

  it("Testing", () => {
    expectTypeOf(Testing.layer).toEqualTypeOf<
      (
        scripts: ReadonlyArray<Testing.Script>,
        options?: Testing.Options,
      ) => Layer.Layer<KernelClient.KernelClient | Testing.TestKernel>
    >()
    expectTypeOf(Testing.layerPool).toEqualTypeOf<
      (
        scripts: ReadonlyArray<Testing.Script>,
        options?: Testing.PoolOptions,
      ) => Layer.Layer<KernelPool.KernelPool | Testing.TestKernel>
    >()
    expectTypeOf(Testing.layerPool).toBeCallableWith([], { size: 2, maxWaiting: 0, images: "bytes" })
  })

  it("KernelPool", () => {
    type Pool = KernelPool.KernelPool["Service"]
    expectTypeOf<Pool["get"]>().toEqualTypeOf<
      Effect.Effect<KernelClient.Kernel, Execution.KernelError, Scope.Scope>
    >()
    expectTypeOf<KernelPool.PoolOptions>().toMatchTypeOf<{
      readonly size?: number | undefined
      readonly min?: number | undefined
      readonly max?: number | undefined
      readonly warm?: number | undefined
      readonly idleTimeToLive?: Duration.Input | undefined
      readonly setup?: string | ReadonlyArray<string> | undefined
    }>()
    const overOne = KernelPool.layer({ size: 1 })
    expectTypeOf(overOne).toEqualTypeOf<
      Layer.Layer<KernelPool.KernelPool, never, KernelGateway.KernelGateway>
    >()
    const overMany = KernelPool.layer({
      gateways: [KernelGateway.layer(), KernelGateway.layerRemote({ url: "" })],
    })
    expectTypeOf(overMany).toEqualTypeOf<
      Layer.Layer<KernelPool.KernelPool, KernelGateway.GatewayError | Sandbox.SandboxError>
    >()
    assert.isFunction(KernelPool.make)
    assert.isFunction(KernelPool.layerConfig)
  })

  it("KernelSessions", () => {
    expectTypeOf<KernelSessions.KernelSessions["Service"]>().toEqualTypeOf<{
      readonly get: (key: string) => Effect.Effect<KernelClient.Kernel, Execution.KernelError, Scope.Scope>
      readonly close: (key: string) => Effect.Effect<void>
      readonly list: Effect.Effect<ReadonlyArray<KernelSessions.Session>>
      readonly events: Stream.Stream<KernelSessions.SessionEvent>
    }>()
    expectTypeOf<KernelSessions.Session>().toMatchTypeOf<{
      readonly key: string
      readonly kernelId: string
      readonly openedAt: DateTime.Utc
      readonly lastUsedAt: DateTime.Utc
      readonly inUse: boolean
    }>()
    expectTypeOf<KernelSessions.SessionEvent["_tag"]>().toEqualTypeOf<
      "Opened" | "Idle" | "Evicted" | "Died" | "Replaced" | "Closed"
    >()
    expectTypeOf<Omit<KernelSessions.SessionsOptions, "setup">>().toEqualTypeOf<
      Omit<KernelPool.PoolOptions, "setup">
    >()
    expectTypeOf(KernelSessions.layer({ max: 1, setup: ["x = 1"] })).toEqualTypeOf<
      Layer.Layer<KernelSessions.KernelSessions, Execution.KernelError, KernelGateway.KernelGateway>
    >()
    class Data extends Context.Service<Data, number>()("Data") {}
    const sessions = KernelSessions.layer({
      idleTimeToLive: "1 hour",
      setup: (kernel, key) => Effect.flatMap(Data, (data) => kernel.set(key, data)),
    })
    expectTypeOf(sessions).toEqualTypeOf<
      Layer.Layer<KernelSessions.KernelSessions, Execution.KernelError, KernelGateway.KernelGateway | Data>
    >()
    const sessionsOverMany = KernelSessions.layer({
      gateways: [KernelGateway.layer(), KernelGateway.layerRemote({ url: "" })],
    })
    expectTypeOf(sessionsOverMany).toEqualTypeOf<
      Layer.Layer<
        KernelSessions.KernelSessions,
        Execution.KernelError | KernelGateway.GatewayError | Sandbox.SandboxError
      >
    >()
    expectTypeOf(KernelSessions.layerClient).toEqualTypeOf<
      (key: string) => Layer.Layer<
        KernelClient.KernelClient,
        Execution.KernelError,
        KernelSessions.KernelSessions
      >
    >()
    assert.isFunction(KernelSessions.make)
  })

  it("KernelRpc", () => {
    expectTypeOf(KernelRpc.layerHandlers).toEqualTypeOf<
      Layer.Layer<
        Rpc.ToHandler<RpcGroup.Rpcs<typeof KernelRpc.group>>,
        never,
        KernelSessions.KernelSessions
      >
    >()
    expectTypeOf(KernelClient.layerRpc).toEqualTypeOf<
      (key: string) => Layer.Layer<KernelClient.KernelClient, Execution.KernelError, RpcClient.Protocol>
    >()
    assert.includeMembers(Array.from(KernelRpc.group.requests.keys()), [
      "execute",
      "interrupt",
      "reset",
      "evaluate",
      "complete",
      "inspect",
      "variables",
    ])
  })

  it("KernelCluster", () => {
    expectTypeOf(KernelCluster.layer).toEqualTypeOf<
      Layer.Layer<never, never, Sharding.Sharding | KernelSessions.KernelSessions>
    >()
    expectTypeOf(KernelCluster.layerClient).toEqualTypeOf<
      (key: string) => Layer.Layer<KernelClient.KernelClient, Execution.KernelError, Sharding.Sharding>
    >()
    expectTypeOf(KernelCluster.entity).toEqualTypeOf<
      Entity.Entity<"effect-jupyter/Kernel", RpcGroup.Rpcs<typeof KernelRpc.group>>
    >()
    assert.isTrue(Entity.isEntity(KernelCluster.entity))
  })

  it("Execution", () => {
    expectTypeOf<Execution.Chunk>().toEqualTypeOf<
      Execution.TextChunk | Execution.DisplayChunk | Execution.ClearOutput
    >()
    expectTypeOf<Execution.DisplayChunk>().toMatchTypeOf<{
      readonly _tag: "DisplayChunk"
      readonly data: { readonly [mime: string]: unknown }
      readonly metadata: { readonly [key: string]: unknown }
      readonly text: string | undefined
      readonly image: Execution.Image | undefined
      readonly displayId: string | undefined
      readonly update: boolean
      readonly executionCount: number | undefined
    }>()
    expectTypeOf<Execution.ExecutionResult>().toMatchTypeOf<{
      readonly _tag: "ExecutionResult"
      readonly text: string | undefined
      readonly images: ReadonlyArray<Execution.Image>
      readonly displays: ReadonlyArray<Execution.DisplayChunk>
      readonly executionCount: number | undefined
    }>()
    expectTypeOf<Execution.ExecutionFailure>().toEqualTypeOf<
      Execution.ExecutionError | Execution.ExecutionTimeout | Execution.KernelError
    >()
    expectTypeOf<Execution.ExecutionTimeout["timeout"]>().toEqualTypeOf<Duration.Duration>()
    expectTypeOf<Execution.KernelError["reason"]["_tag"]>().toEqualTypeOf<
      | "KernelDied"
      | "KernelUnresponsive"
      | "KernelStartFailed"
      | "KernelNotFound"
      | "ConnectionLost"
      | "ExecutionAborted"
      | "InputRequested"
      | "ProtocolViolation"
      | "InvalidOption"
      | "ResourceLimit"
      | "Forbidden"
      | "NoSuchKernelspec"
      | "Unsupported"
      | "SessionTaken"
      | "OutputGone"
      | "ServerReplaced"
    >()
    assert.isFunction(Execution.isKernelError)
  })
})
