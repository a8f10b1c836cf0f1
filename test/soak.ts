/**
 * The soak run: thousands of executions with random interruptions, timeouts, resets and deaths. Prints what was
 * lost or doubled and how memory grew; ends with status 1 if anything was, or if a process stays behind.
 *
 * Usage: npm run soak [-- EXECUTIONS], which bounds V8's space for young objects: left alone it is enlarged once, by
 * 64 MB, after some thousands of executions, and looks like a leak.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Random, Ref, Schema } from "effect"
import process from "node:process"
import { type Execution, KernelClient, KernelGateway } from "../src/mod.ts"
import { descendants, survivors } from "./support/processes.ts"

const total = Number(process.argv[2] ?? 10_000)
const workers = 2

class SoakFailed extends Schema.TaggedError<SoakFailed>()("SoakFailed", { detail: Schema.String }) {}

interface Sample {
  readonly executions: number
  readonly rss: number
  /** Memory used by JavaScript, reserved by V8, and outside of V8. */
  readonly heap: number
  readonly reserved: number
  readonly external: number
}

const MB = 1024 * 1024
const sample = (executions: number): Sample => {
  globalThis.gc?.()
  const { external, heapTotal, heapUsed, rss } = process.memoryUsage()
  return { executions, rss: rss / MB, heap: heapUsed / MB, reserved: heapTotal / MB, external: external / MB }
}

/** Slope of a straight line through the samples, in MB per 1,000 executions. */
function slope(samples: ReadonlyArray<Sample>, of: "rss" | "heap"): number {
  const n = samples.length
  const meanX = samples.reduce((sum, { executions }) => sum + executions, 0) / n
  const meanY = samples.reduce((sum, each) => sum + each[of], 0) / n
  const covariance = samples.reduce((sum, each) => sum + (each.executions - meanX) * (each[of] - meanY), 0)
  const variance = samples.reduce((sum, { executions }) => sum + (executions - meanX) ** 2, 0)
  return variance === 0 ? 0 : 1000 * covariance / variance
}

const outcome = (error: Execution.ExecutionFailure): string =>
  error._tag === "KernelError" ? error.reason._tag : error._tag

const soak = Effect.gen(function* () {
  const gateway = yield* KernelGateway.make()
  const done = yield* Ref.make(0)
  const outcomes = new Map<string, number>()
  const samples: Array<Sample> = []
  const wrong: Array<string> = []
  const count = (what: string) => outcomes.set(what, (outcomes.get(what) ?? 0) + 1)

  const step = Effect.fnUntraced(function* (kernel: KernelClient.Kernel, marker: string) {
    const dice = yield* Random.next
    if (dice < 0.9) {
      // Each line is a message of its own now and then: order, losses and doubles all show.
      const expected = [1, 2, 3].map((line) => `${marker}.${line}`).join("\n")
      const result = yield* kernel.execute(
        `for line in (1, 2, 3): print('${marker}.%d' % line, flush=line == 2)`,
      )
      if (result.text !== expected) wrong.push(`${marker}: "${result.text}"`)
      return "ok"
    }
    if (dice < 0.95) {
      const pause = yield* Random.nextBetween(0, 30)
      yield* Effect.timeoutOption(kernel.execute(`print('${marker} old')\nimport time; time.sleep(5)`), pause)
      return "interrupted"
    }
    if (dice < 0.98) {
      const pause = yield* Random.nextBetween(0, 30)
      return outcome(yield* Effect.flip(kernel.execute("while True: pass", { timeout: pause })))
    }
    if (dice < 0.995) {
      yield* kernel.reset
      return "reset"
    }
    const death = outcome(yield* Effect.flip(kernel.execute("import os; os._exit(1)")))
    yield* kernel.reset
    return death
  })

  const work = Effect.fnUntraced(function* (worker: number) {
    const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
    while (true) {
      const index = yield* Ref.getAndUpdate(done, (n) => n + 1)
      if (index >= total) return
      count(yield* step(kernel, `w${worker}n${index}`))
      if (index % 250 === 0) {
        const now = sample(index)
        samples.push(now)
        const [rss, ...parts] = [now.rss, now.heap, now.reserved, now.external].map((size) => size.toFixed(0))
        yield* Console.log(
          `${index} executions, ${rss} MB (heap ${parts[0]} of ${parts[1]}, external ${parts[2]})`,
        )
      }
    }
  })
  yield* Effect.forEach(Array.from({ length: workers }, (_, worker) => worker), work, {
    concurrency: workers,
  })
  const pids = descendants(process.pid).map(({ pid }) => pid)
  return { outcomes, samples, wrong, pids }
}).pipe(Effect.scoped)

Effect.gen(function* () {
  const { outcomes, pids, samples, wrong } = yield* soak
  // Code is compiled and caches fill in the first half.
  const settled = samples.slice(Math.floor(samples.length / 2))
  yield* Console.log(`Outcomes: ${[...outcomes].map(([what, count]) => `${what} ${count}`).join(", ")}`)
  yield* Console.log(
    `Memory: RSS ${slope(settled, "rss").toFixed(2)} MB, heap ${
      slope(settled, "heap").toFixed(2)
    } MB per 1,000 executions`,
  )
  yield* Console.log(`Lost or doubled: ${wrong.length}`)
  const left = survivors(pids)
  yield* Console.log(`Processes left: ${left ?? "none"}`)
  if (wrong.length > 0) return yield* new SoakFailed({ detail: wrong.slice(0, 10).join("\n") })
  if (left !== undefined) return yield* new SoakFailed({ detail: left })
}).pipe(NodeRuntime.runMain)
