/** What a kernel put out before it died, for programs that have a reference to its code. */
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Option, Stream } from "effect"
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Execution, KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import * as Exchange from "../src/values/exchange.ts"
import { gatewayOptions, slow, temporary, text, texts } from "./support/kernel.ts"

/** The runtime directory of this user for these tests. */
// @effect-diagnostics-next-line processEnv:off
process.env.XDG_RUNTIME_DIR = mkdtempSync(join(tmpdir(), "effect-jupyter-test-"))

const name = `ended-${process.pid}`
const retention = 1_000_000
const options = { ...gatewayOptions, name, idleTimeToLive: "1 minute", outputRetention: retention } as const
const shared = KernelGateway.layerShared(options).pipe(
  Layer.merge(Layer.effectDiscard(
    Effect.addFinalizer(() => Effect.ignore(KernelGateway.stopShared(name))),
  )),
  Layer.provideMerge(Platform.layer),
)

const kernels = Effect.flatMap(KernelGateway.KernelGateway, ({ kernels }) => kernels)

/** Starts code in a new kernel, in a scope that closes then. */
const started = (...codes: ReadonlyArray<string>) =>
  Effect.scoped(Effect.gen(function* () {
    const kernel = yield* KernelClient.make()
    yield* kernel.detach
    return yield* Effect.forEach(codes, (code) => kernel.start(code))
  }))

/** Starts code in a new kernel, and waits until the gateway has removed the kernel, which died. */
const died = (code: string) => Effect.tap(started(code), ([ref]) => gone(ref))

const gone = (ref: Execution.ExecutionRef | undefined) =>
  Effect.repeat(kernels, { until: (kernels) => !kernels.some(({ id }) => id === ref?.kernel.kernelId) })

const reasonOf = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => Execution.isKernelError(error) ? error.reason : error)

/** Takes the outputs in a client of its own; returns their text and what ended them. */
const taken = Effect.fnUntraced(
  function* (ref: Execution.ExecutionRef, options?: KernelClient.AttachOptions) {
    const kernel = yield* KernelClient.attach(ref.kernel, options)
    return yield* outputs(kernel, ref)
  },
  Effect.scoped,
)

const outputs = Effect.fnUntraced(function* (
  kernel: KernelClient.Kernel,
  ref: Execution.ExecutionRef,
  options?: KernelClient.ResumeOptions,
) {
  const elements: Array<Execution.Chunk | Execution.ExecutionResult> = []
  const exit = yield* Effect.exit(
    Stream.runForEach(kernel.resume(ref, options), (element) => Effect.sync(() => elements.push(element))),
  )
  const failure = Option.getOrUndefined(Exit.findErrorOption(exit))
  return {
    elements,
    text: texts(elements).join(""),
    partial: failure?.partial?.text,
    reason: failure?._tag === "KernelError" ? failure.reason : failure,
  }
})

const numbers = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => `${from + i}\n`).join("")

const dying = "import os\nfor i in range(50): print(i, flush=True)\nos._exit(1)"

