/** Metrics, spans and logs of kernels. */
import { assert, layer } from "@effect/vitest"
import {
  Cause,
  Effect,
  Exit,
  Layer,
  Logger,
  Metric,
  Option,
  References,
  Schema,
  Stream,
  Tracer,
} from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import { OtlpMetrics, OtlpSerialization, OtlpTracer } from "effect/observability"
import { KernelClient, KernelPool } from "../src/mod.ts"
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

  /** Spans of an effect, in the order in which they began. */
  const spansOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const spans: Array<Tracer.Span> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        },
      })
      yield* Effect.withTracer(effect, tracer)
      return spans
    })
  const ours = (spans: ReadonlyArray<Tracer.Span>) => spans.filter(({ kind }) => kind !== "client")

  it.effect("makes spans of everything that is asked of a kernel, each with its id", () =>
    Effect.gen(function* () {
      let id = ""
      const spans = yield* spansOf(
        Effect.gen(function* () {
          const kernel = yield* KernelClient.make()
          id = kernel.id
          yield* kernel.execute("1")
          yield* Stream.runDrain(kernel.stream("1"))
          yield* kernel.interrupt
          yield* kernel.evaluate("1", Schema.Int)
          yield* kernel.set("x", 1)
          yield* kernel.call("abs", [1], { returns: Schema.Int })
          yield* Stream.runDrain(kernel.iterate("[1]", Schema.Int))
          yield* Stream.runDrain(kernel.feed("sum", Stream.make(1), { returns: Schema.Int }))
          yield* kernel.complete("pri", 3, { timeout: "1 minute" })
          yield* kernel.inspect("print")
          yield* kernel.isComplete("1")
          yield* kernel.history()
          yield* kernel.info
          yield* kernel.variables
          yield* kernel.reset
        }).pipe(Effect.scoped),
      )
      const names =
        "execute stream interrupt evaluate set call iterate feed complete inspect isComplete history info variables reset"
      for (const name of ["KernelClient.make", ...names.split(" ").map((name) => `Kernel.${name}`)]) {
        const span = spans.find((span) => span.name === name)
        assert.strictEqual(span?.attributes.get("kernel.id"), id, name)
        assert.isTrue(span?.status._tag === "Ended" && Exit.isSuccess(span.status.exit), name)
      }
    }))

  it.effect("execute and stream make spans only where a tracer is installed", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const names = Effect.gen(function* () {
        const names: Array<string | undefined> = []
        const onInput = () =>
          Effect.map(Effect.option(Effect.currentSpan), (span) => {
            names.push(Option.getOrUndefined(span)?.name)
            return ""
          })
        yield* kernel.execute("input()", { onInput })
        yield* Stream.runDrain(kernel.stream("input()", { onInput }))
        return names
      })
      assert.deepStrictEqual(yield* names, [undefined, undefined])
      assert.deepStrictEqual(yield* Effect.withSpan(names, "mine"), ["mine", "mine"])
      yield* spansOf(Effect.map(names, (names) => {
        assert.deepStrictEqual(names, ["Kernel.execute", "Kernel.stream"])
      }))
    }))

  it.effect("makes no spans of what goes on in the background, nor of a kernel that is gone when it is deleted", () =>
    Effect.gen(function* () {
      const spans = yield* spansOf(
        Effect.gen(function* () {
          const kernel = yield* KernelClient.make({ pingInterval: "20 millis" })
          yield* Effect.sleep("300 millis")
          yield* Effect.flip(kernel.execute("import os; os._exit(1)"))
        }).pipe(Effect.scoped),
      )
      const clients = spans.filter(({ kind }) => kind === "client")
      assert.strictEqual(clients.length, 1)
      for (const { attributes } of clients) assert.strictEqual(attributes.get("http.request.method"), "POST")
    }))

  it.effect("gives the kernels that a pool starts spans of their own, and its requests the id of theirs", () =>
    Effect.gen(function* () {
      let id = ""
      const spans = yield* spansOf(
        Effect.gen(function* () {
          const pool = yield* KernelPool.make({ warm: 1, max: 2 })
          const kernel = yield* pool.get
          id = kernel.id
        }).pipe(Effect.scoped),
      )
      const get = spans.find(({ name }) => name === "KernelPool.get")
      assert.strictEqual(get?.attributes.get("kernel.id"), id)
      const starts = spans.filter(({ name }) => name === "KernelPool.start")
      assert.isAbove(starts.length, 0)
      for (const { parent } of starts) assert.isTrue(Option.isNone(parent))
      const make = spans.find(({ name }) => name === "KernelPool.make")
      assert.isFalse(
        spans.some(({ parent }) => Option.isSome(parent) && parent.value.spanId === make?.spanId),
      )
    }))

  /** Ways to fail, each with a text that no span may hold, and the type that it is to hold. */
  const secret = "hunter2"
  const failures = (kernel: KernelClient.Kernel) => ({
    ZeroDivisionError: kernel.execute(`password = '${secret}'; 1 / 0  # ${secret}`),
    KeyError: Stream.runDrain(kernel.stream(`{}['${secret}']`)),
    ExecutionTimeout: kernel.execute(`import time; time.sleep(9)  # ${secret}`, { timeout: "50 millis" }),
    InputRequested: kernel.execute(`input('${secret}')`),
    NameError: kernel.evaluate(secret, Schema.Int),
    SchemaError: kernel.evaluate(`'${secret}'`, Schema.Int),
    InvalidName: kernel.set(`${secret}!`, 1),
    UnsupportedValue: kernel.set("x", { [secret]: Symbol(secret) }),
    ValueError: kernel.call("int", [secret], { returns: Schema.Int }),
    TypeError: Stream.runDrain(kernel.iterate(`iter(['${secret}', len(5, '${secret}')])`, Schema.String)),
    AttributeError: Stream.runDrain(
      kernel.feed(`sum.${secret}`, Stream.make(secret), { returns: Schema.Int }),
    ),
    Error: kernel.execute(`raise type('${secret} and more', (Exception,), {})`),
  })

  it.effect("ends spans of failures with their type, without text of code or values", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      for (const [type, failure] of Object.entries(failures(kernel))) {
        let message = ""
        const spans = ours(
          yield* spansOf(
            Effect.exit(failure).pipe(Effect.map((exit) => {
              message = Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""
            })),
          ),
        )
        assert.include(message, type === "SchemaError" || type === "InvalidName" ? "" : secret, type)
        assert.isAbove(spans.length, 0)
        for (const { attributes, name, status } of spans) {
          assert.strictEqual(attributes.get("error.type"), type, name)
          assert.isTrue(status._tag === "Ended" && Exit.isFailure(status.exit))
          if (status._tag !== "Ended" || Exit.isSuccess(status.exit)) return
          assert.notInclude(Cause.pretty(status.exit.cause), secret)
        }
      }
    }))

  it.effect("exports nothing of code and values over OTLP, and bytes as bytes", () =>
    Effect.gen(function* () {
      const bodies: Array<string> = []
      const collector = HttpClient.make((request) =>
        Effect.sync(() => {
          if (request.body._tag === "Uint8Array") bodies.push(new TextDecoder().decode(request.body.body))
          return HttpClientResponse.fromWeb(request, new Response())
        })
      )
      const otlp = Layer.mergeAll(
        OtlpTracer.layer({ url: "http://collector/v1/traces", resource: { serviceName: "test" } }),
        OtlpMetrics.layer({ url: "http://collector/v1/metrics", resource: { serviceName: "test" } }),
      ).pipe(
        Layer.provide(OtlpSerialization.layerJson),
        Layer.provide(Layer.succeed(HttpClient.HttpClient, collector)),
      )
      const kernel = yield* KernelClient.KernelClient
      yield* Effect.forEach(Object.values(failures(kernel)), (failure) => Effect.exit(failure)).pipe(
        Effect.provide(otlp),
      )
      const exported = bodies.join("\n")
      assert.include(exported, "ZeroDivisionError")
      assert.include(exported, "error.type")
      assert.notInclude(exported, secret)
      assert.notInclude(exported, "division by zero")
      assert.match(exported, /"effect_jupyter_output_bytes_total"[^}]*"unit":"By"/)
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
      assert.match(line, /execution=execution-[0-9a-f-]{36}/)
    }))
})
