/** Kernels that are not IPython, on our own gateway and on a server that is not ours. */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Schedule, Schema, Stream } from "effect"
import process from "node:process"
import { Execution, KernelClient, KernelGateway, KernelPool } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as Kernelspecs from "./support/kernelspecs.ts"
import { slow, temporary, text } from "./support/kernel.ts"
import { reasonOf, timed } from "./support/outcome.ts"
import { tied } from "./support/tied.ts"

class Specs
  extends Context.Service<Specs, { readonly folder: string; readonly python: string }>()("test/Specs") {}
const specs = Layer.effect(Specs, Kernelspecs.make).pipe(Layer.provideMerge(Platform.layer))

/** Our own gateway, which finds the kernelspecs by a variable of its option `env`. */
const own = Layer.unwrap(
  Effect.map(Specs, ({ folder }) => KernelGateway.layer({ env: { JUPYTER_PATH: folder } })),
).pipe(Layer.provideMerge(specs))

/** Does something once, at the first text of an execution, and gives how the execution ended. */
const atFirstText = <E>(kernel: KernelClient.Kernel, code: string, then: Effect.Effect<unknown, E>) =>
  Effect.gen(function* () {
    const begun = yield* Deferred.make<void>()
    const running = yield* kernel.stream(code).pipe(
      Stream.tap(() => Effect.asVoid(Deferred.succeed(begun, undefined))),
      Stream.runDrain,
      Effect.exit,
      Effect.forkChild,
    )
    yield* Deferred.await(begun)
    yield* then
    return yield* Effect.flatten(Fiber.join(running))
  })

/** The operations that need Python, by the name in their error. */
const needsPython = (kernel: KernelClient.Kernel): Record<string, Effect.Effect<unknown, unknown>> => ({
  evaluate: kernel.evaluate("1", Schema.Unknown),
  set: kernel.set("x", 1),
  call: kernel.call("f", [], { returns: Schema.Void }),
  iterate: Stream.runDrain(kernel.iterate("x", Schema.Unknown)),
  feed: Stream.runDrain(kernel.feed("f", Stream.make(1), { returns: Schema.Void })),
  variables: kernel.variables,
})

const assertRefused = Effect.fnUntraced(function* (kernel: KernelClient.Kernel, language: string) {
  for (const [operation, asked] of Object.entries(needsPython(kernel))) {
    const error = yield* Effect.flip(asked)
    assert.isTrue(Execution.isKernelError(error), operation)
    if (!Execution.isKernelError(error)) return
    assert.deepStrictEqual(error.reason, new Execution.Unsupported({ language, operation }))
  }
})

const assertWorkingDirRefused = Effect.fnUntraced(function* (kernelName: string, language: string) {
  const gateway = yield* KernelGateway.KernelGateway
  const before = yield* gateway.kernels
  const { reason } = yield* Effect.flip(Effect.scoped(KernelClient.make({ kernelName, workingDir: "/tmp" })))
  assert.deepStrictEqual(reason, new Execution.Unsupported({ language, operation: "workingDir" }))
  assert.isFalse(reason._tag === "Unsupported" && reason.isRetryable)
  assert.deepStrictEqual((yield* gateway.kernels).map(({ id }) => id), before.map(({ id }) => id))
})

/** What a kernel of Deno does that is not Python's own. */
const assertDeno = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
  const elements = yield* Stream.runCollect(kernel.stream("console.log('a'); globalThis.x = 1; 6 * 7"))
  const last = elements.at(-1)
  assert.match(last?._tag === "ExecutionResult" ? last.text ?? "" : "", /^a\n.*42/)
  const { displays } = yield* kernel.execute(
    `await Deno.jupyter.broadcast("display_data", {data: {"text/html": "<b>bold</b>"}, metadata: {}, transient: {}})`,
  )
  assert.strictEqual(displays[0]?.data["text/html"], "<b>bold</b>")
  const failed = yield* Effect.flip(kernel.execute("throw new TypeError('no')"))
  assert.strictEqual(failed._tag === "ExecutionError" ? failed.ename : failed._tag, "TypeError")
  const late = yield* Effect.flip(kernel.execute("while (true) {}", { timeout: "500 millis" }))
  assert.strictEqual(late._tag, "ExecutionTimeout")
  const forever = "console.log('begun'); while (true) {}"
  const stopped = yield* Effect.flip(atFirstText(kernel, forever, kernel.interrupt))
  assert.isTrue(["ExecutionError", "ExecutionAborted"].includes(reasonOf(stopped)), reasonOf(stopped))
  assert.strictEqual(yield* text(kernel.execute("console.log(x)")), "1")
  assert.strictEqual((yield* kernel.isComplete("if (")).status, "incomplete")
  assert.include((yield* kernel.complete("consol")).matches, "console")
  assert.strictEqual((yield* kernel.info).language, "typescript")
  yield* assertRefused(kernel, "typescript")
})

