/**
 * The interpreter of the state of an execution: it holds the state, passes events to it, and carries out its commands on
 * the conversation, the outputs and the kernel.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Defect from "../defect.ts"
import type * as Backlog from "./backlog.ts"
import type { Conversation } from "./connection.ts"
import * as ExecutionState from "./execution_state.ts"
import type { Instance } from "./instance.ts"
import type * as OutputQueue from "./output_queue.ts"

/** The parts that the commands of an execution act on. */
export interface Parts {
  readonly instance: Instance
  readonly interrupt: Instance["interrupt"]
  readonly conversation: Conversation
  readonly backlog: Backlog.Backlog
  readonly outputs: OutputQueue.OutputQueue
  readonly runFork: (effect: Effect.Effect<unknown>) => Fiber.Fiber<unknown>
  readonly expireHandlers: () => void
  readonly onClose: (executionCount: number | undefined) => void
  readonly onFree: (isSafe: boolean) => void
}

/** Holds the state of an execution, and carries out its commands. */
export function make({ backlog, conversation, instance, outputs, ...parts }: Parts) {
  let state = ExecutionState.initial(instance.id, instance.isDirect)
  const freed = Deferred.makeUnsafe<void>()
  // Not of the scope: what ends the execution early must not end its interruption.
  const timers = new Set<{ fiber?: Fiber.Fiber<unknown> }>()
  const after = (wait: Effect.Effect<unknown, unknown>, event: ExecutionState.Event): void => {
    const timer: { fiber?: Fiber.Fiber<unknown> } = {}
    timers.add(timer)
    // After the messages that were read together, which cancel most timers.
    queueMicrotask(() => {
      if (!timers.has(timer)) return
      const dispatching = Effect.andThen(wait, Effect.sync(() => dispatch(event)))
      timer.fiber = parts.runFork(Effect.ignore(Defect.log(dispatching)))
      timer.fiber.addObserver(() => timers.delete(timer))
    })
  }
  const cancelTimers = (): void => {
    for (const { fiber } of timers) fiber?.interruptUnsafe()
    timers.clear()
  }

  const carryOut = (command: ExecutionState.Command): void => {
    switch (command._tag) {
      case "Emit":
        return outputs.offerAlways(command.output)
      case "Drain":
        outputs.drain()
        return void parts.runFork(backlog.begin)
      case "Interrupt":
        // The server passes it on all the same if the request is cut short.
        return void parts.runFork(
          Effect.ensuring(
            Effect.ignore(Defect.log(parts.interrupt)),
            Effect.sync(() => dispatch({ _tag: "InterruptAnswered" })),
          ),
        )
      case "Fence": {
        const { delay } = command
        const fence = delay === 0 ? conversation.fence : Effect.delay(conversation.fence, delay)
        return after(fence, { _tag: "Fenced", delivery: conversation })
      }
      case "Wait": {
        const sleep = Effect.sleep(command.duration)
        return after(command.isForOutput ? Effect.andThen(sleep, backlog.caughtUp) : sleep, command.event)
      }
      case "ExpireHandlers":
        return parts.expireHandlers()
      case "Close":
        cancelTimers()
        parts.onClose(state.progress.executionCount)
        // The end may come in one read with what made the connection pause.
        return conversation.close()
      case "Free":
        backlog.end()
        if (state.phase === "finished") cancelTimers()
        parts.onFree(command.isSafe)
        return void Deferred.doneUnsafe(freed, Exit.void)
      case "Finish":
        if (state.phase === "abandoned") {
          parts.runFork(
            Effect.annotateLogs(Effect.logWarning("The kernel ignores interrupts"), "kernel", instance.id),
          )
        }
        return outputs.end(command.endReason)
    }
  }

  // In their order: some have effects that are events again.
  const commands: Array<ExecutionState.Command> = []
  let isCarryingOut = false
  const transition = (next: ExecutionState.State, added: ReadonlyArray<ExecutionState.Command>): void => {
    state = next
    if (added.length === 0) return
    commands.push(...added)
    if (isCarryingOut) return
    isCarryingOut = true
    try {
      for (let command = commands.shift(); command !== undefined; command = commands.shift()) {
        carryOut(command)
      }
    } finally {
      isCarryingOut = false
    }
  }
  const dispatch = (event: ExecutionState.Event): void => transition(...ExecutionState.step(state, event))
  return {
    dispatch,
    transition,
    state: () => state,
    isFree: () => Deferred.isDoneUnsafe(freed),
    /** Ends the execution, as its consumer is gone, and waits until the kernel can run other code. */
    free: Effect.suspend(() => {
      dispatch({ _tag: "ConsumerGone" })
      return Deferred.await(freed)
    }),
  }
}
