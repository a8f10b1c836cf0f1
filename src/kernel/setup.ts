/**
 * What a kernel goes through before its first execution: it has to answer, and a Python kernel is made fit
 * for programs.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Assets from "../assets.ts"
import { KernelError, KernelStartFailed } from "../execution.ts"
import { decode, executeContent, type JsonObject, type Message, request } from "../jupyter/message.ts"
import type { Connection } from "./connection.ts"
import * as Reducer from "./reducer.ts"

/** What `kernel_setup.py` is to know. */
export interface SetupOptions {
  /** An absolute path. */
  readonly workingDir: string | undefined
}

/** Brings a kernel to its first execution; asks it for its language unless that is known to be Python. */
export type Setup = (
  connection: Connection,
  known: { readonly isPython: boolean },
) => Effect.Effect<void, KernelError>

/** Reads the set-up code and gives what runs it. */
export const load: (
  options: SetupOptions,
) => Effect.Effect<
  Setup,
  never,
  FileSystem.FileSystem
> = Effect.fnUntraced(function* (options: SetupOptions) {
  const json = JSON.stringify({ workingDir: options.workingDir ?? null })
  // A namespace of its own: none of its names reach the user. A JSON string is a Python string.
  const code = yield* Effect.result(Effect.map(
    Assets.read("python/kernel_setup.py"),
    (source) =>
      `exec(${JSON.stringify(source)}, {"options": __import__("json").loads(${JSON.stringify(json)})})`,
  ))

  return Effect.fnUntraced(function* (connection: Connection, { isPython }) {
    const failed = (detail: string) =>
      new KernelError({ reason: new KernelStartFailed({ kernelId: connection.id, detail }) })
    const language = isPython ? "python" : yield* Effect.mapError(askLanguage(connection), failed)
    if (language !== "python") return
    const { raised, reply } = yield* Effect.fromResult(code).pipe(
      Effect.mapError(({ message }) => message),
      Effect.flatMap((code) => runSilently(connection, code)),
      Effect.mapError(failed),
    )
    if (reply !== "ok") {
      return yield* failed(`Its set-up failed with ${raised?.ename ?? reply}: ${raised?.evalue ?? ""}`)
    }
  })
})

/** Runs code of the user before the first execution, of which it is no part: nothing is counted or shown. */
export const run: (connection: Connection, code: string) => Effect.Effect<void, KernelError> = Effect
  .fnUntraced(function* (connection, code) {
    const failed = (detail: string) =>
      new KernelError({ reason: new KernelStartFailed({ kernelId: connection.id, detail }) })
    const { raised, reply } = yield* Effect.mapError(runSilently(connection, code), failed)
    if (reply === "ok") return
    if (raised === undefined) return yield* failed(`Its "setup" did not run: ${reply}`)
    const { ename, evalue, traceback } = raised
    return yield* failed(`Its "setup" raised ${[`${ename}: ${evalue}`, ...traceback].join("\n")}`)
  })

/** The kernel's language, which shows that the kernel answers. */
const askLanguage = (connection: Connection) =>
  converse(connection, "kernel_info_request", {}, (message: Message) => {
    if (message.header.msg_type !== "kernel_info_reply") return undefined
    const info = decode.kernelInfoReply(message.content)
    return Exit.isSuccess(info) ? info.value.language_info?.name ?? "" : ""
  })

/** Runs code that is not the user's: nothing is counted or shown. Fails if nobody can know how it ended. */
export const runSilently = (
  connection: Connection,
  code: string,
  buffers: ReadonlyArray<Uint8Array> = [],
): Effect.Effect<Reducer.Progress, string> => {
  let progress = Reducer.initial
  return converse(
    connection,
    "execute_request",
    executeContent(code, { silent: true, allowStdin: false }),
    (message) => {
      progress = Reducer.step(progress, message)[0]
      return Reducer.isOver(progress) ? progress : undefined
    },
    buffers,
  )
}

/** Sends a request and waits until `listen` makes something of the messages that answer it. */
const converse = <A>(
  { channel, onEnded, session }: Connection,
  type: string,
  content: JsonObject,
  listen: (message: Message) => A | undefined,
  buffers: ReadonlyArray<Uint8Array> = [],
): Effect.Effect<A, string> =>
  Effect.suspend(() => {
    const id = SecureRandom.uuidV4Unsafe()
    const answer = Effect.callback<A, string>((resume) => {
      const forgetEnd = onEnded((reason) => resume(Effect.fail(reason.message)))
      channel.listen(id, {
        onFenced: () => resume(Effect.fail("The connection was cut, and the answer is lost")),
        onMessage: (message) => {
          const value = listen(message)
          if (value !== undefined) resume(Effect.succeed(value))
        },
      })
      return Effect.sync(() => {
        forgetEnd()
        channel.forget(id)
      })
    })
    const ask = Effect.mapError(
      channel.send(request(type, { id, session, content, buffers })),
      (error) => error.message,
    )
    return Effect.raceFirst(answer, Effect.andThen(ask, Effect.never))
  })
