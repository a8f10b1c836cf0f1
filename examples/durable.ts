/**
 * Code that goes on while the program that started it is killed, and whose output the next program takes.
 *
 * `node --conditions=effect-jupyter-source examples/durable.ts` runs it. It starts itself as a worker, kills it, and starts
 * another one.
 *
 * @module
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Schema, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { Execution, KernelClient, KernelGateway } from "effect-jupyter"
import process from "node:process"
import { fileURLToPath } from "node:url"

const code = `
import time
total = 0
for number in range(1, 9):
    total += number
    print(number, "->", total, flush=True)
    time.sleep(0.2)
total`

/** A line of the journal: a chunk, and where to go on after it. They are stored together or not at all. */
const Entry = Schema.fromJsonString(
  Schema.Struct({ ref: Execution.ExecutionRef, chunk: Schema.optionalKey(Execution.Chunk) }),
)

/** Takes the output from the last entry of the journal on; starts the code if the journal is empty. */
const work = Effect.fn("work")(function* (journal: string) {
  const fs = yield* FileSystem.FileSystem
  const store = (entry: typeof Entry.Type) =>
    Schema.encodeEffect(Entry)(entry).pipe(
      Effect.flatMap((line) => fs.writeFileString(journal, `${line}\n`, { flag: "a" })),
      Effect.orDie,
    )
  const begin = Effect.gen(function* () {
    const kernel = yield* KernelClient.make()
    // From here on the kernel stays, whatever becomes of this program.
    yield* kernel.detach
    const ref = yield* kernel.start(code)
    yield* store({ ref })
    return ref
  })
  const content = yield* Effect.orElseSucceed(fs.readFileString(journal), () => "")
  // The program may have been killed while it wrote a line.
  const last = content.slice(0, Math.max(0, content.lastIndexOf("\n"))).split("\n").at(-1) ?? ""
  const ref = last === "" ? yield* Effect.scoped(begin) : (yield* Schema.decodeEffect(Entry)(last)).ref
  const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
  const outputs = kernel.resume(ref, {
    onChunk: (chunk, ref) =>
      Effect.andThen(
        store({ chunk, ref }),
        Console.log(chunk._tag === "ClearOutput" ? "" : chunk.text?.trim()),
      ),
  })
  yield* Stream.runDrain(outputs)
}, Effect.scoped)

/** Starts a worker, and kills it after so many lines. */
const runWorker = Effect.fn("runWorker")(function* (name: string, journal: string, lines: number) {
  const worker = yield* ChildProcess.make(process.execPath, [
    ...process.execArgv,
    fileURLToPath(import.meta.url),
    name,
    journal,
  ], { extendEnv: true, stderr: "inherit" })
  yield* worker.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.take(lines),
    Stream.runForEach((line) => Console.log(`  ${line}`)),
  )
  yield* Effect.ignore(worker.kill({ killSignal: "SIGKILL" }))
}, Effect.scoped)

const supervise = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped()
  const name = `durable-${process.pid}`
  yield* Effect.addFinalizer(() => Effect.ignore(KernelGateway.stopShared(name)))
  yield* Console.log("The first worker is killed after three lines:")
  yield* runWorker(name, `${folder}/journal`, 3)
  yield* Console.log("The second one takes the others:")
  yield* runWorker(name, `${folder}/journal`, Infinity)
})

const program = Effect.gen(function* () {
  const [name, journal] = process.argv.slice(2)
  if (name === undefined || journal === undefined) return yield* Effect.scoped(supervise)
  yield* Effect.provide(work(journal), KernelGateway.layerShared({ name, idleTimeToLive: "1 minute" }))
})

program.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
