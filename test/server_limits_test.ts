/** Limits and rules of real servers that are not ours: Kernel Gateway and Enterprise Gateway. */
import { assert, it } from "@effect/vitest"
import { Console, Effect, Layer, Schedule } from "effect"
import { ChildProcess } from "effect/process"
import process from "node:process"
import { KernelClient, KernelGateway, PythonEnvironment } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as EnterpriseGateway from "./support/enterprise_gateway.ts"
import { text } from "./support/kernel.ts"

/** Starts a server and connects to it. */
const serve = Effect.fnUntraced(function* (
  python: string,
  { env, module, name, port }: {
    readonly module: string
    readonly name: string
    readonly port: number
    readonly env?: Record<string, string>
  },
) {
  yield* ChildProcess.make(python, [
    "-m",
    module,
    `--${name}.ip=127.0.0.1`,
    `--${name}.port=${port}`,
    `--${name}.port_retries=0`,
    `--${name}.auth_token=secret`,
    `--${name}.max_kernels=1`,
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
    }).pipe(Effect.scoped, Effect.provideContext(gateway))
  }).pipe(Effect.scoped, Effect.provide(Platform.layer)))

it.live(
  "KernelClient.make fails with ResourceLimit, Forbidden or NoSuchKernelspec on Enterprise Gateway",
  () =>
    Effect.gen(function* () {
      const python = yield* EnterpriseGateway.provision
      if (python === undefined) {
        return yield* Console.warn("Enterprise Gateway cannot be installed here: not tried")
      }
      const gateway = yield* serve(python, {
        module: "enterprise_gateway",
        name: "EnterpriseGatewayApp",
        port: port + 1,
        env: { EG_UNAUTHORIZED_USERS: "eve" },
      })
      yield* Effect.gen(function* () {
        const mine = { KERNEL_USERNAME: "ada", MINE: "1" }
        const failure = (options: KernelClient.ClientOptions) =>
          Effect.flip(Effect.scoped(KernelClient.make(options)))
        const refused = yield* failure({ env: { KERNEL_USERNAME: "eve" } })
        assert.strictEqual(refused.reason._tag, "Forbidden")
        assert.include(refused.message, "KERNEL_USERNAME")
        const { reason } = yield* failure({ env: mine, kernelName: "cobol" })
        assert.strictEqual(reason._tag, "NoSuchKernelspec")
        if (reason._tag === "NoSuchKernelspec") assert.include(reason.known, "python3")
        const kernel = yield* KernelClient.make({ env: mine })
        const code = "import os; print(os.environ['MINE'], os.environ['KERNEL_USERNAME'])"
        assert.strictEqual(yield* text(kernel.execute(code)), "1 ada")
        assert.strictEqual((yield* failure({ env: mine })).reason._tag, "ResourceLimit")
      }).pipe(Effect.scoped, Effect.provideContext(gateway))
    }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
  300_000,
)
