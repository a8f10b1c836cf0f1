/**
 * The cost of a sandbox: the time from the request for a kernel to its first result, and memory of one more kernel, each
 * against kernels without a sandbox, interleaved in one run.
 */
import { Effect, FileSystem, Scope } from "effect"
import process from "node:process"
import { KernelClient, KernelGateway, Sandbox } from "../../src/mod.ts"
import { nobody, temporary } from "../support/kernel.ts"
import { supervisors } from "../support/processes.ts"
import { memoryBelow } from "./memory.ts"
import { quiet } from "./quiet.ts"
import { inTurns, milliseconds, type Row } from "./table.ts"

const rounds = 20
const kernels = 8

/** A gateway, and the memory of all that runs below it. */
const started = Effect.fnUntraced(function* (options: KernelGateway.GatewayOptions) {
  const before = new Set(supervisors(process.pid).map(({ pid }) => pid))
  const gateway = yield* KernelGateway.make(options)
  const supervisor = supervisors(process.pid).find(({ pid }) => !before.has(pid))
  const kernel = KernelClient.make().pipe(Effect.provideService(KernelGateway.KernelGateway, gateway))
  return {
    kernel,
    memory: () => supervisor === undefined ? 0 : memoryBelow(supervisor.pid),
  }
})

type Gateway = Effect.Success<ReturnType<typeof started>>

/** Milliseconds until the first result of a new kernel; what its end takes is not counted. */
const first = ({ kernel }: Gateway) =>
  kernel.pipe(
    Effect.flatMap((kernel) => kernel.execute("1+1")),
    milliseconds,
    Effect.scoped,
  )

/** The memory of one more kernel in MB. */
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
export const rows = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const workingDir = yield* temporary
  yield* fs.chmod(workingDir, 0o777)
  const user: Pick<Sandbox.Permissions, "user"> = process.geteuid?.() === 0 ? { user: nobody } : {}
  // Kernels in a sandbox share nothing: each is started.
  const plain = yield* started({ workingDir, fork: false })
  const sandboxed = yield* started({ workingDir, sandbox: user })
  const [theirs = NaN, ours = NaN] = yield* inTurns(
    rounds,
    [first(plain), first(sandboxed)],
    { before: quiet },
  )
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
  ] satisfies ReadonlyArray<Row>
}).pipe(Effect.scoped)
