/**
 * One started kernel of a session, which a reset replaces: its connection, its identity, and its end, which the session
 * may decide before the kernel ends.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as Defect from "../defect.ts"
import { KernelError, type KernelErrorReason } from "../execution.ts"
import type { KernelConnection } from "./connection.ts"
import type { Identity } from "./identity.ts"
import * as OutputRouter from "./output_router.ts"

/** A kernel that is ready for executions. */
export interface Instance extends Omit<KernelConnection, "onUnsolicited"> {
  readonly identity: Identity
  readonly output: OutputRouter.OutputRouter
  /** Returns why the kernel runs nothing any more, if so. */
  readonly endReason: () => KernelErrorReason | undefined
  /** Ends it for all executions and requests; the first reason counts. */
  readonly end: (reason: KernelErrorReason) => void
  /** Calls the listener when it ends, at once if it has. Returns what cancels that. */
  readonly onEnded: (listener: (reason: KernelErrorReason) => void) => () => void
}

/** Makes the instance of a connection, which watches for the end of the kernel until the scope closes. */
export const make: (
  connection: KernelConnection,
  identity: Identity,
) => Effect.Effect<Instance, never, Scope.Scope> = Effect.fnUntraced(function* (connection, identity) {
  const output = OutputRouter.make()
  connection.onUnsolicited(output.route)
  const ended = Deferred.makeUnsafe<never, KernelError>()
  const listeners = new Set<(reason: KernelErrorReason) => void>()
  let endReason: KernelErrorReason | undefined
  const end = (reason: KernelErrorReason): void => {
    if (endReason !== undefined) return
    endReason = reason
    for (const listener of [...listeners]) listener(reason)
    Deferred.doneUnsafe(ended, Exit.fail(new KernelError({ reason })))
  }
  yield* connection.ended.pipe(
    Effect.catch(({ reason }) => Effect.sync(() => end(reason))),
    Defect.log,
    Effect.forkScoped({ startImmediately: true }),
  )
  return {
    id: connection.id,
    isDirect: connection.isDirect,
    request: connection.request,
    interrupt: connection.interrupt,
    durable: connection.durable,
    ended: Deferred.await(ended),
    identity,
    output,
    endReason: () => endReason,
    end,
    onEnded: (listener) => {
      if (endReason !== undefined) listener(endReason)
      else listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
})

/** Returns an instance. Fails if it has ended. */
export const running = (instance: Instance): Effect.Effect<Instance, KernelError> => {
  const reason = instance.endReason()
  return reason === undefined ? Effect.succeed(instance) : Effect.fail(new KernelError({ reason }))
}
