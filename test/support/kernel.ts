/** What integration tests share: a gateway with one kernel, a folder for its files, and readers of results. */
import { Effect, FileSystem, Layer, Stream } from "effect"
import { Execution, KernelClient, KernelGateway } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"

/** Real processes need real time and more of it than tests of pure code. */
export const slow = { excludeTestServices: true, timeout: "2 minutes" } as const

/** One gateway and one kernel of it, for a file of tests. */
export function kernelLayer(
  gateway: KernelGateway.GatewayOptions = {},
  client: KernelClient.ClientOptions = {},
): Layer.Layer<
  KernelClient.KernelClient | KernelGateway.KernelGateway | Platform.Platform,
  Execution.KernelError | KernelGateway.GatewayError
> {
  return KernelClient.layer(client).pipe(
    Layer.provideMerge(KernelGateway.layer(gateway)),
    Layer.provideMerge(Platform.layer),
  )
}

/** A temporary folder that goes with the scope. */
export const temporary = Effect.orDie(
  Effect.flatMap(
    FileSystem.FileSystem,
    (fs) => fs.makeTempDirectoryScoped({ prefix: "effect-jupyter-test-" }),
  ),
)

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
