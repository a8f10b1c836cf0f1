/** A gateway, the kernel that operations work on, and another that nothing may disturb. */
import { Effect, Exit, Layer, Schema, Scope, Stream } from "effect"
import process from "node:process"
import { type Execution, KernelClient, KernelGateway, KernelPool } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"
import { descendants, supervisors } from "../support/processes.ts"
import { sandboxUser, workspace } from "../support/sandbox.ts"
import * as TcpProxy from "../support/tcp_proxy.ts"
import type { Mode } from "./kind.ts"
import { Model, tagOf, Violation, violation } from "./model.ts"
import { Stops } from "./stops.ts"
import { watch } from "./watch.ts"

/** The gateways and kernels of operations. */
export interface World {
  readonly mode: Mode
  readonly gateway: KernelGateway.KernelGateway["Service"]
  readonly proxy: TcpProxy.TcpProxy | undefined
  readonly pool: KernelPool.KernelPool["Service"] | undefined
  readonly model: Model
  readonly stops: Stops
  readonly kernel: () => KernelClient.Kernel
  /** The kernel's process, where the system shows it. */
  readonly pid: () => number | undefined
  readonly late: () => string
  /** Counts on the other kernel. */
  readonly beside: Effect.Effect<void, Violation>
  /** Ends the kernel by its scope. */
  readonly close: Effect.Effect<void>
  /** Starts a kernel after the last was closed. */
  readonly open: Effect.Effect<void, Violation>
  /** Replaces the kernel by `reset`. */
  readonly reset: Effect.Effect<void, Violation>
  /** Looks who the kernel is after it was replaced. */
  readonly renewed: Effect.Effect<void, Violation>
  /** The gateway is gone, or has to go; another world is needed. */
  isLost: boolean
}

/** The number of characters of late output to keep: enough for one operation. */
const keptLate = 200_000

/** Kernels of the pool at one time. */
export const maxPooled = 4

const explain = (what: string) => (error: { readonly message: string }) =>
  violation(`${what} failed with ${tagOf(error)}: ${error.message}`)

const text = (kernel: KernelClient.Kernel, code: string) =>
  Effect.map(kernel.execute(code), ({ text }: Execution.ExecutionResult) => text ?? "")

/** Starts a world; all of it ends with the scope. */
export const make = Effect.fnUntraced(function* (mode: Mode) {
  const outer = yield* Effect.scope
  const platform = yield* Layer.build(Layer.fresh(Platform.layer))
  const workingDir = yield* Effect.provideContext(workspace(), platform)
  const gateway = yield* KernelGateway.make({
    workingDir,
    ...(mode === "sandboxed" ? { sandbox: sandboxUser } : {}),
  }).pipe(Effect.catch(explain("The gateway")))
  const service = KernelGateway.KernelGateway
  const direct = Effect.provideService(service, gateway)
  const proxy = mode === "proxy" ? yield* TcpProxy.make(gateway.url) : undefined
  const options = { images: "bytes" } as const
  // A link that is frozen is noticed by two pings.
  const pingInterval = mode === "proxy" ? 1000 : 10_000
  const pool = mode === "pooled"
    ? yield* direct(KernelPool.make({ ...options, min: 2, max: maxPooled, warm: 1 }))
    : undefined
  const start = pool !== undefined
    ? pool.get
    : proxy === undefined
    ? direct(KernelClient.make(options))
    : Effect.flatMap(
      Layer.build(KernelGateway.layerRemote({ url: proxy.url, token: gateway.token ?? "" })),
      (context) => Effect.provideContext(KernelClient.make({ ...options, pingInterval }), context),
    )

  const other = yield* Effect.catch(direct(KernelClient.make(options)), explain("The other kernel"))
  let otherCount = 1_000_000
  yield* Effect.catch(other.execute(`counter = ${otherCount}`), explain("The other kernel"))

  const model = new Model()
  const stops = new Stops(pingInterval)
  let kernel = other
  let id = ""
  let pid: number | undefined
  let late = ""
  let scope = yield* Scope.fork(outer)

  const renewed = Effect.gen(function* () {
    if (kernel.id === id) return yield* violation(`The kernel is still ${id}`)
    model.renew()
    stops.clear()
    const inside = yield* Effect.catch(
      text(kernel, `${watch({ isCut: mode === "proxy" })}\nimport os; print(os.getpid())`),
      explain("A new kernel"),
    )
    id = kernel.id
    pid = mode === "sandboxed" ? undefined : Number(inside)
  })
  const open = Effect.gen(function* () {
    scope = yield* Scope.fork(outer)
    kernel = yield* Effect.catch(Scope.provide(start, scope), explain("The start of a kernel"))
    yield* kernel.output.pipe(
      Stream.runForEach(({ chunk, missed }) =>
        Effect.sync(() => {
          if (chunk._tag === "TextChunk") late = `${late}${chunk.text}`.slice(-keptLate)
          if (missed > 0) late = ""
        })
      ),
      Effect.forkIn(scope, { startImmediately: true }),
    )
    yield* renewed
  })
  yield* open

  const world: World = {
    mode,
    gateway,
    proxy,
    pool,
    model,
    stops,
    kernel: () => kernel,
    pid: () => pid,
    late: () => late,
    beside: Effect.gen(function* () {
      otherCount++
      const counted = yield* Effect.catch(
        other.evaluate("(counter := counter + 1)", Schema.Int),
        explain("The other kernel"),
      )
      if (counted !== otherCount) {
        return yield* violation(`The other kernel counts ${counted}, not ${otherCount}`)
      }
    }),
    close: Effect.suspend(() => Scope.close(scope, Exit.void)),
    open,
    reset: Effect.gen(function* () {
      yield* Effect.catch(kernel.reset, explain("A reset"))
      yield* renewed
    }),
    renewed,
    isLost: false,
  }
  return world
})

/** Processes of the gateway: the one that watches it, itself, and the one that kernels are forked from. */
export type Part = "supervisor" | "gateway" | "zygote"

/** The process id of a part of the gateway that was started last. */
export function pidOf(part: Part): number | undefined {
  const supervisor = supervisors(process.pid).at(-1)
  if (supervisor === undefined || part === "supervisor") return supervisor?.pid
  const below = descendants(supervisor.pid)
  return part === "gateway"
    ? below[0]?.pid
    : below.find(({ command }) => command.some((word) => word.endsWith("zygote.py")))?.pid
}

/** Sends a signal to a process of ours, if it is still there. */
export const signal = (pid: number | undefined, name: NodeJS.Signals): Effect.Effect<void> =>
  Effect.sync(() => {
    if (pid === undefined || !descendants(process.pid).some((process) => process.pid === pid)) return
    process.kill(pid, name)
  }).pipe(Effect.ignoreCause)
