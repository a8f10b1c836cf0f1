/**
 * Decides which execution an output is of that does not answer the request of the running one: threads, timers and tasks
 * put out in the name of other requests.
 *
 * @module
 */
// Draws random bytes for many ids at once.
import { randomUUID } from "node:crypto"
import { type Message, parentId } from "../jupyter/message.ts"
import type { Unsolicited } from "./late_output.ts"

/** Routes output to the execution that runs, or to the late output. */
export interface OutputRouter {
  /** Takes output whose request has no listener, or puts out nothing itself. */
  readonly route: (message: Message, bytes: number) => void
  /**
   * Routes output to an execution that begins: that of requests beside the executions, and what the kernel says to have
   * been written during this one. Returns what ends that.
   */
  readonly claim: (
    id: string,
    take: (message: Message, bytes: number) => void,
  ) => (executionCount: number | undefined) => void
  /** Sets what takes output of no running execution from now on. */
  readonly onLateOutput: (take: (output: Unsolicited) => void) => void
}

/** Minimum number of ended executions whose execution count is kept for their late output; at most twice as many are. */
const minRemembered = 1024

/** The start of the id of an execution. */
const prefix = "execution-"

/** Returns a new id for an execution, by which its output is told from that of other requests. */
export const executionId = (): string => `${prefix}${randomUUID()}`

/** Tells whether an id is of an execution. */
export const isExecutionId = (id: string | undefined): id is string => id?.startsWith(prefix) === true

/** The start of the id of a request that is answered beside the executions. */
const besidePrefix = "beside-"

/** Returns a new id for a request on the control channel or to a subshell. */
export const besideId = (): string => `${besidePrefix}${randomUUID()}`

/** The header field in which our kernels say during which request an earlier one has put out something. */
const during = "effect_jupyter_during"

/** Makes a router without a running execution. */
export function make(): OutputRouter {
  let running: { readonly id: string; readonly take: (message: Message, bytes: number) => void } | undefined
  /** The execution counts of the latest executions. */
  let recent = new Map<string, number | undefined>()
  let older = new Map<string, number | undefined>()
  let onLateOutput = (_output: Unsolicited): void => {}
  return {
    route: (message, bytes) => {
      const parent = parentId(message)
      const executionId = isExecutionId(parent) ? parent : undefined
      // The kernel takes the latest request for the source of what threads put out, be it one beside the executions.
      const isOfRunning = parent?.startsWith(besidePrefix) === true ||
        (executionId !== undefined && message.parentHeader[during] === running?.id)
      if (running !== undefined && isOfRunning && isOutput(message)) {
        running.take(message, bytes)
        if (executionId === undefined) return
      }
      const executionCount = executionId === undefined
        ? undefined
        : recent.get(executionId) ?? older.get(executionId)
      onLateOutput({ message, bytes, executionId, executionCount })
    },
    claim: (id, take) => {
      running = { id, take }
      return (executionCount) => {
        running = undefined
        if (recent.size === minRemembered) {
          older = recent
          recent = new Map()
        }
        recent.set(id, executionCount)
      }
    },
    onLateOutput: (take) => {
      onLateOutput = take
    },
  }
}

const outputs = new Set([
  "stream",
  "display_data",
  "update_display_data",
  "execute_result",
  "clear_output",
])

/** Tells what code puts out from what a kernel says of itself. */
export function isOutput({ header }: Message): boolean {
  return outputs.has(header.msg_type)
}
