/**
 * All failures are in the types: handle exceptions of the code, timeouts and dead kernels by name.
 *
 * `node --conditions=effect-jupyter-source examples/errors.ts` runs it.
 *
 * @module
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect, Layer, Schedule } from "effect"
import { KernelClient, KernelGateway } from "effect-jupyter"

const rows = `
for row in range(3):
    print(f"Row {row} is fine")
raise ValueError("row 3 has no date")
`

const slow = `
import time
for page in range(1, 1000):
    print(f"Page {page}", flush=True)
    time.sleep(0.3)
`

const flaky = `
attempts = globals().get("attempts", 0) + 1
if attempts < 3:
    raise ConnectionError(f"attempt {attempts} got no answer")
print(f"Answered at attempt {attempts}")
`

const fatal = `
import os
print("Goodbye", flush=True)
time.sleep(0.3)  # The text has to leave the process first
os._exit(1)
`

const program = Effect.gen(function* () {
  const kernel = yield* KernelClient.KernelClient

  yield* Console.log("An exception brings along what was put out before it:")
  yield* kernel.execute(rows).pipe(
    Effect.catchTag(
      "ExecutionError",
      (error) =>
        Console.log(`  ${error.ename}: ${error.evalue}`).pipe(
          Effect.andThen(Console.log(`  ${error.partial.text?.split("\n").length} rows were fine`)),
        ),
    ),
  )

  yield* Console.log("So does a timeout:")
  yield* kernel.execute(slow, { timeout: "1 second" }).pipe(
    Effect.catchTags({
      ExecutionError: (error) => Console.log(`  ${error.ename}`),
      ExecutionTimeout: (error) =>
        Console.log(
          `  After ${Duration.format(error.timeout)}: ${error.partial.text?.split("\n").join(", ")}`,
        ),
    }),
  )

  yield* Console.log("Failures are values, so any Schedule retries them:")
  const { text } = yield* kernel.execute(flaky).pipe(
    Effect.tapErrorTag("ExecutionError", (error) => Console.log(`  ${error.evalue}`)),
    Effect.retry({
      schedule: Schedule.exponential("100 millis"),
      times: 4,
      // Another exception would be a mistake in the code, and come again.
      while: (error) => error._tag === "ExecutionError" && error.ename === "ConnectionError",
    }),
  )
  yield* Console.log(`  ${text}`)

  yield* Console.log("A kernel that dies is replaced by a reset:")
  yield* kernel.execute(fatal).pipe(
    Effect.catchReason(
      "KernelError",
      "KernelDied",
      (_, error) =>
        Console.log(`  KernelDied after "${error.partial?.text}"`).pipe(Effect.andThen(kernel.reset)),
    ),
  )

  yield* Console.log("The new kernel works, without the old state:")
  yield* kernel.execute("attempts").pipe(
    Effect.catchTag("ExecutionError", (error) => Console.log(`  ${error.ename}: ${error.evalue}`)),
  )

  yield* Console.log("Each reason can have a handler of its own:")
  yield* kernel.execute("import os; os._exit(1)").pipe(
    Effect.catchReasons("KernelError", {
      KernelDied: (reason) => Console.log(`  ${reason._tag}`).pipe(Effect.andThen(kernel.reset)),
      KernelUnresponsive: (reason) => Console.log(`  ${reason._tag}`).pipe(Effect.andThen(kernel.reset)),
      ConnectionLost: (reason) => Console.log(`  ${reason._tag}: ${reason.detail}`),
    }),
  )
  const answer = yield* kernel.execute("6 * 7")
  yield* Console.log(`  The answer is ${answer.text} again`)
})

program.pipe(
  Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))),
  NodeRuntime.runMain,
)
