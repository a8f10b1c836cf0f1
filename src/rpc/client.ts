/**
 * A kernel of another process.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import * as Option from "effect/Option"
import * as RpcClient from "effect/rpc/RpcClient"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { Kernel } from "../client/kernel.ts"
import { ExecutionAborted, KernelError } from "../execution.ts"
import * as Options from "../options/check.ts"
import * as Values from "../values/make.ts"
import { exchange, execution, resume } from "./executions.ts"
import * as Fragment from "./fragment.ts"
import { group } from "./group.ts"
import {
  ask,
  askStream,
  attach,
  type Client,
  failureOf,
  lost,
  type Remote,
  sendable,
  targetOf,
  textOf,
  untilConnected,
} from "./remote.ts"

/** Maximum time that a reset waits until earlier requests have their place in the queue. */
const acceptTimeout: Duration.Input = "1 second"

/** Connects to the kernel of a key, whose session is in use until the scope closes. */
export const make = (key: string): Effect.Effect<Kernel, KernelError, RpcClient.Protocol | Scope.Scope> =>
  Effect.flatMap(RpcClient.make(group), (client) => makeWith(key, client))

/** Connects by a client. A `guard` fails when there is no server for long, although requests wait for one. */
export const makeWith: (
  key: string,
  client: Client,
  guard?: Effect.Effect<never, KernelError>,
) => Effect.Effect<Kernel, KernelError, Scope.Scope> = Effect.fnUntraced(
  function* (key, client, guard) {
    yield* Effect.mapError(Options.check(Options.Session, { key }), (reason) => new KernelError({ reason }))
    const remote: Remote = {
      key,
      client,
      streams: yield* Deferred.make<void>(),
      guard,
      sending: yield* Semaphore.make(1),
      scope: yield* Effect.scope,
      attachment: undefined,
      ended: undefined,
    }
    // Before the requests that run are ended, which then have the reason.
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        const kernelId = remote.attachment?.kernelId
        remote.ended = new ExecutionAborted({ kernelId, detail: "The client is closed" })
      })
    )
    const holding = yield* FiberHandle.make()
    const hold = FiberHandle.run(holding, keep(remote), { startImmediately: true })
    yield* hold
    const { implementation, language } = yield* ask(remote, () => client.open({ key })).pipe(
      Effect.tap((attachment) => Effect.sync(() => attach(remote, attachment))),
    )
    const session = {
      id: () => remote.attachment?.kernelId ?? "",
      identity: { language, implementation, info: undefined },
    }
    const kernel: Kernel = {
      ...yield* Values.make(session, exchange(remote)),
      get id() {
        return session.id()
      },
      execute: (code, options) =>
        Effect.flatMap(
          Stream.runLast(execution(remote, code, { ...options, chunks: false })),
          (last) =>
            Option.isSome(last) && last.value._tag === "ExecutionResult"
              ? Effect.succeed(last.value)
              : Effect.fail(lost(remote, "An execution ended without a result")),
        ),
      stream: (code, options) => execution(remote, code, options ?? {}),
      output: lateOutput(remote),
      interrupt: ask(remote, (target) => client.interrupt(target)),
      reset: Effect.gen(function* () {
        // After what was requested before; a protocol that sends answers only as a whole does not tell when that is.
        yield* Effect.timeoutOption(Semaphore.takeScoped(remote.sending, 1), acceptTimeout)
        remote.ended = undefined
        const before = remote.attachment?.session
        const attachment = yield* ask(remote, (target) => client.reset(target))
        attach(remote, attachment)
        if (attachment.session !== before) yield* hold
      }).pipe(Effect.scoped),
      detach: ask(remote, (target) => client.detach(target)),
      start: (code, { allowStdin } = {}) =>
        Effect.flatMap(
          textOf(remote, code),
          (code) => ask(remote, (target) => client.start({ ...target, code, allowStdin })),
        ),
      resume: (ref, options) => resume(remote, ref, options ?? {}),
      complete: (code, cursor, options) =>
        Effect.flatMap(
          textOf(remote, code),
          (code) =>
            ask(remote, (target) => client.complete({ ...target, ...sendable(options), code, cursor })),
        ),
      inspect: (code, cursor, { detail, ...options } = {}) =>
        Effect.flatMap(textOf(remote, code), (code) =>
          ask(
            remote,
            (target) => client.inspect({ ...target, ...sendable(options), code, cursor, detail }),
          )),
      isComplete: (code, options) =>
        Effect.flatMap(
          textOf(remote, code),
          (code) => ask(remote, (target) => client.isComplete({ ...target, ...sendable(options), code })),
        ),
      history: (options) =>
        ask(remote, (target) => client.history({ ...target, ...sendable(options), last: options?.last })),
      info: ask(remote, (target) => client.info(target)),
      variables: ask(remote, (target) => client.variables(target)),
    }
    return kernel
  },
)

/** Has the session in use, and takes note of its end and of the kernels that other clients' resets give it. */
const keep = (remote: Remote): Effect.Effect<void> =>
  Stream.suspend(() => remote.client.hold(targetOf(remote))).pipe(
    Stream.runForEach((attachment) => {
      const { kernelId, session } = remote.attachment ?? {}
      // A reset has given the session another kernel, or another process has the kernel by now.
      const isChanged = (attachment.session === session) !== (attachment.kernelId === kernelId)
      if (isChanged) attach(remote, attachment)
      return Deferred.succeed(remote.streams, undefined)
    }),
    Effect.catchCause((cause) => Effect.fail(failureOf(remote, cause))),
    Effect.retry(untilConnected),
    // Requests tell the same.
    Effect.ignore,
  )

/** Emits late output, also after the connection was lost and is there again. */
const lateOutput = (remote: Remote): Kernel["output"] =>
  Fragment.join(askStream(remote, (target) => remote.client.output(target)), Fragment.isOfLateOutput).pipe(
    Stream.retry(untilConnected),
    Stream.catch(() => Stream.empty),
  )
