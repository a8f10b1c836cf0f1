/** Kernels that outlive the program that started them, and code that goes on in them. */
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Schema, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { mkdtempSync, readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Connection from "../src/gateway/connection.ts"
import * as SharedFolder from "../src/gateway/shared_folder.ts"
import * as Attachment from "../src/kernel/attachment.ts"
import * as GatewayKernel from "../src/kernel/gateway_kernel.ts"
import { Execution, KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { gatewayOptions, slow, text, texts } from "./support/kernel.ts"
import { descendants } from "./support/processes.ts"

/** The runtime directory of this user for these tests. */
// @effect-diagnostics-next-line processEnv:off
process.env.XDG_RUNTIME_DIR = mkdtempSync(join(tmpdir(), "effect-jupyter-test-"))
const State = Schema.fromJsonString(Schema.Struct({ pid: Schema.Int }))

const retention = 4 * 1024 * 1024
const options = {
  ...gatewayOptions,
  // In a sandbox the folder of the gateway is that of the user.
  name: `durable-${process.pid}`,
  idleTimeToLive: "1 minute",
  outputRetention: retention,
} as const

const shared = KernelGateway.layerShared(options).pipe(
  Layer.merge(Layer.effectDiscard(
    Effect.addFinalizer(() => Effect.ignore(KernelGateway.stopShared(options.name))),
  )),
  Layer.provideMerge(Platform.layer),
)

/** Starts code in a new kernel, in a scope that closes then. */
const started = (...codes: ReadonlyArray<string>) =>
  Effect.scoped(Effect.gen(function* () {
    const kernel = yield* KernelClient.make()
    yield* kernel.detach
    return yield* Effect.forEach(codes, (code) => kernel.start(code))
  }))

/** Starts code in a new kernel, and waits until all of it has ended. */
const ended = (code: string) =>
  Effect.scoped(Effect.gen(function* () {
    const kernel = yield* KernelClient.make()
    yield* kernel.detach
    const ref = yield* kernel.start(code)
    yield* kernel.execute("")
    return ref
  }))

/** Takes the rest of the outputs in a client of its own, and deletes the kernel. */
const finish = Effect.fnUntraced(
  function* (ref: Execution.ExecutionRef, options?: KernelClient.ResumeOptions) {
    const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
    const elements: Array<Execution.Chunk | Execution.ExecutionResult> = []
    const exit = yield* Effect.exit(
      Stream.runForEach(kernel.resume(ref, options), (element) => Effect.sync(() => elements.push(element))),
    )
    return { elements, failure: Option.getOrUndefined(Exit.findErrorOption(exit)) }
  },
  Effect.scoped,
)

const kernelIds = Effect.flatMap(
  KernelGateway.KernelGateway,
  ({ kernels }) => Effect.map(kernels, (kernels) => kernels.map(({ id }) => id)),
)

const reasonOf = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => Execution.isKernelError(error) ? error.reason : error)

const Line = Schema.fromJsonString(Schema.Struct({
  chunk: Schema.optionalKey(Execution.Chunk),
  ref: Schema.optionalKey(Execution.ExecutionRef),
  failure: Schema.optionalKey(Execution.ExecutionFailure),
  isDone: Schema.optionalKey(Schema.Boolean),
}))

/** Runs another program, and kills it after so many lines. */
const program = (task: unknown, lines: number) =>
  Effect.scoped(Effect.gen(function* () {
    const handle = yield* ChildProcess.make(
      "node",
      ["test/support/durable_program.ts", JSON.stringify(options), JSON.stringify(task)],
      { extendEnv: true, stdin: "ignore", stderr: "inherit", forceKillAfter: "1 second" },
    )
    const read = yield* handle.stdout.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      // The last line may be incomplete.
      Stream.mapEffect((line) => Effect.option(Schema.decodeEffect(Line)(line))),
      Stream.filter(Option.isSome),
      Stream.map(({ value }) => value),
      Stream.take(lines),
      Stream.runCollect,
    )
    yield* Effect.ignore(handle.kill({ killSignal: "SIGKILL" }))
    return read
  }))