layer(shared, slow)("a kernel that died", (it) => {
  it.effect("resume emits the output of a kernel that died unattended, then fails with KernelDied", () =>
    Effect.gen(function* () {
      const go = join(yield* temporary, "go")
      const wait = `import os, time\nwhile not os.path.exists(${JSON.stringify(go)}): time.sleep(0.01)\n`
      const [ref, next] = yield* started(`${wait}${dying}`, "print('never')")
      writeFileSync(go, "")
      yield* gone(ref)
      assert.isDefined(ref)
      assert.isDefined(next)
      const refs: Array<Execution.ExecutionRef> = []
      const first = yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* KernelClient.attach(ref.kernel)
        for (const operation of [kernel.execute("1"), kernel.start("1"), kernel.interrupt, kernel.detach]) {
          assert.strictEqual((yield* reasonOf(Effect.asVoid(operation)))._tag, "KernelDied")
        }
        const all = yield* outputs(kernel, ref, {
          onChunk: (_, ref) => Effect.sync(() => refs.push(ref)),
        })
        // Twice at once, as of a kernel that is alive.
        const [again, rest] = yield* Effect.all([outputs(kernel, ref), outputs(kernel, refs[9] ?? ref)], {
          concurrency: 2,
        })
        assert.deepStrictEqual([again.text, again.reason], [all.text, all.reason])
        assert.strictEqual(rest.text, numbers(10, 50))
        return all
      }))
      assert.strictEqual(first.text, numbers(0, 50))
      assert.strictEqual(first.partial, numbers(0, 50).trim())
      assert.strictEqual(first.reason?._tag, "KernelDied")
      // Another program goes on where that one was killed.
      const second = yield* taken(refs[29] ?? ref)
      assert.deepStrictEqual([second.text, second.reason], [numbers(30, 50), first.reason])
      const never = yield* taken(next, { deletes: true })
      assert.deepStrictEqual([never.text, never.reason], ["", first.reason])
      const attaching = Effect.scoped(KernelClient.attach(ref.kernel))
      assert.strictEqual((yield* reasonOf(attaching))._tag, "KernelDied")
    }).pipe(Effect.scoped))

  it.effect("resume after the death of a kernel with a client has all of the output, also of code that ended", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const first = yield* kernel.start("print('first')")
      const second = yield* kernel.start("1 / 0")
      const third = yield* kernel.start(dying)
      yield* gone(third)
      assert.strictEqual((yield* reasonOf(kernel.execute("1")))._tag, "KernelDied")
      const ended = yield* outputs(kernel, first)
      assert.deepStrictEqual(ended.elements.map(({ _tag }) => _tag), ["TextChunk", "ExecutionResult"])
      assert.strictEqual((yield* outputs(kernel, second)).reason?._tag, "ExecutionError")
      const { reason, text: output } = yield* outputs(kernel, third)
      assert.deepStrictEqual([output, reason?._tag], [numbers(0, 50), "KernelDied"])
      // A new kernel replaces it.
      yield* kernel.reset
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      assert.strictEqual((yield* outputs(kernel, third)).reason?._tag, "KernelNotFound")
    }).pipe(Effect.scoped))

  it.effect("resume of an execution that another client left has all of the output of a kernel that dies then", () =>
    Effect.gen(function* () {
      const go = join(yield* temporary, "go")
      const code = `
import os, time
print("begun", flush=True)
while not os.path.exists(${JSON.stringify(go)}): time.sleep(0.01)
for i in range(50): print(i, flush=True)
os._exit(1)`
      let begun: Execution.ExecutionRef | undefined
      const onBegin = (ref: Execution.ExecutionRef) => {
        begun = ref
      }
      yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        yield* kernel.detach
        const { stream = () => Stream.empty } = Exchange.of(kernel) ?? {}
        yield* Stream.runHead(stream(code, { continued: { isLeft: () => true, onBegin } }))
      }))
      const ref = yield* Effect.fromNullishOr(begun)
      const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
      const reading = yield* Effect.forkChild(outputs(kernel, ref, { interrupts: true }), {
        startImmediately: true,
      })
      yield* Stream.runHead(kernel.resume(ref))
      writeFileSync(go, "")
      const { reason, text } = yield* Fiber.join(reading)
      assert.deepStrictEqual([reason?._tag, text], ["KernelDied", `begun\n${numbers(0, 50)}`])
      yield* gone(ref)
      assert.strictEqual((yield* outputs(kernel, ref)).text, text)
    }).pipe(Effect.scoped))

  it.effect("a consumer that is slow gets all that a kernel put out before it was killed", () =>
    Effect.gen(function* () {
      const size = 40_000_000
      const kernel = yield* KernelClient.make()
      // The code begins to print when its output is taken, of which the gateway keeps less.
      const ref = yield* kernel.start(`import os
input()
for i in range(40): print(chr(65 + i % 26) * ${size / 40}, flush=True)
os.kill(os.getpid(), 9)`)
      let length = 0
      const outputs = kernel.resume(ref, { onInput: () => Effect.succeed("") })
      const taking = Stream.runForEach(outputs, (element) =>
        Effect.suspend(() => {
          if (element._tag !== "TextChunk") return Effect.void
          const isFirst = length === 0
          length += element.text.length
          return isFirst ? Effect.ignore(gone(ref)) : Effect.void
        }))
      const reason = yield* reasonOf(taking)
      assert.deepStrictEqual([length, reason._tag], [size + 40, "KernelDied"])
    }).pipe(Effect.scoped))

  it.effect("OutputGone of a kernel that died says how many messages are gone, and comes after the others", () =>
    Effect.gen(function* () {
      const [ref] = yield* died("import os\nfor i in range(5000): print(i, flush=True)\nos._exit(1)")
      assert.isDefined(ref)
      const { elements, reason, text: output } = yield* taken(ref, { deletes: true })
      const [first] = elements
      const begin = first?._tag === "TextChunk" ? Number(first.text) : 0
      assert.isAbove(begin, 0)
      assert.isTrue(first?._tag === "TextChunk" && first.afterGap)
      assert.strictEqual(output, numbers(begin, 5000))
      assert.deepInclude(reason, { _tag: "OutputGone", missing: begin + 2 })
    }))

  it.effect("outputRetention bounds the output of all kernels that died, the one that died first loses its own", () =>
    Effect.gen(function* () {
      const code = (letter: string) =>
        `import os\nfor i in range(7): print('${letter}' * ${retention / 10}, flush=True)\nos._exit(1)`
      const [first] = yield* died(code("a"))
      const [second] = yield* died(code("b"))
      assert.isDefined(first)
      assert.isDefined(second)
      const one = yield* taken(first, { deletes: true })
      assert.strictEqual(one.reason?._tag, "OutputGone")
      assert.match(one.text, /^(a+\n){1,3}$/)
      const two = yield* taken(second, { deletes: true })
      assert.deepStrictEqual([two.text.length, two.reason?._tag], [7 * (retention / 10 + 1), "KernelDied"])
    }))

  it.effect("programs that take the output of a kernel that died at once: one of them has it", () =>
    Effect.gen(function* () {
      const [ref] = yield* died(`import os\nprint('x' * ${retention / 2}, flush=True)\nos._exit(1)`)
      assert.isDefined(ref)
      const all = yield* Effect.forEach([1, 2, 3, 4], () => Effect.exit(taken(ref)), { concurrency: 4 })
      const reasons = all.map((exit) =>
        Exit.isSuccess(exit)
          ? exit.value.reason?._tag
          : Option.getOrUndefined(Exit.findErrorOption(exit))?.reason._tag
      )
      assert.includeMembers(["KernelDied", "SessionTaken"], reasons)
      assert.include(reasons, "KernelDied")
      for (const exit of all) {
        if (Exit.isFailure(exit) || exit.value.reason?._tag !== "KernelDied") continue
        assert.strictEqual(exit.value.text.length, retention / 2 + 1)
      }
      const { reason, text: output } = yield* taken(ref, { deletes: true })
      assert.deepStrictEqual([output.length, reason?._tag], [retention / 2 + 1, "KernelDied"])
    }))

  it.effect("a program that was attached to a kernel that died fails with SessionTaken", () =>
    Effect.gen(function* () {
      const [ref] = yield* died(dying)
      assert.isDefined(ref)
      const first = yield* KernelClient.attach(ref.kernel, { deletes: true })
      const second = yield* KernelClient.attach(ref.kernel)
      assert.strictEqual((yield* outputs(first, ref)).reason?._tag, "SessionTaken")
      assert.strictEqual((yield* outputs(second, ref)).text, numbers(0, 50))
    }).pipe(Effect.scoped))

  it.effect("a kernel that died while code waited for input asks for none", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const ref = yield* kernel.start(
        "import os, threading\nthreading.Timer(0.3, lambda: os._exit(1)).start()\ninput('question')",
      )
      const asking = Stream.runDrain(kernel.resume(ref, { onInput: () => Effect.never }))
      assert.strictEqual((yield* reasonOf(asking))._tag, "KernelDied")
      for (
        const options of [{}, {
          onInput: () => Effect.die("asked"),
        }]
      ) {
        assert.strictEqual((yield* outputs(kernel, ref, options)).reason?._tag, "KernelDied")
      }
    }).pipe(Effect.scoped))

  it.effect("attach to a kernel that died without code that was started fails with KernelDied", () =>
    Effect.gen(function* () {
      const ref = yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* KernelClient.make()
        const ref = yield* kernel.detach
        assert.strictEqual((yield* reasonOf(kernel.execute("import os; os._exit(1)")))._tag, "KernelDied")
        return ref
      }))
      assert.strictEqual((yield* reasonOf(Effect.scoped(KernelClient.attach(ref))))._tag, "KernelDied")
    }))

  it.effect("resume that is interrupted, or times out, ends at once and leaves the output", () =>
    Effect.gen(function* () {
      const [ref] = yield* died(dying)
      assert.isDefined(ref)
      const kernel = yield* KernelClient.attach(ref.kernel, { deletes: true })
      for (const interrupts of [false, true]) {
        const two = Stream.runCollect(Stream.take(kernel.resume(ref, { interrupts }), 2))
        assert.deepStrictEqual(texts(yield* Effect.timeout(two, "2 seconds")), ["0\n", "1\n"])
        const never = Stream.runForEach(kernel.resume(ref, { interrupts }), () => Effect.never)
        const running = yield* Effect.forkChild(never, { startImmediately: true })
        yield* Effect.timeout(Fiber.interrupt(running), "2 seconds")
      }
      const timed = yield* reasonOf(Stream.runDrain(kernel.resume(ref, { timeout: 0 })))
      assert.include(["KernelDied", "ExecutionTimeout"], timed._tag)
      assert.strictEqual((yield* outputs(kernel, ref)).text, numbers(0, 50))
    }).pipe(Effect.scoped))
})

