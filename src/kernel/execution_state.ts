/**
 * The state of one execution as a fold over events, which knows nothing of sockets, clocks or fibers. What is to be done
 * next it returns as commands, which `interpreter.ts` carries out.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import { KernelUnresponsive } from "../execution.ts"
import type { Message } from "../jupyter/message.ts"
import type { Output } from "../output/output.ts"
import type { Delivery } from "./connection.ts"
import * as Outcome from "./outcome.ts"
import type { EndReason } from "./outcome.ts"
import * as Reducer from "./reducer.ts"

/** The progress of an execution, and of its end. */
export interface State {
  readonly kernelId: string
  readonly progress: Reducer.Progress
  /** `"abandoned"`: the code goes on although it was interrupted, and the consumer has got the failure. */
  readonly phase: "running" | "abandoned" | "finished"
  /** The reason for which it ends before the kernel ends it; the first counts. */
  readonly endReason: EndReason | undefined
  /**
   * The request that proves, by its reply, that no more messages come. `"settling"`: the kernel is done, and may put out
   * more, as it has no order.
   */
  readonly fence: "none" | "delayed" | "sent" | "settling"
  /** The number of outputs and of replies since it is settling. */
  readonly settling: { readonly outputs: number; readonly replies: number }
  /** The event that the interruption waits for: the start of the code, the server's answer, the end of the code. */
  readonly interruption: "none" | "start" | "answer" | "end" | "over"
  /** The number of interrupts that were sent. */
  readonly attempts: number
  /** True until the server answers an interrupt, which could reach the next execution. */
  readonly isInterruptPending: boolean
  /** True if the next execution may begin. */
  readonly isFree: boolean
}

/** The events of an execution besides its messages. */
export type Event =
  /** A deadline, a request for input without an answer, or a violation of the protocol. */
  | { readonly _tag: "Stopped"; readonly reason: EndReason }
  | { readonly _tag: "ConsumerGone" }
  /** The kernel is gone for good, or the request could not be sent. */
  | { readonly _tag: "KernelEnded"; readonly reason: EndReason }
  /** The kernel has answered everything that it was asked before: what has not arrived by now never will. */
  | { readonly _tag: "Fenced"; readonly delivery: Delivery }
  /** The server has answered an interrupt. */
  | { readonly _tag: "InterruptAnswered" }
  | Timeout

/** The end of a {@link Command wait}. */
export type Timeout =
  /** For the code to begin, or to end after so many interrupts. */
  | { readonly _tag: "InterruptDue"; readonly attempts: number }
  /** For the server to answer the interrupt of this number. */
  | { readonly _tag: "AnswerOverdue"; readonly attempts: number }
  /** For the server to answer an interrupt after the code has ended. */
  | { readonly _tag: "LateAnswerOverdue" }

/** A task for the interpreter. */
export type Command =
  | { readonly _tag: "Emit"; readonly output: Output }
  /** Reads on although the consumer does not: the last messages of the kernel have to arrive. */
  | { readonly _tag: "Drain" }
  | { readonly _tag: "Interrupt" }
  /** Asks the kernel after a delay whether it has more to say, which is the event `Fenced`. */
  | { readonly _tag: "Fence"; readonly delay: Duration.Input }
  /** Waits, and for output on its way if `isForOutput`; then `event` happens. */
  | {
    readonly _tag: "Wait"
    readonly duration: Duration.Input
    readonly isForOutput: boolean
    readonly event: Timeout
  }
  /** Bounds the functions of the user that the execution waits for. */
  | { readonly _tag: "ExpireHandlers" }
  /** Listens no more: the kernel is done with the code, or gone. */
  | { readonly _tag: "Close" }
  /** Lets the next execution begin; `isSafe` is whether nothing of this one can reach it. */
  | { readonly _tag: "Free"; readonly isSafe: boolean }
  /** Ends the output: the kernel ended the execution, unless there is a reason. */
  | { readonly _tag: "Finish"; readonly endReason: EndReason | undefined }

/** A state, and the commands that lead on from it. */
export type Step = readonly [state: State, commands: ReadonlyArray<Command>]

/** Maximum time to wait for the start of the code before the first interrupt, which has no effect earlier. */
const startGrace: Duration.Input = "500 millis"

/** Maximum times to wait for the end of the code after each interrupt. The sum bounds every interruption and timeout. */
const interruptWaits: ReadonlyArray<Duration.Input> = ["2 seconds", "3 seconds"]

/** Maximum time for a server to pass an interrupt on before the kernel counts as interrupted. */
const answerTimeout: Duration.Input = "2 seconds"

/** Maximum time that the next execution waits for the answer to an interrupt after the end of the code. */
const lateAnswerTimeout: Duration.Input = "6 seconds"

