import { assert, layer } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, FileSystem, Path, Schema, Stream } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import { ChildProcess } from "effect/process"
import { get } from "node:http"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { Execution } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as Browser from "./support/browser.ts"
import { slow, temporary } from "./support/kernel.ts"
import * as Postgres from "./support/postgres.ts"
import { descendants, supervisors, survivors } from "./support/processes.ts"

const pathOf = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url))

/** Starts an example as a user would, but in a folder of its own, which takes its images and temporary files. */
const start = Effect.fnUntraced(
  function* (args: ReadonlyArray<string>, env: Record<string, string> = {}) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const folder = yield* temporary
    const temporaryFiles = path.join(folder, "tmp")
    yield* fs.makeDirectory(temporaryFiles)
    const [example = "", ...rest] = args
    const handle = yield* ChildProcess.make(
      pathOf("node_modules/.bin/node"),
      ["--conditions=effect-jupyter-source", pathOf(`examples/${example}`), ...rest],
      {
        cwd: folder,
        env: { TMPDIR: temporaryFiles, ...env },
        extendEnv: true,
        stdin: "ignore",
        forceKillAfter: "10 seconds",
      },
    )
    return { folder, handle, temporaryFiles }
  },
)

/** The child processes and files of a process. */
const look = (pid: number) => ({
  pids: descendants(pid).map((process) => process.pid),
  runtimeDirs: supervisors(pid).map(({ runtimeDir }) => runtimeDir),
})

/** Fails if something of an example is left although it has ended. */
const assertNothingLeft = Effect.fnUntraced(
  function* (seen: ReturnType<typeof look>, temporaryFiles: string) {
    const fs = yield* FileSystem.FileSystem
    assert.isAtLeast(seen.pids.length, 2, "a gateway and a kernel were there")
    assert.isUndefined(survivors(seen.pids))
    for (const directory of seen.runtimeDirs) assert.isFalse(yield* fs.exists(directory), directory)
    assert.deepStrictEqual(yield* fs.readDirectory(temporaryFiles), [])
  },
)

/** Tells whether a line is a log message: `[12:34:56.789] INFO (#1): …`. */
const isLogged = (line: string): boolean => /^\[\d\d:\d\d:\d\d\.\d+\] /.test(line)

/** Runs an example to its end; gives the lines it printed, each with its time of arrival, and its folder. */
const run = (...args: ReadonlyArray<string>) => runWith({}, ...args)
const runWith = Effect.fnUntraced(function* (env: Record<string, string>, ...args: ReadonlyArray<string>) {
  const { folder, handle, temporaryFiles } = yield* start(args, env)
  const printed: Array<{ readonly line: string; readonly at: number }> = []
  let seen: ReturnType<typeof look> | undefined
  const [stderr] = yield* Effect.all([
    handle.stderr.pipe(Stream.decodeText(), Stream.mkString),
    handle.stdout.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.mapEffect((line) => Effect.map(Clock.currentTimeMillis, (at) => ({ line, at }))),
      Stream.runForEach((entry) =>
        Effect.sync(() => {
          printed.push(entry)
          // All that the example needs is there when it prints something itself: before, Python packages are installed.
          if (!isLogged(entry.line)) seen ??= look(handle.pid)
        })
      ),
    ),
  ], { concurrency: 2 })
  const lines = printed.map(({ line }) => line)
  assert.strictEqual(stderr, "", lines.join("\n"))
  assert.strictEqual(yield* handle.exitCode, 0, lines.join("\n"))
  assert.isDefined(seen)
  if (seen !== undefined) yield* assertNothingLeft(seen, temporaryFiles)
  return { folder, lines, printed }
})

/** The lines below a heading, without their indentation. */
const section = (lines: ReadonlyArray<string>, heading: string): ReadonlyArray<string> => {
  const from = lines.findIndex((line) => line.startsWith(heading))
  assert.isAtLeast(from, 0, `"${heading}" in\n${lines.join("\n")}`)
  const below = lines.slice(from + 1)
  const length = below.findIndex((line) => !line.startsWith("  "))
  return (length < 0 ? below : below.slice(0, length)).map((line) => line.trim())
}

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

