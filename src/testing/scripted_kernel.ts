/**
 * A connection to a kernel that does what scripts say. The client above it is the one of all kernels.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Defect from "../defect.ts"
import { ConnectionLost, ExecutionAborted, KernelError, type KernelErrorReason } from "../execution.ts"
import type { JsonObject } from "../jupyter/message.ts"
import * as Messages from "../jupyter/message.ts"
import type { Conversation, KernelConnection, Listener, Request } from "../kernel/connection.ts"
import * as Durable from "../kernel/durable.ts"
import * as Scripts from "./script.ts"
import type { Raised, Script } from "./script.ts"
import * as ScriptedValues from "./scripted_values.ts"

/** The scripts of a kernel, and the record of its executions; several kernels may share both. */
export interface Scripting {
  readonly take: ReturnType<typeof Scripts.taker>
  /** Records the code of an execution that begins. */
  readonly record: (code: string) => void
}

/** The end of code: without a failure, by an exception, or with the reason of a `KernelError`. */
type End = "ok" | Raised | KernelErrorReason

/** The execution that runs. */
interface Running {
  /** Ends it by an exception, unless it has ended. */
  readonly raise: (raised: Raised) => void
  fiber: Fiber.Fiber<void> | undefined
  /** Takes the answer to a request for input. */
  answer: Deferred.Deferred<void> | undefined
}

/** Tells whether a kernel with the reason runs no more code until it is reset. */
const isLasting = Predicate.or(
  Predicate.or(Predicate.isTagged("KernelDied"), Predicate.isTagged("KernelNotFound")),
  Predicate.or(Predicate.isTagged("ConnectionLost"), Predicate.isTagged("KernelUnresponsive")),
)

/** Makes a connection to a new kernel; what it runs ends with the scope. */
export const make: (scripting: Scripting) => Effect.Effect<KernelConnection, never, Scope.Scope> = Effect
  .fnUntraced(function* ({ record, take }) {
    const id = SecureRandom.uuidV4Unsafe()
    const scope = yield* Effect.scope
    const ended = Deferred.makeUnsafe<never, KernelError>()
    const values = ScriptedValues.make()
    let executionCount = 0
    let running: Running | undefined

    /** Begins with code, of which the messages come at once as far as its script has no delays. */
    const execute = (request: Request, say: Say, listener: Listener) =>
      Effect.suspend(() => {
        const { allow_stdin: allowStdin, code, silent, store_history: isCell } = request.content
        say.begin()
        // Of the library itself.
        if (silent === true) return Effect.sync(() => say.end({ status: "ok" }))
        const asked = request.value === undefined ? undefined : values.operationOf(request.value)
        const text = asked === undefined ? String(code) : asked.code
        if (isCell !== false) executionCount++
        const count = executionCount
        say.put("execute_input", { code: text ?? "", execution_count: count })
        if (text !== undefined) record(text)
        const run: Running = { fiber: undefined, answer: undefined, raise: (raised) => finish(raised) }
        const finish = (end: End): void => {
          if (running !== run) return
          if (typeof end === "object" && "_tag" in end) {
            if (!isLasting(end)) return listener.onFailure?.(end)
            running = undefined
            Deferred.doneUnsafe(ended, Exit.fail(new KernelError({ reason: end })))
            return
          }
          running = undefined
          say.end(end === "ok" ? { status: "ok", execution_count: count } : errorOf(end), count)
        }
        running = run
        const playing = Effect.gen(function* () {
          const found = text === undefined ? undefined : take(text)
          if (found?._tag === "None") return new ExecutionAborted({ kernelId: id, detail: found.detail })
          const script = found?.script
          const end = script === undefined ? "ok" : yield* play(script, { count, run, say, allowStdin })
          if (asked === undefined) return end
          return yield* values.answer(asked, script, end, say.answer)
        })
        return playing.pipe(
          // A function of the test threw it.
          Effect.catchDefect((cause) => Effect.succeed<End>(raisedBy(cause))),
          Effect.flatMap((end) => Effect.sync(() => finish(end))),
          Defect.log,
          // At once, so that a test clock finds what sleeps.
          Effect.forkIn(scope, { startImmediately: true }),
          Effect.map((fiber) => {
            run.fiber = fiber
          }),
        )
      })

    const interrupt = Effect.suspend(() => {
      if (running === undefined) return Effect.void
      const { fiber, raise } = running
      raise({ ename: "KeyboardInterrupt" })
      return fiber === undefined ? Effect.void : Fiber.interrupt(fiber)
    })

    return {
      id,
      isDirect: false,
      request: (request, listener) =>
        Effect.sync((): Conversation => {
          let isOpen = true
          let isSent = false
          const say = speaker(request, (message) => isOpen && listener.onMessage(message, 0))
          return {
            send: Effect.suspend(() => {
              isSent = true
              return request.type === "execute_request"
                ? execute(request, say, listener)
                : Effect.sync(() => say.refuse())
            }),
            isSent: () => isSent,
            reply: () =>
              Effect.sync(() => {
                if (running?.answer !== undefined) Deferred.doneUnsafe(running.answer, Exit.void)
              }),
            fence: Effect.void,
            pause: () => {},
            resume: () => {},
            close: () => {
              isOpen = false
            },
            isOrdered: () => true,
            hasReceivedAll: () => true,
            takeGap: () => false,
            wasCut: () => false,
            lossReason: () =>
              new ConnectionLost({ kernelId: id, detail: "A kernel for tests loses nothing" }),
          }
        }),
      onUnsolicited: () => {},
      durable: Durable.refused("A kernel for tests ends with its scope"),
      interrupt,
      ended: Deferred.await(ended),
    }
  })

