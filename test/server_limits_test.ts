/** Limits and rules of real servers that are not ours: Kernel Gateway and Enterprise Gateway. */
import { assert, it } from "@effect/vitest"
import { Effect, Layer, Schedule } from "effect"
import process from "node:process"
import { KernelClient, KernelGateway, PythonEnvironment } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as EnterpriseGateway from "./support/enterprise_gateway.ts"
import { text } from "./support/kernel.ts"
import { tied } from "./support/tied.ts"

/** Starts a server and connects to it. */
const serve = Effect.fnUntraced(function* (
  python: string,
  { env, maxKernels = 1, module, name, port }: {
    readonly module: string
    readonly name: string
    readonly port: number
    readonly env?: Record<string, string>
    readonly maxKernels?: number
  },
) {
  yield* tied(python, [
    "-m",
    module,
    `--${name}.ip=127.0.0.1`,
    `--${name}.port=${port}`,
    `--${name}.port_retries=0`,
    `--${name}.auth_token=secret`,
    `--${name}.max_kernels=${maxKernels}`,
  ], { env, extendEnv: true, stdout: "ignore", stderr: "ignore", forceKillAfter: "3 seconds" })
  return yield* Layer.build(KernelGateway.layerRemote({ url: `http://127.0.0.1:${port}`, token: "secret" }))
    .pipe(
      Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: "30 seconds" }))),
    )
})

const port = 12_000 + (process.pid % 3_900) * 2 + 16_000

it.live("KernelClient.make fails with ResourceLimit where Kernel Gateway has a limit", () =>
  Effect.gen(function* () {
    const { python } = yield* PythonEnvironment.make()
    const gateway = yield* serve(python, { module: "kernel_gateway", name: "KernelGatewayApp", port })
    yield* Effect.gen(function* () {
      const kernel = yield* KernelClient.make({ env: { MINE: "1" } })
      // Kernel Gateway itself drops what is not KERNEL_*.
      assert.strictEqual(yield* text(kernel.execute("import os; print(os.environ['MINE'])")), "1")
      const { message, reason } = yield* Effect.flip(Effect.scoped(KernelClient.make()))
      assert.strictEqual(reason._tag, "ResourceLimit")
      assert.include(message, "close kernels that are not used")
      // The next kernel takes the place of this one.
      yield* kernel.reset
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
    }).pipe(Effect.scoped, Effect.provideContext(gateway))
  }).pipe(Effect.scoped, Effect.provide(Platform.layer)))

it.live(
  "layerRemote on Enterprise Gateway: options become KERNEL_*, limits and refusals are typed reasons",
  (context) =>
    Effect.gen(function* () {
      const python = yield* EnterpriseGateway.provision
      if (python === undefined) return context.skip("Enterprise Gateway cannot be installed here")
      const served = yield* serve(python, {
        module: "enterprise_gateway",
        name: "EnterpriseGatewayApp",
        port: port + 1,
        maxKernels: 2,
        env: { EG_UNAUTHORIZED_USERS: "eve,no-limit", EG_LIST_KERNELS: "True", EG_MAX_KERNELS_PER_USER: "1" },
      })
      yield* Effect.gen(function* () {
        const gateway = yield* KernelGateway.KernelGateway
        const mine = { env: { KERNEL_IMAGE: "large", MINE: "1" }, user: "ada" }
        const failure = (options: KernelClient.ClientOptions) =>
          Effect.flip(Effect.scoped(KernelClient.make(options)))
        for (const user of ["eve", "no-limit"]) {
          const refused = yield* failure({ user })
          assert.deepInclude(refused.reason, { _tag: "Forbidden", isRetryable: false })
          assert.include(refused.message, "KERNEL_USERNAME")
        }
        const { reason } = yield* failure({ ...mine, kernelName: "cobol" })
        assert.deepInclude(reason, { _tag: "NoSuchKernelspec", isRetryable: false })
        if (reason._tag === "NoSuchKernelspec") assert.include(reason.known, "python3")
        const kernelspecs = yield* gateway.kernelspecs
        assert.include(kernelspecs.map(({ name }) => name), "python3")
        const kernel = yield* KernelClient.make({
          ...mine,
          kernelName: "python3",
          initTimeout: "45 seconds",
          workingDir: "/tmp",
        })
        const names = [
          "MINE",
          "KERNEL_IMAGE",
          "KERNEL_USERNAME",
          "KERNEL_LAUNCH_TIMEOUT",
          "KERNEL_WORKING_DIR",
        ]
        const code = `import os; print(*[os.environ[name] for name in ${JSON.stringify(names)}], os.getcwd())`
        assert.strictEqual(yield* text(kernel.execute(code)), "1 large ada 45 /tmp /tmp")
        assert.deepStrictEqual((yield* gateway.kernels).map(({ id, name }) => [id, name]), [
          [kernel.id, "python3"],
        ])
        const limited = yield* failure(mine)
        assert.deepInclude(limited.reason, { _tag: "ResourceLimit", isRetryable: true })
        assert.include(limited.message, "per user")
        // The limit of a user leaves room for another one.
        yield* KernelClient.make({ kernelName: "python3", user: "bob" })
        const full = yield* failure({ kernelName: "python3", user: "carol" })
        assert.deepInclude(full.reason, { _tag: "ResourceLimit", isRetryable: true })
        assert.notInclude(full.message, "per user")
        yield* kernel.reset
        assert.strictEqual(
          yield* text(kernel.execute("import os; print(os.environ['KERNEL_USERNAME'])")),
          "ada",
        )
      }).pipe(Effect.scoped, Effect.provideContext(served))
    }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
  300_000,
)
