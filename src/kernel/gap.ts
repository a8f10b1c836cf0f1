/**
 * Why an execution cannot be told to the end: what its kernel said is missing.
 *
 * @module
 */
import { ConnectionLost, ExecutionAborted, ProtocolViolation } from "../execution.ts"
import type { Connection } from "./connection.ts"

/** The largest message that a Jupyter server accepts unless it is told otherwise. */
const usualMaximum = 10_000_000

/**
 * Output may be missing: the caller must not take the rest for the whole. `unread` is the length of the code if
 * the kernel never began with it: servers close the connection on what is too large, often without a word.
 */
export function gap(
  { channel, id, maxMessageSize }: Connection,
  unread: number,
): ConnectionLost | ProtocolViolation {
  if (channel.cutBy()?.isTooLarge === true) {
    const detail = `A message has more than the ${maxMessageSize} bytes of the option "maxMessageSize"`
    return new ProtocolViolation({ kernelId: id, detail })
  }
  const what = unread < usualMaximum
    ? "not all of what the kernel said could be recovered"
    : `the code of ${(unread / 1e6).toFixed(1)} MB did not arrive, and many servers refuse more than 10 MB`
  return new ConnectionLost({ kernelId: id, detail: `${channel.cutBy()?.detail ?? "It was cut"}; ${what}` })
}

/** The failure of an execution that the kernel left without a reply. */
export function withoutReply(kernelId: string): ExecutionAborted {
  return new ExecutionAborted({ kernelId, detail: "The kernel did not say how the code ended" })
}