/** Time between one of reply and idle and the fence, if the other does not come. */
const fenceDelay: Duration.Input = "1 second"

/** Time between the end of an execution or its last output and the fence of a kernel that may put out more after that. */
const settleDelay: Duration.Input = "50 millis"

/** Maximum number of such fences: timers of the code may put out something for ever. */
const maxSettleFences = 20

/** Time between an interrupt and the fence: an interrupt can take the last messages of the kernel. */
const interruptFenceDelay: Duration.Input = "200 millis"

const none: ReadonlyArray<Command> = []

/** Returns the state of an execution that is about to be sent; `started` if an interrupt has an effect at once. */
export const initial = (kernelId: string, started = false): State => ({
  kernelId,
  progress: { ...Reducer.initial, started },
  phase: "running",
  endReason: undefined,
  fence: "none",
  settling: { outputs: 0, replies: 0 },
  interruption: "none",
  attempts: 0,
  isInterruptPending: false,
  isFree: false,
})

/** Returns the state after a message of the execution, and what the message puts out. */
export function onMessage(
  state: State,
  message: Message,
  delivery: Delivery,
): readonly [state: State, commands: ReadonlyArray<Command>, output?: Output | undefined] {
  if (state.phase === "finished") return [state, none]
  const [progress, output] = Reducer.step(state.progress, message)
  const isOver = Reducer.isOver(progress)
  // Most messages are output, which changes nothing.
  if (progress === state.progress && !isOver) return [state, none, output]
  const isLate = state.fence === "settling" && output !== undefined
  const { outputs, replies } = state.settling
  const settling = isLate ? { outputs: outputs + 1, replies } : state.settling
  const next = { ...state, progress, settling }
  // An output comes before what its message results in, and after the commands of messages before it.
  const [after, commands] = advance(state, next, isOver, delivery)
  return [after, commands, output]
}

function advance(state: State, next: State, isOver: boolean, delivery: Delivery): Step {
  if (isOver && delivery.isOrdered() && delivery.hasReceivedAll()) return finish(next)
  if (state.interruption === "start" && next.progress.started) return interrupt(next)
  // Reply and idle travel apart, and so may output of other threads: what is missing is on its way, or lost.
  if (isOver && state.fence !== "sent" && state.fence !== "settling") {
    return delivery.isOrdered()
      ? [{ ...next, fence: "sent" }, [{ _tag: "Fence", delay: 0 }]]
      : [{ ...next, fence: "settling" }, [{ _tag: "Fence", delay: settleDelay }]]
  }
  const isEither = next.progress.idle || next.progress.reply !== undefined
  return isEither && state.fence === "none"
    ? [{ ...next, fence: "delayed" }, [{ _tag: "Fence", delay: fenceDelay }]]
    : [next, none]
}

/** Returns the state after an event. */
export function step(state: State, event: Event): Step {
  if (event._tag === "InterruptAnswered") return onAnswer(state)
  if (event._tag === "LateAnswerOverdue") return state.phase === "finished" ? free(state) : [state, none]
  if (state.phase === "finished") return [state, none]
  switch (event._tag) {
    case "Stopped":
      // The kernel is done, and an interrupt could end it.
      if (state.fence === "settling") return settle(state)
      return state.endReason === undefined ? andThen(decide(state, event.reason), begin) : [state, none]
    case "ConsumerGone":
      return state.fence === "settling" ? settle(state) : begin(state)
    case "KernelEnded":
      return andThen(decide(state, event.reason), (decided) => end(decided, event.reason))
    case "Fenced":
      return onFenced(state, event.delivery)
    case "InterruptDue":
      return isWaiting(state) && event.attempts === state.attempts ? interrupt(state) : [state, none]
    case "AnswerOverdue":
      return state.interruption === "answer" && event.attempts === state.attempts
        ? awaitEnd(state)
        : [state, none]
  }
}

const isWaiting = ({ interruption }: State): boolean => interruption === "start" || interruption === "end"

/** Ends an execution whose kernel is done. */
function settle(state: State): Step {
  const [progress, output] = Reducer.end(state.progress)
  return andThen(emit({ ...state, progress }, output), finish)
}

/** The answer of the kernel to a later request proves that it has no more to say to this one. */
function onFenced(state: State, delivery: Delivery): Step {
  const { outputs, replies } = state.settling
  if (state.fence === "settling" && outputs > 0 && replies < maxSettleFences) {
    return [{ ...state, settling: { outputs: 0, replies: replies + 1 } }, [
      { _tag: "Fence", delay: settleDelay },
    ]]
  }
  const { idle, reply, shown, started } = state.progress
  if (reply === undefined && shown.length === 0) {
    const reason = idle && !delivery.wasCut()
      ? Outcome.withoutReply(state.kernelId)
      : delivery.lossReason(started)
    return andThen(decide(state, reason), finish)
  }
  if (delivery.hasReceivedAll()) return settle(state)
  const [progress, output] = Reducer.end(state.progress)
  const settled = emit({ ...state, progress }, output)
  return andThen(andThen(settled, (next) => decide(next, delivery.lossReason(started))), finish)
}

