/**
 * Sets up a kernel before its first execution: it must answer, and a Python kernel is configured.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as FileSystem from "effect/FileSystem"
import * as Assets from "../assets.ts"
import { KernelError, KernelStartFailed } from "../execution.ts"
import { excerpt } from "../jupyter/control_codes.ts"
import { answered, type Unanswered } from "../jupyter/conversation.ts"
import { decode, executeContent } from "../jupyter/message.ts"
import { ask, type KernelConnection, type Request, type RequestOptions } from "./connection.ts"
import * as Identity from "./identity.ts"
import type { Instance } from "./instance.ts"
import * as Reducer from "./reducer.ts"

/** Options of `kernel/setup.py`. */
export interface SetupOptions {
  /** An absolute path. */
  readonly workingDir: string | undefined
}

/** The part of a connection that requests need. */
type Askable = Pick<KernelConnection, "id" | "request" | "ended">

/**
 * Sets up a kernel. `env` are environment variables that the server may have ignored: they are set in a Python kernel,
 * and for a kernel of another language a warning is logged.
 */
export type Setup = (
  connection: Instance,
  env: Readonly<Record<string, string>>,
) => Effect.Effect<void, KernelError>

/** Reads the set-up code, and returns a function that runs it in a kernel. */
export const load: (
  options: SetupOptions,
) => Effect.Effect<
  Setup,
  never,
  FileSystem.FileSystem
> = Effect.fnUntraced(function* ({ workingDir }: SetupOptions) {
  const source = yield* Assets.prefetch("python/effect_jupyter/kernel/setup.py")
  // If code deleted the working directory, it is created again for the next kernel.
  let hasSucceeded = false

  return Effect.fnUntraced(function* (connection: Instance, env) {
    const { identity } = connection
    if (!Identity.isPython(identity)) {
      if (workingDir !== undefined) return yield* Identity.unsupported(identity, "workingDir")
      return yield* warn(connection, Object.keys(env))
    }
    // A kernel that serves its client itself has set itself up.
    if (connection.isDirect && workingDir === undefined && Object.keys(env).length === 0) return
    const failed = failure(connection)
    const json = JSON.stringify({ workingDir: workingDir ?? null, makeWorkingDir: hasSucceeded, env })
    const text = connection.isDirect
      ? Effect.succeed("from effect_jupyter.kernel.setup import use\nuse(options)")
      : Effect.map(source, (text) => `${text}\npatch()\nuse(options)\nset_up()`)
    const { raised, reply } = yield* text.pipe(
      Effect.mapError(({ message }) => message),
      Effect.flatMap((text) =>
        // It runs in another namespace than the user's code. Every JSON string is a string of Python.
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
    hasSucceeded = true
  })
})

/** Logs the variables that a kernel may not have; every server passes on those that begin with `KERNEL_`. */
const warn = ({ id, identity }: Instance, names: ReadonlyArray<string>): Effect.Effect<void> => {
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

const failure = ({ id: kernelId }: Pick<KernelConnection, "id">) => (detail: string): KernelError =>
  new KernelError({ reason: new KernelStartFailed({ kernelId, detail }) })

/** Runs code of the user before the first execution. It does not count as an execution, and its output is discarded. */
export const run: (connection: Askable, code: string) => Effect.Effect<void, KernelError> = Effect
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

/** Number of requests for the identity of a kernel, of which some publish nothing for those on the control channel. */
const identityAttempts = 3

/** Returns the identity of the kernel, and so checks that it answers, and that its output arrives. */
export const identify = (
  connection: Askable,
  { channel, ...options }: RequestOptions & Pick<Request, "channel"> = {},
): Effect.Effect<Identity.Identity, KernelError> =>
  answered<Identity.Identity, KernelError | Unanswered>(
    (pick) => ask(connection, { type: "kernel_info_request", content: {}, channel }, pick, options),
    ({ content, header }) => {
      if (header.msg_type !== "kernel_info_reply") return undefined
      const decoded = decode.kernelInfoReply(content)
      const { implementation = "", language_info: language } = Exit.isSuccess(decoded) ? decoded.value : {}
      return {
        language: excerpt(language?.name ?? "", 100),
        implementation: excerpt(implementation, 100),
        info: content,
      }
    },
    { attempts: identityAttempts },
  ).pipe(
    Effect.mapError(detailOf),
    Effect.mapError(failure(connection)),
  )

/** Waits until the main shell of the kernel has answered a small request. */
export const untilAnswered = (
  connection: Askable & Pick<KernelConnection, "isDirect">,
): Effect.Effect<boolean, KernelError | Unanswered> =>
  ask(
    connection,
    // Every kernel answers the latter, our own ones the former in half the time.
    { type: connection.isDirect ? "comm_info_request" : "kernel_info_request", content: {} },
    ({ header }) => header.msg_type.endsWith("_reply") || undefined,
    { waitsForConnection: false },
  )

/** Runs code of the library without output or an execution count. Fails if its end cannot be determined. */
export const runSilently = (
  connection: Askable,
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
