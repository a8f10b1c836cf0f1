/**
 * What a kernel goes through before its first execution: it has to answer, and a Python kernel is made fit
 * for programs.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Assets from "../assets.ts"
import { KernelError, KernelStartFailed } from "../execution.ts"
import { excerpt } from "../jupyter/control_codes.ts"
import type { Unanswered } from "../jupyter/conversation.ts"
import { decode, executeContent } from "../jupyter/message.ts"
import { ask, type Connection, type Link } from "./connection.ts"
import * as Identity from "./identity.ts"
import * as Reducer from "./reducer.ts"

/** What `kernel/setup.py` is to know. */
export interface SetupOptions {
  /** An absolute path. */
  readonly workingDir: string | undefined
}

/**
 * Brings a kernel to its first execution. `env` are variables that the server may not have given to it: the set-up of
 * Python sets them, and for a kernel of another language a warning names them.
 */
export type Setup = (
  connection: Connection,
  env: Readonly<Record<string, string>>,
) => Effect.Effect<void, KernelError>

/** Reads the set-up code and gives what runs it. */
export const load: (
  options: SetupOptions,
) => Effect.Effect<
  Setup,
  never,
  FileSystem.FileSystem
> = Effect.fnUntraced(function* ({ workingDir }: SetupOptions) {
  const fs = yield* FileSystem.FileSystem
  const source = Effect.provideService(
    Assets.read("python/effect_jupyter/kernel/setup.py"),
    FileSystem.FileSystem,
    fs,
  )
  // Early, while there are descriptors.
  yield* Effect.ignore(source)
  // A working directory that was there once, and that code deleted, is made again for the next kernel.
  let hasWorked = false

  return Effect.fnUntraced(function* (connection: Connection, env) {
    const { identity } = connection
    if (!Identity.isPython(identity)) {
      if (workingDir !== undefined) return yield* Identity.unsupported(identity, "workingDir")
      return yield* warn(connection, Object.keys(env))
    }
    const failed = failure(connection)
    const json = JSON.stringify({ workingDir: workingDir ?? null, makeWorkingDir: hasWorked, env })
    const { raised, reply } = yield* source.pipe(
      Effect.mapError(({ message }) => message),
      Effect.flatMap((text) =>
        // A namespace of its own: none of its names reach the user. A JSON string is a Python string.
        runSilently(
          connection,
          `exec(${JSON.stringify(text)}, {"options": __import__("json").loads(${JSON.stringify(json)})})`,
        ).pipe(Effect.mapError(detailOf))
      ),
      Effect.mapError(failed),
    )
    if (reply !== "ok") {
      return yield* failed(`Its set-up failed with ${raised?.ename ?? reply}: ${raised?.evalue ?? ""}`)
    }
    hasWorked = true
  })
})

/** Names the variables that a kernel may not have; all servers pass on those that are for them. */
const warn = ({ id, identity }: Connection, names: ReadonlyArray<string>): Effect.Effect<void> => {
  const doubtful = names.filter((name) => !name.startsWith("KERNEL_"))
  return doubtful.length === 0 ? Effect.void : Effect.annotateLogs(
    Effect.logWarning(
      `The server may not give the variables ${
        doubtful.map((name) => `"${name}"`).join(", ")
      } of "env" to a kernel ` +
        `of "${identity.language}"; set them in its kernelspec or by its own code`,
    ),
    { kernel: id },
  )
}

const failure = ({ id: kernelId }: Link) => (detail: string): KernelError =>
  new KernelError({ reason: new KernelStartFailed({ kernelId, detail }) })

/** Runs code of the user before the first execution, of which it is no part: nothing is counted or shown. */
export const run: (connection: Link, code: string) => Effect.Effect<void, KernelError> = Effect
  .fnUntraced(function* (connection, code) {
    const failed = failure(connection)
    const { raised, reply } = yield* Effect.mapError(
      runSilently(connection, code),
      (error) => failed(detailOf(error)),
    )
    if (reply === "ok") return
    if (raised === undefined) return yield* failed(`Its "setup" did not run: ${reply}`)
    const { ename, evalue, traceback } = raised
    return yield* failed(`Its "setup" raised ${[`${ename}: ${evalue}`, ...traceback].join("\n")}`)
  })

/** What the kernel says of itself, which shows that it answers. */
export const identify = (connection: Link): Effect.Effect<Identity.Identity, KernelError> =>
  ask(connection, { type: "kernel_info_request", content: {} }, ({ content, header }) => {
    if (header.msg_type !== "kernel_info_reply") return undefined
    const decoded = decode.kernelInfoReply(content)
    const { implementation = "", language_info: language } = Exit.isSuccess(decoded) ? decoded.value : {}
    return {
      language: excerpt(language?.name ?? "", 100),
      implementation: excerpt(implementation, 100),
      info: content,
    }
  }).pipe(
    Effect.mapError(detailOf),
    Effect.mapError(failure(connection)),
  )

/** Runs code that is not the user's: nothing is counted or shown. Fails if nobody can know how it ended. */
export const runSilently = (
  connection: Link,
  code: string,
  buffers: ReadonlyArray<Uint8Array> = [],
): Effect.Effect<Reducer.Progress, KernelError | Unanswered> =>
  Effect.suspend(() => {
    let progress = Reducer.initial
    const content = executeContent(code, { silent: true, allowStdin: false })
    return ask(connection, { type: "execute_request", content, buffers }, (message) => {
      progress = Reducer.step(progress, message)[0]
      return Reducer.isOver(progress) ? progress : undefined
    })
  })

const detailOf = (error: KernelError | Unanswered): string =>
  error._tag === "KernelError" ? error.reason.message : error.detail