layer(own, slow)("on our own gateway", (it) => {
  describe("Bash, which wraps ipykernel", () => {
    it.effect("execute, errors, timeout, interrupt and introspection work; what needs Python is refused", () =>
      Effect.gen(function* () {
        const kernel = yield* KernelClient.make({ kernelName: "bash" })
        assert.strictEqual(yield* text(kernel.execute("x=1; echo hi")), "hi")
        const failed = yield* Effect.flip(kernel.execute("exit_with() { return 3; }; exit_with"))
        assert.strictEqual(failed._tag === "ExecutionError" ? failed.ename : failed._tag, "Error")
        yield* assertRefused(kernel, "bash")
        const late = yield* Effect.flip(kernel.execute("echo begun; sleep 60", { timeout: "500 millis" }))
        assert.strictEqual(late._tag === "ExecutionTimeout" ? late.partial.text : late._tag, "begun")
        // A completion would go to the Bash that runs the cell.
        const during = Effect.gen(function* () {
          const busy = yield* Effect.flip(kernel.complete("ech"))
          assert.strictEqual(busy._tag, "KernelBusy")
          assert.strictEqual((yield* kernel.info).language, "bash")
        })
        yield* atFirstText(kernel, "echo begun; sleep 1; echo done", during)
        const stopped = yield* Effect.flip(atFirstText(kernel, "echo begun; sleep 60", kernel.interrupt))
        assert.strictEqual(reasonOf(stopped), "ExecutionAborted")
        assert.include(stopped.message, "interrupted")
        assert.notInclude(stopped.message, "did not run")
        assert.include((yield* kernel.complete("ech")).matches, "echo")
        assert.strictEqual(yield* text(kernel.execute("echo $x")), "1")
        // Nothing that needs Python was sent to it.
        assert.notInclude(yield* text(kernel.execute("history")) ?? "", "exec(")
      }))

    it.effect("the option workingDir is refused before a kernel is started", () =>
      Effect.gen(function* () {
        yield* assertWorkingDirRefused("bash", "bash")
        yield* assertWorkingDirRefused("deno", "typescript")
        const { kernelspecs } = yield* KernelGateway.KernelGateway
        const listed = yield* kernelspecs
        assert.includeMembers(listed.map(({ language, name }) => `${name} ${language}`), [
          "bash bash",
          "deno typescript",
          "plain python",
        ])
        assert.deepStrictEqual(listed.flatMap(({ isDefault, language }) => isDefault ? [language] : []), [
          "python",
        ])
      }))

    it.effect("refusals do not wait for a cell that runs; displays and pools work", () =>
      Effect.gen(function* () {
        const pool = yield* KernelPool.make({ kernelName: "bash", max: 1, images: "bytes" })
        const kernel = yield* pool.get
        const refused = timed(assertRefused(kernel, "bash"))
        yield* atFirstText(
          kernel,
          "echo begun; sleep 2",
          Effect.gen(function* () {
            const [, millis] = yield* refused
            assert.isBelow(millis, 1000)
          }),
        )
        const { displays } = yield* kernel.execute("echo '<b>bold</b>' | displayHTML")
        assert.include(String(displays[0]?.data["text/html"]), "<b>bold</b>")
        const png =
          "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
        const { images } = yield* kernel.execute(`echo ${png} | base64 -d | display`)
        assert.deepStrictEqual(images.map(({ mimeType }) => mimeType), ["image/png"])
      }))
  })

  it.effect("Deno, which knows TCP alone and puts out after its idle: nothing is lost", () =>
    Effect.gen(function* () {
      for (let round = 0; round < 4; round++) {
        yield* Effect.scoped(Effect.gen(function* () {
          const kernel = yield* KernelClient.make({ kernelName: "deno" })
          for (let cell = 0; cell < 3; cell++) {
            assert.strictEqual(yield* text(kernel.execute("console.log('a'); console.log('b')")), "a\nb")
          }
        }))
      }
      const kernel = yield* KernelClient.make({ kernelName: "deno" })
      yield* assertDeno(kernel)
    }))

  it.effect("a Python kernel without IPython starts, and values are refused", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const kernel = yield* KernelClient.make({ kernelName: "plain", workingDir: folder })
      assert.strictEqual(yield* text(kernel.execute("import os; print(os.getcwd())")), folder)
      const failed = yield* Effect.flip(kernel.execute("1 / 0"))
      assert.strictEqual(failed._tag === "ExecutionError" ? failed.ename : failed._tag, "Error")
      const error = yield* Effect.flip(kernel.evaluate("1", Schema.Unknown))
      assert.strictEqual(Execution.isKernelError(error) ? error.reason._tag : error._tag, "Unsupported")
      // It claims to have subshells and has one namespace for all.
      const during = Effect.flatMap(Effect.flip(kernel.complete("x")), (busy) =>
        Effect.sync(() => assert.strictEqual(busy._tag, "KernelBusy")))
      const running = yield* Effect.forkChild(kernel.execute("import time; time.sleep(1)"))
      yield* Effect.andThen(Effect.sleep("300 millis"), during)
      yield* Fiber.join(running)
    }))
})

