/** Programs that attach to a kernel: at once, with references that lead nowhere, and while the kernel ends. */
import { NodeSocket, NodeSocketServer } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Option, Schema, Stream } from "effect"
import { RpcClient, RpcSerialization, RpcServer } from "effect/rpc"
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Connection from "../src/gateway/connection.ts"
import { Execution, KernelClient, KernelGateway, KernelRpc, KernelSessions } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { gatewayOptions, slow, temporary, text, texts } from "./support/kernel.ts"

/** The runtime directory of this user for these tests. */
// @effect-diagnostics-next-line processEnv:off
process.env.XDG_RUNTIME_DIR = mkdtempSync(join(tmpdir(), "effect-jupyter-test-"))

const name = `attach-${process.pid}`
const options = { ...gatewayOptions, name, idleTimeToLive: "1 minute", outputRetention: 1_000_000 } as const
const shared = KernelGateway.layerShared(options).pipe(
  Layer.merge(Layer.effectDiscard(
    Effect.addFinalizer(() => Effect.ignore(KernelGateway.stopShared(name))),
  )),
  Layer.provideMerge(Platform.layer),
)

/** Starts code in a new kernel, in a scope that closes then. */
const started = (code: string) =>
  Effect.scoped(Effect.gen(function* () {
    const kernel = yield* KernelClient.make()
    yield* kernel.detach
    return yield* kernel.start(code)
  }))

const reasonOf = <A, R>(effect: Effect.Effect<A, Execution.ExecutionFailure, R>) =>
  Effect.map(Effect.flip(effect), (error) => error._tag === "KernelError" ? error.reason : error)

const numbers = (count: number) => Array.from({ length: count }, (_, i) => `${i}\n`).join("")

