/**
 * Runs the examples of the documentation, which `check_docs.ts` type-checks. Their modules are imported, and
 * `console.log(x) // => value` has to print that value. Exported Effects are run, layers built and functions of a
 * kernel called, with one gateway and pool for all and a clean kernel for each. Programs run as processes of their own,
 * tests under Vitest.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Cause, ConfigProvider, Effect, Exit, FileSystem, Layer, Logger, Predicate, Stream } from "effect"
import { TestRunner } from "effect/cluster"
import { ChildProcess } from "effect/process"
import { join } from "node:path"
import process from "node:process"
import { pathToFileURL } from "node:url"
import {
  Execution,
  KernelClient,
  KernelGateway,
  KernelPool,
  KernelSessions,
  PythonEnvironment,
  Sandbox,
  Testing,
} from "../../src/mod.ts"
import * as KernelCluster from "../../src/kernel_cluster.ts"
import * as Platform from "../../src/platform.ts"
import { type Example, writeExamples } from "./documents.ts"
import * as Rpc from "./rpc.ts"

/** What the examples take for granted: what an application has of Python, folders, variables and functions. */
const setup = `
import pandas as pd
df = pd.DataFrame({"price": [1, 2]})
model = {"prediction": 1}
def train(model): pass
def work(): pass
def prices():
    from datetime import datetime, UTC
    from decimal import Decimal
    for price in (Decimal("9.90"), None):
        yield {"at": datetime.now(UTC), "price": price}
`
const folders = ["data", "notebooks", "work"]
const variables = {
  GATEWAY_PORT: 20_000 + process.pid % 10_000,
  IMAGES_DIR: "plots",
  MAX_KERNELS: 2,
  PYTHON: "python3",
}
Object.assign(globalThis, { upload: () => Effect.void })

const repository = process.cwd()
const Sessions = KernelSessions.layer({ max: 2 })
const Shared = Layer.mergeAll(
  KernelPool.layer({ max: 6, warm: 2, setup }),
  Sessions,
  KernelCluster.layer.pipe(Layer.provide(Sessions), Layer.provideMerge(TestRunner.layer)),
  Rpc.layer("http", "ndjson"),
  PythonEnvironment.layer(),
  Layer.effect(Testing.TestKernel, Testing.TestKernel).pipe(Layer.provide(Testing.layer([]))),
  ConfigProvider.layer(ConfigProvider.fromUnknown(variables)),
  Logger.layer([]),
).pipe(
  Layer.provideMerge(KernelGateway.layer({ python: { packages: ["pandas"] } })),
  Layer.provideMerge(Platform.layer),
)

type Services = Layer.Success<typeof Shared> | KernelClient.KernelClient
type Run = Effect.Effect<unknown, unknown, Services>

const isEffect = (value: unknown): value is Run => Effect.isEffect(value)
const isLayer = (value: unknown): value is Layer.Layer<never, unknown, Services> => Layer.isLayer(value)
const isFunction = (value: unknown): value is (kernel: KernelClient.Kernel) => Run =>
  Predicate.isFunction(value)

/** Tells whether an example fails as it has to on a machine without the server, kernelspec or user that it names. */
function isExpected(error: unknown, { code }: Example): boolean {
  if (Sandbox.isSandboxError(error)) return error.reason._tag === "RunningAsRoot"
  if (Execution.isKernelError(error)) {
    const { _tag } = error.reason
    return _tag === "NoSuchKernelspec" || _tag === "ConnectionLost" && code.includes("//kernels.example.org/")
  }
  if (!KernelGateway.isGatewayError(error)) return false
  const { reason } = error
  return reason._tag === "PythonNotFound" ||
    reason._tag === "Unreachable" && new URL(reason.url).hostname.endsWith("example.org")
}

/** Imports a module and compares what it prints; returns what it exports. */
const load = Effect.fnUntraced(function* ({ code, path }: Example) {
  const printed: Array<string> = []
  console.log = (value) => printed.push(JSON.stringify(value) ?? `${value}`)
  const exported: Readonly<Record<string, unknown>> = yield* Effect.promise(() =>
    import(pathToFileURL(path).href)
  )
  const wanted = [...code.matchAll(/^console\.log\(.*\)(?: \/\/ => (.*))?$/gm)].map(([, value]) => value)
  const wrong = wanted.findIndex((value, index) => value !== undefined && value !== printed[index])
  if (wrong >= 0) return yield* Effect.fail(`It printed ${printed[wrong]} instead of ${wanted[wrong]}`)
  return exported
})

