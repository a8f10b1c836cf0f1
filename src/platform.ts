/**
 * The services of the platform: files, child processes, HTTP. Those of the context are used if it has them, and
 * otherwise Node's, which Deno has as well.
 *
 * @module
 */
import * as NodeChildProcessSpawner from "@effect/platform-node/NodeChildProcessSpawner"
import * as NodeCrypto from "@effect/platform-node/NodeCrypto"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodePath from "@effect/platform-node/NodePath"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import * as Digest from "effect/crypto/Digest"
import * as FileSystem from "effect/FileSystem"
import * as HttpClient from "effect/http/HttpClient"
import * as Effect from "effect/Effect"
import * as Context from "effect/Context"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as PlatformError from "effect/PlatformError"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import { homedir } from "node:os"
import process from "node:process"

/** The services of the platform. */
export type Platform =
  | FileSystem.FileSystem
  | Path.Path
  | Stdio.Stdio
  | ChildProcessSpawner.ChildProcessSpawner
  | HttpClient.HttpClient
  | Digest.Digest

const files = Layer.mergeAll(NodeFileSystem.layer, NodePath.layer)

/** Tells whether a value is an error of a failed system call. */
const isErrno = Schema.is(
  Schema.Struct({ code: Schema.String, message: Schema.String, syscall: Schema.String }),
)

/** Turns system errors that Node throws into failures, such as that for an environment that is too long. */
const withoutErrnoDefects = ({ spawn }: ChildProcessSpawner.ChildProcessSpawner["Service"]) =>
  ChildProcessSpawner.make((command) =>
    Effect.catchDefect(
      spawn(command),
      (defect) =>
        isErrno(defect)
          ? Effect.fail(PlatformError.systemError({
            _tag: "Unknown",
            module: "ChildProcess",
            method: "spawn",
            syscall: defect.syscall,
            cause: defect,
          }))
          : Effect.die(defect),
    )
  )

const spawner = Layer.effect(
  ChildProcessSpawner.ChildProcessSpawner,
  Effect.map(ChildProcessSpawner.ChildProcessSpawner, withoutErrnoDefects),
)

/** Advice for the error codes of exhausted resources. */
const shortages: Readonly<Record<string, string>> = {
  E2BIG: 'the environment is too long; shorten the variables of "env", or have code read them from a file',
  EMFILE: 'the program has too many files open; close some, or raise its limit ("ulimit -n")',
  ENFILE: "all programs together have too many files open; close some",
  EAGAIN: 'there are too many processes; end some, or raise the limit ("ulimit -u")',
  ENOMEM: "there is no memory left; end other programs, or raise the limit",
}

/** Returns the message of the system, with advice if a resource is exhausted. */
export function describe({ message, reason: { cause } }: PlatformError.PlatformError): string {
  if (!isErrno(cause)) return message
  const shortage = shortages[cause.code]
  return shortage === undefined ? cause.message : `${cause.message}: ${shortage}`
}

/** Provides Node's services of the platform. */
export const layer: Layer.Layer<Platform> = Layer.mergeAll(
  // Not all of `NodeServices`: its terminal listens to stdin, and each kernel would add a listener.
  Layer.provideMerge(Layer.provide(spawner, NodeChildProcessSpawner.layer), files),
  NodeStdio.layer,
  // Fresh: an agent of the application would otherwise be that of this layer, or this one that of the application.
  Layer.fresh(NodeHttpClient.layerNodeHttp),
  NodeCrypto.layerDigest,
)

/** Returns a context with the service of the current context, if it has it. */
const given = <I, S>(
  key: Context.Key<I, S>,
  map: (service: S) => S = identity,
): Effect.Effect<Context.Context<never>> =>
  Effect.map(
    Effect.serviceOption(key),
    Option.match({ onNone: Context.empty, onSome: (service) => Context.make(key, map(service)) }),
  )

/** Returns the services of the platform: those of the context, and Node's for those that it does not have. */
export const services: Effect.Effect<Context.Context<Platform>, never, Scope.Scope> = Effect.gen(
  function* () {
    const node = yield* Layer.build(layer)
    const others = yield* Effect.all([
      given(FileSystem.FileSystem),
      given(Path.Path),
      given(Stdio.Stdio),
      given(ChildProcessSpawner.ChildProcessSpawner, withoutErrnoDefects),
      given(HttpClient.HttpClient),
      given(Digest.Digest),
    ])
    return others.reduce((all: Context.Context<Platform>, one) => Context.merge(all, one), node)
  },
)

/** Provides an effect with the {@link services} of the platform. */
export const provide = <A, E, R>(
  self: Effect.Effect<A, E, R>,
): Effect.Effect<A, E, Exclude<R, Platform> | Scope.Scope> =>
  Effect.flatMap(services, (platform) => Effect.provideContext(self, platform))

/**
 * Returns an environment variable of this process; `undefined` if it is not set or empty. It is not read through Config,
 * which an application may replace: child processes inherit the environment of the process.
 */
export function variable(name: string): string | undefined {
  // @effect-diagnostics-next-line processEnv:off
  return process.env[name] || undefined
}

/** Resumes a process that was stopped, as by SIGSTOP. A process that has ended is ignored. */
export function resume(pid: number): void {
  try {
    process.kill(pid, "SIGCONT")
  } catch {
    // The process has ended.
  }
}

/** Returns the home of the user, from HOME or the user database; `undefined` if there is none. */
export const home: Effect.Effect<string | undefined> = Effect.orElseSucceed(
  Effect.try(() => homedir() || undefined),
  () => undefined,
)
