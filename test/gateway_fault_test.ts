/** Gateways that are killed, that stand still, that refuse, and consumers that take their time. */
import { assert, it, layer } from "@effect/vitest"
import { Duration, Effect, FileSystem, Layer, Option, Redacted, Result, Stream } from "effect"
import { createServer } from "node:net"
import { Execution, KernelClient, KernelGateway, PythonEnvironment } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { kernelLayer, overServer, slow, temporary, text } from "./support/kernel.ts"
import { descendants, supervisors } from "./support/processes.ts"
import { tied } from "./support/tied.ts"

/** The process of the gateway that this file started last, below its supervisor. */
const gatewayPid = (): number => {
  const supervisor = supervisors(process.pid).at(-1)
  const [child] = supervisor === undefined ? [] : descendants(supervisor.pid)
  assert.isDefined(child)
  return child?.pid ?? 0
}

/** A gateway of its own and one kernel of it. */
const start = Effect.fnUntraced(function* (
  options: KernelClient.ClientOptions = {},
  { isOverServer = false }: { readonly isOverServer?: boolean } = {},
) {
  const gateway = yield* KernelGateway.make()
  const pid = gatewayPid()
  const kernel = yield* KernelClient.make(options).pipe(
    Effect.provideService(KernelGateway.KernelGateway, isOverServer ? overServer(gateway) : gateway),
  )
  return { gateway, kernel, pid }
})

const endless = `print("<begun>", flush=True)\nimport time\nwhile True: time.sleep(0.01)`

/** Runs an endless cell, does something to its gateway once it has begun, and gives how it ended and when. */
const runAndAct = ({ kernel }: { readonly kernel: KernelClient.Kernel }, act: () => void) => {
  let acted = false
  return kernel.stream(endless).pipe(
    Stream.tap(() =>
      Effect.sync(() => {
        if (!acted) act()
        acted = true
      })
    ),
    Stream.runDrain,
    Effect.flip,
    Effect.timed,
  )
}

it.live(
  "a gateway that is killed mid-cell: the execution and join fail, within bounds",
  () =>
    Effect.gen(function* () {
      const setup = yield* start()
      const [time, error] = yield* runAndAct(setup, () => process.kill(setup.pid, "SIGKILL"))
      assert.instanceOf(error, Execution.KernelError)
      assert.include(["ConnectionLost", "KernelDied"], error.reason._tag)
      assert.strictEqual(error.partial?.text, "<begun>")
      assert.isBelow(Duration.toSeconds(time), 12)
      const ended = yield* Effect.flip(setup.gateway.join)
      assert.deepInclude({ ...ended.reason }, { _tag: "Exited", exitCode: 137 })
      assert.isTrue(ended.reason._tag === "Exited" && Array.isArray(ended.reason.output))
      yield* Effect.logInfo(`Gateway killed: ${error.reason._tag} after ${Duration.format(time)}`)
    }),
  60_000,
)

it.live(
  "a gateway that stands still holds up no kernel: timeouts, interrupts and executions work",
  () =>
    Effect.gen(function* () {
      const { kernel, pid } = yield* start({ pingInterval: "500 millis" })
      yield* Effect.addFinalizer(() => Effect.sync(() => process.kill(pid, "SIGCONT")))
      yield* Effect.sync(() => process.kill(pid, "SIGSTOP"))
      const timeout = yield* Effect.flip(kernel.execute(endless, { timeout: "500 millis" }))
      assert.strictEqual(timeout._tag, "ExecutionTimeout")
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
    }),
  60_000,
)

it.live(
  "a gateway that stands still mid-cell, for who connects to it: ConnectionLost within bounds",
  () =>
    Effect.gen(function* () {
      const setup = yield* start({ pingInterval: "500 millis" }, { isOverServer: true })
      // A stopped gateway could not end its kernels.
      yield* Effect.addFinalizer(() => Effect.sync(() => process.kill(setup.pid, "SIGCONT")))
      const [time, error] = yield* runAndAct(setup, () => process.kill(setup.pid, "SIGSTOP"))
      assert.instanceOf(error, Execution.KernelError)
      assert.strictEqual(error.reason._tag, "ConnectionLost")
      assert.strictEqual(error.partial?.text, "<begun>")
      // Two pings, and 10 seconds of attempts to reconnect.
      assert.isBelow(Duration.toSeconds(time), 13)
      yield* Effect.logInfo(`Gateway stopped: ConnectionLost after ${Duration.format(time)}`)
      yield* Effect.sync(() => process.kill(setup.pid, "SIGCONT"))
      yield* setup.kernel.reset
      assert.strictEqual(yield* text(setup.kernel.execute("6 * 7")), "42")
    }),
  60_000,
)

