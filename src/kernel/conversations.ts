/**
 * The conversations of a kernel of a server: requests and their answers, with the reasons for which these fail.
 *
 * @module
 */
import * as Effect from "effect/Effect"
// Draws random bytes for many ids at once.
import { randomUUID } from "node:crypto"
import {
  ConnectionLost,
  KernelDied,
  KernelError,
  type KernelErrorReason,
  ProtocolViolation,
  SessionTaken,
} from "../execution.ts"
import * as AttachedChannel from "../jupyter/attached_channel.ts"
import type * as Channel from "../jupyter/channel.ts"
import type * as JupyterConversation from "../jupyter/conversation.ts"
import * as Messages from "../jupyter/message.ts"
import type { Message } from "../jupyter/message.ts"
import { type ChannelError, defaultMaxMessageSize } from "../jupyter/socket.ts"
import * as WireV1 from "../jupyter/wire_v1.ts"
import * as Attachment from "./attachment.ts"
import type { Conversation, KernelConnection, Listener, Reply, Request } from "./connection.ts"
import type { Durable } from "./durable.ts"

/** Makes the functions that open the conversations of a kernel. */
export const make = ({
  channel,
  end,
  endReason,
  kernelId,
  listeners,
  maxMessageSize = defaultMaxMessageSize,
  position,
  session,
}: {
  readonly kernelId: string
  readonly session: string
  readonly channel: Channel.Channel
  readonly maxMessageSize?: number | undefined
  /** Returns the number of the latest message of the kernel, if they have one. */
  readonly position: (() => number) | undefined
  /** The listeners of the conversations that are open. */
  readonly listeners: Set<Listener>
  readonly end: (reason: KernelErrorReason) => void
  readonly endReason: () => KernelErrorReason | undefined
}) => {
  const lost = ({ detail }: { readonly detail: string }) =>
    new KernelError({ reason: endReason() ?? new ConnectionLost({ kernelId, detail }) })
  const receiver = (listener: Listener): JupyterConversation.Listener => ({
    onMessage: (message, bytes) => {
      if (isDeath(message)) end(new KernelDied({ kernelId }))
      else listener.onMessage(message, bytes)
    },
    onFenced: listener.onFenced,
    onTooLarge: ({ detail }) => listener.onFailure?.(new ProtocolViolation({ kernelId, detail })),
  })
  const toConversation = (
    listener: Listener,
    conversation: JupyterConversation.Conversation,
    lossReason: Conversation["lossReason"],
  ): Conversation => {
    const { close, disconnectError, fence, reply, send } = conversation
    listeners.add(listener)
    return {
      ...conversation,
      position,
      send: Effect.mapError(send, lost),
      reply: (message) => Effect.mapError(reply(toMessage(message, session)), lost),
      fence: Effect.catchTag(fence, "ChannelError", (error) => lost(error)),
      close: () => {
        listeners.delete(listener)
        close()
      },
      wasCut: () => disconnectError() !== undefined,
      lossReason,
    }
  }
  const request: KernelConnection["request"] = (
    request,
    listener,
    { tracksLosses, waitsForConnection = true } = {},
  ) => {
    const opening = channel.request(toMessage(request, session), receiver(listener), { tracksLosses })
    return Effect.map(opening, (conversation) => {
      const opened = toConversation(
        listener,
        conversation,
        (isStarted) =>
          lossReason(conversation.disconnectError(), {
            kernelId,
            maxMessageSize,
            unread: isStarted ? 0 : sizeOf(request),
          }),
      )
      return waitsForConnection ? opened : {
        ...opened,
        send: Effect.suspend(() =>
          channel.isConnected() ? opened.send : lost({ detail: "It is being restored" })
        ),
      }
    })
  }
  return {
    request,
    encode: (request: Request) => WireV1.encode(toMessage(request, session)),
    /** Listens for the answers to a request of an earlier client. */
    resume: (attached: AttachedChannel.AttachedChannel): Durable["resume"] => (ref, listener) => {
      const opening = attached.resume(ref, receiver(listener))
      return Effect.map(opening, (conversation): Conversation => {
        const { missing, position, received, repeated } = conversation
        const lossReason = () => Attachment.lossReason(kernelId, missing())
        return {
          ...toConversation(listener, conversation, lossReason),
          position,
          repeated: Effect.ignore(repeated),
          received: (reason) =>
            reason._tag !== "KernelDied" ? Effect.succeed(reason) : Effect.match(received, {
              onSuccess: () => missing() === 0 ? reason : lossReason(),
              onFailure: (error) =>
                AttachedChannel.isTaken(error)
                  ? new SessionTaken({ kernelId })
                  : new ConnectionLost({ kernelId, detail: error.detail }),
            }),
        }
      })
    },
  }
}

const toMessage = (
  { id = randomUUID(), subshell, type, ...parts }: Request & Partial<Reply>,
  session: string,
): Message => {
  const message = Messages.request(type, { id, session, ...parts })
  return subshell === undefined
    ? message
    : { ...message, header: { ...message.header, subshell_id: subshell } }
}

/** Returns about the bytes of a request. */
const sizeOf = ({ buffers = [], content }: Request): number =>
  buffers.reduce((sum, { byteLength }) => sum + byteLength, JSON.stringify(content).length)

/** The default maximum of the bytes of a message that Jupyter servers accept. */
const defaultServerMaximum = 10_000_000

/**
 * Returns the reason of an execution whose output may be incomplete. `unread` is the size of the request if the kernel
 * did not begin with it: servers close the connection on a message that is too large, often without a reason.
 */
function lossReason(
  disconnectError: ChannelError | undefined,
  { kernelId, maxMessageSize, unread }: {
    readonly kernelId: string
    readonly maxMessageSize: number
    readonly unread: number
  },
): ConnectionLost | ProtocolViolation {
  if (disconnectError?.isTooLarge === true) {
    const detail = `A message has more than the ${maxMessageSize} bytes of the option "maxMessageSize"`
    return new ProtocolViolation({ kernelId, detail })
  }
  const what = unread < defaultServerMaximum
    ? "not all messages of the kernel could be recovered"
    : `the code of ${(unread / 1e6).toFixed(1)} MB did not arrive, and many servers refuse more than 10 MB`
  return new ConnectionLost({ kernelId, detail: `${disconnectError?.detail ?? "It was cut"}; ${what}` })
}

/** Tells whether the kernel died: a server that restarts a dead kernel keeps the id, but the state is lost. */
export function isDeath({ content, header }: Message): boolean {
  return header.msg_type === "status" &&
    (content.execution_state === "dead" || content.execution_state === "restarting")
}
