/**
 * Metrics of the memory and CPU use of kernels, which are requested at an interval.
 *
 * Follows `usage_request` of {@link https://github.com/ipython/ipykernel ipykernel}, which answers it on the
 * control channel, also while code runs.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Defect from "../defect.ts"
import { ask, type KernelConnection } from "./connection.ts"
import * as Metrics from "./metrics.ts"

/** A number small enough that sums and differences are exact. */
const Figure = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 50 }))

const decodeUsage = Schema.decodeUnknownExit(Schema.Struct({
  kernel_cpu: Schema.optionalKey(Figure),
  kernel_memory: Schema.optionalKey(Figure),
}))

/** Maximum time to wait for an answer before the next request. */
const answerTimeout: Duration.Input = "10 seconds"

/** Adds the kernel's memory and CPU use to the totals of this process while the scope is open. */
export const report: (
  connection: Pick<KernelConnection, "request" | "ended">,
  interval: Duration.Input,
) => Effect.Effect<void, never, Scope.Scope> = Effect.fnUntraced(function* (connection, interval) {
  let last = { cpu: 0, memory: 0 }
  const record = (cpu: number, memory: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      const { cpu: cpuBefore, memory: memoryBefore } = last
      last = { cpu, memory }
      return Effect.andThen(
        Metric.modify(Metrics.cpu, cpu - cpuBefore),
        Metric.modify(Metrics.memory, memory - memoryBefore),
      )
    })
  yield* Effect.addFinalizer(() => record(0, 0))
  const usage = ask(
    connection,
    { type: "usage_request", channel: "control", content: {} },
    ({ content, header }) => header.msg_type === "usage_reply" ? content : undefined,
  )
  yield* usage.pipe(
    Effect.flatMap((content) => {
      const usage = decodeUsage(content)
      if (Exit.isFailure(usage)) return Effect.void
      return record(usage.value.kernel_cpu ?? last.cpu, usage.value.kernel_memory ?? last.memory)
    }),
    // Not the interval: a busy machine may take longer than a short one.
    Effect.timeoutOption(answerTimeout),
    Effect.catchTag("Unanswered", () => Effect.void),
    Effect.andThen(Effect.sleep(interval)),
    Effect.forever,
    Effect.ignore,
    Defect.log,
    Effect.forkScoped,
  )
})