/** A Jupyter Server that is not ours, below a path. */
const foreign = Layer.effectContext(Effect.gen(function* () {
  const { folder, python } = yield* Specs
  const port = 12_000 + (process.pid % 3_900) * 2 + 8_000
  yield* tied(python, [
    "-m",
    "jupyter_server",
    "--no-browser",
    "--allow-root",
    `--ServerApp.root_dir=${folder}`,
    `--ServerApp.port=${port}`,
    "--ServerApp.port_retries=0",
    "--ServerApp.base_url=/team/ada's",
    "--IdentityProvider.token=secret",
  ], {
    env: { JUPYTER_PATH: folder },
    extendEnv: true,
    stdout: "ignore",
    stderr: "ignore",
    forceKillAfter: "3 seconds",
  })
  // Of a page in the browser.
  const url =
    `HTTP://LOCALHOST:${port}/team/ada's/lab/tree/a%20folder/b.ipynb?factory=Editor&token=secret#cell`
  return yield* Layer.build(KernelGateway.layerRemote({ url }))
    .pipe(
      Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: "30 seconds" }))),
    )
})).pipe(Layer.provideMerge(specs))

layer(foreign, slow)("on a Jupyter Server", (it) => {
  it.effect("env is set in kernels of Python, before the first cell", () =>
    Effect.gen(function* () {
      const env = { SECRET_NAME: "its value", TZ: "Asia/Tokyo" }
      const code = "import os, time; print(os.environ['SECRET_NAME'], time.tzname[0])"
      for (const kernelName of ["python3", "plain"]) {
        const kernel = yield* KernelClient.make({ env, kernelName })
        assert.strictEqual(yield* text(kernel.execute(code)), "its value JST")
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute(code)), "its value JST")
      }
    }))

  it.effect("Bash works; variables of env that it may not have are named, not their values", () =>
    Effect.gen(function* () {
      const logged: Array<string> = []
      const logger = Logger.make(({ message }) => void logged.push(String(message)))
      const env = { SECRET_NAME: "its value", KERNEL_USERNAME: "me" }
      const kernel = yield* KernelClient.make({ env, kernelName: "bash" }).pipe(
        Effect.provide(Logger.layer([logger])),
      )
      assert.lengthOf(logged.filter((line) => line.includes(`"SECRET_NAME"`)), 1)
      assert.notInclude(logged.join("\n"), "its value")
      assert.notInclude(logged.join("\n"), "KERNEL_USERNAME")
      assert.strictEqual(yield* text(kernel.execute("echo hi")), "hi")
      const stopped = yield* Effect.flip(atFirstText(kernel, "echo begun; sleep 60", kernel.interrupt))
      assert.strictEqual(reasonOf(stopped), "ExecutionAborted")
      yield* assertRefused(kernel, "bash")
      assert.strictEqual((yield* kernel.info).implementation, "bash_kernel")
      assert.strictEqual(yield* text(kernel.execute("echo hi")), "hi")
    }))

  it.effect("Deno works as on our own gateway, and the gateway lists its kernelspecs and kernels", () =>
    Effect.gen(function* () {
      yield* assertWorkingDirRefused("deno", "typescript")
      const gateway = yield* KernelGateway.KernelGateway
      const kernel = yield* KernelClient.make({ kernelName: "deno" })
      const kernelspecs = yield* gateway.kernelspecs
      assert.deepInclude(kernelspecs.find(({ name }) => name === "deno"), {
        displayName: "deno",
        language: "typescript",
        isDefault: false,
      })
      assert.strictEqual(kernelspecs.find(({ isDefault }) => isDefault)?.name, "python3")
      const running = (yield* gateway.kernels).find(({ id }) => id === kernel.id)
      assert.deepInclude(running, { name: "deno", connections: 1 })
      assert.isDefined(running?.lastActivity)
      yield* assertDeno(kernel)
    }))

  it.effect("a kernelspec that it does not know: NoSuchKernelspec with those that it knows", () =>
    Effect.gen(function* () {
      const { reason } = yield* Effect.flip(Effect.scoped(KernelClient.make({ kernelName: "cobol" })))
      assert.strictEqual(reason._tag, "NoSuchKernelspec")
      if (reason._tag !== "NoSuchKernelspec") return
      assert.includeMembers([...reason.known], ["bash", "deno", "plain"])
    }))

  it.effect("a kernel that died and was reset is gone from the server, which restarts it meanwhile", () =>
    Effect.gen(function* () {
      const gateway = yield* KernelGateway.KernelGateway
      const kernel = yield* KernelClient.make({ kernelName: "python3" })
      const { id } = kernel
      yield* Effect.flip(kernel.execute("import os; os._exit(1)"))
      yield* kernel.reset
      const [, millis] = yield* timed(
        Effect.promise(() =>
          fetch(`${gateway.url}/api/kernels/${id}`, { headers: { authorization: "token secret" } })
            .then(({ status }) => status)
        ).pipe(
          Effect.repeat({ schedule: Schedule.spaced("100 millis"), until: (status) => status === 404 }),
          Effect.timeout("20 seconds"),
        ),
      )
      assert.isBelow(millis, 20_000)
      assert.strictEqual(yield* text(kernel.execute("print(1)")), "1")
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(kernel.info)))
    }))
})
