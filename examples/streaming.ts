/**
 * An execution as a Stream of chunks: print them as they arrive, count them, or take as many as you want.
 *
 * `node --conditions=effect-jupyter-source examples/streaming.ts` runs it.
 *
 * @module
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Layer, Stdio, Stream } from "effect"
import { type Execution, KernelClient, KernelGateway } from "effect-jupyter"

const progress = `
import time
for percent in range(0, 101, 20):
    print(f"{percent}%", end=" ", flush=True)
    time.sleep(0.3)
print()
`

const report = `
from IPython.display import HTML, display
print("Displays are chunks too")
display(HTML("<b>one</b>"))
display({"rows": 2})
{"rows": 3}
`

const endless = `
n = 0
while True:
    n += 1
    print("tick", n, flush=True)
    time.sleep(0.1)
`

const isText = (chunk: Execution.Chunk | Execution.ExecutionResult) => chunk._tag === "TextChunk"

const program = Effect.gen(function* () {
  const kernel = yield* KernelClient.KernelClient
  const stdio = yield* Stdio.Stdio

  yield* Console.log("Text as it arrives, not line by line:")
  yield* kernel.stream(progress).pipe(
    Stream.filter(isText),
    Stream.map((chunk) => chunk.text),
    Stream.run(stdio.stdout({ endOnDone: false })),
  )

  yield* Console.log("What a cell puts out, chunk by chunk:")
  const displays = yield* kernel.stream(report).pipe(
    Stream.tap((chunk) =>
      chunk._tag === "DisplayChunk"
        ? Console.log(`  ${chunk._tag} with ${Object.keys(chunk.data).join(", ")}`)
        : Console.log(`  ${chunk._tag}`)
    ),
    Stream.filter((chunk) => chunk._tag === "DisplayChunk"),
    Stream.runCount,
  )
  yield* Console.log(`  ${displays} displays`)

  // With the third line the consumer has enough: the kernel is interrupted, and idle when the stream has ended.
  yield* Console.log("The first lines of a loop that never ends:")
  yield* kernel.stream(endless).pipe(
    Stream.filter(isText),
    Stream.map((chunk) => chunk.text),
    // Chunks end where the kernel likes, lines where the code does.
    Stream.splitLines,
    Stream.take(3),
    Stream.runForEach((line) => Console.log(`  ${line}`)),
  )

  yield* Console.log("The kernel is free at once, and knows how far it came:")
  const { text } = yield* kernel.execute(`print(f"Stopped after {n} ticks")`)
  yield* Console.log(`  ${text}`)
})

program.pipe(
  Effect.provide([
    KernelClient.layer().pipe(Layer.provide(KernelGateway.layer())),
    NodeServices.layer,
  ]),
  NodeRuntime.runMain,
)
