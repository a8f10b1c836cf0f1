/** What a service sees of its kernels: metrics, spans and logs. */
import { assert, layer } from "@effect/vitest"
import { Effect, Logger, Metric, References, Stream, Tracer } from "effect"
import { KernelClient } from "../src/mod.ts"
import * as Metrics from "../src/kernel/metrics.ts"
import { kernelLayer, slow, text } from "./support/kernel.ts"
import { eventually } from "./support/processes.ts"

const outcomes = (outcome: string) =>
  Effect.map(Metric.value(Metric.withAttributes(Metrics.executions, { outcome })), ({ count }) => count)

layer(kernelLayer(), slow)("observability", (it) => {
  it.effect("counts executions by outcome and measures them", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const before = yield* Effect.all([
        outcomes("ExecutionResult"),
        outcomes("ExecutionError"),
        outcomes("ExecutionTimeout"),
      ])
      const measured = (yield* Metric.value(Metrics.duration)).count
      const bytes = (yield* Metric.value(Metrics.outputBytes)).count
      yield* kernel.execute("print('x' * 1000)")
      yield* Effect.flip(kernel.execute("1 / 0"))
      yield* Effect.flip(Stream.runDrain(kernel.stream("while True: pass", { timeout: "50 millis" })))
      const after = yield* Effect.all([
        outcomes("ExecutionResult"),
        outcomes("ExecutionError"),
        outcomes("ExecutionTimeout"),
      ])
      assert.deepStrictEqual(after.map((count, index) => Number(count) - Number(before[index])), [1, 1, 1])
      assert.strictEqual((yield* Metric.value(Metrics.duration)).count - measured, 3)
      assert.isAbove((yield* Metric.value(Metrics.queued)).count, 2)
      assert.isAbove((yield* Metric.value(Metrics.firstOutput)).count, 0)
      assert.isAbove(Number((yield* Metric.value(Metrics.outputBytes)).count) - Number(bytes), 1000)
    }))

  it.effect("knows how many kernels are alive, and what they cost if asked", () =>
    Effect.gen(function* () {
      const alive = (yield* Metric.value(Metrics.kernels)).value
      yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ usageInterval: "50 millis" })
        assert.strictEqual((yield* Metric.value(Metrics.kernels)).value, alive + 1)
        yield* kernel.execute("ballast = bytearray(200_000_000)")
        let memory = 0
        const watch = Effect.map(Metric.value(Metrics.memory), ({ value }) => {
          memory = value
        }).pipe(Effect.delay("20 millis"), Effect.forever)
        yield* Effect.raceFirst(eventually(() => memory > 200_000_000 ? undefined : `${memory} bytes`), watch)
      }))
      assert.strictEqual((yield* Metric.value(Metrics.kernels)).value, alive)
      assert.strictEqual((yield* Metric.value(Metrics.memory)).value, 0)
    }))

  it.effect("makes spans of executions, interrupts and resets", () =>
    Effect.gen(function* () {
      const spans: Array<Tracer.Span> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        },
      })
      yield* Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        yield* kernel.execute("1")
        yield* Stream.runDrain(kernel.stream("1"))
        yield* kernel.interrupt
        yield* kernel.reset
      }).pipe(Effect.scoped, Effect.withTracer(tracer))
      const names = spans.map(({ name }) => name)
      assert.includeMembers(names, [
        "KernelClient.make",
        "Kernel.execute",
        "Kernel.stream",
        "Kernel.interrupt",
        "Kernel.reset",
      ])
      const execute = spans.find(({ name }) => name === "Kernel.execute")
      assert.isString(execute?.attributes.get("kernel.id"))
    }))

  it.effect("logs at Debug with the ids of kernel and execution", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const lines: Array<string> = []
      const logger = Logger.make<unknown, void>((options) => {
        lines.push(Logger.formatLogFmt.log(options))
      })
      yield* text(kernel.execute("1")).pipe(
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "Debug"),
      )
      const [line = ""] = lines.filter((each) => each.includes("Execution starts"))
      assert.include(line, `kernel=${kernel.id}`)
      assert.match(line, /execution=[0-9a-f-]{36}/)
    }))
})
