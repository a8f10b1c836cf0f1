/** Kernels that outlive a program on servers that are not ours, and the refusals of what a server cannot do. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schedule, Schema, Stream } from "effect"
import process from "node:process"
import { Execution, KernelClient, KernelGateway, PythonEnvironment, Testing } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as EnterpriseGateway from "./support/enterprise_gateway.ts"
import * as Kernelspecs from "./support/kernelspecs.ts"
import { gatewayOptions, temporary, text } from "./support/kernel.ts"
import { tied } from "./support/tied.ts"

const reasonOf = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => Execution.isKernelError(error) ? error.reason : error)

const anywhere = new Execution.ExecutionRef({
  kernel: new Execution.KernelRef({ server: "another", kernelId: "none", session: "none" }),
  id: "execution-none",
  start: 0,
  position: 0,
})

/** Checks that code cannot be started, at once also while other code runs. */
const refusesStart = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
  for (const refused of [kernel.start("1"), Stream.runDrain(kernel.resume(anywhere))]) {
    const reason = yield* reasonOf(Effect.asVoid(refused))
    assert.strictEqual(reason._tag, "Unsupported")
    assert.include(reason._tag === "Unsupported" ? reason.message : "", "layerShared")
  }
})

/** Starts a server and connects to it. */
const serve = Effect.fnUntraced(function* (python: string, port: number, args: ReadonlyArray<string>) {
  yield* tied(python, ["-m", ...args], {
    extendEnv: true,
    stdout: "ignore",
    stderr: "ignore",
    forceKillAfter: "3 seconds",
  })
  return yield* Layer.build(KernelGateway.layerRemote({ url: `http://127.0.0.1:${port}`, token: "secret" }))
    .pipe(Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: "30 seconds" }))))
})

/** Detaches a kernel, attaches to it while it runs code, and deletes it. */
const outlives = Effect.gen(function* () {
  const gateway = yield* KernelGateway.KernelGateway
  const ref = yield* Effect.scoped(Effect.gen(function* () {
    const kernel = yield* KernelClient.make({ kernelName: "python3", user: "ada" })
    yield* refusesStart(kernel)
    yield* kernel.execute("x = 20")
    return yield* kernel.detach
  }))
  yield* Effect.scoped(Effect.gen(function* () {
    const first = yield* KernelClient.attach(ref)
    const running = yield* Effect.forkChild(text(first.execute("import time; time.sleep(1); print(x + 1)")))
    // On servers that are not ours, another client takes nothing away.
    const second = yield* KernelClient.attach(ref)
    assert.strictEqual(yield* text(second.execute("x + 2")), "22")
    assert.strictEqual(yield* Fiber.join(running), "21")
  }))
  const remaining = Effect.map(gateway.kernels, (kernels) => kernels.map(({ id }) => id))
  assert.include(yield* remaining, ref.kernelId)
  yield* Effect.scoped(KernelClient.attach(ref, { deletes: true }))
  assert.notInclude(yield* remaining, ref.kernelId)
  assert.strictEqual((yield* reasonOf(Effect.scoped(KernelClient.attach(ref))))._tag, "KernelNotFound")
  const other = new Execution.KernelRef({ ...ref, server: "another" })
  assert.strictEqual((yield* reasonOf(Effect.scoped(KernelClient.attach(other))))._tag, "ServerReplaced")
})

const port = 12_000 + (process.pid % 3_900) * 2 + 24_000

it.live("a Jupyter Server keeps a kernel that was detached", () =>
  Effect.gen(function* () {
    const { python } = yield* PythonEnvironment.make()
    const served = yield* serve(python, port, [
      "jupyter_server",
      "--no-browser",
      "--allow-root",
      `--ServerApp.root_dir=${yield* temporary}`,
      `--ServerApp.port=${port}`,
      "--ServerApp.port_retries=0",
      "--IdentityProvider.token=secret",
    ])
    yield* Effect.provideContext(outlives, served)
  }).pipe(Effect.scoped, Effect.provide(Platform.layer)), 120_000)

const gateways = [
  { title: "a Kernel Gateway", module: "kernel_gateway", name: "KernelGatewayApp" },
  { title: "an Enterprise Gateway", module: "enterprise_gateway", name: "EnterpriseGatewayApp" },
] as const
for (const [index, { module, name, title }] of gateways.entries()) {
  it.live(`${title} keeps a kernel that was detached`, (context) =>
    Effect.gen(function* () {
      const python = module === "enterprise_gateway"
        ? yield* EnterpriseGateway.provision
        : (yield* PythonEnvironment.make()).python
      if (python === undefined) return context.skip("Enterprise Gateway cannot be installed here")
      const own = port + 1 + index
      const lists = module === "kernel_gateway" ? "JupyterWebsocketPersonality" : name
      const served = yield* serve(python, own, [
        module,
        `--${name}.ip=127.0.0.1`,
        `--${name}.port=${own}`,
        `--${name}.port_retries=0`,
        `--${name}.auth_token=secret`,
        `--${lists}.list_kernels=True`,
      ])
      yield* Effect.provideContext(outlives, served)
    }).pipe(Effect.scoped, Effect.provide(Platform.layer)), 120_000)
}

it.live(
  "a kernel of a gateway that ends with its program refuses to be detached, at once",
  () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* Effect.forkScoped(kernel.execute("import time; time.sleep(60)"))
      yield* refusesStart(kernel)
      const reason = yield* reasonOf(kernel.detach)
      assert.strictEqual(reason._tag, "Unsupported")
    }).pipe(
      Effect.scoped,
      Effect.provide(KernelGateway.layer(gatewayOptions)),
    ),
  60_000,
)

it.live(
  "a shared gateway keeps a kernel of another language that was detached",
  () =>
    Effect.gen(function* () {
      const { folder } = yield* Kernelspecs.make
      const name = `languages-${process.pid}`
      yield* Effect.addFinalizer(() => Effect.ignore(KernelGateway.stopShared(name)))
      yield* Effect.gen(function* () {
        const ref = yield* Effect.scoped(Effect.gen(function* () {
          const kernel = yield* KernelClient.make({ kernelName: "bash" })
          yield* refusesStart(kernel)
          yield* kernel.execute("x=20")
          return yield* kernel.detach
        }))
        const kernel = yield* KernelClient.attach(ref, { deletes: true })
        assert.strictEqual(yield* text(kernel.execute("echo $((x + 1))")), "21")
        assert.strictEqual((yield* reasonOf(kernel.evaluate("x", Schema.Int)))._tag, "Unsupported")
      }).pipe(
        Effect.scoped,
        Effect.provide(KernelGateway.layerShared({ name, env: { JUPYTER_PATH: folder } })),
      )
    }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
  120_000,
)

it.effect("a kernel for tests refuses to be detached", () =>
  Effect.gen(function* () {
    const kernel = yield* KernelClient.KernelClient
    for (const refused of [kernel.detach, kernel.start("1"), Stream.runDrain(kernel.resume(anywhere))]) {
      assert.strictEqual((yield* reasonOf(Effect.asVoid(refused)))._tag, "Unsupported")
    }
  }).pipe(Effect.provide(Testing.layer([]))))
