/**
 * Code that is sent to a kernel without an execution that waits for its end: executions of the session have their turn
 * when the kernel is done with it.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Defect from "../defect.ts"
import type { ExecutionRef, KernelError } from "../execution.ts"
import { ask, type Request } from "./connection.ts"
import type { Instance } from "./instance.ts"

/** Starts code ahead of executions. */
export interface Ahead {
  /** Has the turn of the executions until the kernel is done with everything that was sent before. */
  readonly hold: Effect.Effect<void, KernelError>
  /** Sends the request of an execution, and has the turn until the kernel is done with it. */
  readonly start: (request: Request & { readonly id: string }) => Effect.Effect<ExecutionRef, KernelError>
}

/** The turn of the executions, while the kernel may run code that was started. */
interface Turn {
  readonly instance: Instance
  readonly release: Effect.Effect<void>
  /** The number of requests that the kernel may not be done with. */
  pending: number
}

/** Makes an {@link Ahead}; `acquire` waits for the turn, which it has until its scope closes. */
export const make: (
  acquire: Effect.Effect<Instance, KernelError, Scope.Scope>,
) => Effect.Effect<Ahead, never, Scope.Scope> = Effect.fnUntraced(function* (acquire) {
  const outer = yield* Effect.scope
  const sending = yield* Semaphore.make(1)
  let turn: Turn | undefined

  /** Runs an effect in the turn, and releases it when the kernel is done with everything that was sent until then. */
  const inTurn = <A>(use: (instance: Instance) => Effect.Effect<A, KernelError>) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        // A kernel that has ended or was replaced has its turn no more.
        if (turn === undefined || turn.instance.endReason() !== undefined) {
          const scope = yield* Scope.fork(outer)
          const instance = yield* Effect.onError(
            restore(Scope.provide(acquire, scope)),
            () => Scope.close(scope, Exit.void),
          )
          turn = { instance, release: Scope.close(scope, Exit.void), pending: 0 }
        }
        const held = turn
        held.pending++
        const release = Effect.suspend(() => {
          held.pending--
          if (held.pending > 0) return Effect.void
          if (turn === held) turn = undefined
          return held.release
        })
        return yield* Effect.ensuring(
          restore(use(held.instance)),
          Effect.ignore(untilIdle(held.instance)).pipe(
            Effect.ensuring(release),
            Defect.log,
            Effect.forkIn(outer, { startImmediately: true }),
          ),
        )
      })
    ).pipe((effect) => Semaphore.withPermit(sending, effect))
  return {
    hold: inTurn(() => Effect.void),
    start: (request) => inTurn(({ durable }) => durable.start(request)),
  }
})

/** Waits until the kernel has answered a request, which it does after those before. */
const untilIdle = (instance: Instance) =>
  ask(
    instance,
    { type: "kernel_info_request", content: {} },
    ({ header }) => header.msg_type === "kernel_info_reply" ? true : undefined,
  )
