/** Exhausted resources of the system: typed errors, without an effect on existing kernels. */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { readdirSync } from "node:fs"
import process from "node:process"
import { Execution, KernelClient, KernelGateway } from "../src/mod.ts"
import { slow, text } from "./support/kernel.ts"
import { descendants, eventually, supervisors } from "./support/processes.ts"

/** The process of the gateway that was started last. */
const gatewayPid = () => descendants(supervisors(process.pid).at(-1)?.pid ?? 0)[0]?.pid ?? 0
const descriptors = (pid: number) => readdirSync(`/proc/${pid}/fd`).length
const limit = (pid: number, most: number | string) =>
  Effect.sync(() => execFileSync("prlimit", ["--pid", String(pid), `--nofile=${most}:`]))
const reasonOf = (error: Execution.ExecutionFailure) =>
  error._tag === "KernelError" ? error.reason : undefined

layer(KernelGateway.layer(), slow)("KernelClient.make", (it) => {
  it.effect("fails with ResourceLimit where the gateway lacks descriptors, and its kernels go on", () =>
    Effect.gen(function* () {
      const pid = gatewayPid()
      const kernel = yield* KernelClient.make()
      yield* kernel.execute("x = 1")
      const before = descriptors(pid)
      for (const free of [1, 10, 40, 70]) {
        yield* limit(pid, before + free)
        const reason = reasonOf(yield* Effect.flip(KernelClient.make()))
        assert.strictEqual(reason?._tag, "ResourceLimit", `${free} are left`)
        assert.include(reason?._tag === "ResourceLimit" ? reason.detail : "", "descriptors")
        assert.strictEqual(yield* text(kernel.execute("x")), "1")
      }
      yield* limit(pid, 20_000)
      yield* eventually(() =>
        descriptors(pid) <= before ? undefined : "descriptors of kernels that did not start"
      )
      const next = yield* KernelClient.make()
      assert.strictEqual(yield* text(next.execute("6 * 7")), "42")
    }))

  it.effect("refuses an environment with which no program can be started, forked or not", () =>
    Effect.gen(function* () {
      const long = "x".repeat(128 * 1024)
      const many = Object.fromEntries(
        Array.from({ length: 100 }, (_, index) => [`MANY_${index}`, "x".repeat(100_000)]),
      )
      for (const env of [{ LONG: long }, { PYTHONLONG: long }, many]) {
        const reason = reasonOf(yield* Effect.flip(KernelClient.make({ env })))
        assert.strictEqual(reason?._tag, "KernelStartFailed")
        assert.match(
          reason?._tag === "KernelStartFailed" ? reason.detail : "",
          /"(PYTHON)?LONG" has|give fewer/,
        )
      }
      const kernel = yield* KernelClient.make({ env: { LONG: long.slice(10) } })
      assert.strictEqual(
        yield* text(kernel.execute("import os; len(os.environ['LONG'])")),
        String(long.length - 10),
      )
    }))
})
