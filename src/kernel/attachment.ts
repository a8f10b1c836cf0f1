/**
 * A kernel that outlives its client: on a shared gateway, which is the client of the kernel and keeps its output, or on
 * another server, which keeps the kernel alone.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import {
  ConnectionLost,
  ExecutionAborted,
  ExecutionRef,
  InvalidOption,
  KernelDied,
  KernelError,
  type KernelErrorReason,
  KernelNotFound,
  KernelRef,
  OutputGone,
  ServerReplaced,
  SessionTaken,
} from "../execution.ts"
import * as Gateway from "../gateway/connection.ts"
import type { RestError } from "../jupyter/rest.ts"
import type { Request } from "./connection.ts"
import { type Durable, refused } from "./durable.ts"

/** Tells whether the kernel stays when the client ends. */
export interface Stay {
  isKept: boolean
}

/** The parts of a client that is attached by a shared gateway. */
interface Attached {
  readonly encode: (request: Request) => Uint8Array
  readonly resume: Durable["resume"]
  /** Returns the number of the latest message of the kernel. */
  readonly position: () => number
  readonly interrupt: Durable["interrupt"]
}

/** Makes the operations of a kernel that a client is connected to. */
export const make = (
  gateway: Gateway.Connection,
  { attached, endReason, holder, kernelId, session, stay }: {
    readonly kernelId: string
    readonly session: string
    readonly stay: Stay
    /** Identifies the client. */
    readonly holder: string
    /** `undefined` if the server keeps no output. */
    readonly attached: Attached | undefined
    readonly endReason: () => KernelErrorReason | undefined
  },
): Durable => {
  const refusal = Gateway.refusalOf(gateway)
  if (refusal !== undefined) return refused(refusal)
  const ref = new KernelRef({ server: Gateway.serverOf(gateway), kernelId, session })
  const failed = (error: RestError) =>
    new KernelError({
      reason: endReason() ??
        (error.status === 409 ? new SessionTaken({ kernelId }) : missing(gateway, ref, error)),
    })
  const keep = gateway.serverId === undefined ? Effect.void : gateway.rest.keep(kernelId, holder).pipe(
    // The kernel is another client's, which the end of the connection may report later.
    Effect.tapError(({ status }) => Effect.sync(() => stay.isKept ||= status === 409)),
    Effect.mapError(failed),
  )
  const detach = Effect.map(keep, () => {
    stay.isKept = true
    return ref
  })
  // A process that did not run for long may have yet to hear that another client is attached: the gateway knows.
  const isTaken = Effect.match(keep, {
    onSuccess: () => false,
    onFailure: ({ reason }) => reason._tag === "SessionTaken",
  })
  const reclaim = Effect.suspend(() =>
    Effect.map(stay.isKept ? isTaken : Effect.succeed(false), (isTaken) => {
      stay.isKept = isTaken
      return !isTaken
    })
  )
  if (attached === undefined) {
    const detail = "Only kernels of Python on a gateway of KernelGateway.layerShared go on without a client"
    return { ...refused(detail), detach, reclaim }
  }
  // Ahead of the messages that have arrived, if code was started since.
  let startedAt = 0
  const refOf = ({ id }: { readonly id: string }, position = attached.position()) =>
    new ExecutionRef({ kernel: ref, id, start: position, position })
  return {
    detach,
    reclaim,
    check: Effect.void,
    start: (request) =>
      gateway.rest.post(kernelId, holder, attached.encode(request)).pipe(
        Effect.mapError(failed),
        Effect.map((position) => {
          startedAt = Math.max(startedAt, position)
          return refOf(request, position)
        }),
      ),
    refOf: (request) => refOf(request),
    interrupt: attached.interrupt,
    resume: (execution, listener) => {
      const { kernelId: id, server } = execution.kernel
      if (id === kernelId) {
        const reason = beyond(execution, Math.max(startedAt, attached.position()))
        return reason === undefined ? attached.resume(execution, listener) : new KernelError({ reason })
      }
      return new KernelError({
        reason: server === ref.server
          ? new KernelNotFound({ kernelId: id })
          : new ServerReplaced({ kernelId: id, server }),
      })
    },
  }
}

/** Returns the reason for which a kernel that a reference names is not there. */
export function missing(gateway: Gateway.Connection, ref: KernelRef, error: RestError): KernelErrorReason {
  const { kernelId, server } = ref
  if (error.kind !== "NotFound") return new ConnectionLost({ kernelId, detail: error.message })
  if (server !== Gateway.serverOf(gateway)) return new ServerReplaced({ kernelId, server })
  // Gateways of this library know the end of a kernel for some time. Kernels of theirs have such an id.
  return gateway.isOwn && /^\w+(-\w+){4}$/.test(kernelId) && !error.detail.includes("does not exist")
    ? new KernelDied({ kernelId })
    : new KernelNotFound({ kernelId })
}

/** Returns the reason of a reference to a position that was not reached, after which no output comes. */
export const beyond = (
  { position, start }: Pick<ExecutionRef, "position" | "start">,
  last: number = Infinity,
): InvalidOption | undefined =>
  start <= position && position <= last ? undefined : new InvalidOption({
    option: "ref.position",
    value: String(position),
    detail: `give a reference that "start" or "onChunk" returned; the last message has the number ${last}`,
  })

/** Returns the reason for which messages of an execution are missing. */
export const lossReason = (kernelId: string, missing: number): OutputGone | ExecutionAborted =>
  missing > 0
    ? new OutputGone({ kernelId, missing })
    : new ExecutionAborted({ kernelId, detail: "The kernel did not run the code of the reference" })