/** Returns what of a module can be run. */
function runs({ code }: Example, exported: Readonly<Record<string, unknown>>): ReadonlyArray<Run> {
  return Object.entries(exported).flatMap(([name, value]) => {
    if (isEffect(value)) return [value]
    if (isLayer(value)) return [Effect.scoped(Layer.build(value))]
    const takesKernel = code.includes(`"${name}")(function*(kernel: KernelClient.Kernel)`)
    return takesKernel && isFunction(value) ? [Effect.flatMap(KernelClient.KernelClient, value)] : []
  })
}

/** Runs a command, which has to end with 0. */
const execute = Effect.fnUntraced(function* (command: string, ...args: ReadonlyArray<string>) {
  const options = {
    env: { NO_COLOR: "1" },
    extendEnv: true,
    stdin: "ignore",
    forceKillAfter: "5 seconds",
  } as const
  const handle = yield* ChildProcess.make(join(repository, "node_modules/.bin", command), args, options)
  const output = yield* handle.all.pipe(Stream.decodeText(), Stream.mkString)
  const code = yield* handle.exitCode
  if (code !== 0) return yield* Effect.fail(`It ended with ${code}:\n${output}`)
}, Effect.scoped)

const main = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const problems: Array<string> = []
  /** Notes why an example fails. */
  const attempt = <A, R>(example: Example, effect: Effect.Effect<A, unknown, R>) =>
    effect.pipe(
      Effect.timeout("45 seconds"),
      Effect.tapCause(({ reasons }) =>
        Effect.sync(() => {
          const unexpected = reasons.filter((reason) =>
            !(Cause.isFailReason(reason) && isExpected(reason.error, example))
          )
          const messages = Cause.prettyErrors(Cause.fromReasons(unexpected)).map(({ message }) => message)
          if (messages.length > 0) problems.push(`${example.name}: ${messages.join("\n")}`)
        })
      ),
      Effect.exit,
    )

  // The examples import the package by its name, and so have to be in it.
  const folder = join(repository, ".docs/run")
  yield* Effect.addFinalizer(() => Effect.ignore(fs.remove(folder, { recursive: true })))
  const examples = writeExamples(folder)
  process.chdir(yield* fs.makeTempDirectoryScoped({ prefix: "effect-jupyter-docs-" }))
  yield* Effect.forEach(folders, (name) => fs.makeDirectory(name))
  // Shared gateways outlive this program.
  process.env.XDG_RUNTIME_DIR = yield* fs.makeTempDirectoryScoped({ prefix: "effect-jupyter-docs-" })
  yield* Effect.addFinalizer(() =>
    Effect.ignore(Effect.forEach(["analysis", "notebooks", "reports", "fresh"], KernelGateway.stopShared))
  )

  const programs = examples.filter(({ code }) => code.includes("NodeRuntime.runMain"))
  const tests = examples.filter(({ code }) => code.includes("@effect/vitest"))
  const modules: Array<readonly [Example, Run]> = []
  for (const example of examples) {
    if (programs.includes(example) || tests.includes(example)) continue
    const exported = yield* attempt(example, load(example))
    if (Exit.isSuccess(exported)) {
      modules.push(...runs(example, exported.value).map((run) => [example, run] as const))
    }
  }
  const config = join(folder, "vitest.config.ts")
  yield* fs.writeFileString(
    config,
    `import config from "${repository}/vitest.config.ts"
export default { ...config, test: { root: "${folder}", include: ${
      JSON.stringify(tests.map(({ path }) => path))
    } } }`,
  )
  yield* Effect.all([
    attempt(
      { name: "Examples that are tests", code: "", path: config },
      execute("vitest", "run", "--configLoader", "native", "--config", config),
    ),
    ...programs.map((example) =>
      attempt(example, execute("node", "--conditions=effect-jupyter-source", example.path))
    ),
    ...modules.map(([example, run]) =>
      attempt(example, run.pipe(Effect.provide(KernelPool.layerClient), Effect.scoped))
    ),
  ], { concurrency: 2, discard: true }).pipe(Effect.provide(Shared))

  const summary = problems.length === 0 ? `${examples.length} examples run` : problems.join("\n")
  process.stdout.write(`${summary}\n`)
  process.exitCode = problems.length === 0 ? 0 : 1
})

main.pipe(
  Effect.scoped,
  Effect.provide(Platform.layer),
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain,
)
