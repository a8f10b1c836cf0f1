/**
 * The command `effect-jupyter serve`: a gateway for programs on other machines.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import process from "node:process"
import { gatewayError } from "../gateway/error.ts"
import * as KernelGateway from "../kernel_gateway.ts"
import { InvalidOption } from "../options/check.ts"
import * as Platform from "../platform.ts"
import * as Permissions from "../sandbox/permissions.ts"

const strings = (name: string) => Flag.atLeast(Flag.String(name), 0)

const flags = {
  host: Flag.String("host").pipe(
    Flag.withDefault("127.0.0.1"),
    Flag.withDescription("The address to listen on; one for other machines requires --token-file"),
  ),
  port: Flag.Int("port").pipe(
    Flag.withDefault(8888),
    Flag.withDescription("The port to listen on, 0 for a free one"),
  ),
  tokenFile: Flag.File("token-file").pipe(
    Flag.optional,
    Flag.withDescription(
      "The file with the token that clients have to send, which is created if it is missing",
    ),
  ),
  workingDir: Flag.Directory("working-dir").pipe(
    Flag.withDefault("."),
    Flag.withDescription("The working directory of kernels"),
  ),
  env: Flag.KeyValuePair("env").pipe(
    Flag.withDefault({}),
    Flag.withDescription("A variable of all kernels, as NAME=VALUE"),
  ),
  python: Flag.File("python").pipe(
    Flag.optional,
    Flag.withDescription("The interpreter; a managed environment by default"),
  ),
  packages: strings("package").pipe(
    Flag.withDescription("A requirement of the managed environment, in pip's notation"),
  ),
  preload: strings("preload").pipe(Flag.withDescription("A module that kernels have imported")),
  sandbox: Flag.Boolean("sandbox").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Runs each kernel in a sandbox, as every option about permissions does"),
  ),
  permissions: Flag.FileParse("permissions", { format: "json" }).pipe(
    Flag.optional,
    Flag.withDescription("A JSON file with the permissions of sandboxed kernels"),
  ),
  allowNet: strings("allow-net").pipe(Flag.withDescription("A host that sandboxed kernels may reach")),
  strict: Flag.Boolean("strict").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Sandboxed kernels read the working directory and Python alone"),
  ),
  user: Flag.String("user").pipe(
    Flag.filterMap(
      (text) => {
        const [, uid, gid] = /^(\d+):(\d+)$/.exec(text) ?? []
        return uid === undefined || gid === undefined
          ? Option.none()
          : Option.some({ uid: Number(uid), gid: Number(gid) })
      },
      (text) => `"${text}" is not a user and a group; give their numbers, as in 1000:1000`,
    ),
    Flag.optional,
    Flag.withDescription("The user that sandboxed kernels run as if this process runs as root, as UID:GID"),
  ),
} as const

type Options = Command.Command.Config.Infer<typeof flags>

/** Tells whether only programs of this machine reach an address. */
const isLoopback = (host: string): boolean => /^(localhost|127(\.\d+){3}|::1)$/.test(host)

/** Returns the file of the token: that of the options, or one of the user on a loopback address. */
const tokenFileOf = Effect.fnUntraced(function* ({ host, tokenFile }: Options) {
  if (Option.isSome(tokenFile)) return tokenFile.value
  const home = yield* Platform.home
  const state = Platform.variable("XDG_STATE_HOME") ??
    (home === undefined ? undefined : `${home}/.local/state`)
  if (!isLoopback(host) || state === undefined) {
    const detail = "programs on other machines could not know the token; give a file with it by " +
      '"--token-file", which is created if it does not exist, and copy it to them'
    return yield* gatewayError(new InvalidOption({ option: "host", value: JSON.stringify(host), detail }))
  }
  const fs = yield* FileSystem.FileSystem
  yield* fs.makeDirectory(`${state}/effect-jupyter`, { recursive: true, mode: 0o700 })
  return `${state}/effect-jupyter/token`
})

/** Returns the permissions of the options; `false` if kernels have no sandbox. */
const permissionsOf = Effect.fnUntraced(function* (
  { allowNet, permissions, sandbox, strict, user }: Options,
) {
  if (!sandbox && !strict && Option.isNone(permissions) && allowNet.length === 0 && Option.isNone(user)) {
    return false
  }
  const given = yield* Permissions.decode(Option.getOrElse(permissions, () => ({})))
  return {
    ...given,
    ...(allowNet.length === 0 ? {} : { allowNet: [...given.allowNet ?? [], ...allowNet] }),
    ...(strict ? { strict } : {}),
    ...(Option.isSome(user) ? { user: user.value } : {}),
  }
})

/**
 * Serves until it is interrupted, and prints a line of JSON when programs can connect. Fails if the gateway cannot start
 * or ends by itself.
 */
export const serve = Command.make("serve", flags, (options) =>
  Effect.gen(function* () {
    const path = yield* Path.Path
    const { env, host, packages, port, preload, python, workingDir } = options
    const tokenFile = path.resolve(yield* tokenFileOf(options))
    const gateway = yield* KernelGateway.make({
      host,
      port,
      tokenFile,
      workingDir,
      env,
      preload,
      sandbox: yield* permissionsOf(options),
      python: { packages, ...Option.match(python, { onNone: () => ({}), onSome: (python) => ({ python }) }) },
    })
    yield* Console.log(JSON.stringify({ ready: true, url: gateway.url, tokenFile, pid: process.pid }))
    yield* gateway.join
  }).pipe(
    Effect.scoped,
    Effect.tapError(({ message }) => Console.error(message)),
    Effect.tapDefect((defect) => Console.error(Cause.pretty(Cause.die(defect)))),
  )).pipe(
    Command.withDescription(
      "Runs kernels for programs on other machines, which use KernelGateway.layerRemote",
    ),
  )
