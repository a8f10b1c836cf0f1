/**
 * Python generators as Streams, with back-pressure, and a Stream that Python is fed with.
 *
 * `node --conditions=effect-jupyter-source examples/generator.ts` runs it.
 *
 * @module
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { type Execution, KernelClient, KernelGateway } from "effect-jupyter"

const definitions = `
import asyncio
from collections import Counter

read = 0

def lines():
    """A log that never ends."""
    global read
    try:
        while True:
            read += 1
            yield {"line": read, "level": "ERROR" if read % 7 == 0 else "INFO"}
    finally:
        print(f"Closed the log after {read} lines")

async def pages(count):
    for number in range(1, count + 1):
        await asyncio.sleep(0.01)
        if number == 4:
            raise ConnectionError("page 4 is gone")
        yield [number * 10 + n for n in range(3)]

words = Counter()

def count(batch):
    words.update(batch)
    return len(batch)
`

const Line = Schema.Struct({ line: Schema.Int, level: Schema.Literals(["INFO", "ERROR"]) })

const program = Effect.gen(function* () {
  const kernel = yield* KernelClient.KernelClient
  yield* kernel.execute(definitions)

  yield* Console.log("An endless generator; Python is never more than a batch ahead:")
  const onChunk = (chunk: Execution.Chunk) =>
    chunk._tag === "TextChunk" ? Console.log(`  ${chunk.text.trim()}`) : Effect.void
  yield* kernel.iterate("lines()", Line, { batchSize: 10, onChunk }).pipe(
    Stream.filter(({ level }) => level === "ERROR"),
    Stream.take(3),
    Stream.runForEach(({ line }) => Console.log(`  error in line ${line}`)),
  )
  yield* Console.log(`  ${yield* kernel.evaluate("read", Schema.Int)} lines were read`)

  yield* Console.log("An asynchronous one that fails; what came before is there:")
  yield* kernel.iterate("pages(10)", Schema.Array(Schema.Int)).pipe(
    Stream.flattenIterable,
    Stream.runForEach((item) => Console.log(`  item ${item}`)),
    Effect.catchTag("ExecutionError", ({ ename, evalue }) => Console.log(`  ${ename}: ${evalue}`)),
  )

  yield* Console.log("And the other way: a Stream, batch by batch, into a function:")
  const text = "to be or not to be that is the question"
  yield* kernel.feed("count", Stream.fromIterable(text.split(" ")), { returns: Schema.Int, batchSize: 4 })
    .pipe(
      Stream.runForEach((size) => Console.log(`  a batch of ${size}`)),
    )
  const Words = Schema.Array(Schema.Tuple([Schema.String, Schema.Int]))
  const common = yield* kernel.evaluate("words.most_common(2)", Words)
  yield* Console.log(`  most common: ${common.map(([word, times]) => `${word} (${times})`).join(", ")}`)
})

program.pipe(
  Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))),
  NodeRuntime.runMain,
)
