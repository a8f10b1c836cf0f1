/** Executions of a client whose owner ends, over procedures for tests. */
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Latch, Layer, Stream } from "effect"
import { RpcTest } from "effect/rpc"
import { Execution, KernelRpc, KernelSessions } from "../../src/mod.ts"
import * as Client from "../../src/rpc/client.ts"
import { Accepted, Attachment, Begun, group, Position } from "../../src/rpc/group.ts"
import * as Handlers from "../../src/rpc/handlers.ts"

const kernel = new Execution.KernelRef({ server: "server", kernelId: "kernel", session: "session" })
const ref = new Execution.ExecutionRef({ kernel, id: "id", start: 0, position: 0 })
const line = (number: number) => [
  new Position({ position: number }),
  new Execution.TextChunk({ name: "stdout", text: `${number}\n` }),
]

/** The sessions of no process: the procedures that matter are replaced. */
const none = Layer.succeed(KernelSessions.KernelSessions, {
  get: () => Effect.never,
  close: () => Effect.void,
  list: Effect.succeed([]),
  events: Stream.never,
})

/** A client of a key whose owner ends after the first line with `end`; the next one comes when `next` opens. */
const make = Effect.gen(function* () {
  const [ended, next] = [yield* Latch.make(), yield* Latch.make()]
  const resumed = yield* Deferred.make<{ readonly interrupts?: boolean | undefined }>()
  let owner = 0
  const end = Effect.andThen(Effect.sync(() => owner++), ended.open)
  const attachment = () =>
    new Attachment({
      session: `${owner}/kernel`,
      kernelId: "kernel",
      language: "python",
      implementation: "ipython",
    })
  const handlers = Effect.map(Handlers.make, (handlers) =>
    group.of({
      ...handlers,
      open: () => owner === 0 ? Effect.succeed(attachment()) : Effect.map(next.await, attachment),
      hold: () => Stream.concat(Stream.succeed(attachment()), Stream.never),
      execute: () =>
        Stream.concat(
          Stream.fromIterable([new Accepted(), new Begun({ ref }), ...line(1)]),
          Stream.fromEffect(Effect.gen(function* () {
            yield* ended.await
            const reason = new Execution.ConnectionLost({ kernelId: "kernel", detail: "It ended" })
            return yield* new Execution.KernelError({ reason })
          })),
        ),
      resume: (payload) =>
        Stream.concat(
          Stream.fromEffect(Effect.as(Deferred.succeed(resumed, payload), new Accepted())),
          Stream.fromIterable([
            ...line(1),
            ...line(2),
            new Execution.ExecutionResult({ text: "1\n2", images: [], displays: [], executionCount: 1 }),
          ]),
        ),
      settled: () => Effect.void,
    }))
  const client = yield* Effect.provide(
    Effect.flatMap(
      RpcTest.makeClient(KernelRpc.group),
      (client) => Client.makeWith("key", client, Effect.never),
    ),
    group.toLayer(handlers).pipe(Layer.provide(none)),
  )
  return { client, end, next, resumed }
})

layer(Layer.empty)("the client of a key", (it) => {
  it.effect("stream goes on at the next owner with the output that it has not emitted", () =>
    Effect.gen(function* () {
      const { client, end, next } = yield* make
      yield* Effect.all([end, next.open])
      const elements = yield* Stream.runCollect(client.stream("code"))
      assert.deepStrictEqual(elements.map((each) => "text" in each ? each.text : ""), ["1\n", "2\n", "1\n2"])
    }).pipe(Effect.scoped))

  it.effect("a stream that is interrupted while there is no owner has the next one interrupt the code", () =>
    Effect.gen(function* () {
      const { client, end, next, resumed } = yield* make
      const printed = yield* Latch.make()
      const fiber = yield* client.stream("code").pipe(
        Stream.runForEach(() => printed.open),
        Effect.forkChild({ startImmediately: true }),
      )
      yield* printed.await
      yield* end
      yield* Fiber.interrupt(fiber)
      yield* next.open
      assert.isTrue((yield* Deferred.await(resumed)).interrupts)
    }).pipe(Effect.scoped))
})
