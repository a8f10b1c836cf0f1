/**
 * Network faults on the connection with a real kernel, made by a proxy.
 *
 * The required outcome of a cut while a cell runs:
 *
 * - The server notices (reset, end, close frame) and nothing was on its way: it keeps what the kernel says and
 *   replays it, so the result arrives, complete. Cells that are silent at the time of the cut are such.
 * - The server notices, but had sent what never arrived: Jupyter has no acknowledgements, those bytes are gone.
 *   A flood of output is such; it may end in `ConnectionLost`, or complete if nothing was on its way.
 * - The server does not notice (half-open): what it sent until the client reconnects is gone, so it may end in
 *   `ConnectionLost` if the kernel spoke in between. A gateway of ours passes on all that comes later; others
 *   may lose more.
 * - The server cannot be reached for longer than a client tries: `ConnectionLost`.
 *
 * Never: silence, a success with a marker lost or doubled, or code that runs twice.
 */
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, FileSystem, Layer, Option, Redacted, Result, Schema, Stream } from "effect"
import { Execution, KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow, temporary, text } from "./support/kernel.ts"
import { eventually } from "./support/processes.ts"
import * as TcpProxy from "./support/tcp_proxy.ts"

const cuts: ReadonlyArray<TcpProxy.Cut> = ["reset", "end", 1000, 1001, 1009, 1011]

/** A kernel behind a proxy, and the file that lets its cells go on. */
const setUp = Effect.fnUntraced(function* (options?: KernelClient.ClientOptions) {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* temporary
  const gateway = yield* KernelGateway.KernelGateway
  const proxy = yield* TcpProxy.make(gateway.url)
  const remote = yield* Layer.build(KernelGateway.layerRemote({ url: proxy.url, token: gateway.token ?? "" }))
  const kernel = yield* Effect.provideContext(KernelClient.make(options), remote)
  const prepare = kernel.execute(`
import os, time
runs = []
def wait_for(name):
    while not os.path.exists("${folder}/" + name): time.sleep(0.005)
def tell(name):
    open("${folder}/" + name, "w").close()
`)
  yield* prepare
  return {
    kernel,
    proxy,
    prepare,
    tell: (name: string) => Effect.orDie(fs.writeFileString(`${folder}/${name}`, "")),
    waitFor: (name: string) =>
      Effect.orDie(
        fs.exists(`${folder}/${name}`).pipe(
          Effect.flatMap((exists) => exists ? Effect.void : Effect.delay(Effect.fail(name), "5 millis")),
          Effect.eventually,
          Effect.timeout("10 seconds"),
        ),
      ),
  }
})

type Setup = Effect.Success<ReturnType<typeof setUp>>

/** Runs code and does something when a text has been seen. */
const runAndAct = <E, R>(
  { kernel }: Setup,
  code: string,
  awaited: string,
  act: Effect.Effect<void, E, R>,
): Effect.Effect<Result.Result<string | undefined, Execution.ExecutionFailure>, E, R> => {
  let seen = ""
  let acted = false
  return kernel.stream(code).pipe(
    Stream.mapError((failure) => ({ failure })),
    Stream.tap((element) => {
      if (element._tag === "TextChunk") seen += element.text
      if (acted || !seen.includes(awaited)) return Effect.void
      acted = true
      return Effect.mapError(act, (unable) => ({ unable }))
    }),
    Stream.runLast,
    Effect.map((last) =>
      last._tag === "Some" && last.value._tag === "ExecutionResult" ? last.value.text : ""
    ),
    Effect.map(Result.succeed),
    Effect.catch((error) =>
      "failure" in error ? Effect.succeed(Result.fail(error.failure)) : Effect.fail(error.unable)
    ),
  )
}

const count = 2000
const flood = (name: string) =>
  `runs.append("${name}")\nfor i in range(${count}): print(f"<{i}>", flush=True)\nruns.append("end")`
const floodText = Array.from({ length: count }, (_, index) => `<${index}>`).join("\n")

/** Asserts that an outcome is complete or says that it is not; its partial output has no line twice. */
const judge = (
  outcome: Result.Result<string | undefined, Execution.ExecutionFailure>,
  expected: string,
): "complete" | "lost" => {
  if (Result.isSuccess(outcome)) {
    assert.strictEqual(outcome.success, expected)
    return "complete"
  }
  const error = outcome.failure
  assert.instanceOf(error, Execution.KernelError)
  assert.strictEqual(error.reason._tag, "ConnectionLost")
  const lines = error.partial?.text?.split("\n") ?? []
  const all = expected.split("\n")
  const places = lines.map((line) => all.indexOf(line))
  assert.deepStrictEqual(places, [...new Set(places)].sort((a, b) => a - b), "each line once, in order")
  return "lost"
}

