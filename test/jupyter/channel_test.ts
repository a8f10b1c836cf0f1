/** The channels of a kernel over a connection that is cut. */
import { assert, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import type { WebSocket } from "ws"
import * as Channel from "../../src/jupyter/channel.ts"
import { type Message, request } from "../../src/jupyter/message.ts"
import * as Socket from "../../src/jupyter/socket.ts"
import * as Fake from "../support/fake_server.ts"

it.effect("send waits while nothing is read from a connection that was cut, without the clock", () =>
  Effect.gen(function* () {
    const server = yield* Fake.make()
    const sockets: Array<WebSocket> = []
    const channel = yield* Channel.make({
      url: server.url,
      headers: {},
      openSocket: (address, options) =>
        Effect.tap(
          Socket.open(address, { headers: {}, ...options }),
          ({ websocket }) => Effect.sync(() => sockets.push(websocket)),
        ),
      kernelId: "kernel",
      session: "one",
      pingInterval: "10 seconds",
      onUnclaimed: () => {},
      onMalformed: () => {},
    })
    const ask = Effect.fnUntraced(function* (id: string, onMessage: (message: Message) => void) {
      return yield* channel.request(request("kernel_info_request", { id, session: "one", content: {} }), {
        onMessage,
      })
    })
    const isPaused = yield* Deferred.make<void>()
    const isAnswered = yield* Deferred.make<void>()
    const first = yield* ask("first", () => {
      first.pause()
      Deferred.doneUnsafe(isPaused, Effect.void)
    })
    const second = yield* ask("second", () => Deferred.doneUnsafe(isAnswered, Effect.void))
    yield* first.send
    yield* Deferred.await(isPaused)
    yield* Effect.callback<void>((resume) => {
      sockets[0]?.once("close", () => resume(Effect.void)).terminate()
    })

    assert.isTrue(channel.isConnected())
    const sending = yield* Effect.forkChild(second.send, { startImmediately: true })
    assert.isFalse(channel.isConnected())
    first.resume()
    yield* Fiber.join(sending)
    yield* Deferred.await(isAnswered)
    assert.lengthOf(sockets, 2)
  }))
