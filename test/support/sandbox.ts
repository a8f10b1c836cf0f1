/** Shared by tests of sandboxes: a workspace, an unprivileged user, and the outcomes of attempts. */
import { Context, Effect, FileSystem, Layer, References, type Scope } from "effect"
import { readdirSync } from "node:fs"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { Execution, KernelClient, KernelGateway, Sandbox } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"
import { temporary } from "./kernel.ts"

/** True if the tests run as root, which requires another user for the kernels. */
export const isRoot = process.geteuid?.() === 0

const nobody = { uid: 65534, gid: 65534 }

/** The permission `user`, where it is needed. */
export const sandboxUser: Pick<Sandbox.Permissions, "user"> = isRoot ? { user: nobody } : {}

/** Gives a file or folder of the tests to the user of the kernels. */
export const give = (path: string): Effect.Effect<void, never, FileSystem.FileSystem> =>
  isRoot
    ? Effect.orDie(Effect.flatMap(FileSystem.FileSystem, (fs) => fs.chown(path, nobody.uid, nobody.gid)))
    : Effect.void

/** The folder of this package. */
export const repository = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "")

/** Everything below a folder. */
export const entries = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder, { recursive: true }).map((name) => `${folder}/${String(name)}`)

/** A temporary folder that kernels may write to, with these files; it goes with the scope. */
export const workspace = (
  files: Readonly<Record<string, string>> = {},
): Effect.Effect<string, never, FileSystem.FileSystem | Scope.Scope> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const folder = yield* temporary
    yield* give(folder)
    for (const [name, content] of Object.entries(files)) {
      yield* write(`${folder}/${name}`, content)
      const parts = name.split("/")
      for (const index of parts.keys()) yield* give(`${folder}/${parts.slice(0, index + 1).join("/")}`)
    }
    return yield* fs.realPath(folder)
  }).pipe(Effect.orDie)

/** Writes a file, with its folder. */
export const write = (
  path: string,
  content: string,
): Effect.Effect<void, never, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    yield* fs.makeDirectory(path.slice(0, path.lastIndexOf("/")), { recursive: true })
    yield* fs.writeFileString(path, content)
  }).pipe(Effect.orDie)

/** The workspace of the gateway of a file of tests. */
export class Workspace extends Context.Service<Workspace, string>()("test/Workspace") {}

/** One gateway with a sandbox in a workspace of its own, and one kernel of it that knows `attempt`. */
export function sandboxLayer(
  permissions: Sandbox.Permissions = {},
  files: Readonly<Record<string, string>> = {},
): Layer.Layer<
  KernelClient.KernelClient | KernelGateway.KernelGateway | Workspace | Platform.Platform,
  | Execution.ExecutionFailure
  | KernelGateway.GatewayError
  | Sandbox.SandboxError
> {
  return Layer.effect(KernelClient.KernelClient, attacker()).pipe(
    Layer.provideMerge(
      Layer.unwrap(
        Effect.map(
          Workspace,
          (workingDir) => KernelGateway.layer({ workingDir, sandbox: { ...sandboxUser, ...permissions } }),
        ),
      ),
    ),
    Layer.provideMerge(Layer.effect(Workspace, workspace(files))),
    Layer.provideMerge(Platform.layer),
    // Every denied host is logged.
    Layer.provide(Layer.succeed(References.MinimumLogLevel, "Warn")),
  )
}

/** Python functions for the code of attacks. */
const prelude = String.raw`
import ctypes, errno, json, os, signal, socket, stat, struct, subprocess, sys

def outcome(action):
    """The name of the error, or what came of it."""
    try:
        value = action()
        return value if isinstance(value, str) else json.dumps(value, default=repr)
    except socket.gaierror as error:
        return next(name for name in dir(socket) if name[:4] == "EAI_" and getattr(socket, name) == error.errno)
    except OSError as error:
        return errno.errorcode.get(error.errno, repr(error))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def attempt(label, action):
    print(json.dumps([label, outcome(action)]))

here = os.path.dirname(os.environ["TMPDIR"])  # the folder of this kernel
runtime = os.path.dirname(os.path.dirname(here))  # the folder of the gateway
libc = ctypes.CDLL(None, use_errno=True)

def call(function, *arguments):
    """A function of the C library that reports failure by -1."""
    result = getattr(libc, function)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), function)
    return result

def syscall(number, *arguments):
    return call("syscall", ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))

def write(path):
    with open(path, "a") as file:
        file.write("planted")
    return "written"

def read(path):
    with open(path, "rb") as file:
        file.read()
    return "read"

def in_child(action):
    """The outcome of something in a process of its own, or the signal that ended that."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, outcome(action).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    with open(reader) as file:
        text = file.read()
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return text
`

/** A kernel whose code may use what is above. */
export const attacker = Effect.fnUntraced(function* (options?: KernelClient.ClientOptions) {
  const kernel = yield* KernelClient.make(options)
  yield* kernel.execute(prelude)
  return kernel
})

/** A value as a literal of Python. */
export const py = (value: string | number | ReadonlyArray<string | number>): string => JSON.stringify(value)

/** Runs code that calls `attempt`; what came of each attempt, by its label. */
export const outcomes = (
  kernel: KernelClient.Kernel,
  code: string,
): Effect.Effect<Record<string, string>, Execution.ExecutionFailure> =>
  Effect.map(
    kernel.execute(code, { timeout: "1 minute" }),
    ({ text = "" }) =>
      Object.fromEntries(
        text.split("\n").filter((line) => line.startsWith("[")).map((line) => JSON.parse(line)),
      ),
  )

/** The same with the kernel of the file. */
export const attack = (
  code: string,
): Effect.Effect<Record<string, string>, Execution.ExecutionFailure, KernelClient.KernelClient> =>
  Effect.flatMap(KernelClient.KernelClient, (kernel) => outcomes(kernel, code))
