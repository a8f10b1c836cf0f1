/**
 * Output that a kernel wrote before it was interrupted and that is still on its way: what it does about the interrupt
 * is known only behind that.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Message } from "../jupyter/message.ts"
import * as Connections from "./connection.ts"
import type { Connection } from "./connection.ts"

/** Milliseconds without a message after which nothing counts as on its way any more. */
const gap = 1000

/** Milliseconds that a message of a kernel may be under way without a backlog. */
const transit = 1000

/** Milliseconds for which a backlog holds up the judgement at most. */
const longest = 30_000

/** What is still on its way of one execution. */
export interface Backlog {
  /** Asks the kernel what time it is, on the channel that is always open. */
  readonly begin: Effect.Effect<void>
  /** Takes note of a message of the execution. */
  readonly note: (message: Message) => void
  /** Whether what arrives was written so long ago that it does not show what the kernel does now. */
  readonly isBehind: () => boolean
  readonly end: () => void
}

/** Makes the backlog of an execution, which is of no interest before it is interrupted. */
export const make: (connection: Connection) => Effect.Effect<Backlog> = Effect.fnUntraced(function* (
  connection: Connection,
) {
  const clock = yield* Clock.Clock
  let asked: Fiber.Fiber<unknown> | undefined
  let begunAt: number | undefined
  let arrivedAt = -Infinity
  /** By the kernel's clock. */
  let interruptedAt: number | undefined
  let writtenAt = -Infinity
  const ask = Connections.ask(
    connection,
    { type: "kernel_info_request", channel: "control", content: {} },
    ({ header }) => interruptedAt = timeOf(header.date),
  )
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
    isBehind: () => {
      const now = clock.currentTimeMillisUnsafe()
      const elapsed = now - (begunAt ?? now)
      // The clocks need not agree, but go equally fast.
      return now - arrivedAt < gap && elapsed < longest &&
        (interruptedAt === undefined || elapsed - (writtenAt - interruptedAt) > transit)
    },
    end: () => asked?.interruptUnsafe(),
  }
})

function timeOf(date: unknown): number | undefined {
  return typeof date === "string"
    ? Option.getOrUndefined(Option.map(DateTime.make(date), DateTime.toEpochMillis))
    : undefined
}