it.live("a gateway that stands still for a moment in a flood loses nothing", () =>
  Effect.gen(function* () {
    const { kernel, pid } = yield* start({}, { isOverServer: true })
    yield* Effect.addFinalizer(() => Effect.sync(() => process.kill(pid, "SIGCONT")))
    const fs = yield* FileSystem.FileSystem
    const file = `${yield* temporary}/over`
    let stopped = false
    const lines = Array.from({ length: 2000 }, (_, index) => `<${index}>`)
    const last = yield* kernel.stream(
      `for i in range(2000): print(f"<{i}>", flush=True)\nopen("${file}", "w").close()`,
    ).pipe(
      Stream.tap(() => {
        if (stopped) return Effect.void
        stopped = true
        process.kill(pid, "SIGSTOP")
        // The kernel says all it has to say to a gateway that does not listen.
        return fs.exists(file).pipe(
          Effect.flatMap((exists) =>
            exists ? Effect.void : Effect.delay(Effect.fail("not over"), "10 millis")
          ),
          Effect.eventually,
          Effect.timeoutOption("30 seconds"),
          Effect.andThen(Effect.sync(() => process.kill(pid, "SIGCONT"))),
        )
      }),
      Stream.runLast,
    )
    const result = Option.getOrUndefined(last)
    assert.strictEqual(result?._tag === "ExecutionResult" && result.text, lines.join("\n"))
  }).pipe(Effect.provide(Platform.layer)), 60_000)

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

for (const module of ["kernel_gateway", "jupyter_server"]) {
  it.live(
    `code of 12 MB on a stock ${module}: a typed failure that says why, and usable afterwards`,
    () =>
      Effect.gen(function* () {
        const folder = yield* temporary
        const port = yield* freePort
        const { python } = yield* PythonEnvironment.make()
        const token = Redacted.make("secret")
        const args = module === "kernel_gateway"
          ? [`--KernelGatewayApp.port=${port}`, "--KernelGatewayApp.port_retries=0"]
          : [
            "--no-browser",
            "--allow-root",
            `--ServerApp.root_dir=${folder}`,
            `--ServerApp.port=${port}`,
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=secret",
          ]
        yield* tied(python, ["-m", module, ...args], {
          cwd: folder,
          env: { KG_AUTH_TOKEN: "secret", JUPYTER_RUNTIME_DIR: folder },
          extendEnv: true,
          stdout: "ignore",
          stderr: "ignore",
          forceKillAfter: "3 seconds",
        })
        const url = `http://127.0.0.1:${port}`
        yield* eventuallyAnswers(url)
        const remote = yield* Layer.build(KernelGateway.layerRemote({ url, token }))
        const kernel = yield* Effect.provideContext(KernelClient.make(), remote)
        yield* kernel.execute("x = 1")
        const code = `x = 2 # ${"a".repeat(12 * 1024 * 1024)}`
        const [time, error] = yield* Effect.timed(Effect.flip(kernel.execute(code)))
        assert.instanceOf(error, Execution.KernelError)
        assert.strictEqual(error.reason._tag, "ConnectionLost")
        yield* Effect.logInfo(`12 MB on ${module}: after ${Duration.format(time)}: ${error.message}`)
        assert.isBelow(Duration.toSeconds(time), 12)
        assert.include(error.message, "MB")
        assert.strictEqual(yield* text(kernel.execute("print(x)")), "1")
      }).pipe(Effect.provide(Platform.layer)),
    60_000,
  )
}

/** Waits until a server answers at all. */
const eventuallyAnswers = (url: string) =>
  Effect.tryPromise(() => fetch(url)).pipe(
    Effect.tapError(() => Effect.sleep("50 millis")),
    Effect.eventually,
    Effect.timeout("30 seconds"),
  )

