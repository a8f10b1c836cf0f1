/** Questions leave nothing behind in the client, whatever becomes of them; the kernel is a fake one. */
import { assert, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Random, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Execution } from "../../src/mod.ts"
import { type JsonObject, request } from "../../src/jupyter/message.ts"
import * as Durable from "../../src/kernel/durable.ts"
import type { KernelConnection, Listener, Request } from "../../src/kernel/connection.ts"
import * as Identity from "../../src/kernel/identity.ts"
import * as Instance from "../../src/kernel/instance.ts"
import type { Session } from "../../src/kernel/session.ts"
import * as Subshell from "../../src/kernel/subshell.ts"

/** A kernel with subshells that answers some time later, and what is known of it. */
const makeFake = Effect.fnUntraced(function* (
  options: { readonly isSilent?: boolean; readonly hasSubshells?: boolean; readonly isRefusing?: boolean } =
    {},
) {
  const listeners = new Set<Listener>()
  const subshells = new Set<string>()
  let interrupts = 0
  let opened = 0

  const answers = ({ content, type }: Request): JsonObject => {
    switch (type) {
      case "kernel_info_request":
        return { supported_features: options.hasSubshells === false ? [] : ["kernel subshells"] }
      case "create_subshell_request": {
        const id = Subshell.newId()
        subshells.add(id)
        opened++
        return { status: "ok", subshell_id: id }
      }
      case "delete_subshell_request":
        subshells.delete(String(content.subshell_id))
        return { status: "ok" }
      default:
        return options.isRefusing === true
          ? { status: "error", ename: "TypeError", evalue: "no" }
          : { status: "ok" }
    }
  }
  const send = Effect.fnUntraced(function* (asked: Request, listener: Listener) {
    const isQuestion = asked.type === "complete_request"
    if (isQuestion && options.isSilent === true) return
    yield* Effect.sleep(isQuestion ? Duration.millis(yield* Random.nextBetween(1, 1000)) : "1 millis").pipe(
      Effect.andThen(Effect.sync(() => {
        const reply = request(asked.type.replace("request", "reply"), {
          id: Subshell.newId(),
          session: "kernel",
          content: answers(asked),
        })
        if (listeners.has(listener)) listener.onMessage(reply, 1)
      })),
      Effect.forkDetach,
    )
  })
  const connection: KernelConnection = {
    id: "fake",
    isDirect: false,
    request: (asked, listener) =>
      Effect.sync(() => {
        listeners.add(listener)
        return {
          send: send(asked, listener),
          reply: () => Effect.void,
          isSent: () => true,
          fence: Effect.void,
          pause: () => {},
          resume: () => {},
          close: () => void listeners.delete(listener),
          hasReceivedAll: () => true,
          takeGap: () => false,
          isOrdered: () => true,
          wasCut: () => false,
          lossReason: () => new Execution.ConnectionLost({ kernelId: "fake", detail: "never" }),
        }
      }),
    onUnsolicited: () => {},
    durable: Durable.refused("A kernel for tests"),
    interrupt: Effect.sync(() => void interrupts++),
    ended: Effect.never,
  }
  const instance = yield* Instance.make(connection, Identity.ipython)
  const session: Session = {
    identity: Identity.ipython,
    id: () => "fake",
    stream: () => Stream.die("no"),
    execute: () => Effect.die("no"),
    instance: Effect.suspend(() => {
      const reason = instance.endReason()
      return reason === undefined ? Effect.succeed(instance) : new Execution.KernelError({ reason })
    }),
    ifIdle: Effect.asSome,
    interrupt: Effect.void,
    reset: Effect.void,
    detach: Effect.die("no"),
    start: () => Effect.die("no"),
    resume: () => Stream.die("no"),
  }
  const ask = Subshell.make(session)({
    type: "complete_request",
    content: {},
    pick: ({ content, header }) => header.msg_type === "complete_reply" ? content : undefined,
  }, "5 seconds")
  return {
    ask,
    end: instance.end,
    left: () => listeners.size,
    subshells: () => subshells.size,
    opened: () => opened,
    interrupts: () => interrupts,
  }
})

it.effect("interrupted at any moment", () =>
  Effect.gen(function* () {
    const fake = yield* makeFake()
    const fibers = yield* Effect.forEach(Array.from({ length: 500 }), () =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(fake.ask, { startImmediately: true })
        yield* Effect.sleep(Duration.millis(yield* Random.nextBetween(0, 200_000)))
        yield* Fiber.interrupt(fiber)
        return yield* Fiber.await(fiber)
      }).pipe(Effect.forkChild({ startImmediately: true })))
    yield* TestClock.adjust("10 minutes")
    const exits = yield* Effect.forEach(fibers, (fiber) => Fiber.join(fiber))
    assert.isTrue(exits.some(Exit.isSuccess))
    assert.isTrue(exits.some(Exit.hasInterrupts))
    assert.strictEqual(fake.left(), 0)
    assert.strictEqual(fake.subshells(), 1)
  }))

it.effect("never answered, until the kernel ends", () =>
  Effect.gen(function* () {
    const fake = yield* makeFake({ isSilent: true })
    for (let i = 0; i < 12; i++) {
      const fiber = yield* Effect.forkChild(Effect.flip(fake.ask), { startImmediately: true })
      yield* TestClock.adjust("6 seconds")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "IntrospectionFailed")
    }
    // The fake one answers what is asked after them, as a kernel does that never got them.
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(fake.left(), 0)
    assert.isAtMost(fake.subshells(), 1)

    const fibers = yield* Effect.forEach(
      Array.from({ length: 3 }),
      () => Effect.forkChild(Effect.flip(fake.ask), { startImmediately: true }),
    )
    yield* TestClock.adjust("1 second")
    fake.end(new Execution.KernelDied({ kernelId: "fake" }))
    for (const fiber of fibers) {
      const error = yield* Fiber.join(fiber)
      assert.instanceOf(error, Execution.KernelError)
      assert.strictEqual(error.reason._tag, "KernelDied")
    }
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(fake.left(), 0)
  }))

it.effect("refused, one after the other, in one subshell", () =>
  Effect.gen(function* () {
    const fake = yield* makeFake({ isRefusing: true })
    for (let i = 0; i < 12; i++) {
      const fiber = yield* Effect.forkChild(Effect.flip(fake.ask), { startImmediately: true })
      yield* TestClock.adjust("2 seconds")
      const error = yield* Fiber.join(fiber)
      assert.include(error.message, "TypeError: no")
    }
    assert.strictEqual(fake.opened(), 1)
    assert.strictEqual(fake.left(), 0)
  }))

it.effect("requests to the main shell are interrupted when their caller is", () =>
  Effect.gen(function* () {
    const fake = yield* makeFake({ isSilent: true, hasSubshells: false })
    const late = yield* Effect.forkChild(Effect.flip(fake.ask), { startImmediately: true })
    yield* TestClock.adjust("10 seconds")
    assert.strictEqual((yield* Fiber.join(late))._tag, "IntrospectionFailed")
    assert.strictEqual(fake.interrupts(), 1)
    const fiber = yield* Effect.forkChild(fake.ask, { startImmediately: true })
    yield* TestClock.adjust("1 second")
    const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
    yield* TestClock.adjust("3 seconds")
    yield* Fiber.join(interrupting)
    assert.strictEqual(fake.interrupts(), 2)
    assert.strictEqual(fake.left(), 0)
  }))
