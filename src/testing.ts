/**
 * A kernel for tests, which answers by scripts instead of running Python, with delays of the test clock.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Kernels from "./client/kernel.ts"
import { DisplayChunk } from "./execution.ts"
import * as Identity from "./kernel/identity.ts"
import * as Instance from "./kernel/instance.ts"
import { KernelClient } from "./kernel_client.ts"
import { KernelPool } from "./kernel_pool.ts"
import type { Images } from "./output/images.ts"
import * as Platform from "./platform.ts"
import * as PoolService from "./pool/service.ts"
import { type Members, type Script, taker } from "./testing/script.ts"
import * as ScriptedKernel from "./testing/scripted_kernel.ts"

export type { Members, Output, Raised, Script } from "./testing/script.ts"

/**
 * Options of a kernel for tests.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The destination of images; `"bytes"` by default, so that tests write no files. */
  readonly images?: Images | undefined
  /** The directory of images if they are written to files; `"images"` by default. */
  readonly imagesDir?: string | undefined
  /** Other members of the kernel, for instance `complete` and `variables`; those that are not given fail. */
  readonly members?: Members | undefined
}

/**
 * The record of a kernel for tests.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Testing } from "effect-jupyter"
 *
 * export const codes = Effect.flatMap(Testing.TestKernel, (kernel) => kernel.executed)
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class TestKernel extends Context.Service<TestKernel, {
  /** Returns the code of all executions that began, in order. */
  readonly executed: Effect.Effect<ReadonlyArray<string>>
}>()("effect-jupyter/TestKernel") {}

/**
 * Returns the code of all executions of the kernel for tests that began, in order.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient, Testing } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   yield* kernel.execute("x = 1")
 *   return yield* Testing.executed // ["x = 1"]
 * }).pipe(Effect.provide(Testing.layer([{ match: /=/ }])))
 * ```
 *
 * @category utils
 * @since 0.1.0
 */
export const executed: Effect.Effect<ReadonlyArray<string>, never, TestKernel> = Effect.flatMap(
  TestKernel,
  (kernel) => kernel.executed,
)

/**
 * Makes a display for a script from its representations by MIME type.
 *
 * @example
 * ```ts
 * import { Testing } from "effect-jupyter"
 *
 * const table = Testing.display({ "text/html": "<table></table>", "text/plain": "table" }, { displayId: "1" })
 * console.log(table.text) // => "table"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function display(
  data: { readonly [mimeType: string]: unknown },
  options: {
    readonly displayId?: string | undefined
    readonly metadata?: { readonly [key: string]: unknown } | undefined
    /** True if it updates the displays with its id; false by default. */
    readonly update?: boolean | undefined
  } = {},
): DisplayChunk {
  const text = data["text/plain"]
  return new DisplayChunk({
    data,
    metadata: options.metadata ?? {},
    text: typeof text === "string" ? text : undefined,
    image: undefined,
    displayId: options.displayId,
    update: options.update ?? false,
    executionCount: undefined,
  })
}

/**
 * Provides a kernel that answers by scripts, and otherwise behaves like a real one: executions run one at a time in the
 * order of their requests, can be interrupted and time out, and a kernel that died fails until it is reset. Code that no
 * script matches fails with the reason `ExecutionAborted`, whose message has the code and the scripts.
 *
 * Delays pass with the clock: under the test clock, fork the program and adjust the clock.
 *
 * @example
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect } from "effect"
 * import { KernelClient, Testing } from "effect-jupyter"
 *
 * const average = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   yield* kernel.execute("import pandas as pd")
 *   return (yield* kernel.execute("pd.Series([1, 2]).mean()", { timeout: "10 seconds" })).text
 * })
 *
 * it.effect("averages", () =>
 *   Effect.gen(function*() {
 *     assert.strictEqual(yield* average, "computing\n1.5")
 *     assert.lengthOf(yield* Testing.executed, 2)
 *   }).pipe(Effect.provide(Testing.layer([
 *     { match: /^import/ },
 *     { match: /mean/, chunks: ["computing\r"], result: "1.5" },
 *     { match: /plot/, chunks: [Testing.display({ "image/png": "iVBORw==" })] },
 *     { match: "1 / 0", error: { ename: "ZeroDivisionError", evalue: "division by zero" } }
 *   ]))))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layer(
  scripts: ReadonlyArray<Script>,
  options: Options = {},
): Layer.Layer<KernelClient | TestKernel> {
  const { images = "bytes", imagesDir } = options
  return Layer.effectContext(Effect.gen(function* () {
    const { executed, start } = makeScripted(scripts)
    const platform = yield* Platform.services
    // Its start cannot fail.
    const kernel = yield* Effect.orDie(Kernels.make({ images, imagesDir, start, platform }))
    return Context.make(KernelClient, withMembers(kernel, options)).pipe(
      Context.add(TestKernel, { executed }),
    )
  }))
}

/**
 * Options of a pool of kernels for tests.
 *
 * @category options
 * @since 0.1.0
 */
export interface PoolOptions extends Options, PoolService.PoolOptions {}

/**
 * Provides a pool of kernels that do what the scripts say, see {@link layer}. The pool is the one of
 * `KernelPool.layer`, with its queue, its spares and its limits; all of its kernels share the scripts and the record of
 * executions. Kernels start at once.
 *
 * @example
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect } from "effect"
 * import { KernelPool, Testing } from "effect-jupyter"
 *
 * const answer = Effect.gen(function*() {
 *   const pool = yield* KernelPool.KernelPool
 *   const kernel = yield* pool.get
 *   return (yield* kernel.execute("6 * 7")).text
 * }).pipe(Effect.scoped)
 *
 * it.effect("answers", () =>
 *   Effect.gen(function*() {
 *     const answers = yield* Effect.all([answer, answer], { concurrency: 2 })
 *     assert.deepStrictEqual(answers, ["42", "42"])
 *     assert.lengthOf(yield* Testing.executed, 2)
 *   }).pipe(Effect.provide(Testing.layerPool([{ match: "6 * 7", result: "42" }], { max: 4 }))))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layerPool(
  scripts: ReadonlyArray<Script>,
  options: PoolOptions = {},
): Layer.Layer<KernelPool | TestKernel> {
  const { images = "bytes", imagesDir } = options
  return Layer.effectContext(Effect.gen(function* () {
    const { executed, start } = makeScripted(scripts)
    const platform = yield* Platform.services
    const source = { name: "testing", start, gone: Effect.never }
    const { get, state } = yield* PoolService.make([source], options, { images, imagesDir, platform })
    const pool = KernelPool.of({ get: Effect.map(get, (kernel) => withMembers(kernel, options)), state })
    return Context.make(KernelPool, pool).pipe(Context.add(TestKernel, { executed }))
  }))
}

/** Makes what starts kernels that follow the same scripts, and the record of them. */
function makeScripted(scripts: ReadonlyArray<Script>) {
  const codes: Array<string> = []
  const scripting = { take: taker(scripts), record: (code: string) => void codes.push(code) }
  return {
    executed: Effect.sync((): ReadonlyArray<string> => [...codes]),
    start: Effect.flatMap(
      ScriptedKernel.make(scripting),
      (connection) => Instance.make(connection, Identity.ipython),
    ),
  }
}

/** Replaces members of a kernel by those that the test gives. */
const withMembers = (kernel: Kernels.Kernel, { members = {} }: Options): Kernels.Kernel => ({
  ...kernel,
  ...members,
  get id() {
    return kernel.id
  },
})