layer(kernelLayer(), slow)("a consumer slower than the kernel", (it) => {
  const block = 1_000_000
  const blocks = 100
  /** 100 MB in numbered pieces. */
  const code = `import sys\nfor i in range(${blocks}):\n    print(f"{i:04}" + "x" * ${
    block - 4
  }, end="", flush=True)`
  const rss = () => process.memoryUsage().rss / 1024 / 1024

  it.effect("nothing is lost, the order is kept, and the memory of this process is bounded", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const before = rss()
      let highest = before
      let bytes = 0
      let numbers = ""
      const elements = yield* kernel.stream(code, { outputLimit: 1000 }).pipe(
        Stream.tap((element) => {
          if (element._tag !== "TextChunk") return Effect.void
          for (let at = (block - bytes % block) % block; at < element.text.length; at += block) {
            numbers += `${element.text.slice(at, at + 4)} `
          }
          bytes += element.text.length
          highest = Math.max(highest, rss())
          return Effect.sleep("30 millis")
        }),
        Stream.runCount,
      )
      assert.isAbove(elements, 20)
      assert.strictEqual(bytes, block * blocks)
      const all = Array.from({ length: blocks }, (_, index) => `${index}`.padStart(4, "0"))
      assert.strictEqual(numbers.trim(), all.join(" "))
      yield* Effect.logInfo(`A slow consumer: this process grew by ${Math.round(highest - before)} MB`)
      assert.isBelow(highest - before, 250, "MB that this process grew")
    }))

  it.effect("a timeout, an early end and the next execution work while the connection is held", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      let taken = 0
      const [time, outcome] = yield* kernel.stream(`${code}\nimport time; time.sleep(60)`, {
        timeout: "2 seconds",
      }).pipe(
        // Takes the first chunk, and the next when the time is over.
        Stream.tap(() => taken++ === 0 ? Effect.sleep("3 seconds") : Effect.void),
        Stream.runDrain,
        Effect.result,
        Effect.timed,
      )
      assert.isTrue(Result.isFailure(outcome) && outcome.failure._tag === "ExecutionTimeout")
      yield* Effect.logInfo(`A timeout while held took ${Duration.format(time)}`)
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")

      const first = yield* kernel.stream(`${code}\nimport time; time.sleep(60)`).pipe(
        Stream.tap(() => Effect.sleep("1 second")),
        Stream.runHead,
        Effect.timed,
      )
      assert.isTrue(Option.isSome(first[1]))
      assert.isBelow(Duration.toSeconds(first[0]), 10)
      assert.strictEqual(yield* text(kernel.execute("print('fine')")), "fine")
    }))

  for (const mode of ["that is slow when a timeout passes", "that is gone"] as const) {
    it.effect(`a consumer ${mode}: what floods on is not kept`, () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        const flood = `import itertools
s = 'x' * 1_000_000
blocks = itertools.count()
for _ in range(10):
    try:
        while next(blocks) < 500: print(s, flush=True)
        break
    except KeyboardInterrupt: pass`
        let highest = 0
        const before = rss()
        yield* Effect.forkScoped(
          Effect.forever(Effect.delay(
            Effect.sync(() => {
              highest = Math.max(highest, rss())
            }),
            "20 millis",
          )),
        )
        const stream = kernel.stream(flood, { timeout: "500 millis", outputLimit: 1000 })
        const outcome = yield* mode === "that is gone"
          ? Effect.result(Stream.runDrain(Stream.take(stream, 1)))
          : Effect.result(Stream.runForEach(stream, ({ _tag }) =>
            _tag === "TextChunk" ? Effect.sleep("100 millis") : Effect.void))
        assert.strictEqual(Result.isFailure(outcome), mode !== "that is gone")
        yield* Effect.logInfo(`A consumer ${mode}: this process grew by ${Math.round(highest - before)} MB`)
        assert.isBelow(highest - before, 300, "MB that this process grew")
      }))
  }

  it.effect("a slow consumer with a short pingInterval is not taken for a dead peer", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make({ pingInterval: "200 millis" })
      let bytes = 0
      yield* kernel.stream(code, { outputLimit: 1000 }).pipe(
        Stream.runForEach((element) => {
          if (element._tag !== "TextChunk") return Effect.void
          bytes += element.text.length
          return Effect.sleep("50 millis")
        }),
      )
      assert.strictEqual(bytes, block * blocks)
    }))
})