const Line = Schema.toCodecJson(Schema.Union([
  Execution.Chunk,
  Execution.ExecutionResult,
  Execution.ExecutionError,
  Execution.KernelError,
]))
const decode = Schema.decodeUnknownSync(Schema.fromJsonString(Line))

layer(Platform.layer, slow)("Examples", (it) => {
  it.effect("are all tested here", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const tested = [
        "cluster.ts",
        "dataframe.ts",
        "durable.ts",
        "errors.ts",
        "generator.ts",
        "pipeline.ts",
        "pool.ts",
        "quickstart.ts",
        "service.ts",
        "sessions.ts",
        "streaming.ts",
        "typed_values.ts",
      ]
      const files = yield* fs.readDirectory(pathOf("examples"))
      assert.deepStrictEqual(files.filter((file) => file.endsWith(".ts")).sort(), tested)
    }))

  it.effect.skipIf(Postgres.programs === undefined)(
    "cluster.ts keeps kernels on two machines, and on one when the other stops (PostgreSQL)",
    () =>
      Effect.gen(function* () {
        const folder = yield* Postgres.serve
        const port = yield* freePort
        const { lines } = yield* runWith(
          { PGHOST: folder, PGUSER: "postgres", PORT: `${port}` },
          "cluster.ts",
        )
        const users = ["ada", "eve", "grace", "linus"]
        assert.deepStrictEqual(section(lines, "Users come back"), [
          ...users.map((user) => `${user}: 1`),
          ...users.map((user) => `${user}: 2`),
        ])
        const left = section(lines, "One machine stops")
        assert.deepStrictEqual(left.map((line) => line.split(":")[0]), users)
        for (const line of left) assert.match(line, /: [13]$/)
      }),
  )

  it.effect("quickstart.ts streams, recovers, times out, keeps the state and saves a plot", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { folder, lines, printed } = yield* run("quickstart.ts")

      assert.deepStrictEqual(section(lines, "Output arrives"), ["3 ...", "2 ...", "1 ...", "Lift-off!"])
      const at = (text: string) => printed.find(({ line }) => line.trim() === text)?.at ?? NaN
      assert.isAtLeast(at("Lift-off!") - at("3 ..."), 500, "lines arrive when they are printed")

      assert.deepStrictEqual(section(lines, "An exception"), ["Caught ZeroDivisionError: division by zero"])
      assert.deepStrictEqual(section(lines, "Code that takes too long"), ["Stopped after 1s"])
      assert.match(section(lines, "The kernel's state").join(), /^The flight had reached [1-9]\d* metres$/)

      const [saved = ""] = section(lines, "A plot")
      const image = saved.replace(/^Saved /, "")
      assert.match(image, /^images\/.+\.png$/)
      const bytes = yield* fs.readFile(path.join(folder, image))
      assert.strictEqual(String.fromCharCode(...bytes.slice(1, 4)), "PNG")
      assert.deepStrictEqual(yield* fs.readDirectory(path.join(folder, "images")), [path.basename(image)])
    }))

  it.effect("streaming.ts prints text as it arrives, counts displays and ends an endless loop", () =>
    Effect.gen(function* () {
      const { lines } = yield* run("streaming.ts")

      assert.include(lines, "0% 20% 40% 60% 80% 100% ")
      const cell = section(lines, "What a cell puts out")
      assert.deepStrictEqual(cell.filter((line, index) => line !== cell[index - 1] || line !== "TextChunk"), [
        "TextChunk",
        "DisplayChunk with text/plain, text/html",
        "DisplayChunk with text/plain",
        "DisplayChunk with text/plain",
        "ExecutionResult",
        "3 displays",
      ])
      assert.deepStrictEqual(section(lines, "The first lines"), ["tick 1", "tick 2", "tick 3"])
      const stopped = /^Stopped after (\d+) ticks$/.exec(section(lines, "The kernel is free").join())
      assert.isAtLeast(Number(stopped?.[1]), 3)
      assert.isBelow(Number(stopped?.[1]), 50, "the loop ended with its consumer")
    }))

  it.effect("errors.ts handles exceptions, timeouts, flaky code and dead kernels", () =>
    Effect.gen(function* () {
      const { lines } = yield* run("errors.ts")

      assert.deepStrictEqual(section(lines, "An exception"), [
        "ValueError: row 3 has no date",
        "3 rows were fine",
      ])
      assert.match(section(lines, "So does a timeout").join(), /^After 1s: Page 1/)
      assert.deepStrictEqual(section(lines, "Failures are values"), [
        "attempt 1 got no answer",
        "attempt 2 got no answer",
        "Answered at attempt 3",
      ])
      assert.deepStrictEqual(section(lines, "A kernel that dies"), [`KernelDied after "Goodbye"`])
      assert.deepStrictEqual(section(lines, "The new kernel works"), [
        "NameError: name 'attempts' is not defined",
      ])
      assert.deepStrictEqual(section(lines, "Each reason"), ["KernelDied", "The answer is 42 again"])
    }))

  it.effect("pipeline.ts shares the work between two kernels", () =>
    Effect.gen(function* () {
      const { lines } = yield* run("pipeline.ts")

      const estimates = lines.flatMap((line) => /^Seed (\d): pi is about (3\.1\d*)$/.exec(line)?.[1] ?? [])
      assert.deepStrictEqual(estimates, ["1", "2", "3", "4", "5", "6", "7", "8"], "in order")
      assert.include(lines, "All 8 estimates: pi is about 3.141")
      assert.include(lines, "Computed by 2 kernels from 1600000 samples")
    }))

  it.effect("pool.ts hands out clean kernels, bounds their number and resets with a warm one", () =>
    Effect.gen(function* () {
      const { lines } = yield* run("pool.ts")

      assert.deepStrictEqual(section(lines, "A kernel of the pool"), ["mean 3, median 2"])
      assert.deepStrictEqual(section(lines, "What one user leaves"), ["False mean 3, median 2"])
      assert.deepStrictEqual(section(lines, "Six users"), ["1, 4, 9, 16, 25, 36"])
      assert.deepStrictEqual(section(lines, "A reset"), ["False mean 3, median 2"])
    }))

  it.effect("typed_values.ts exchanges values of many types by schemas", () =>
    Effect.gen(function* () {
      const { lines } = yield* run("typed_values.ts")

      assert.deepStrictEqual(section(lines, "An expression is evaluated"), [
        `"\\"quoted\\" \\\\ and\\nbroken" costs 9.9`,
        `"🎁" costs 0.1`,
      ])
      assert.deepStrictEqual(section(lines, "A function is called"), [
        "order 9007199254740993: 12.5",
        "due 2026-03-02, and 36 hours later",
        "checksum of 32 bytes",
      ])
      assert.deepStrictEqual(section(lines, "So is what a module has"), ["median 2"])
      assert.deepStrictEqual(section(lines, "What does not fit"), [
        `Expected number at ["rows"][1]`,
        "$.rows[0].handle is of type object",
        'The value of type "function" at "$.items[0].price" cannot be carried between Effect and Python: It has no encoding',
      ])
    }))

  it.effect("dataframe.ts streams the rows of a pandas pipeline", () =>
    Effect.gen(function* () {
      const { lines } = yield* run("dataframe.ts")

      const days = section(lines, "The first days")
      assert.strictEqual(days.length, 3)
      assert.strictEqual(days[0], "2026-01-01: 9.3 °C, at most 28.4, of 47 readings")
      assert.deepStrictEqual(section(lines, "All rows"), ["20000 rows"])
      assert.deepStrictEqual(section(lines, "Columns"), ["418 means of 209 days, south is the warmest"])
      assert.deepStrictEqual(section(lines, "The same table as Arrow"), ["true"])
    }), 240_000)

  it.effect("generator.ts iterates without running ahead, and feeds", () =>
    Effect.gen(function* () {
      const { lines } = yield* run("generator.ts")

      assert.deepStrictEqual(section(lines, "An endless generator"), [
        "error in line 7",
        "error in line 14",
        "error in line 21",
        "Closed the log after 30 lines",
        "30 lines were read",
      ])
      const pages = section(lines, "An asynchronous one")
      assert.deepStrictEqual([pages.length, pages[8], pages[9]], [
        10,
        "item 32",
        "ConnectionError: page 4 is gone",
      ])
      assert.deepStrictEqual(section(lines, "And the other way"), [
        "a batch of 4",
        "a batch of 4",
        "a batch of 2",
        "most common: to (2), be (2)",
      ])
    }))

  it.effect("durable.ts takes each line once although a worker is killed, and leaves nothing", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const runtimeDir = yield* temporary
      const { handle, temporaryFiles } = yield* start(["durable.ts"], { XDG_RUNTIME_DIR: runtimeDir })
      const lines = yield* handle.stdout.pipe(Stream.decodeText(), Stream.splitLines, Stream.runCollect)
      assert.strictEqual(yield* handle.exitCode, 0, lines.join("\n"))
      const sums = [1, 3, 6, 10, 15, 21, 28, 36]
      const printed = sums.map((sum, index) => `${index + 1} -> ${sum}`)
      assert.deepStrictEqual(section(lines, "The first worker"), printed.slice(0, 3))
      assert.deepStrictEqual(section(lines, "The second one"), [...printed.slice(3), "36"])
      assert.deepStrictEqual(yield* fs.readDirectory(temporaryFiles), [])
      assert.deepStrictEqual(yield* fs.readDirectory(runtimeDir), [])
    }))

  it.effect("service.ts --demo streams JSON lines, survives hang-ups and dead kernels", () =>
    Effect.gen(function* () {
      const { lines } = yield* run("service.ts", "--demo")
      const decoded = (heading: string) => section(lines, heading).map((line) => decode(line))

      const [text, display, result] = decoded("Chunks, and the result")
      assert.deepStrictEqual(text, new Execution.TextChunk({ name: "stdout", text: "hello\n" }))
      assert.strictEqual(display?._tag === "DisplayChunk" && display.text, "42")
      assert.strictEqual(result?._tag === "ExecutionResult" && result.text, "hello\n42")

      const failure = decoded("A failure").at(-1)
      assert.instanceOf(failure, Execution.ExecutionError)
      assert.strictEqual(failure?._tag === "ExecutionError" && failure.ename, "ZeroDivisionError")
      assert.strictEqual(failure?._tag === "ExecutionError" && failure.partial.text, "6", "state is shared")

      const begun = decoded("A client that has seen enough")
      assert.deepStrictEqual(begun.map(({ _tag }) => _tag), ["TextChunk", "TextChunk"])
      assert.match(begun.map((line) => line._tag === "TextChunk" ? line.text : "").join(""), /^x is 7\b/)

      const died = decoded("A kernel that dies").at(-1)
      assert.strictEqual(died?._tag === "KernelError" && died.reason._tag, "KernelDied")
      assert.deepStrictEqual(section(lines, "Lines are typed values"), [
        "TextChunk: False",
        "ExecutionResult: False",
      ])
    }))

  /** Starts an example that serves, and waits until it listens. */
  const serve = Effect.fnUntraced(function* (example: string) {
    const port = yield* freePort
    const { handle, temporaryFiles } = yield* start([example], { PORT: `${port}` })
    const listening = yield* Deferred.make<string>()
    // Read to the end: a pipe that is full or closed would disturb the service.
    const log = yield* handle.all.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.tap((line) => line.includes("Listening on") ? Deferred.succeed(listening, line) : Effect.void),
      Stream.mkString,
      Effect.forkScoped,
    )
    yield* Effect.raceFirst(
      Deferred.await(listening),
      Effect.flatMap(Fiber.join(log), (text) => Effect.die(`It ended early: ${text}`)),
    )
    return { handle, temporaryFiles, url: `http://127.0.0.1:${port}` }
  })

  it.effect("service.ts serves until it is interrupted", () =>
    Effect.gen(function* () {
      const { handle, temporaryFiles, url } = yield* serve("service.ts")
      const post = (type: string) =>
        HttpClientRequest.post(`${url}/execute`).pipe(
          HttpClientRequest.bodyText(`{"code":"print(6 * 7)"}`, type),
          HttpClient.execute,
        )
      const seen = look(handle.pid)

      const lines = yield* post("application/json").pipe(
        HttpClientResponse.stream,
        Stream.decodeText(),
        Stream.splitLines,
        Stream.map((line) => decode(line)),
        Stream.runCollect,
      )
      assert.deepStrictEqual(lines.map(({ _tag }) => _tag), ["TextChunk", "ExecutionResult"])
      assert.strictEqual((yield* post("text/plain")).status, 400, "a web page could send this")

      yield* handle.kill({ killSignal: "SIGINT" })
      assert.strictEqual(yield* handle.exitCode, 130)
      yield* assertNothingLeft(seen, temporaryFiles)
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  it.effect("sessions.ts keeps a kernel for each user, also when a client goes away", () =>
    Effect.gen(function* () {
      const { handle, temporaryFiles, url } = yield* serve("sessions.ts")
      const page = yield* HttpClient.get(url)
      assert.include(yield* page.text, "<textarea")
      assert.match(
        page.headers["set-cookie"] ?? "",
        /^__Host-user=[\w-]{36};.*HttpOnly.*Secure.*SameSite=Strict/,
      )
      const request = (path: string, user: string, body: string) =>
        HttpClientRequest.post(`${url}${path}`).pipe(
          HttpClientRequest.setHeader("cookie", `__Host-user=${user}`),
          HttpClientRequest.bodyText(body, "application/json"),
          HttpClient.execute,
        )
      const execute = (user: string, code: string) =>
        request("/execute", user, JSON.stringify({ code })).pipe(
          HttpClientResponse.stream,
          Stream.decodeText(),
          Stream.splitLines,
          Stream.filter((line) => line.startsWith("data: ")),
          Stream.map((line) => decode(line.slice("data: ".length))),
        )
      const textOf = (user: string, code: string) =>
        Effect.map(Stream.runCollect(execute(user, code)), (events) => {
          const last = events.at(-1)
          return last?._tag === "ExecutionResult" ? last.text : last?._tag
        })
      assert.strictEqual(yield* textOf("ada", "x = 1; x"), "1")
      assert.strictEqual(yield* textOf("grace", "'x' in globals()"), "False")
      const seen = look(handle.pid)
      // It sees some output and goes away: the code is interrupted, and the state stays.
      const begun = yield* execute("ada", "while True: x += 1; print(x, flush=True)").pipe(
        Stream.take(3),
        Stream.runCollect,
      )
      assert.deepStrictEqual(begun.map(({ _tag }) => _tag), ["TextChunk", "TextChunk", "TextChunk"])
      assert.strictEqual(yield* textOf("ada", "x > 3"), "True")
      const running = yield* Effect.forkChild(textOf("ada", "print('begun'); import time; time.sleep(60)"))
      yield* Effect.sleep("1 second")
      assert.strictEqual((yield* request("/interrupt", "ada", "{}")).status, 204)
      assert.strictEqual(yield* Fiber.join(running), "ExecutionError")
      assert.strictEqual(yield* textOf("ada", "import os; os._exit(1)"), "KernelError")
      assert.strictEqual(yield* textOf("ada", "'x' in globals()"), "False")
      const foreign = HttpClientRequest.post(`${url}/execute`).pipe(
        HttpClientRequest.setHeader("cookie", "__Host-user=ada"),
        HttpClientRequest.bodyText('{"code":"1"}', "text/plain"),
        HttpClient.execute,
      )
      assert.strictEqual((yield* foreign).status, 400, "a web page could send this")
      const large = JSON.stringify({ code: `#${"a".repeat(2_000_000)}` })
      assert.isAtLeast((yield* request("/execute", "ada", large)).status, 400)
      assert.strictEqual((yield* request("/execute", "", '{"code":"1"}')).status, 400)
      const rebound = yield* Effect.promise(() =>
        new Promise<number | undefined>((resolve, reject) => {
          get(url, { headers: { host: "example.org" } }, ({ statusCode }) => resolve(statusCode))
            .on("error", reject)
        })
      )
      assert.strictEqual(rebound, 403, "a page whose name leads to this machine")

      yield* handle.kill({ killSignal: "SIGINT" })
      assert.strictEqual(yield* handle.exitCode, 130)
      yield* assertNothingLeft(seen, temporaryFiles)
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  it.effect.skipIf(Browser.chromium === undefined)(
    "sessions.html shows output, errors, tables and plots as they come, and interrupts (Chromium)",
    () =>
      Effect.gen(function* () {
        const { url } = yield* serve("sessions.ts")
        const { evaluate, until } = yield* Browser.open(url)
        const run = (code: string) =>
          evaluate(`
            document.querySelector("textarea").value = ${JSON.stringify(code)}
            document.querySelector("#run").click()`)
        const text = `document.querySelector("#output").innerText`
        const isReady = until(`document.querySelector("#state").textContent === "ready"`)

        yield* until(`document.readyState === "complete" && !document.querySelector("#run").disabled`)
        yield* run(
          "import time\nx = 6\nprint('first', flush=True)\nwhile not globals().get('go'): time.sleep(0.05)",
        )
        yield* until(
          `${text}.includes("first") && document.querySelector("#state").textContent === "running"`,
        )
        yield* evaluate(`document.querySelector("#interrupt").click()`)
        yield* until(`document.querySelector(".failure")?.innerText.includes("KeyboardInterrupt")`)
        yield* isReady
        yield* run("print(f'{x * 7} <b>\\n 10%\\r100%')\nimport sys\nprint('bad', file=sys.stderr)")
        yield* until(`${text}.includes("42 <b>")`)
        yield* isReady
        assert.include(yield* evaluate(`document.querySelector(".stdout").textContent`), "100%")
        assert.notInclude(yield* evaluate(`document.querySelector(".stdout").textContent`), " 10%")
        assert.strictEqual(yield* evaluate(`document.querySelector(".stderr").textContent`), "bad\n")
        yield* run("1 / 0")
        yield* until(`document.querySelector(".failure")?.innerText.includes("ZeroDivisionError")`)
        yield* isReady
        yield* run("from IPython.display import HTML\nHTML('<table><tr><td>Zürich</td></tr></table>')")
        yield* until(`document.querySelector("iframe")?.srcdoc.includes("<td>Zürich</td>")`)
        yield* isReady
        yield* run("HTML('<script>top.hacked = 1</script><img src=x onerror=\"top.hacked = 1\">')")
        yield* until(`document.querySelector("iframe")?.srcdoc.includes("hacked")`)
        yield* isReady
        yield* run(
          "print('<img src=x onerror=\"window.hacked = 1\">')\nraise ValueError('<script>hacked = 1</script>')",
        )
        yield* until(`document.querySelector(".failure")?.innerText.includes("<script>")`)
        yield* isReady
        assert.strictEqual(yield* evaluate("typeof hacked"), "undefined")
        yield* run("for i in range(50_000): print(i)")
        yield* until(`${text}.includes("49999")`)
        yield* isReady
        assert.isAtMost(Number(yield* evaluate(`${text}.length`)), 100_000)
        yield* run("import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()")
        yield* until(`document.querySelector("img")?.naturalWidth > 100`)
        yield* isReady
        yield* run("h = display('one', display_id=True)\nh.update('two')")
        yield* until(`${text} === "'two'"`)
        yield* isReady
        yield* run("import os; os._exit(1)")
        yield* until(`document.querySelector(".failure")?.innerText.includes("KernelDied")`)
        yield* isReady
        yield* run("print('x' in globals())")
        yield* until(`${text}.includes("False")`)
      }).pipe(Effect.provide(FetchHttpClient.layer)),
    120_000,
  )
})
