/**
 * Detects lost messages of a kernel. ipykernel numbers the messages that it sends, on all channels together: a message
 * id is `SESSION_PID_NUMBER`. Only the replies to other clients are not received, and each of those is counted by the
 * `idle` that follows it.
 *
 * Follows `Session.msg_id` of {@link https://github.com/jupyter/jupyter_client jupyter_client}.
 *
 * @module
 */
import { type Message, username } from "./message.ts"

/**
 * The count of received message numbers of one kernel since a certain message.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sequence {
  /** `SESSION_PID`, once a message was received. */
  readonly origin: string | undefined
  /** The highest number before counting began. */
  readonly base: number
  /** The highest number on the channel `iopub`, where messages arrive in the order of their numbers. */
  readonly highest: number
  /** The number of received messages with numbers from `base` to `highest`. */
  readonly count: number
  /** Numbers above `highest`: replies may arrive before earlier messages of `iopub`. */
  readonly ahead: ReadonlyArray<number>
  /** The number of replies to other clients. */
  readonly foreign: number
}

/**
 * The state before the first message.
 *
 * @category constants
 * @since 0.1.0
 */
export const unknown: Sequence = { origin: undefined, base: 0, highest: 0, count: 0, ahead: [], foreign: 0 }

/**
 * Returns a state that counts from the current message on.
 *
 * @category constructors
 * @since 0.1.0
 */
export function begin(sequence: Sequence): Sequence {
  return { ...sequence, base: sequence.highest, count: 0, foreign: 0 }
}

/** Maximum number of remembered numbers above `highest`: a kernel sends few replies before earlier output. */
const maxAhead = 1000

/** Maximum digits of a number that JavaScript represents exactly. */
const maxDigits = 15

/**
 * Returns the number in a message id of the kernel, which is unique; `undefined` for other ids.
 *
 * @category utils
 * @since 0.1.0
 */
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
 * Counts a message that was not received before. `number` is the result of {@link numberOf}, `session` the client's
 * own session.
 *
 * @category utils
 * @since 0.1.0
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
    return { ...sequence, ahead: [...sequence.ahead, number].slice(-maxAhead) }
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
 * Tells whether a request is the client's own. The session alone does not identify it: a server that opens a connection
 * sends a request under the session of the client, and keeps the reply.
 */
function isOwn(parentHeader: Message["parentHeader"], session: string): boolean {
  return parentHeader.session === session && parentHeader.username === username
}

/**
 * Returns the number of messages that are certainly missing; `undefined` for a kernel that does not number its messages.
 *
 * @category utils
 * @since 0.1.0
 */
export function missing(sequence: Sequence): number | undefined {
  if (sequence.origin === undefined) return undefined
  return Math.max(0, sequence.highest - sequence.base - sequence.count - sequence.foreign)
}