/** Puts out what a script says, and returns how the code ends. */
const play = Effect.fnUntraced(function* (
  { chunks = [], delay = 0, error, interval = 0, result }: Script,
  { allowStdin, count, run, say }: {
    readonly count: number
    readonly run: Running
    readonly say: Say
    readonly allowStdin: unknown
  },
): Effect.fn.Return<End> {
  for (const chunk of chunks) {
    yield* pause(interval)
    const output = Scripts.toMessage(chunk)
    if (output.type !== "input_request") {
      say.put(output.type, output.content)
      continue
    }
    if (allowStdin === false) {
      const asked = output.content.password === true ? "getpass" : "raw_input"
      const evalue = `${asked} was called, but this frontend does not support input requests.`
      return { ename: "StdinNotImplementedError", evalue }
    }
    const answer = run.answer = Deferred.makeUnsafe<void>()
    say.put(output.type, output.content)
    yield* Deferred.await(answer)
  }
  yield* pause(delay)
  if (result !== undefined) say.put("execute_result", Scripts.resultOf(result, count))
  return error ?? "ok"
})

/** Sends the messages that answer one request. */
interface Say {
  readonly put: (type: string, content: JsonObject) => void
  readonly begin: () => void
  /** Puts out an exception, if there is one, and sends the reply and `idle`. */
  readonly end: (reply: JsonObject, executionCount?: number) => void
  /** Puts out an answer to a request for values. */
  readonly answer: (content: JsonObject) => void
  /** Replies that the kernel does not support the request. */
  readonly refuse: () => void
}

function speaker(
  { id = "", type }: Request,
  send: (message: Messages.Message) => void,
): Say {
  const put: Say["put"] = (type, content) =>
    send(Messages.request(type, {
      id: SecureRandom.uuidV4Unsafe(),
      session: "test",
      channel: type === "input_request" ? "stdin" : type.endsWith("_reply") ? "shell" : "iopub",
      parentHeader: { msg_id: id },
      content,
    }))
  const replyType = type === "comm_open" ? "comm_msg" : type.replace("_request", "_reply")
  const begin = () => put("status", { execution_state: "busy" })
  const idle = () => put("status", { execution_state: "idle" })
  return {
    put,
    begin,
    answer: (content) => put("display_data", { data: { [ScriptedValues.mime]: content }, metadata: {} }),
    end: (reply, executionCount) => {
      if (reply.status === "error") put("error", reply)
      put(replyType, {
        ...reply,
        ...(executionCount === undefined ? {} : { execution_count: executionCount }),
      })
      idle()
    },
    refuse: () => {
      const member = memberOf(type)
      const error = { status: "error", ename: "", evalue: `The test gives no "members.${member}"` }
      begin()
      put(replyType, type === "comm_open" ? { data: error } : error)
      idle()
    },
  }
}

/** Returns the member of a kernel that sends a request of a type. */
function memberOf(type: string): string {
  switch (type) {
    case "comm_open":
      return "variables"
    case "kernel_info_request":
      return "info"
    default:
      return type.replace("_request", "").replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
  }
}

function errorOf({ ename, evalue = "", traceback = [] }: Raised): JsonObject {
  return { status: "error", ename, evalue, traceback }
}

/** Returns what a function of a script throws as an exception of the code. */
function raisedBy(cause: unknown): Raised {
  return cause instanceof Error
    ? { ename: cause.name, evalue: cause.message }
    : { ename: "Error", evalue: String(cause) }
}

const pause = (duration: Duration.Input): Effect.Effect<void> =>
  Duration.isZero(Duration.fromInputUnsafe(duration)) ? Effect.void : Effect.sleep(duration)
