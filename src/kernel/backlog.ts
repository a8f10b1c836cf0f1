/**
 * Detects output that a kernel wrote before it was interrupted and that arrives late: the effect of the interrupt shows
 * only in the output after that.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Message } from "../jupyter/message.ts"
import * as Connection from "./connection.ts"
import type { KernelConnection } from "./connection.ts"

/** Milliseconds without a message after which there is no backlog. */
const gap = 1000

/** Maximum milliseconds between sending and receiving a message without a backlog. */
const transit = 1000

/** Maximum milliseconds after the interrupt for which a backlog is assumed. */
const longest = 30_000

/** The backlog of one execution. */
export interface Backlog {
  /** Starts the detection at an interrupt. It requests the time of the kernel on the control channel. */
  readonly begin: Effect.Effect<void>
  /** Records a message of the execution. */
  readonly note: (message: Message) => void
  /** Waits while the messages that arrive were written before the interrupt could have an effect. */
  readonly caughtUp: Effect.Effect<unknown>
  readonly end: () => void
}

/** Makes the backlog of an execution. It records nothing before `begin`. */
export const make: (
  connection: Pick<KernelConnection, "request" | "ended">,
) => Effect.Effect<Backlog> = Effect.fnUntraced(function* (connection) {
  const clock = yield* Clock.Clock
  let asked: Fiber.Fiber<unknown> | undefined
  let begunAt: number | undefined
  let arrivedAt = -Infinity
  /** The time of the interrupt by the clock of the kernel. */
  let interruptedAt: number | undefined
  let writtenAt = -Infinity
  const ask = Connection.ask(
    connection,
    { type: "kernel_info_request", channel: "control", content: {} },
    ({ header }) => interruptedAt = timeOf(header.date),
  )
  const isBehind = (): boolean => {
    const now = clock.currentTimeMillisUnsafe()
    const elapsed = now - (begunAt ?? now)
    // Only differences are compared: the two clocks may show different times.
    return now - arrivedAt < gap && elapsed < longest &&
      (interruptedAt === undefined || elapsed - (writtenAt - interruptedAt) > transit)
  }
  return {
    begin: Effect.suspend(() => {
      begunAt = clock.currentTimeMillisUnsafe()
      return Effect.map(Effect.forkDetach(Effect.ignore(ask), { startImmediately: true }), (fiber) => {
        asked = fiber
      })
    }),
    note: ({ header }) => {
      if (begunAt === undefined) return
      arrivedAt = clock.currentTimeMillisUnsafe()
      writtenAt = timeOf(header.date) ?? writtenAt
    },
    caughtUp: Effect.suspend(() =>
      Effect.repeat(Effect.delay(Effect.sync(isBehind), "50 millis"), { while: (isBehind) => isBehind })
    ),
    end: () => asked?.interruptUnsafe(),
  }
})

function timeOf(date: unknown): number | undefined {
  return typeof date === "string"
    ? Option.getOrUndefined(Option.map(DateTime.make(date), DateTime.toEpochMillis))
    : undefined
}
