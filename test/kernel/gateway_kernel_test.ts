/** The connection to a kernel over a gateway; the server is a fake one. */
import { assert, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer } from "effect"
import { KernelGateway } from "../../src/mod.ts"
import type { KernelErrorReason } from "../../src/execution.ts"
import * as Gateway from "../../src/gateway/connection.ts"
import type { Message } from "../../src/jupyter/message.ts"
import * as Connection from "../../src/kernel/connection.ts"
import type { Listener } from "../../src/kernel/connection.ts"
import * as GatewayKernel from "../../src/kernel/gateway_kernel.ts"
import * as Platform from "../../src/platform.ts"
import * as FakeServer from "../support/fake_server.ts"
import * as TcpProxy from "../support/tcp_proxy.ts"

const info = { type: "kernel_info_request", content: {} }

/** A connection to a kernel of a fake server, and what its process is said to do. */
const connect = Effect.fnUntraced(function* (script: FakeServer.Script = {}) {
  const state = { isStopped: false }
  const server = yield* FakeServer.make({
    rest: (name) => {
      const model = { id: "kernel-1", name: "fake", execution_state: "idle", stopped: state.isStopped }
      return name === "GET /api/kernels/:id" ? { status: 200, body: JSON.stringify(model) } : undefined
    },
    ...script,
  })
  const proxy = yield* TcpProxy.make(server.url)
  const context = yield* Layer.build(KernelGateway.layerRemote({ url: proxy.url }))
  const platform = yield* Platform.services
  const gateway = yield* Effect.provideContext(
    Effect.flatMap(KernelGateway.KernelGateway, Gateway.of),
    context,
  ).pipe(Effect.provideContext(platform))
  const connection = yield* GatewayKernel.make(gateway, {
    kernelName: undefined,
    env: {},
    startTimeout: "10 seconds",
    pingInterval: "50 millis",
  })
  return { connection, proxy, state }
})

/** A listener, and the first failure that it is told. */
const listener = () => {
  const failure = Deferred.makeUnsafe<KernelErrorReason>()
  const messages: Array<string> = []
  const self: Listener = {
    onMessage: ({ header }) => messages.push(header.msg_type),
    onFailure: (reason) => Deferred.doneUnsafe(failure, Exit.succeed(reason)),
  }
  return { self, failure, messages }
}

it.live("onFailure tells open conversations of a process that is stopped, and closed ones nothing", () =>
  Effect.gen(function* () {
    const { connection, state } = yield* connect()
    const [open, closed] = [listener(), listener()]
    const conversation = yield* connection.request(info, closed.self)
    conversation.close()
    // Last: they are told in their order.
    yield* connection.request(info, open.self)
    state.isStopped = true
    assert.strictEqual((yield* Deferred.await(open.failure))._tag, "KernelUnresponsive")
    assert.isFalse(Deferred.isDoneUnsafe(closed.failure))
  }))

it.live("ended fails with KernelDied when the kernel says so in an answer, which no listener takes", () =>
  Effect.gen(function* () {
    const { connection } = yield* connect({
      info: ({ message, send }) => send(message("status", { execution_state: "dead" })),
    })
    const ended = yield* Effect.forkChild(Effect.flip(connection.ended), { startImmediately: true })
    const { messages, self } = listener()
    const { send } = yield* connection.request(info, self)
    yield* send
    assert.strictEqual((yield* Fiber.join(ended)).reason._tag, "KernelDied")
    assert.deepStrictEqual(messages, [])
  }))

it.live("onUnsolicited takes output whose request has no listener any more", () =>
  Effect.gen(function* () {
    const { connection } = yield* connect({
      execute: ({ message, run, send }) =>
        send(...run("in time"), message("stream", { name: "stdout", text: "late" })),
    })
    const late = Deferred.makeUnsafe<unknown>()
    connection.onUnsolicited(({ content }) => Deferred.doneUnsafe(late, Exit.succeed(content.text)))
    const { messages, self } = listener()
    const conversation = yield* connection.request({ type: "execute_request", content: {} }, {
      ...self,
      onMessage: (message, bytes) => {
        self.onMessage(message, bytes)
        if (message.content.execution_state === "idle") conversation.close()
      },
    })
    yield* conversation.send
    assert.strictEqual(yield* Deferred.await(late), "late")
    assert.deepStrictEqual(messages, ["status", "execute_input", "stream", "execute_reply", "status"])
  }))

it.live("request waits for a connection that is being restored, unless it is told not to", () =>
  Effect.gen(function* () {
    const { connection, proxy } = yield* connect()
    proxy.refuse()
    proxy.cut("reset")
    yield* Effect.repeat(Effect.delay(Effect.sync(proxy.refused), "5 millis"), {
      until: (count) => count > 0,
    })
    const pick = ({ header }: Message) => header.msg_type === "kernel_info_reply" ? true : undefined
    const error = yield* Effect.flip(Connection.ask(connection, info, pick, { waitsForConnection: false }))
    assert.include(error.message, "It is being restored")
    const waiting = yield* Effect.forkChild(Connection.ask(connection, info, pick), {
      startImmediately: true,
    })
    proxy.heal()
    assert.isTrue(yield* Fiber.join(waiting))
  }))