layer(shared, slow)("a durable kernel", (it) => {
  it.effect("a program that is killed and killed again takes every output once", () =>
    Effect.gen(function* () {
      const [first] = yield* program({
        start: `import sys, time
from IPython.display import display
for i in range(200):
    print(i, flush=True)
    if i % 50 == 20: print("e" * 10, file=sys.stderr)
    if i % 50 == 30: display({"image/png": "iVBORw0KGgo=" , "text/plain": f"image {i}"}, raw=True)
    time.sleep(0.01)
print("x" * 1_000_000)
print(input("name? "))
1 / 0`,
      }, 1)
      let ref = first?.ref
      const chunks: Array<Execution.Chunk> = []
      let last: typeof Line.Type | undefined
      for (let kills = 1; last?.failure === undefined && kills < 30; kills++) {
        assert.isDefined(ref)
        for (const line of yield* program({ resume: ref }, 15 + kills * 7)) {
          last = line
          if (line.chunk === undefined) continue
          chunks.push(line.chunk)
          ref = line.ref
        }
      }
      const expected = Array.from({ length: 200 }, (_, i) => [
        `${i}\n`,
        ...(i % 50 === 20 ? ["e".repeat(10) + "\n"] : []),
        ...(i % 50 === 30 ? [`image ${i}`] : []),
      ]).flat().join("")
      const all = chunks.map((chunk) => chunk._tag === "ClearOutput" ? "" : chunk.text ?? "").join("")
      assert.strictEqual(all, `${expected}${"x".repeat(1_000_000)}\nanswer to name? \n`)
      assert.instanceOf(last?.failure, Execution.ExecutionError)
      assert.strictEqual(last.failure.ename, "ZeroDivisionError")
    }))

  it.effect("a stream that ends early leaves the code running, and all of its outputs", () =>
    Effect.gen(function* () {
      const [ref, next] = yield* started(
        "import time\nfor i in range(20): print(i, flush=True); time.sleep(0.02)\nx = 7",
        "x + 1",
      )
      assert.isDefined(ref)
      assert.isDefined(next)
      const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
      const two = Stream.runCollect(Stream.take(kernel.resume(ref), 2))
      assert.deepStrictEqual(texts(yield* two), ["0\n", "1\n"])
      // An execution waits for code that was started, and both streams have the same outputs.
      const [all, again, executed] = yield* Effect.all([
        Stream.runCollect(kernel.resume(ref)),
        Stream.runCollect(kernel.resume(ref)),
        text(kernel.execute("x + 2")),
      ], { concurrency: 3 })
      assert.strictEqual(texts(all).join(""), Array.from({ length: 20 }, (_, i) => `${i}\n`).join(""))
      assert.deepStrictEqual(texts(again), texts(all))
      assert.strictEqual(all.at(-1)?._tag, "ExecutionResult")
      assert.strictEqual(executed, "9")
      const result = yield* Stream.runLast(kernel.resume(next))
      assert.strictEqual(Option.getOrThrow(result)._tag === "ExecutionResult", true)
      const outOfPlace = new Execution.ExecutionRef({ ...ref, id: "execution-unknown" })
      assert.strictEqual(
        (yield* reasonOf(Stream.runDrain(kernel.resume(outOfPlace))))._tag,
        "ExecutionAborted",
      )
    }).pipe(Effect.scoped))

  it.effect("references survive JSON, and a position in the outputs does", () =>
    Effect.gen(function* () {
      const [ref] = yield* started("for i in range(5): print(i, flush=True)\n1 / 0")
      assert.isDefined(ref)
      const json = Schema.fromJsonString(Execution.ExecutionRef)
      const copy = yield* Effect.flatMap(Schema.encodeEffect(json)(ref), Schema.decodeEffect(json))
      assert.deepStrictEqual(copy, ref)
      assert.notInclude(JSON.stringify(copy), "token")
      const refs: Array<Execution.ExecutionRef> = []
      const first = yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* KernelClient.attach(copy.kernel)
        const outputs = kernel.resume(copy, {
          onChunk: (_, ref) => Effect.sync(() => refs.push(ref)),
        })
        return yield* Effect.flip(Stream.runDrain(outputs))
      }))
      assert.strictEqual(first._tag, "ExecutionError")
      assert.lengthOf(refs, 5)
      const { elements, failure } = yield* finish(refs[2] ?? ref)
      assert.deepStrictEqual(texts(elements), ["3\n", "4\n"])
      assert.strictEqual(failure?._tag, "ExecutionError")
      assert.strictEqual(failure?.partial?.text, "3\n4")
    }))

  it.effect("large and binary outputs, exceptions that are shown, and displays that are updated", () =>
    Effect.gen(function* () {
      const code = `from IPython.display import display
import base64
handle = display("one", display_id=True)
try: 1 / 0
except ZeroDivisionError: get_ipython().showtraceback()
print("é" * 1_000_000)
display({"image/png": base64.b64encode(bytes(range(256)) * 1000).decode()}, raw=True)
handle.update("two")`
      const { elements, failure } = yield* finish(yield* ended(code), { images: "bytes" })
      assert.isUndefined(failure)
      const kernel = yield* KernelClient.make({ images: "bytes" })
      const expected = yield* kernel.execute(code)
      assert.strictEqual(expected.images[0]?.bytes?.length, 256_000)
      const result = elements.at(-1)
      assert.isTrue(result?._tag === "ExecutionResult")
      if (result?._tag !== "ExecutionResult") return
      assert.strictEqual(result.text, expected.text)
      assert.deepStrictEqual(
        result.images.map(({ bytes }) => bytes),
        expected.images.map(({ bytes }) => bytes),
      )
      assert.deepStrictEqual(
        result.displays.map(({ data }) => data),
        expected.displays.map(({ data }) => data),
      )
    }).pipe(Effect.scoped))

  it.effect("OutputGone says how many messages are gone, and comes after the others", () =>
    Effect.gen(function* () {
      const ref = yield* ended("for i in range(20_000): print(i, flush=True)")
      const { elements, failure } = yield* finish(ref)
      const [first] = elements
      assert.isTrue(first?._tag === "TextChunk")
      const number = first?._tag === "TextChunk" ? Number(first.text) : 0
      assert.isAbove(number, 1000)
      assert.isTrue(first?._tag === "TextChunk" && first.afterGap)
      assert.deepStrictEqual(
        texts(elements),
        Array.from({ length: 20_000 - number }, (_, i) => `${number + i}\n`),
      )
      assert.strictEqual(failure?._tag, "KernelError")
      const reason = failure?._tag === "KernelError" ? failure.reason : undefined
      // Those before the first output say that the kernel is busy, and repeat the code.
      assert.deepInclude(reason, { _tag: "OutputGone", missing: number + 2 })
      assert.isTrue(failure?.partial?.text?.endsWith("\n19999"))
    }))

  it.effect("OutputGone also comes if nothing of the code is left", () =>
    Effect.gen(function* () {
      const ref = yield* ended("print('long ago')")
      const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
      yield* kernel.execute("for i in range(12_000): print(i, flush=True)")
      const reason = yield* reasonOf(Stream.runDrain(kernel.resume(ref)))
      assert.strictEqual(reason._tag, "OutputGone")
    }).pipe(Effect.scoped))

  it.effect("a client that has lost its kernel to another one fails with SessionTaken", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const first = yield* Scope.provide(KernelClient.make(), scope)
      const ref = yield* first.detach
      const begun = yield* Deferred.make<void>()
      const running = first.stream("import time\nfor i in range(60): print(i, flush=True); time.sleep(0.02)")
      const taken = yield* running.pipe(
        Stream.tap(() => Deferred.succeed(begun, undefined)),
        Stream.runDrain,
        reasonOf,
        Effect.forkChild,
      )
      yield* Deferred.await(begun)
      const second = yield* KernelClient.attach(ref, { deletes: true })
      assert.strictEqual((yield* Fiber.join(taken))._tag, "SessionTaken")
      for (const operation of [first.execute("1"), first.interrupt, first.detach, first.start("1")]) {
        assert.strictEqual((yield* reasonOf(Effect.asVoid(operation)))._tag, "SessionTaken")
      }
      yield* Scope.close(scope, Exit.void)
      // The code was not interrupted, and the kernel not deleted.
      assert.strictEqual(yield* text(second.execute("i")), "59")
    }).pipe(Effect.scoped))

  it.effect("a client that has yet to hear of another one does not take the kernel back from it", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const { kernelId, session } = yield* kernel.detach
      const gateway = yield* Effect.flatMap(KernelGateway.KernelGateway, Connection.of)
      // As of a process that was stopped: its session became idle, and another process has the kernel.
      const stay = { isKept: true }
      const { reclaim } = Attachment.make(gateway, {
        kernelId,
        session,
        stay,
        holder: "stopped",
        attached: undefined,
        endReason: () => undefined,
      })
      assert.deepStrictEqual([yield* reclaim, stay.isKept], [false, true])
    }).pipe(Effect.scoped))

  it.effect("code that was just started is resumed although its client is behind the kernel", () =>
    Effect.gen(function* () {
      const gateway = yield* Effect.flatMap(KernelGateway.KernelGateway, Connection.of)
      const resumed = new Execution.KernelError({ reason: new Execution.KernelDied({ kernelId: "kernel" }) })
      const { resume, start } = Attachment.make(
        { ...gateway, rest: { ...gateway.rest, post: () => Effect.succeed(5) } },
        {
          kernelId: "kernel",
          session: "session",
          stay: { isKept: false },
          holder: "holder",
          attached: {
            encode: () => new Uint8Array(),
            position: () => 2,
            interrupt: () => Effect.void,
            resume: () => Effect.fail(resumed),
          },
          endReason: () => undefined,
        },
      )
      const ref = yield* start({ id: "execution", type: "execute_request", content: {} })
      assert.strictEqual(ref.position, 5)
      assert.strictEqual(yield* Effect.flip(resume(ref, { onMessage: () => {} })), resumed)
      const beyond = resume(new Execution.ExecutionRef({ ...ref, position: 6 }), { onMessage: () => {} })
      assert.strictEqual((yield* Effect.flip(beyond)).reason._tag, "InvalidOption")
    }))

  it.effect("a client that has yet to hear of another one does not delete its kernel", () =>
    Effect.gen(function* () {
      const first = yield* KernelClient.make()
      yield* first.execute("x = 20")
      const ref = yield* first.detach
      const gateway = yield* Effect.flatMap(KernelGateway.KernelGateway, Connection.of)
      // Its connections tell nothing once they are open, as those of a process that is stopped.
      const deaf: typeof gateway = {
        ...gateway,
        openSocket: (address, options) =>
          Effect.map(gateway.openSocket(address, options), (socket) => ({
            ...socket,
            pull: Effect.catch(socket.pull, () => Effect.never),
          })),
      }
      const scope = yield* Scope.make()
      const attached = yield* Scope.provide(
        GatewayKernel.attach(deaf, ref, { startTimeout: "10 seconds", pingInterval: "1 minute" }),
        scope,
      )
      assert.isTrue(yield* attached.durable.reclaim)
      const second = yield* KernelClient.attach(ref)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* text(second.execute("x + 1")), "21")
      // One to which none has attached since ends with its client.
      const third = yield* Scope.make()
      const last = yield* Scope.provide(
        GatewayKernel.attach(gateway, ref, { startTimeout: "10 seconds", pingInterval: "1 minute" }),
        third,
      )
      assert.isTrue(yield* last.durable.reclaim)
      yield* Scope.close(third, Exit.void)
      const { kernels } = yield* KernelGateway.KernelGateway
      assert.notInclude((yield* kernels).map(({ id }) => id), ref.kernelId)
    }).pipe(Effect.scoped))

  it.effect("code that asks for input waits until a client answers, and is not asked twice", () =>
    Effect.gen(function* () {
      const [ref] = yield* started("print(input('first? '))\ntry: input('second? ')\nfinally: print('end')")
      assert.isDefined(ref)
      const asked: Array<string> = []
      const outputs = (options: KernelClient.ResumeOptions) =>
        Effect.scoped(
          Effect.flatMap(KernelClient.attach(ref.kernel), (kernel) =>
            Stream.runDrain(kernel.resume(ref, options))),
        )
      assert.strictEqual((yield* reasonOf(outputs({})))._tag, "InputRequested")
      const isAsked = yield* Deferred.make<void>()
      const answering = outputs({
        onInput: ({ prompt }) => {
          asked.push(prompt)
          return prompt === "first? "
            ? Effect.succeed("one")
            : Effect.andThen(Deferred.succeed(isAsked, undefined), Effect.never)
        },
      })
      yield* Effect.raceFirst(answering, Deferred.await(isAsked))
      const { elements } = yield* finish(ref, {
        onInput: ({ prompt }) => {
          asked.push(prompt)
          return Effect.succeed("two")
        },
      })
      assert.deepStrictEqual(asked, ["first? ", "second? ", "second? "])
      assert.strictEqual(texts(elements).join(""), "one\nend\n")
    }))

  it.effect("start takes code of any size, and keeps nothing from executions if it is interrupted", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      // The kernel repeats the code in its output, of which the gateway of these tests keeps less.
      yield* kernel.start(`text = "${"x".repeat(20_000_000)}"`)
      for (let wait = 0; wait < 10; wait++) {
        const starting = yield* Effect.forkChild(kernel.start("1"), { startImmediately: true })
        yield* Effect.sleep(wait)
        yield* Fiber.interrupt(starting)
      }
      assert.strictEqual(yield* text(kernel.execute("len(text)")), "20000000")
    }).pipe(Effect.scoped))

  it.effect("a timeout, interrupt and the option interrupts stop code that was started", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const slow =
        "import time\ntry:\n  print('begun', flush=True); time.sleep(60)\nfinally: print('end', flush=True)"
      const ref = yield* kernel.start(slow)
      const failure = yield* Effect.flip(Stream.runDrain(kernel.resume(ref, { timeout: "1 second" })))
      assert.strictEqual(failure._tag, "ExecutionTimeout")
      const second = yield* kernel.start(slow)
      yield* Stream.runDrain(Stream.take(kernel.resume(second, { interrupts: true }), 1))
      const again = yield* Effect.flip(Stream.runDrain(kernel.resume(second)))
      assert.isTrue(again._tag === "ExecutionError" && again.ename === "KeyboardInterrupt")
      const third = yield* kernel.start(slow)
      yield* Stream.runForEach(kernel.resume(third), () => kernel.interrupt).pipe(Effect.flip)
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(kernel.resume(third))))._tag, "ExecutionError")
    }).pipe(Effect.scoped))

  it.effect("reset after attach deletes the kernel, and the new one ends with the scope", () =>
    Effect.gen(function* () {
      const [ref] = yield* started("x = 1")
      assert.isDefined(ref)
      const id = yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* KernelClient.attach(ref.kernel, { env: { GIVEN: "to the new one" } })
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("import os; os.environ['GIVEN']")), "'to the new one'")
        assert.strictEqual((yield* reasonOf(Stream.runDrain(kernel.resume(ref))))._tag, "KernelNotFound")
        return kernel.id
      }))
      const missing = yield* reasonOf(Effect.scoped(KernelClient.attach(ref.kernel)))
      assert.strictEqual(missing._tag, "KernelNotFound")
      assert.notInclude(yield* kernelIds, id)
    }))

  it.effect("KernelDied of a kernel that has ended, and ServerReplaced of a gateway that has", () =>
    Effect.gen(function* () {
      const [ref] = yield* started("import os; os._exit(1)")
      assert.isDefined(ref)
      yield* Effect.repeat(kernelIds, { until: (ids) => !ids.includes(ref.kernel.kernelId) })
      const { failure } = yield* finish(ref)
      assert.strictEqual(failure?._tag === "KernelError" && failure.reason._tag, "KernelDied")
      const name = `replaced-${process.pid}`
      const again = () => KernelGateway.layerShared({ ...options, name })
      const [lost] = yield* Effect.provide(started("1"), again())
      assert.isDefined(lost)
      yield* KernelGateway.stopShared(name)
      yield* Effect.addFinalizer(() => Effect.ignore(KernelGateway.stopShared(name)))
      const attaching = Effect.scoped(KernelClient.attach(lost.kernel))
      assert.strictEqual((yield* reasonOf(Effect.provide(attaching, again())))._tag, "ServerReplaced")
    }).pipe(Effect.scoped))

  it.effect("a gateway is used while code runs that was started, and grows by no more than outputRetention", () =>
    Effect.gen(function* () {
      const name = `endless-${process.pid}`
      const gateway = KernelGateway.layerShared({ ...options, name, idleTimeToLive: 0 })
      yield* Effect.addFinalizer(() => Effect.ignore(KernelGateway.stopShared(name)))
      const [ref] = yield* Effect.provide(
        started("number = 0\nwhile True: number += 1; print(number, 'x' * 1000)"),
        gateway,
      )
      assert.isDefined(ref)
      /** Attaches for a moment; returns how far the code is, and the memory of the gateway. */
      const look = Effect.gen(function* () {
        const kernel = yield* KernelClient.attach(ref.kernel)
        const output = Stream.runCollect(Stream.take(kernel.resume(ref), 1))
        const [text = ""] = texts(yield* output)
        const file = join(yield* SharedFolder.find(name), "gateway.json")
        const { pid } = yield* Schema.decodeEffect(State)(readFileSync(file, "utf8"))
        const gateway = descendants(pid).find(({ command }) =>
          command.some((word) => word.endsWith("main.py"))
        )
        const status = readFileSync(`/proc/${gateway?.pid}/status`, "utf8")
        return {
          number: Number(text.split(" ")[0]),
          memory: Number(/^VmRSS:\s*(\d+)/m.exec(status)?.[1]) * 1024,
        }
      }).pipe(Effect.scoped, Effect.provide(gateway))
      const reaches = (number: number) =>
        Effect.repeat(Effect.delay(look, "200 millis"), { until: (seen) => seen.number > number })
      const before = yield* reaches(10_000)
      const after = yield* reaches(before.number + 30_000)
      assert.isBelow(after.memory - before.memory, 3 * retention)
      yield* Effect.gen(function* () {
        const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
        yield* kernel.interrupt
        assert.isAbove(Number(yield* text(kernel.execute("number"))), after.number)
      }).pipe(Effect.scoped, Effect.provide(gateway))
    }).pipe(Effect.scoped))
})
