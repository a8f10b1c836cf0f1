/** Shared by integration tests: a gateway with one kernel, a folder for its files, and readers of results. */
import { Effect, FileSystem, Layer, Stream } from "effect"
import { tmpdir } from "node:os"
import process from "node:process"
import { Execution, KernelClient, KernelGateway, Sandbox } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"

/** The user of sandboxed kernels if the tests run as root. */
export const nobody = { uid: 65534, gid: 65534 } as const

/** Real processes need real time and more of it than tests of pure code. */
export const slow = { excludeTestServices: true, timeout: "2 minutes" } as const

/** True in the test run in which every kernel is sandboxed; see `vitest.config.ts`. */
export const inSandbox = Platform.variable("EFFECT_JUPYTER_TEST_SANDBOX") !== undefined

/** The sandbox of that run: kernels may write to the folders that `temporary` makes, and nowhere else. */
const sandbox: KernelGateway.GatewayOptions = inSandbox
  ? { sandbox: { allowWrite: [tmpdir()], ...(process.geteuid?.() === 0 ? { user: nobody } : {}) } }
  : {}

/** The run of the tests in which kernels are not forked. */
const started: KernelGateway.GatewayOptions = Platform.variable("EFFECT_JUPYTER_TEST_STARTED") === undefined
  ? {}
  : { fork: false }

/** The options of gateways in these runs. */
export const gatewayOptions: KernelGateway.GatewayOptions = { ...sandbox, ...started }

/** One gateway and one kernel of it, for a file of tests. */
export function kernelLayer(
  gateway: KernelGateway.GatewayOptions = {},
  client: KernelClient.ClientOptions = {},
): Layer.Layer<
  KernelClient.KernelClient | KernelGateway.KernelGateway | Platform.Platform,
  Execution.KernelError | KernelGateway.GatewayError | Sandbox.SandboxError
> {
  return KernelClient.layer(client).pipe(
    Layer.provideMerge(KernelGateway.layer({ ...gatewayOptions, ...gateway })),
    Layer.provideMerge(Platform.layer),
  )
}

/** A temporary folder that goes with the scope; kernels may write to it. */
export const temporary = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "effect-jupyter-test-" })
  if (inSandbox) yield* fs.chmod(folder, 0o777)
  return folder
}).pipe(Effect.orDie)

/** All elements of a stream: the chunks and, last, the result. */
export const collect = (
  stream: Stream.Stream<Execution.Chunk | Execution.ExecutionResult, Execution.ExecutionFailure>,
): Effect.Effect<Array<Execution.Chunk | Execution.ExecutionResult>, Execution.ExecutionFailure> =>
  Stream.runCollect(stream)

/** The texts of the text chunks among the elements. */
export function texts(
  elements: ReadonlyArray<Execution.Chunk | Execution.ExecutionResult>,
): ReadonlyArray<string> {
  return elements.flatMap((element) => element._tag === "TextChunk" ? [element.text] : [])
}

/** The text of a result. */
export const text = (
  execution: Effect.Effect<Execution.ExecutionResult, Execution.ExecutionFailure>,
): Effect.Effect<string | undefined, Execution.ExecutionFailure> =>
  Effect.map(execution, (result) => result.text)

/** A new kernel whose client connects to the gateway. */
export const kernelOverServer = Effect.flatMap(
  KernelGateway.KernelGateway,
  (gateway) => Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, overServer(gateway)),
)

/** The same gateway for clients that connect to it, and not to the kernels themselves. */
export const overServer = <G extends { readonly url: string }>(gateway: G): G => ({
  ...gateway,
  url: `${gateway.url}/`,
})