layer(shared, slow)("programs that attach", (it) => {
  it.effect("attach at once: all but one fail with SessionTaken, and no output is lost", () =>
    Effect.gen(function* () {
      const ref = yield* started("import time\nfor i in range(40): print(i, flush=True); time.sleep(0.02)")
      const attached = Effect.scoped(
        Effect.flatMap(KernelClient.attach(ref.kernel, { deletes: true }), (kernel) => kernel.detach),
      )
      for (let round = 0; round < 5; round++) {
        const exits = yield* Effect.forEach([1, 2, 3, 4], () => Effect.exit(attached), { concurrency: 4 })
        for (const exit of exits) {
          const failure = Option.getOrUndefined(Exit.findErrorOption(exit))
          if (failure !== undefined) assert.strictEqual(failure.reason._tag, "SessionTaken")
        }
        assert.isTrue(exits.some(Exit.isSuccess))
      }
      const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
      assert.strictEqual(texts(yield* Stream.runCollect(kernel.resume(ref))).join(""), numbers(40))
    }).pipe(Effect.scoped))

  it.effect("a stock client of a kernel that the gateway is the client of is refused, and takes and deletes nothing", () =>
    Effect.gen(function* () {
      const ref = yield* started("x = 20")
      const { openSocket, rest, url } = yield* Effect.flatMap(KernelGateway.KernelGateway, Connection.of)
      const channels = `${url.replace(/^http/, "ws")}/api/kernels/${ref.kernel.kernelId}/channels`
      const refused = yield* Effect.flip(openSocket(channels, { protocols: [], openTimeout: "10 seconds" }))
      assert.strictEqual(refused.code, 409)
      const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
      yield* Stream.runDrain(kernel.resume(ref))
      // As a program does that started a kernel and was never connected to it.
      yield* rest.remove(kernel.id, "another")
      assert.strictEqual(yield* text(kernel.execute("x + 1")), "21")
    }).pipe(Effect.scoped))

  it.effect("attach that fails leaves the kernel, also with deletes", () =>
    Effect.gen(function* () {
      const ref = yield* started("x = 20")
      const failed = KernelClient.attach(ref.kernel, { deletes: true, initTimeout: "1 milli" })
      assert.strictEqual((yield* reasonOf(Effect.scoped(failed)))._tag, "KernelStartFailed")
      const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
      assert.strictEqual(yield* text(kernel.execute("x + 1")), "21")
    }).pipe(Effect.scoped))

  it.effect("attach to a kernel that no gateway has ever had fails with KernelNotFound", () =>
    Effect.gen(function* () {
      const { kernel: ref } = yield* started("")
      for (const kernelId of ["__proto__", "none", "constructor", ref.kernelId.toUpperCase()]) {
        const other = new Execution.KernelRef({ ...ref, kernelId })
        assert.strictEqual(
          (yield* reasonOf(Effect.scoped(KernelClient.attach(other))))._tag,
          "KernelNotFound",
        )
      }
      yield* Effect.scoped(KernelClient.attach(ref, { deletes: true }))
    }))

  it.effect("references that no kernel gave are refused when they are decoded", () =>
    Effect.sync(() => {
      const kernel = { server: "s", kernelId: "k", session: "s" }
      const ref = { kernel, id: "i", start: 0, position: 0 }
      assert.isTrue(Exit.isSuccess(Schema.decodeExit(Execution.ExecutionRef)(ref)))
      for (
        const wrong of [
          { start: -1 },
          { position: -1 },
          { start: NaN },
          { position: 1.5 },
          { position: Infinity },
          { id: "x".repeat(1000) },
          { kernel: { ...kernel, kernelId: "../../api" } },
          { kernel: { ...kernel, kernelId: "" } },
          { kernel: { ...kernel, session: "x".repeat(1000) } },
        ]
      ) {
        assert.isTrue(
          Exit.isFailure(Schema.decodeExit(Execution.ExecutionRef)({ ...ref, ...wrong })),
          JSON.stringify(wrong),
        )
      }
    }))

  it.effect("a kernel that dies while its output is taken, and then, fails with KernelDied", () =>
    Effect.gen(function* () {
      const ref = yield* started(
        "import os, time\nprint('begun', flush=True)\ntime.sleep(1)\nos.kill(os.getpid(), 9)",
      )
      const failure = Effect.scoped(
        Effect.flatMap(
          KernelClient.attach(ref.kernel),
          (kernel) => Effect.flip(Stream.runDrain(kernel.resume(ref))),
        ),
      )
      // At once, while the gateway removes the kernel.
      for (const ended of [yield* failure, yield* Effect.timeout(failure, "8 seconds")]) {
        assert.deepStrictEqual([ended._tag, ended.partial?.text], ["KernelError", "begun"])
        assert.strictEqual(ended._tag === "KernelError" && ended.reason._tag, "KernelDied")
      }
    }))

  it.effect("output that was taken before is not missed", () =>
    Effect.gen(function* () {
      const ref = yield* started("for i in range(3000): print(i, 'x' * 1000, flush=True)")
      const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
      let last = ref
      const all = Stream.runDrain(kernel.resume(ref, {
        onChunk: (_, ref) =>
          Effect.sync(() => {
            last = ref
          }),
      }))
      yield* Effect.exit(all)
      // Of the output that was taken, most is not kept by now.
      assert.strictEqual((yield* reasonOf(Stream.runDrain(kernel.resume(ref))))._tag, "OutputGone")
      const [result, ...others] = yield* Stream.runCollect(kernel.resume(last))
      assert.deepStrictEqual([result?._tag, others], ["ExecutionResult", []])
    }).pipe(Effect.scoped))

  it.effect("layerRpc detaches, starts and resumes as the gateway of its server does", () =>
    Effect.gen(function* () {
      const path = join(mkdtempSync(join(tmpdir(), "effect-jupyter-test-")), "rpc")
      yield* Layer.build(
        RpcServer.layer(KernelRpc.group).pipe(
          Layer.provide(RpcServer.layerProtocolSocketServer),
          Layer.provide(NodeSocketServer.layer({ path })),
          Layer.provide(KernelRpc.layerHandlers),
          Layer.provide(KernelSessions.layer({ max: 1 })),
          Layer.provide(RpcSerialization.layerNdjson),
        ),
      )
      const protocol = RpcClient.layerProtocolSocket().pipe(
        Layer.provide(NodeSocket.layerNet({ path })),
        Layer.provide(RpcSerialization.layerNdjson),
      )
      const context = yield* Layer.build(Layer.provideMerge(KernelClient.layerRpc("key"), protocol))
      const kernel = Context.get(context, KernelClient.KernelClient)
      const ref = yield* kernel.start("for i in range(5): print(i, flush=True)")
      assert.strictEqual(texts(yield* Stream.runCollect(kernel.resume(ref))).join(""), numbers(5))
      assert.deepStrictEqual(yield* kernel.detach, ref.kernel)
      const { resume } = yield* Effect.provideContext(RpcClient.make(KernelRpc.group), context)
      const [result, ...others] = yield* Stream.runCollect(resume({ key: "key", ref, chunks: false }))
      assert.deepStrictEqual([result?._tag, others], ["ExecutionResult", []])
    }).pipe(Effect.scoped))

  it.effect("a timeout and the option interrupts of code that has not begun leave the code before it alone", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const first = yield* kernel.start("import time; time.sleep(2); print('first')")
      const second = yield* kernel.start("print('second')")
      const timed = Stream.runDrain(kernel.resume(second, { timeout: "200 millis" }))
      assert.strictEqual((yield* Effect.flip(timed))._tag, "ExecutionTimeout")
      const left = Stream.runDrain(kernel.resume(second, { interrupts: true }))
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(left, "200 millis")))
      assert.deepStrictEqual(texts(yield* Stream.runCollect(kernel.resume(first))), ["first\n"])
      assert.deepStrictEqual(texts(yield* Stream.runCollect(kernel.resume(second))), ["second\n"])
    }).pipe(Effect.scoped))

  it.effect("the option interrupts of code that has ended leaves the code alone that runs now", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const first = yield* kernel.start("for i in range(100): print(i, flush=True)")
      const second = yield* kernel.start(
        "print('begun', flush=True); import time; time.sleep(1); print('end')",
      )
      const begun = yield* Stream.runCollect(Stream.take(kernel.resume(second), 1))
      assert.deepStrictEqual(texts(begun), ["begun\n"])
      // Its end is yet to be repeated.
      yield* Stream.runDrain(Stream.take(kernel.resume(first, { interrupts: true }), 1))
      assert.deepStrictEqual(texts(yield* Stream.runCollect(kernel.resume(second))), ["begun\n", "end\n"])
    }).pipe(Effect.scoped))

  it.effect("a timeout and the option interrupts stop code that has begun, before its output is repeated", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const begun = Effect.gen(function* () {
        const ref = yield* kernel.start("print('begun', flush=True)\nwhile True: pass")
        yield* Stream.runHead(kernel.resume(ref))
        return ref
      })
      const timed = kernel.resume(yield* begun, { timeout: "1 milli" })
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(timed)))._tag, "ExecutionTimeout")
      // It has its turn after what was started.
      const next = Effect.timeout(text(kernel.execute("1")), "8 seconds")
      assert.strictEqual(yield* next, "1")
      const left = Stream.runDrain(kernel.resume(yield* begun, { interrupts: true }))
      yield* Effect.flatMap(Effect.forkChild(left, { startImmediately: true }), Fiber.interrupt)
      assert.strictEqual(yield* next, "1")
      const asking = kernel.resume(yield* kernel.start("input()"), { interrupts: true })
      assert.strictEqual((yield* reasonOf(Stream.runDrain(asking)))._tag, "InputRequested")
      assert.strictEqual(yield* next, "1")
    }).pipe(Effect.scoped))

  it.effect("executions fail with KernelUnresponsive while code that was started ignores interrupts", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const go = join(yield* temporary, "go")
      const ref = yield* kernel.start(`
import os, time
while True:
    try:
        while not os.path.exists(${JSON.stringify(go)}): time.sleep(0.01)
        break
    except KeyboardInterrupt: pass`)
      const timed = reasonOf(Stream.runDrain(kernel.resume(ref, { timeout: "100 millis" })))
      assert.strictEqual((yield* timed)._tag, "KernelUnresponsive")
      const next = Effect.timeout(kernel.execute("1"), "8 seconds")
      assert.strictEqual(
        (yield* reasonOf(Effect.catchTag(next, "TimeoutError", Effect.die)))._tag,
        "KernelUnresponsive",
      )
      writeFileSync(go, "")
      yield* Stream.runDrain(kernel.resume(ref))
      assert.strictEqual(yield* text(kernel.execute("1")), "1")
    }).pipe(Effect.scoped))
})
