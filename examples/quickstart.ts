/**
 * The main job: run Python in a kernel that keeps its state, watch it, and survive what goes wrong.
 *
 * `npm start` runs it on Node, `deno run -A --conditions=effect-jupyter-source examples/quickstart.ts` on Deno.
 *
 * @module
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect, Layer, Stream } from "effect"
import { KernelClient, KernelGateway } from "effect-jupyter"

const countdown = `
import time
for n in (3, 2, 1):
    print(f"{n} ...")
    time.sleep(0.5)
print("Lift-off!")
`

const flight = `
height = 0
while True:
    height += 1
    time.sleep(0.01)
`

const plot = `
import matplotlib.pyplot as plt
plt.plot([t**2 for t in range(20)])
plt.title("Height over time")
plt.show()
`

const program = Effect.gen(function* () {
  const kernel = yield* KernelClient.KernelClient

  yield* Console.log("Output arrives while the code runs:")
  yield* kernel.stream(countdown).pipe(
    Stream.filter((chunk) => chunk._tag === "TextChunk"),
    Stream.map((chunk) => chunk.text),
    Stream.splitLines,
    Stream.runForEach((line) => Console.log(`  ${line}`)),
  )

  yield* Console.log("An exception in Python is a typed error:")
  yield* kernel.execute("fuel = 1 / 0").pipe(
    Effect.catchTag("ExecutionError", (error) => Console.log(`  Caught ${error.ename}: ${error.evalue}`)),
  )

  yield* Console.log("Code that takes too long is interrupted:")
  yield* kernel.execute(flight, { timeout: "1 second" }).pipe(
    Effect.catchTag(
      "ExecutionTimeout",
      (error) => Console.log(`  Stopped after ${Duration.format(error.timeout)}`),
    ),
  )

  yield* Console.log("The kernel's state is still there:")
  const { text } = yield* kernel.execute(`print(f"The flight had reached {height} metres")`)
  yield* Console.log(`  ${text}`)

  yield* Console.log("A plot becomes a file:")
  const { images } = yield* kernel.execute(plot)
  yield* Effect.forEach(images, (image) => Console.log(`  Saved ${image.path}`))
})

program.pipe(
  Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))),
  NodeRuntime.runMain,
)