/** Waits until the server has noticed the end of the connection: from then on it keeps messages of the kernel. */
const untilNoticed = Effect.fnUntraced(function* ({ kernel }: Setup) {
  const { token, url } = yield* KernelGateway.KernelGateway
  const headers = { authorization: `token ${token === undefined ? "" : Redacted.value(token)}` }
  const ask = Effect.promise(async () => {
    const response = await fetch(`${url}/api/kernels/${kernel.id}`, { headers })
    return decodeModel(await response.json()).connections
  })
  yield* ask.pipe(
    Effect.flatMap((connections) =>
      connections === 0 ? Effect.void : Effect.delay(Effect.fail("noticed nothing"), "5 millis")
    ),
    Effect.eventually,
    Effect.timeout("10 seconds"),
    Effect.orDie,
  )
})
const decodeModel = Schema.decodeUnknownSync(Schema.Struct({ connections: Schema.Int }))

/** Cuts the connection and waits until the server has accepted the client again. */
const cutAndAwait = ({ proxy }: Setup, cut: TcpProxy.Cut) =>
  Effect.suspend(() => {
    const opened = proxy.opened()
    const delivered = proxy.delivered()
    proxy.cut(cut)
    return eventually(() =>
      proxy.opened() > opened && proxy.delivered() > delivered ? undefined : "the client is not back"
    )
  })

/** The client runs code, and what ran before ran once. */
const stillUsable = ({ kernel }: Setup, runs: string) =>
  Effect.gen(function* () {
    const output = yield* text(kernel.execute("print('<usable>', *runs); runs.clear()"))
    assert.strictEqual(output, `<usable> ${runs}`.trim())
  })

layer(Layer.mergeAll(KernelGateway.layer(), Platform.layer), slow)("a cut connection", (it) => {
  for (const cut of cuts) {
    it.effect(`${cut}: while idle, in silence, during an absence and in a flood`, () =>
      Effect.gen(function* () {
        const setup = yield* setUp()
        const { proxy, tell } = setup

        // While idle, and then at once in silence: the cell speaks again when the client is back.
        yield* cutAndAwait(setup, cut)
        const silent = yield* runAndAct(
          setup,
          `runs.append("silent"); print("<begun>", flush=True); wait_for("back"); print("<ended>")`,
          "<begun>",
          Effect.andThen(cutAndAwait(setup, cut), tell("back")),
        )
        assert.deepStrictEqual(silent, Result.succeed("<begun>\n<ended>"))
        yield* stillUsable(setup, "silent")

        // The cell writes and ends while the connection is cut.
        const absent = yield* runAndAct(
          setup,
          `runs.append("absent"); print("<begun>", flush=True); wait_for("gone")
for i in range(1000): print(f"<{i}>", flush=True)
tell("over"); 1 / 0`,
          "<begun>",
          Effect.gen(function* () {
            proxy.refuse()
            proxy.cut(cut)
            yield* untilNoticed(setup)
            yield* tell("gone")
            yield* setup.waitFor("over")
            proxy.heal()
          }),
        )
        const error = Result.isFailure(absent) ? absent.failure : undefined
        assert.instanceOf(error, Execution.ExecutionError)
        assert.strictEqual(
          error.partial.text,
          ["<begun>", ...Array.from({ length: 1000 }, (_, index) => `<${index}>`)].join("\n"),
        )
        yield* stillUsable(setup, "absent")

        const flooded = yield* runAndAct(
          setup,
          flood("flood"),
          "<700>",
          Effect.sync(() => proxy.cut(cut)),
        )
        const how = judge(flooded, floodText)
        yield* Effect.logInfo(`${cut} in a flood: ${how}`)
        yield* stillUsable(setup, "flood end")
      }))
  }
})

