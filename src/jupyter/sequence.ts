/**
 * Finds out whether messages of a kernel were lost. ipykernel numbers what it sends, on all channels together:
 * a message id is `SESSION_PID_NUMBER`. Only the replies to other clients stay invisible, and each of those
 * shows by the `idle` that follows it.
 *
 * Follows `Session.msg_id` of {@link https://github.com/jupyter/jupyter_client jupyter_client}.
 *
 * @module
 */
import { type Message, username } from "./message.ts"

/** What is known of the numbers of one kernel since a certain message. */
export interface Sequence {
  /** `SESSION_PID`, once a message was seen. */
  readonly origin: string | undefined
  /** The highest number before the count began. */
  readonly base: number
  /** The highest number on the channel `iopub`, where all that was sent before arrives before. */
  readonly highest: number
  /** How many messages with numbers from `base` to `highest` arrived. */
  readonly count: number
  /** Numbers above `highest`: replies overtake what `iopub` still carries. */
  readonly ahead: ReadonlyArray<number>
  /** How many replies went to other clients. */
  readonly foreign: number
}

/** Nothing is known yet. */
export const unknown: Sequence = { origin: undefined, base: 0, highest: 0, count: 0, ahead: [], foreign: 0 }

/** Begins the count anew: what was lost before is no longer of interest. */
export function begin(sequence: Sequence): Sequence {
  return { ...sequence, base: sequence.highest, count: 0, foreign: 0 }
}

/** How many numbers can be ahead: a kernel sends few replies before the output that came before them. */
const mostAhead = 1000

/** Longer numbers are no longer exact. */
const maxDigits = 15

/** The number in a message id, if it is one of the kernel's; no two ids have the same. */
export function numberOf(sequence: Sequence, id: string): number | undefined {
  const origin = sequence.origin ?? originOf(id)
  const start = origin.length + 1
  if (origin === "" || id.length === start || id[start - 1] !== "_" || !id.startsWith(origin)) {
    return undefined
  }
  if (id.length > start + maxDigits || (id[start] === "0" && id.length > start + 1)) return undefined
  let number = 0
  for (let index = start; index < id.length; index++) {
    const digit = id.charCodeAt(index) - 48
    if (digit < 0 || digit > 9) return undefined
    number = number * 10 + digit
  }
  return number
}

function originOf(id: string): string {
  return id.slice(0, Math.max(0, id.lastIndexOf("_")))
}

/**
 * Takes a message into account that was not seen before; `number` is what {@link numberOf} says of it, `session` is
 * the client's own.
 */
export function observe(
  sequence: Sequence,
  message: Message,
  { number, session }: { readonly number: number | undefined; readonly session: string },
): Sequence {
  if (number === undefined) return sequence
  if (sequence.origin === undefined) {
    return { ...unknown, origin: originOf(message.header.msg_id), base: number, highest: number }
  }
  if (number <= sequence.base) return sequence
  if (message.channel !== "iopub" && number > sequence.highest) {
    return { ...sequence, ahead: [...sequence.ahead, number].slice(-mostAhead) }
  }
  const isForeignIdle = message.header.msg_type === "status" && message.content.execution_state === "idle" &&
    !isOwn(message.parentHeader, session)
  const highest = Math.max(sequence.highest, number)
  const ahead = sequence.ahead.length === 0
    ? sequence.ahead
    : sequence.ahead.filter((other) => other > highest)
  return {
    origin: sequence.origin,
    base: sequence.base,
    highest,
    count: sequence.count + 1 + sequence.ahead.length - ahead.length,
    ahead,
    foreign: sequence.foreign + (isForeignIdle ? 1 : 0),
  }
}

/**
 * Tells whether the client asked. The session alone does not tell: a server that opens a connection asks the
 * kernel in the name of its session, and keeps the reply.
 */
function isOwn(parentHeader: Message["parentHeader"], session: string): boolean {
  return parentHeader.session === session && parentHeader.username === username
}

/**
 * How many messages are certainly missing. `undefined` for a kernel that does not number its messages: nobody
 * can tell.
 */
export function missing(sequence: Sequence): number | undefined {
  if (sequence.origin === undefined) return undefined
  return Math.max(0, sequence.highest - sequence.base - sequence.count - sequence.foreign)
}
