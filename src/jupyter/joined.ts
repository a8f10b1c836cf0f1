/**
 * The WebSockets of a kernel on another machine, which its gateway joins to those of the kernel: it passes bytes in both
 * directions as they are, and counts them.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as DirectChannel from "./direct_channel.ts"
import { ChannelError, type Open } from "./socket.ts"

/**
 * The bytes of one connection that the gateway has passed on.
 *
 * @category models
 * @since 0.1.0
 */
export interface Counts {
  /** Bytes that the gateway has received from the client. */
  readonly received: number
  /** Bytes that the gateway has sent to the client. */
  readonly sent: number
}

/**
 * Opens the WebSockets of a kernel through its gateway, which has no connection to offer (status 409) if the kernel does
 * not serve its client itself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const open = ({ kernelId, openSocket, url }: {
  /** Base URL of the gateway. */
  readonly url: string
  readonly kernelId: string
  /** Opens WebSockets with the credentials of the gateway. */
  readonly openSocket: Open
}): DirectChannel.Open =>
(name, options) => {
  const server = url.replace(/^http/, "ws").replace(/\/+$/, "")
  const address = `${server}/api/kernels/${encodeURIComponent(kernelId)}/${name}`
  return openSocket(`${address}?max_message_size=${options.maxMessageSize}`, options)
}

/** Minimum interval of pings: a shorter one would take a busy network for one that is cut. */
const minInterval = Duration.millis(1500)

/** Consecutive questions without an answer of the gateway after which the connection counts as cut. */
const maxUnanswered = 2

/**
 * Finds out when a connection is cut that reports no end. A missing answer to a ping proves nothing, as Python may run
 * code of C that answers later. If nothing arrives at all, the gateway is asked twice: the connection is cut if the bytes
 * that one side sent in the meantime have not arrived at the other, or if the gateway does not answer.
 *
 * @category constructors
 * @since 0.1.0
 */
export const watch = <E>({ counts, interval }: {
  /** Asks the gateway; fails if it does not answer, or does not know the connection. */
  readonly counts: (name: DirectChannel.Name) => Effect.Effect<Counts, E>
  /** The interval of pings. */
  readonly interval: Duration.Input
}): DirectChannel.Watch =>
(name, { bytesRead, websocket }, wasPaused) => {
  const pause = Duration.max(Duration.fromInputUnsafe(interval), minInterval)
  const cut = (detail: string) => Effect.fail(new ChannelError({ detail }))
  let isAnswered = true
  let bytesBefore = 0
  let before: Counts | undefined
  /** True if the gateway has sent bytes that had not arrived when it was last asked. */
  let isMissing = false
  let unanswered = 0
  const onPong = () => {
    isAnswered = true
  }
  const reset = Effect.sync(() => {
    before = undefined
    isMissing = false
    unanswered = 0
  })
  const ask = Effect.gen(function* () {
    const answer = yield* Effect.option(counts(name))
    // It arrived meanwhile.
    if (bytesRead() > bytesBefore) return yield* reset
    if (Option.isNone(answer)) {
      unanswered++
      return unanswered < maxUnanswered ? undefined : yield* cut("The gateway does not answer any more")
    }
    const now = answer.value
    if (isMissing || now.received === before?.received) return yield* cut("Its bytes do not arrive any more")
    isMissing = before !== undefined && now.sent > before.sent
    before = now
    unanswered = 0
  })
  const check = Effect.suspend(() => {
    const bytes = bytesRead()
    const isAlive = [isAnswered, bytes > bytesBefore, wasPaused()].includes(true)
    isAnswered = false
    bytesBefore = bytes
    return Effect.tap(isAlive ? reset : ask, () =>
      Effect.sync(() => {
        if (websocket.readyState === websocket.OPEN) websocket.ping()
      }))
  })
  return Effect.acquireUseRelease(
    Effect.sync(() => websocket.on("pong", onPong)),
    // Frames that were received while this process was busy are read first.
    () => Effect.forever(check.pipe(Effect.delay(0), Effect.delay(pause))),
    () => Effect.sync(() => websocket.off("pong", onPong)),
  )
}