layer(Layer.mergeAll(KernelGateway.layer(), Platform.layer), slow)("a connection in trouble", (it) => {
  it.effect("cut twice in a row, at once and when it is back: the result arrives", () =>
    Effect.gen(function* () {
      const setup = yield* setUp()
      const { tell } = setup
      const code = `runs.append("twice"); print("<begun>", flush=True); wait_for("back"); print("<ended>")`
      const outcome = yield* runAndAct(
        setup,
        code,
        "<begun>",
        Effect.gen(function* () {
          yield* cutAndAwait(setup, "reset")
          yield* cutAndAwait(setup, "end")
          yield* tell("back")
        }),
      )
      assert.deepStrictEqual(outcome, Result.succeed("<begun>\n<ended>"))
      yield* stillUsable(setup, "twice")
      const flooded = yield* runAndAct(
        setup,
        flood("flood"),
        "<500>",
        Effect.andThen(cutAndAwait(setup, "reset"), cutAndAwait(setup, 1001)),
      )
      judge(flooded, floodText)
      yield* stillUsable(setup, "flood end")
    }))

  it.effect("code sent into a connection that was just cut runs once or not at all, and says so", () =>
    Effect.gen(function* () {
      const setup = yield* setUp()
      for (const cut of cuts) {
        setup.proxy.cut(cut)
        const outcome = yield* Effect.result(text(setup.kernel.execute("runs.append(1); print('<done>')")))
        const runs = yield* text(setup.kernel.execute("print(len(runs)); runs.clear()"))
        // It is not known whether a request that was being sent arrived, so it is not repeated.
        if (judge(outcome, "<done>") === "complete") assert.strictEqual(runs, "1")
        else assert.include(["0", "1"], runs)
      }
    }))

  it.effect("half-open in silence and in a flood: noticed by the missing pong", () =>
    Effect.gen(function* () {
      const setup = yield* setUp({ pingInterval: "500 millis" })
      const { proxy, tell } = setup
      const freezeAndAwait = Effect.suspend(() => {
        const before = proxy.delivered()
        const opened = proxy.opened()
        proxy.freeze()
        return eventually(
          () => proxy.opened() > opened && proxy.delivered() > before ? undefined : "the client is not back",
          5,
        )
      })
      const silent = yield* runAndAct(
        setup,
        `runs.append("silent"); print("<begun>", flush=True); wait_for("back"); print("<ended>")`,
        "<begun>",
        Effect.andThen(freezeAndAwait, tell("back")),
      )
      assert.deepStrictEqual(silent, Result.succeed("<begun>\n<ended>"))
      yield* stillUsable(setup, "silent")
      const flooded = yield* runAndAct(setup, flood("flood"), "<500>", freezeAndAwait)
      judge(flooded, floodText)
      yield* stillUsable(setup, "flood end")
    }))

  it.effect("stream marks the first chunk after output that a broken connection lost, before it fails at the end", () =>
    Effect.gen(function* () {
      const setup = yield* setUp({ pingInterval: "500 millis" })
      const { kernel, proxy, tell } = setup
      const code =
        `print("<begun>", flush=True); wait_for("frozen"); print("<lost>", flush=True); wait_for("back")
from IPython.display import display
display("<shown>"); print("<next>", flush=True); 1`
      const chunks: Array<Execution.Chunk> = []
      const freeze = Effect.gen(function* () {
        const opened = proxy.opened()
        proxy.freeze()
        yield* tell("frozen")
        yield* eventually(() => proxy.opened() > opened ? undefined : "the client is not back")
        yield* tell("back")
      })
      const error = yield* kernel.stream(code).pipe(
        Stream.runForEach((element) => {
          if (element._tag === "ExecutionResult") return Effect.void
          chunks.push(element)
          return chunks.length === 1 ? Effect.orDie(freeze) : Effect.void
        }),
        Effect.flip,
        Effect.timeout("20 seconds"),
      )
      assert.strictEqual(error._tag === "KernelError" && error.reason._tag, "ConnectionLost")
      assert.deepStrictEqual(
        chunks.flatMap((chunk) => chunk._tag === "ClearOutput" ? [] : [[chunk.text?.trim(), chunk.afterGap]]),
        [["<begun>", undefined], ["'<shown>'", true], ["<next>", undefined], ["1", undefined]],
      )
      const roundTrip = yield* Schema.encodeEffect(Execution.Chunk)(
        chunks[1] ?? new Execution.ClearOutput({ wait: false }),
      )
      assert.include(roundTrip, { afterGap: true })
    }))

  it.effect("input(): a request or a reply that a broken connection lost is sent again, once", () =>
    Effect.gen(function* () {
      const setup = yield* setUp({ pingInterval: "500 millis" })
      const { kernel, proxy, tell } = setup
      const asked: Array<string> = []
      const code = `print("<begun>", flush=True); wait_for("frozen")
print(*[input(name) for name in ("first", "second", "third")])`
      const answers = yield* kernel.stream(code, {
        onInput: ({ prompt }) =>
          Effect.sync(() => {
            asked.push(prompt)
            if (prompt === "second") proxy.freeze()
            return `${prompt}-${asked.length}`
          }),
      }).pipe(
        Stream.tap((element) => {
          if (element._tag !== "TextChunk" || !element.text.includes("<begun>")) return Effect.void
          proxy.freeze()
          return tell("frozen")
        }),
        Stream.runLast,
        Effect.timeout("20 seconds"),
      )
      const { value } = Option.getOrThrow(Option.map(answers, (value) => ({ value })))
      assert.strictEqual(value._tag, "ExecutionResult")
      assert.include(value._tag === "ExecutionResult" ? value.text : "", "first-1 second-2 third-3")
      assert.deepStrictEqual(asked, ["first", "second", "third"])
    }))

  it.effect("input(): no request is lost when connections break before they have got what the server kept", () =>
    Effect.forEach(["reset", "end", "reset", "end"] as const, (cut) =>
      Effect.gen(function* () {
        const { kernel, proxy } = yield* setUp()
        const prompts = Array.from({ length: 40 }, (_, index) => `prompt ${index}`)
        const asked: Array<string> = []
        yield* Effect.forkScoped(
          Effect.repeat(Effect.delay(Effect.sync(() => proxy.cut(cut)), "40 millis"), { times: 50 }),
        )
        const code = `for index in range(${prompts.length}):
    time.sleep(0.02)
    assert input(f"prompt {index}") == f"answer to prompt {index}"`
        const options: KernelClient.ExecuteOptions = {
          onInput: ({ prompt }) =>
            Effect.sync(() => {
              asked.push(prompt)
              return `answer to ${prompt}`
            }),
        }
        // Whether its last messages arrive is another question.
        yield* Effect.exit(kernel.execute(code, options)).pipe(Effect.timeout("20 seconds"))
        assert.deepStrictEqual(asked, prompts)
      }).pipe(Effect.scoped), { concurrency: 2, discard: true }))

  it.effect("refused for 2 s, then healed: the result arrives", () =>
    Effect.gen(function* () {
      const setup = yield* setUp()
      const { proxy, tell } = setup
      const outcome = yield* runAndAct(
        setup,
        `runs.append("refused"); print("<begun>", flush=True); wait_for("back"); print("<ended>")`,
        "<begun>",
        Effect.gen(function* () {
          const before = proxy.refused()
          proxy.refuse()
          proxy.cut("reset")
          yield* eventually(() => proxy.refused() > before ? undefined : "no attempt")
          yield* Effect.sleep("2 seconds")
          assert.isAbove(proxy.refused(), before + 2)
          proxy.heal()
          yield* tell("back")
        }),
      )
      assert.deepStrictEqual(outcome, Result.succeed("<begun>\n<ended>"))
      yield* stillUsable(setup, "refused")
    }))

  it.effect("execute that is interrupted before its code was sent ends at once, and the code never runs", () =>
    Effect.gen(function* () {
      const { kernel, proxy } = yield* setUp()
      proxy.refuse()
      proxy.cut("reset")
      yield* eventually(() => proxy.refused() > 0 ? undefined : "no attempt")
      const fiber = yield* Effect.forkChild(kernel.execute(`runs.append("unsent")`), {
        startImmediately: true,
      })
      const [duration] = yield* Effect.timed(Fiber.interrupt(fiber))
      // Two interrupts of a kernel that does not react take 5 seconds.
      assert.isBelow(Duration.toMillis(duration), 1000)
      proxy.heal()
      assert.strictEqual(yield* text(kernel.execute(`print(runs)`)), "[]")
    }))

  it.effect("execute whose timeout ends before its code was sent fails with it, and the code never runs", () =>
    Effect.gen(function* () {
      const { kernel, proxy } = yield* setUp()
      proxy.refuse()
      proxy.cut("reset")
      yield* eventually(() => proxy.refused() > 0 ? undefined : "no attempt")
      const [duration, error] = yield* Effect.timed(
        Effect.flip(kernel.execute(`runs.append("unsent")`, { timeout: "500 millis" })),
      )
      assert.strictEqual(error._tag, "ExecutionTimeout")
      assert.isBelow(Duration.toMillis(duration), 2000)
      proxy.heal()
      assert.strictEqual(yield* text(kernel.execute(`print(runs)`)), "[]")
    }))

  it.effect("refused for longer than a client tries: ConnectionLost with the output, and a reset helps", () =>
    Effect.gen(function* () {
      const setup = yield* setUp()
      const { kernel, prepare, proxy } = setup
      const [time, outcome] = yield* Effect.timed(runAndAct(
        setup,
        `print("<begun>", flush=True); wait_for("never")`,
        "<begun>",
        Effect.sync(() => {
          proxy.refuse()
          proxy.cut("reset")
        }),
      ))
      const error = Result.isFailure(outcome) ? outcome.failure : undefined
      assert.instanceOf(error, Execution.KernelError)
      assert.strictEqual(error.reason._tag, "ConnectionLost")
      assert.strictEqual(error.partial?.text, "<begun>")
      // 10 seconds of attempts, and what an attempt takes.
      assert.isBelow(Duration.toSeconds(time), 12)
      const [again, next] = yield* Effect.timed(Effect.flip(kernel.execute("1")))
      assert.strictEqual(next._tag === "KernelError" && next.reason._tag, "ConnectionLost")
      assert.isBelow(Duration.toSeconds(again), 3)
      proxy.heal()
      yield* kernel.reset
      yield* prepare
      yield* stillUsable(setup, "")
    }))
})
