/**
 * A program that uses a durable kernel, for tests that kill it. Its arguments are the options of the shared gateway and
 * a task, both as JSON: code to start in a new kernel, or a reference to resume. It prints a line of JSON for each step.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Schema, Stream } from "effect"
import process from "node:process"
import { Execution, KernelClient, KernelGateway } from "../../src/mod.ts"

const Task = Schema.fromJsonString(Schema.Union([
  Schema.Struct({ start: Schema.String }),
  Schema.Struct({ resume: Execution.ExecutionRef }),
]))
const Line = Schema.fromJsonString(Schema.Struct({
  /** The chunk that was taken. */
  chunk: Schema.optionalKey(Execution.Chunk),
  /** The reference to go on from. */
  ref: Schema.optionalKey(Execution.ExecutionRef),
  failure: Schema.optionalKey(Execution.ExecutionFailure),
  isDone: Schema.optionalKey(Schema.Boolean),
}))
const [options = "", task = ""] = process.argv.slice(2)

/** Writes a line: one that is incomplete when the program is killed counts as not written. */
const say = (line: typeof Line.Type) =>
  Effect.flatMap(
    Effect.orDie(Schema.encodeEffect(Line)(line)),
    (text) =>
      Effect.callback<void>((resume) => void process.stdout.write(`${text}\n`, () => resume(Effect.void))),
  )

Effect.gen(function* () {
  const asked = yield* Schema.decodeEffect(Task)(task)
  if ("start" in asked) {
    const kernel = yield* KernelClient.make()
    yield* kernel.detach
    yield* say({ ref: yield* kernel.start(asked.start) })
    return yield* Effect.never
  }
  const kernel = yield* KernelClient.attach(asked.resume.kernel)
  const outputs = kernel.resume(asked.resume, {
    images: "bytes",
    onChunk: (chunk, ref) => say({ chunk, ref }),
    onInput: ({ prompt }) => Effect.succeed(`answer to ${prompt}`),
  })
  yield* Stream.runDrain(outputs).pipe(
    Effect.matchEffect({ onFailure: (failure) => say({ failure }), onSuccess: () => say({ isDone: true }) }),
  )
}).pipe(
  Effect.scoped,
  Effect.provide(KernelGateway.layerShared(JSON.parse(options))),
  NodeRuntime.runMain,
)
