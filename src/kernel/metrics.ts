/**
 * The metrics of kernels.
 *
 * @module
 */
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Metric from "effect/Metric"

/** Time of executions in the queue. */
export const queued = Metric.timer("effect_jupyter_execution_queued", {
  description: "Time that executions waited for their turn",
})

/** Time from sending the code to the first output. */
export const firstOutput = Metric.timer("effect_jupyter_execution_first_output", {
  description: "Time from sending code to its first output",
})

/** Time from sending the code to the end. */
export const duration = Metric.timer("effect_jupyter_execution_duration", {
  description: "Time from sending code to the end of its execution",
})

/** Measures one execution. */
export interface Meter {
  /** Counts bytes of a message. */
  readonly addBytes: (bytes: number) => void
  /** Notes the time of an output, of which the first counts. */
  readonly markOutput: () => void
  /** Updates the metrics. */
  readonly report: () => void
}

/** Makes the meter of an execution that is about to be sent. */
export function meter(clock: Clock.Clock, services: Context.Context<never>): Meter {
  const sentAt = clock.currentTimeMillisUnsafe()
  let total = 0
  let firstOutputAt: number | undefined
  return {
    addBytes: (bytes) => {
      total += bytes
    },
    markOutput: () => {
      firstOutputAt ??= clock.currentTimeMillisUnsafe()
    },
    report: () => {
      duration.updateUnsafe(Duration.millis(clock.currentTimeMillisUnsafe() - sentAt), services)
      outputBytes.updateUnsafe(total, services)
      if (firstOutputAt !== undefined) {
        firstOutput.updateUnsafe(Duration.millis(firstOutputAt - sentAt), services)
      }
    },
  }
}

/** Executions by outcome: the tag of the result, of the failure, or of a KernelError's reason. */
export const executions = Metric.counter("effect_jupyter_executions_total", {
  description: "Executions that ended, by outcome",
  incremental: true,
})

/** Bytes of output messages. */
export const outputBytes = Metric.counter("effect_jupyter_output_bytes_total", {
  description: "Bytes of output that kernels sent",
  attributes: { unit: "bytes" },
  incremental: true,
})

/** Connections that were lost and restored. */
export const reconnects = Metric.counter("effect_jupyter_reconnects_total", {
  description: "Connections to kernels that were lost and restored",
  incremental: true,
})

/** Frames that are not messages, and messages that were not expected. */
export const ignored = Metric.counter("effect_jupyter_ignored_messages_total", {
  description: "Frames and messages that were not understood or not waited for",
  incremental: true,
})

/** Late outputs that no consumer read, or not in time. */
export const unreadOutputs = Metric.counter("effect_jupyter_unread_outputs_total", {
  description: "Late outputs that no consumer read, or not in time",
  incremental: true,
})

/** The number of kernels that are running. */
export const kernels = Metric.gauge("effect_jupyter_kernels", { description: "Kernels that are running" })

/** Memory of all kernels with a `usageInterval`. */
export const memory = Metric.gauge("effect_jupyter_kernel_memory_bytes", {
  description: "Resident memory of kernels, if usage is asked for",
  attributes: { unit: "bytes" },
})

/** CPU use of all kernels with a `usageInterval`; 100 is one core. */
export const cpu = Metric.gauge("effect_jupyter_kernel_cpu_percent", {
  description: "CPU use of kernels, if usage is asked for",
  attributes: { unit: "%" },
})

/** Requests to pools that had a kernel ready. */
export const poolHits = Metric.counter("effect_jupyter_pool_hits_total", {
  description: "Kernels that pools had ready when they were asked",
  incremental: true,
})

/** Requests to pools that had no kernel ready. */
export const poolMisses = Metric.counter("effect_jupyter_pool_misses_total", {
  description: "Requests to pools that had no kernel ready",
  incremental: true,
})

/** The number of requests that wait for a kernel of a pool. */
export const poolWaiting = Metric.gauge("effect_jupyter_pool_waiting", {
  description: "Requests that wait for a kernel of a pool",
})

/** The number of kernels that pools have ready. */
export const poolWarm = Metric.gauge("effect_jupyter_pool_warm", {
  description: "Kernels of pools that are ready to be handed out",
})
