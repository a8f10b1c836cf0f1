/**
 * What a sandbox costs: time from asking for a kernel to its first result, and memory of one more kernel, each
 * against kernels without a sandbox, interleaved in one run.
 */
import { Duration, Effect, FileSystem, Layer, Scope } from "effect"
import { readFileSync } from "node:fs"
import process from "node:process"
import { KernelClient, KernelGateway, Sandbox } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"
import { nobody, temporary } from "../support/kernel.ts"
import { descendants, supervisors } from "../support/processes.ts"
import { median, type Row } from "./table.ts"

const rounds = 20
const kernels = 8

/** The memory of a process that it shares with nobody, and its part of what it shares, in MB. */
function pss(pid: number): number {
  try {
    const kilobytes = /^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? "0"
    return Number(kilobytes) / 1024
  } catch {
    return 0
  }
}

/** A gateway, and the memory of all that runs below it. */
const started = Effect.fnUntraced(function* (options: KernelGateway.GatewayOptions) {
  const before = new Set(supervisors(process.pid).map(({ pid }) => pid))
  const gateway = yield* KernelGateway.make(options)
  const supervisor = supervisors(process.pid).find(({ pid }) => !before.has(pid))
  const kernel = KernelClient.make().pipe(Effect.provideService(KernelGateway.KernelGateway, gateway))
  return {
    kernel,
    memory: () =>
      supervisor === undefined ? 0 : descendants(supervisor.pid).reduce((sum, { pid }) => sum + pss(pid), 0),
  }
})

type Gateway = Effect.Success<ReturnType<typeof started>>

/** Milliseconds until the first result of a new kernel; what its end takes is not counted. */
const first = ({ kernel }: Gateway) =>
  kernel.pipe(
    Effect.flatMap((kernel) => kernel.execute("1+1")),
    Effect.timed,
    Effect.map(([time]) => Duration.toMillis(time)),
    Effect.scoped,
  )

/** What one more kernel takes, in MB. */
const memory = Effect.fnUntraced(function* ({ kernel, memory }: Gateway) {
  const scope = yield* Scope.make()
  const start = Effect.flatMap(Scope.provide(kernel, scope), (kernel) => kernel.execute("1+1"))
  yield* start
  const before = memory()
  yield* Effect.forEach(Array.from({ length: kernels }), () => start)
  const grown = (memory() - before) / kernels
  yield* Scope.close(scope, yield* Effect.exit(Effect.void))
  return grown
})

/** The rows of the table. */
export const rows: Effect.Effect<
  ReadonlyArray<Row>,
  unknown
> = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const workingDir = yield* temporary
  yield* fs.chmod(workingDir, 0o777)
  const user: Pick<Sandbox.Permissions, "user"> = process.geteuid?.() === 0 ? { user: nobody } : {}
  const plain = yield* started({ workingDir })
  const sandboxed = yield* started({ workingDir, sandbox: user })
  yield* first(plain)
  yield* first(sandboxed)
  const times = yield* Effect.forEach(
    Array.from({ length: rounds }),
    () => Effect.all([first(plain), first(sandboxed)]),
  )
  const [ours, theirs] = [median(times.map(([, time]) => time)), median(times.map(([time]) => time))]
  const [alone, inside] = [yield* memory(plain), yield* memory(sandboxed)]
  return [
    {
      what: "kernel asked for → first result, sandboxed against plain",
      ours,
      theirs,
      unit: "ms",
      atMost: 1.15,
    },
    {
      what: "memory of one more kernel (PSS), sandboxed against plain",
      ours: inside,
      theirs: alone,
      unit: "MB",
    },
  ]
}).pipe(Effect.scoped, Effect.provide(Layer.fresh(Platform.layer)))
