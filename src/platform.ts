/**
 * What the library asks of the platform it runs on: files, child processes, HTTP. What the context has of it, and
 * Node's implementation otherwise, which Deno runs too.
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

/** What the system says of a failed call, as Node gives it. */
const isErrno = Schema.is(
  Schema.Struct({ code: Schema.String, message: Schema.String, syscall: Schema.String }),
)

/** Node throws where some calls fail, as for an environment that is too long, and tells of others. */
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

/** What to do where the system has no room, by its own names. */
const shortages: Readonly<Record<string, string>> = {
  E2BIG: 'the environment is too long; shorten the variables of "env", or have code read them from a file',
  EMFILE: 'the program has too many files open; close some, or raise its limit ("ulimit -n")',
  ENFILE: "all programs together have too many files open; close some",
  EAGAIN: 'there are too many processes; end some, or raise the limit ("ulimit -u")',
  ENOMEM: "there is no memory left; end other programs, or raise the limit",
}

/**
 * What failed, in the words of the system, and what to do where it had no room.
 */
export function inWords({ message, reason: { cause } }: PlatformError.PlatformError): string {
  if (!isErrno(cause)) return message
  const shortage = shortages[cause.code]
  return shortage === undefined ? cause.message : `${cause.message}: ${shortage}`
}

/** Provides Node's services of the platform. */
export const layer: Layer.Layer<Platform> = Layer.mergeAll(
  // Not all of `NodeServices`: its terminal listens to stdin, and each kernel would add a listener.
  Layer.provideMerge(Layer.provide(spawner, NodeChildProcessSpawner.layer), files),
  NodeStdio.layer,
  NodeHttpClient.layerNodeHttp,
  NodeCrypto.layerDigest,
)

/** The service of the context, if it is there. */
const given = <I, S>(
  key: Context.Key<I, S>,
  map: (service: S) => S = identity,
): Effect.Effect<Context.Context<never>> =>
  Effect.map(
    Effect.serviceOption(key),
    Option.match({ onNone: Context.empty, onSome: (service) => Context.make(key, map(service)) }),
  )

/** Returns the services of the platform: each that of the context, where there is one, and Node's otherwise. */
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
 * A variable of our own process; `undefined` if it is not set or empty. Not read through Config: what children
 * inherit is a fact of the process, whatever an application uses for its configuration.
 */
export function variable(name: string): string | undefined {
  // @effect-diagnostics-next-line processEnv:off
  return process.env[name] || undefined
}

/**
 * Has a process go on that was stopped, as by SIGSTOP; does nothing to one that ended.
 */
export function resume(pid: number): void {
  try {
    process.kill(pid, "SIGCONT")
  } catch {
    // It ended.
  }
}

/**
 * The home of the user, by HOME or by the system's list of users; `undefined` if there is none.
 */
export const home: Effect.Effect<string | undefined> = Effect.orElseSucceed(
  Effect.try(() => homedir() || undefined),
  () => undefined,
)