/** Sets the reason; the first counts. An exception that comes after it is one of our own interrupt. */
function decide(state: State, reason: EndReason): Step {
  if (state.endReason !== undefined) return [state, none]
  const [progress, output] = Reducer.putOutShown(state.progress)
  return andThen(
    emit({ ...state, progress, endReason: reason }, output),
    (next) => [next, [{ _tag: "ExpireHandlers" }]],
  )
}

/** Begins the interruption, once. */
function begin(state: State): Step {
  if (state.interruption !== "none") return [state, none]
  const step: Step = state.progress.started
    ? interrupt(state)
    : [{ ...state, interruption: "start" }, [wait(startGrace, { _tag: "InterruptDue", attempts: 0 })]]
  return withCommands([{ _tag: "Drain" }], step)
}

/** Interrupts once more, or gives up. While the server has not answered an interrupt, it gets no other. */
function interrupt(state: State): Step {
  if (state.attempts === interruptWaits.length) return abandon(state)
  const attempts = state.attempts + 1
  const commands: ReadonlyArray<Command> = [wait(answerTimeout, { _tag: "AnswerOverdue", attempts })]
  return [
    { ...state, attempts, interruption: "answer", isInterruptPending: true },
    state.isInterruptPending ? commands : [{ _tag: "Interrupt" }, ...commands],
  ]
}

function onAnswer(state: State): Step {
  if (!state.isInterruptPending) return [state, none]
  const next: State = { ...state, isInterruptPending: false }
  if (state.phase === "finished") return free(next)
  return state.interruption === "answer" ? awaitEnd(next) : [next, none]
}

function awaitEnd(state: State): Step {
  const { attempts } = state
  const duration = interruptWaits[attempts - 1] ?? 0
  return [{ ...state, interruption: "end" }, [
    { _tag: "Fence", delay: interruptFenceDelay },
    { _tag: "Wait", duration, isForOutput: true, event: { _tag: "InterruptDue", attempts } },
  ]]
}

/** The code ignores the interrupts: its consumer waits no longer, and the kernel may become idle later. */
function abandon(state: State): Step {
  const endReason = new KernelUnresponsive({ kernelId: state.kernelId })
  const [progress, output] = Reducer.putOutShown(state.progress)
  const next: State = { ...state, progress, endReason, phase: "abandoned", interruption: "over" }
  // Free first: what takes the failure may run the next code at once.
  return andThen(
    andThen(emit(next, output), free),
    (freed) => [freed, [{ _tag: "Finish", endReason }]],
  )
}

/** The kernel is done with the code, or nothing more of it can arrive. */
function finish(state: State): Step {
  const next: State = { ...state, phase: "finished" }
  const close: Command = { _tag: "Close" }
  if (state.phase === "abandoned") return [next, [close]]
  const commands = [...state.progress.pages.map(toEmit), toFinish(state)]
  // An interrupt on its way would hit the next execution.
  return state.isInterruptPending
    ? [next, [close, ...commands, wait(lateAnswerTimeout, { _tag: "LateAnswerOverdue" })]]
    : withCommands([close], andThen(free(next), (next) => [next, commands]))
}

/** The kernel is gone, and nothing can reach what runs next. It does not keep its state, whatever was decided. */
function end(state: State, reason: EndReason): Step {
  if (state.phase === "abandoned") return finish(state)
  return finish({ ...state, endReason: reason, isInterruptPending: false })
}

function free(state: State): Step {
  if (state.isFree) return [state, none]
  const isSafe = state.phase === "finished" && !state.isInterruptPending
  return [{ ...state, interruption: "over", isFree: true }, [{ _tag: "Free", isSafe }]]
}

const wait = (duration: Duration.Input, event: Timeout): Command => ({
  _tag: "Wait",
  duration,
  isForOutput: false,
  event,
})

const toEmit = (output: Output): Command => ({ _tag: "Emit", output })

const toFinish = ({ endReason }: State): Command => ({ _tag: "Finish", endReason })

const emit = (state: State, output: Output | undefined): Step => [
  state,
  output === undefined ? none : [toEmit(output)],
]

const withCommands = (before: ReadonlyArray<Command>, [state, commands]: Step): Step => [
  state,
  [...before, ...commands],
]

const andThen = ([state, commands]: Step, f: (state: State) => Step): Step => withCommands(commands, f(state))
