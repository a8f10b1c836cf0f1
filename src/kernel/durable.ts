/**
 * A kernel that outlives its client, and code that was started in it.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { type ExecutionRef, KernelError, type KernelRef, Unsupported } from "../execution.ts"
import type { Conversation, Listener, Request } from "./connection.ts"

/** The operations of a kernel that outlives its client. */
export interface Durable {
  /** Has the kernel stay when the client ends. */
  readonly detach: Effect.Effect<KernelRef, KernelError>
  /** Has the kernel end with the client again, unless another one is attached; returns whether it does. */
  readonly reclaim: Effect.Effect<boolean>
  /** Fails if code cannot be started. */
  readonly check: Effect.Effect<void, KernelError>
  /** Sends the request of an execution, and returns when the kernel gets it whatever becomes of the client. */
  readonly start: (request: Request & { readonly id: string }) => Effect.Effect<ExecutionRef, KernelError>
  /** Returns a reference to a request that is sent next, if the server keeps the answers. */
  readonly refOf: (request: { readonly id: string }) => ExecutionRef | undefined
  /** Listens for the messages of an execution that was started, which `send` of the conversation repeats. */
  readonly resume: (
    ref: ExecutionRef,
    listener: Listener,
  ) => Effect.Effect<Conversation, KernelError>
  /** Interrupts code that was started, unless the kernel is done with it and runs other code. */
  readonly interrupt: (ref: ExecutionRef) => Effect.Effect<void, KernelError>
}

/** Returns the error of an operation that the server of a kernel does not support. */
const unsupported = (operation: string, detail: string): KernelError =>
  new KernelError({ reason: new Unsupported({ language: "", operation, detail }) })

/** The operations of a kernel that ends with its client. */
export const refused = (detail: string): Durable => ({
  detach: Effect.fail(unsupported("detach", detail)),
  reclaim: Effect.succeed(true),
  check: Effect.fail(unsupported("start", detail)),
  start: () => Effect.fail(unsupported("start", detail)),
  refOf: () => undefined,
  resume: () => Effect.fail(unsupported("resume", detail)),
  interrupt: () => Effect.fail(unsupported("interrupt", detail)),
})