layer(shared, slow)("references", (it) => {
  it.effect("resume fails with InvalidOption of a position that the code did not reach", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const ref = yield* kernel.start("print('one')")
      const slow = yield* kernel.start("import time; time.sleep(0.5); print('two')")
      const at = (ref: Execution.ExecutionRef, position: number) =>
        new Execution.ExecutionRef({ ...ref, position })
      for (
        const beyond of [
          at(ref, 1_000_000),
          at(slow, 1_000_000),
          new Execution.ExecutionRef({ ...slow, start: slow.start + 1 }),
        ]
      ) {
        const failure = yield* reasonOf(Stream.runDrain(kernel.resume(beyond)))
        assert.deepInclude(failure, {
          _tag: "InvalidOption",
          option: "ref.position",
          value: `${beyond.position}`,
        })
      }
      let position = 0
      const two = yield* outputs(kernel, slow, {
        onChunk: (_, ref) =>
          Effect.sync(() => {
            position = ref.position
          }),
      })
      assert.deepStrictEqual([two.text, two.reason], ["two\n", undefined])
      // The kernel has sent as many messages, but not for this code.
      assert.strictEqual((yield* outputs(kernel, at(ref, position))).reason?._tag, "InvalidOption")
      assert.strictEqual((yield* outputs(kernel, ref)).text, "one\n")
      const elsewhere = new Execution.KernelRef({ ...ref.kernel, server: "another", kernelId: "none" })
      const foreign = new Execution.ExecutionRef({ ...ref, kernel: elsewhere })
      assert.strictEqual((yield* outputs(kernel, foreign)).reason?._tag, "ServerReplaced")
    }).pipe(Effect.scoped))

  it.effect("kernels lists references, by which kernels are deleted whose references are lost", () =>
    Effect.gen(function* () {
      const [one] = yield* started("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
      const [two] = yield* started(`import threading, time
def later():
    while True: print("later", flush=True); time.sleep(0.1)
threading.Thread(target=later, daemon=True).start()`)
      const other = yield* KernelClient.make()
      const listed = Effect.map(
        kernels,
        (kernels) =>
          kernels.flatMap(({ connections, ref }) => ref === undefined || connections !== 0 ? [] : [ref]),
      )
      // The gateway has yet to notice that the connections have ended.
      const unused = yield* Effect.repeat(listed, { until: ({ length }) => length === 2 })
      const ids = unused.map(({ kernelId }) => kernelId)
      assert.sameMembers(ids, [one, two].map((ref) => ref?.kernel.kernelId ?? ""))
      for (const ref of unused) {
        const kernel = yield* Effect.scoped(Effect.gen(function* () {
          const kernel = yield* KernelClient.attach(ref, { deletes: true })
          // Also what earlier programs started puts out more.
          if (ref.kernelId === two?.kernel.kernelId) yield* Stream.runDrain(Stream.take(kernel.output, 1))
          return kernel
        }))
        assert.strictEqual(kernel.id, ref.kernelId)
      }
      assert.deepStrictEqual((yield* kernels).map(({ id }) => id), [other.id])
    }).pipe(Effect.scoped))
})
