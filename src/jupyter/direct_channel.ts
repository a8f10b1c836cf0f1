/**
 * The channels of a kernel that serves its client itself, over two WebSockets: one for requests to the main shell and all
 * output, one for what does not wait for output. They lead to the Unix socket of the kernel, or over a network to a gateway
 * that joins them to it. They are never restored, and their end is the end of the kernel.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import * as Defect from "../defect.ts"
import type { Channel } from "./channel.ts"
import * as Conversation from "./conversation.ts"
import { type Message, parentId, request, WireError } from "./message.ts"
import * as Socket from "./socket.ts"
import * as WireV1 from "./wire_v1.ts"

/**
 * The address of a kernel, and the receivers of messages without a conversation.
 *
 * @category options
 * @since 0.1.0
 */
export interface DirectChannelOptions {
  /** Opens the WebSockets. */
  readonly open: Open
  /** Fails when a WebSocket that is silent is found to be cut; never by default, as on one machine. */
  readonly watch?: Watch | undefined
  readonly session: string
  /** Maximum time of the handshake, which the kernel answers when it is ready. */
  readonly openTimeout: Duration.Input
  /** Maximum bytes of an incoming message; 512 MiB by default. */
  readonly maxMessageSize?: number | undefined
  /** Receives the messages of no conversation, such as those that the kernel sends by itself. */
  readonly onUnclaimed: (message: Message, bytes: number) => void
  /** Receives the error of a frame that is no message. */
  readonly onMalformed: (error: WireError) => void
}

/**
 * The name of a WebSocket of a kernel.
 *
 * @category models
 * @since 0.1.0
 */
export type Name = "shell" | "control"

/**
 * Opens a WebSocket of a kernel, which closes with the scope.
 *
 * @category models
 * @since 0.1.0
 */
export type Open = (
  name: Name,
  options: Socket.OpenOptions & { readonly maxMessageSize: number },
) => Effect.Effect<Socket.Socket, Socket.ChannelError, Scope.Scope>

/**
 * Fails when a WebSocket is found to be cut. `wasPaused` tells whether it was not read at some time since the last call.
 *
 * @category models
 * @since 0.1.0
 */
export type Watch = (
  name: Name,
  socket: Socket.Socket,
  wasPaused: () => boolean,
) => Effect.Effect<never, Socket.ChannelError>

/**
 * Opens the WebSockets of a kernel at its Unix socket.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unixSocket =
  ({ path, token }: { readonly path: string; readonly token: string }): Open => (name, options) =>
    Socket.open(`ws://localhost/${name}`, {
      socketPath: path,
      // The kernel replaces larger messages, which would end the connection.
      headers: { authorization: `token ${token}`, "x-max-message-size": String(options.maxMessageSize) },
      ...options,
    })

/**
 * The channels, with a count of the messages.
 *
 * @category models
 * @since 0.1.0
 */
export interface CountedChannel extends Channel {
  /** Returns the number of messages received on the first WebSocket. */
  readonly count: () => number
  /** Succeeds when the first WebSocket has ended and its last message was received. */
  readonly ended: Effect.Effect<void>
  /** Receives no message on the first WebSocket until the scope closes. */
  readonly hold: Effect.Effect<void, never, Scope.Scope>
  /** Passes a frame to a listener if it answers the request of the id. */
  readonly receiveFor: (id: string, frame: Uint8Array, listener: Conversation.Listener) => void
}
/** Maximum time to read the last output of a kernel over a network, after the end of the other connection. */
const lastOutputTimeout: Duration.Input = "5 seconds"

/** The type of the message that a kernel sends in place of one above the maximum. */
const tooLargeType = "effect_jupyter_too_large"

const tooLarge = (message: Message, maximum: number): WireError => {
  const id = parentId(message)
  return new WireError({
    detail: `A message has more than the ${maximum} bytes of the option "maxMessageSize"`,
    isTooLarge: true,
    ...(id === undefined ? {} : { parentId: id }),
  })
}

