/**
 * Output that a kernel wrote before it was interrupted and that is still on its way: what it does about the interrupt
 * is known only behind that.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { randomUUID } from "node:crypto"
import { type Message, request } from "../jupyter/message.ts"
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
  { channel, session }: Connection,
) {
  const clock = yield* Clock.Clock
  const id = randomUUID()
  let begunAt: number | undefined
  let arrivedAt = -Infinity
  /** By the kernel's clock. */
  let interruptedAt: number | undefined
  let writtenAt = -Infinity
  return {
    begin: Effect.suspend(() => {
      begunAt = clock.currentTimeMillisUnsafe()
      channel.listen(id, {
        onMessage: ({ header }) => {
          interruptedAt ??= timeOf(header.date)
        },
      })
      return Effect.ignore(
        channel.send(request("kernel_info_request", { id, session, channel: "control", content: {} })),
      )
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
    end: () => channel.forget(id),
  }
})

function timeOf(date: unknown): number | undefined {
  return typeof date === "string"
    ? Option.getOrUndefined(Option.map(DateTime.make(date), DateTime.toEpochMillis))
    : undefined
}
