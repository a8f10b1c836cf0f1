/** Enterprise Gateway, which needs older packages than anything else here and so has a Python of its own. */
import { Effect, Layer, Schedule } from "effect"
import { KernelGateway } from "../../src/mod.ts"
import type * as Platform from "../../src/platform.ts"
import { tied } from "./tied.ts"
import * as ToolEnvironment from "./tool_environment.ts"

/** The interpreter, in the user's cache; `undefined` where it cannot be installed, as on Pythons after 3.11. */
export const provision: Effect.Effect<string | undefined, never, Platform.Platform> = ToolEnvironment
  .provision("test-enterprise-gateway", ["jupyter_enterprise_gateway==3.3.0", "ipykernel>=6,<6.20"])

/** Starts a server, which ends with the scope. Returns its address, with its token, when it answers. */
export const start = Effect.fnUntraced(function* (python: string, port: number) {
  const name = "EnterpriseGatewayApp"
  yield* tied(python, [
    "-m",
    "enterprise_gateway",
    `--${name}.ip=127.0.0.1`,
    `--${name}.port=${port}`,
    `--${name}.port_retries=0`,
    `--${name}.auth_token=secret`,
    `--${name}.list_kernels=True`,
  ], { extendEnv: true, stdout: "ignore", stderr: "ignore", forceKillAfter: "3 seconds" })
  const url = `http://127.0.0.1:${port}/?token=secret`
  yield* Effect.scoped(Layer.build(KernelGateway.layerRemote({ url }))).pipe(
    Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: "30 seconds" }))),
  )
  return url
})
