/**
 * The account of the messages that arrived from one kernel: which of them arrive again after a reconnection, and whether
 * any is missing.
 *
 * @module
 */
import type { Message } from "./message.ts"
import * as Sequence from "./sequence.ts"
import type { ChannelError } from "./socket.ts"

/**
 * Records the messages of one kernel.
 *
 * @category models
 * @since 0.1.0
 */
export interface Arrivals {
  /** Records a message. Returns false if it was recorded before. */
  readonly record: (message: Message) => boolean
  /** Records that the connection was cut. */
  readonly cut: (error: ChannelError) => void
  /** Forgets earlier cuts, and counts the messages from now on. */
  readonly begin: () => void
  /**
   * Tells whether all messages since {@link Arrivals.begin} were received. For a kernel that does not number its
   * messages, tells whether the connection was never cut since then.
   */
  readonly isComplete: () => boolean
  /**
   * Tells whether messages before the latest one may be lost, once for each gap. Messages of other channels may still
   * fill a gap.
   */
  readonly takeGap: () => boolean
  /** Tells whether the kernel numbers its messages, as ipykernel does. */
  readonly isNumbered: () => boolean
  /** Returns the error that last cut the connection since {@link Arrivals.begin}. */
  readonly disconnectError: () => ChannelError | undefined
}

/** Minimum number of message ids that are remembered. */
const minRemembered = 8192

/**
 * Makes the account of a kernel's messages; `session` is that of the client.
 *
 * @category constructors
 * @since 0.1.0
 */
export function make(session: string): Arrivals {
  /** The latest ids: numbers of the kernel's messages, and whole ids of others. */
  let recent = new Set<string | number>()
  let older = new Set<string | number>()
  let sequence = Sequence.unknown
  let error: ChannelError | undefined
  let cutCount = 0
  let knownMissing = 0
  return {
    record: (message) => {
      const number = Sequence.numberOf(sequence, message.header.msg_id)
      const id = number ?? message.header.msg_id
      if (recent.has(id) || older.has(id)) return false
      if (recent.size === minRemembered) {
        older = recent
        recent = new Set()
      }
      recent.add(id)
      sequence = Sequence.observe(sequence, message, { number, session })
      return true
    },
    cut: (cause) => {
      error = cause
      cutCount++
    },
    begin: () => {
      error = undefined
      cutCount = 0
      knownMissing = 0
      sequence = Sequence.begin(sequence)
    },
    isComplete: () => error === undefined || Sequence.missing(sequence) === 0,
    takeGap: () => {
      if (error === undefined) return false
      const before = knownMissing
      knownMissing = Sequence.missing(sequence) ?? cutCount
      return knownMissing > before
    },
    isNumbered: () => sequence.origin !== undefined,
    disconnectError: () => error,
  }
}