/**
 * Connects to a kernel. The connection closes with the scope, and the kernel ends after it.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as DirectChannel from "effect-jupyter/jupyter/direct_channel"
 * import { request } from "effect-jupyter/jupyter/message"
 *
 * export const printTypes = (path: string, token: string) => Effect.gen(function*() {
 *   const channel = yield* DirectChannel.make({
 *     open: DirectChannel.unixSocket({ path, token }),
 *     session: "one",
 *     openTimeout: "30 seconds",
 *     onUnclaimed: () => {},
 *     onMalformed: () => {}
 *   })
 *   const asked = request("kernel_info_request", { id: "1", session: "one", content: {} })
 *   const conversation = yield* channel.request(asked, {
 *     onMessage: (message) => console.log(message.header.msg_type)
 *   })
 *   yield* conversation.send
 *   return yield* channel.lost
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options: DirectChannelOptions,
) => Effect.Effect<CountedChannel, Socket.ChannelError, Scope.Scope> = Effect.fnUntraced(
  function* (options: DirectChannelOptions) {
    // More than one if the answers to a request are received twice.
    const listeners = new Map<string, ReadonlyArray<Conversation.Listener>>()
    const lost = Deferred.makeUnsafe<never, Socket.ChannelError>()
    const ended = Deferred.makeUnsafe<void>()
    const gate = makeGate()
    let count = 0
    const { maxMessageSize = Socket.defaultMaxMessageSize, watch = () => Effect.never } = options
    const limits = { protocols: [WireV1.subprotocol], maxMessageSize, openTimeout: options.openTimeout }
    const [shell, control] = yield* Effect.all(
      [options.open("shell", limits), options.open("control", limits)],
      { concurrency: 2 },
    )

    const refuse = (error: WireError): void => {
      options.onMalformed(error)
      if (!error.isTooLarge) return
      // A message whose parent is unreadable can belong to any conversation.
      const { parentId } = error
      const concerned = parentId === undefined
        ? [...listeners.values()].flat()
        : listeners.get(parentId) ?? []
      for (const listener of concerned) listener.onTooLarge?.(error)
    }
    const receive = (decoded: Result.Result<Message, WireError>, bytes: number): void => {
      if (Result.isFailure(decoded)) return refuse(decoded.failure)
      const message = decoded.success
      if (message.header.msg_type === tooLargeType) return refuse(tooLarge(message, maxMessageSize))
      const receivers = listeners.get(parentId(message) ?? "")
      if (receivers === undefined) options.onUnclaimed(message, bytes)
      else for (const listener of receivers) listener.onMessage(message, bytes)
    }
    const receiveFor: CountedChannel["receiveFor"] = (id, frame, listener) => {
      const decoded = decodeShell(frame)
      if (Result.isFailure(decoded)) {
        if (decoded.failure.isTooLarge && decoded.failure.parentId === id) {
          listener.onTooLarge?.(decoded.failure)
        }
        return
      }
      const message = decoded.success
      if (parentId(message) !== id) return
      if (message.header.msg_type === tooLargeType) listener.onTooLarge?.(tooLarge(message, maxMessageSize))
      else listener.onMessage(message, frame.length)
    }
    /** Reads until the connection ends. */
    const read = (
      { pull }: Socket.Socket,
      take: (frames: ReadonlyArray<Socket.Frame>) => Effect.Effect<unknown>,
    ): Effect.Effect<Socket.ChannelError> =>
      pull.pipe(
        Effect.flatMap(take),
        Effect.forever({ disableYield: true }),
        Effect.flip,
      )
    const decodeShell = WireV1.makeDecoder()
    const decodeControl = WireV1.makeDecoder()
    /** Takes frames until reading is paused, and the others afterwards. */
    const takeOutput = (frames: ReadonlyArray<Socket.Frame>): Effect.Effect<void> => {
      let taken = 0
      for (const frame of frames) {
        if (!gate.isOpen()) {
          return Effect.andThen(
            gate.opened,
            Effect.suspend(() => takeOutput(frames.slice(taken))),
          )
        }
        taken++
        if (typeof frame === "string") continue
        count++
        receive(decodeShell(frame), frame.length)
      }
      return gate.isOpen() ? Effect.void : gate.opened
    }
    const end = (error: Socket.ChannelError): boolean => Deferred.doneUnsafe(lost, Exit.fail(error))
    const scope = yield* Effect.scope
    /** Over a network one of the connections may be cut alone. */
    const endOther = ({ websocket }: Socket.Socket, delay: Duration.Input) =>
      options.watch === undefined ? Effect.void : Effect.sync(() => websocket.terminate()).pipe(
        Effect.delay(delay),
        Effect.forkIn(scope, { startImmediately: true }),
      )
    yield* Effect.all([
      read(shell, takeOutput).pipe(
        Effect.raceFirst(Effect.flip(watch("shell", shell, gate.wasPaused))),
        Effect.tap(() => Effect.andThen(Deferred.succeed(ended, undefined), endOther(control, 0))),
      ),
      read(control, (frames) =>
        Effect.sync(() => {
          for (const frame of frames) {
            if (typeof frame !== "string") receive(decodeControl(frame), frame.length)
          }
        })).pipe(
          Effect.raceFirst(Effect.flip(watch("control", control, () => false))),
          // The last output is read before the end is reported, unless its consumer has paused.
          Effect.tap((error) => Effect.sync(() => gate.isOpen() || end(error))),
          Effect.tap(() => endOther(shell, lastOutputTimeout)),
        ),
    ], { concurrency: 2 }).pipe(
      Effect.map(([error]) => end(error)),
      Defect.log,
      Effect.onError(() => Effect.sync(() => end(new Socket.ChannelError({ detail: "Reading it failed" })))),
      Effect.ignoreCause,
      Effect.forkScoped,
    )

    const send = (message: Message): Effect.Effect<void, Socket.ChannelError> => {
      const isInTurn = message.channel === "shell" && message.header["subshell_id"] === undefined
      const { websocket } = isInTurn ? shell : control
      return Effect.try({
        try: () => websocket.send(WireV1.encode(message)),
        catch: (cause) =>
          new Socket.ChannelError({ detail: cause instanceof Error ? cause.message : String(cause) }),
      })
    }
    /** Succeeds when the kernel has ended a later request, after everything that it sent before. */
    const fence = Effect.suspend(() => {
      const asked = request("kernel_info_request", {
        id: randomUUID(),
        session: options.session,
        content: {},
      })
      return Effect.raceFirst(
        Conversation.ask(listen, asked, (message) => Conversation.isIdle(message) ? true : undefined),
        Deferred.await(lost),
      )
    })
    const listen: Conversation.Open = (message, listener) =>
      Effect.sync((): Conversation.Conversation => {
        const id = message.header.msg_id
        let isSent = false
        const { pause, resume } = gate.pauser()
        listeners.set(id, [...listeners.get(id) ?? [], listener])
        return {
          id,
          send: Effect.tap(send(message), () => Effect.sync(() => isSent = true)),
          isSent: () => isSent,
          reply: send,
          fence: Effect.asVoid(fence),
          pause,
          resume,
          close: () => {
            const others = listeners.get(id)?.filter((other) => other !== listener) ?? []
            if (others.length > 0) listeners.set(id, others)
            else listeners.delete(id)
            resume()
          },
          hasReceivedAll: () => true,
          takeGap: () => false,
          isOrdered: () => true,
          disconnectError: () => undefined,
        }
      })
    return {
      protocol: "v1",
      request: listen,
      isConnected: () => true,
      lost: Deferred.await(lost),
      count: () => count,
      ended: Deferred.await(ended),
      hold: Effect.suspend(() => {
        const { pause, resume } = gate.pauser()
        return Effect.acquireRelease(Effect.sync(pause), () => Effect.sync(resume))
      }),
      receiveFor,
    }
  },
)

/** Makes a gate for reading, which is open while nothing pauses it. */
function makeGate() {
  const latch = Latch.makeUnsafe(true)
  let pauses = 0
  let wasPaused = false
  return {
    isOpen: () => pauses === 0,
    /** Tells whether it was closed at some time since the last call. */
    wasPaused: () => {
      const before = wasPaused
      wasPaused = pauses > 0
      return before || wasPaused
    },
    opened: latch.await,
    pauser: () => {
      let hasPaused = false
      return {
        pause: () => {
          if (hasPaused) return
          hasPaused = true
          pauses++
          wasPaused = true
          latch.closeUnsafe()
        },
        resume: () => {
          if (!hasPaused) return
          hasPaused = false
          pauses--
          if (pauses === 0) latch.openUnsafe()
        },
      }
    },
  }
}
