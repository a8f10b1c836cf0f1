/** Attacks of sandboxed code on other processes, and secrets that it searches in its own. */
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { randomInt } from "node:crypto"
import process from "node:process"
import { KernelGateway } from "../src/mod.ts"
import { slow } from "./support/kernel.ts"
import { descendants, eventually, processes, supervisors } from "./support/processes.ts"
import { attack, attacker, outcomes, py, sandboxLayer } from "./support/sandbox.ts"

/** The processes of the gateway of this file, outside of sandboxes: the supervisor first. */
const ours = () =>
  supervisors(process.pid).flatMap(({ pid }) => [pid, ...descendants(pid).map(({ pid }) => pid)])

layer(sandboxLayer(), slow)("a sandboxed process", (it) => {
  it.effect("22: host pids and /proc/<gateway>/environ: not there", () =>
    Effect.gen(function* () {
      const pids = ours()
      assert.isAbove(pids.length, 2)
      const results = yield* attack(`
# The init of the sandbox and the kernel.
attempt("pids", lambda: sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
# The system gives smaller ones only once, and threads in the sandbox have them.
for pid in [pid for pid in ${py(pids)} if pid >= 300]:
    for name in ("environ", "cmdline", "mem", "root"):
        attempt(f"{pid}/{name}", lambda: os.stat(f"/proc/{pid}/{name}"))
    attempt(f"{pid} signal", lambda: os.kill(pid, 0))
    attempt(f"{pid} pidfd", lambda: os.pidfd_open(pid))
    attempt(f"{pid} priority", lambda: os.getpriority(os.PRIO_PROCESS, pid))
`)
      const { pids: seen, ...others } = results
      assert.strictEqual(seen, "[1, 2]")
      assert.deepStrictEqual([...new Set(Object.values(others))].sort(), ["ENOENT", "ESRCH"])
    }))

  it.effect("23: PID 1's environ, mem, fd, ptrace: denied", () =>
    Effect.gen(function* () {
      const results = yield* attack(`
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

memory = ctypes.create_string_buffer(16)
local, remote = Vector(ctypes.addressof(memory), 16), Vector(0x400000, 16)
for name in ("environ", "mem", "maps", "auxv", "stack", "syscall", "io", "pagemap", "task/1/environ"):
    attempt(name, lambda: read(f"/proc/1/{name}"))
for name in ("fd", "fdinfo", "map_files", "root/", "cwd/", "ns"):
    attempt(name, lambda: os.listdir(f"/proc/1/{name}"))
for name in ("root", "cwd", "exe", "ns/net"):
    attempt(f"{name} link", lambda: os.readlink(f"/proc/1/{name}"))
attempt("PTRACE_ATTACH", lambda: call("ptrace", ctypes.c_long(16), ctypes.c_long(1), None, None))
attempt("PTRACE_SEIZE", lambda: call("ptrace", ctypes.c_long(0x4206), ctypes.c_long(1), None, None))
attempt("process_vm_readv", lambda: call("process_vm_readv", 1, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))
attempt("process_vm_writev", lambda: call("process_vm_writev", 1, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))
attempt("pidfd_getfd", lambda: syscall(438, os.pidfd_open(1), 0, 0))
`)
      const { PTRACE_ATTACH, PTRACE_SEIZE, pidfd_getfd, process_vm_readv, process_vm_writev, ...files } =
        results
      assert.deepStrictEqual([...new Set(Object.values(files))], ["EACCES"])
      assert.deepStrictEqual(
        { PTRACE_ATTACH, PTRACE_SEIZE, pidfd_getfd, process_vm_readv, process_vm_writev },
        {
          PTRACE_ATTACH: "EPERM",
          PTRACE_SEIZE: "EPERM",
          pidfd_getfd: "EPERM",
          process_vm_readv: "EPERM",
          process_vm_writev: "EPERM",
        },
      )
    }))

  it.effect("25: setuid: NoNewPrivs=1, CapEff=0", () =>
    Effect.gen(function* () {
      const results = yield* attack(`
for line in open("/proc/self/status"):
    name, _, value = line.rstrip().partition(":\\t")
    if name in ("NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapAmb", "Seccomp"):
        attempt(name, lambda: value)
attempt("uid", lambda: os.getuid() != 0 and os.geteuid() != 0)
attempt("setuid", lambda: os.setuid(0))
attempt("setgid", lambda: os.setgid(0))
attempt("setgroups", lambda: os.setgroups([0]))
attempt("uids", lambda: len(open("/proc/self/uid_map").readlines()))
attempt("a setuid program", lambda: subprocess.run(["su", "-c", "id -u"], stdin=subprocess.DEVNULL, capture_output=True).stdout.decode())
`)
      assert.deepStrictEqual(results, {
        NoNewPrivs: "1",
        CapInh: "0000000000000000",
        CapPrm: "0000000000000000",
        CapEff: "0000000000000000",
        CapAmb: "0000000000000000",
        Seccomp: "2",
        uid: "true",
        // There is no such user in this namespace.
        setuid: "EINVAL",
        setgid: "EINVAL",
        setgroups: "EPERM",
        uids: "1",
        "a setuid program": "",
      })
    }))

  it.effect("26: SysV shared memory: not there", () =>
    Effect.gen(function* () {
      const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
      const run = (command: string, ...args: ReadonlyArray<string>) =>
        spawner.string(ChildProcess.make(command, args))
      const created = yield* Effect.acquireRelease(
        Effect.map(run("ipcmk", "-M", "4096", "-p", "0666"), (line) => Number(/\d+/.exec(line)?.[0])),
        (id) => Effect.ignore(run("ipcrm", "-m", String(id))),
      )
      assert.include(yield* run("ipcs", "-m"), ` ${created} `)
      const results = yield* attack(`
libc.shmat.restype = ctypes.c_long
attempt("attach", lambda: call("shmat", ${created}, None, 0))
attempt("status", lambda: call("shmctl", ${created}, 2, ctypes.create_string_buffer(256)))
attempt("segments", lambda: len(open("/proc/sysvipc/shm").readlines()) - 1)
attempt("semaphores", lambda: len(open("/proc/sysvipc/sem").readlines()) - 1)
attempt("queues", lambda: len(open("/proc/sysvipc/msg").readlines()) - 1)
attempt("own", lambda: call("shmget", 4711, 4096, 0o1666) >= 0)
attempt("POSIX", lambda: os.listdir("/dev/shm"))
`)
      assert.deepStrictEqual(results, {
        attach: "EINVAL",
        status: "EINVAL",
        segments: "0",
        semaphores: "0",
        queues: "0",
        own: "true",
        POSIX: "[]",
      })
      assert.notInclude(yield* run("ipcs", "-m"), "0x00001267")
    }))

  it.effect("28: a daemonised child after the kernel is deleted: gone", () =>
    Effect.gen(function* () {
      const duration = `8640${randomInt(1_000_000)}.${randomInt(1_000_000)}`
      const running = () => processes().filter(({ command }) => command.includes(duration))
      yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* attacker()
        yield* outcomes(
          kernel,
          `
# Away from its parent, its session, its environment and its terminal.
subprocess.run(["setsid", "--fork", "env", "-i", "/bin/sh", "-c", "trap '' HUP INT TERM; /bin/sleep ${duration} & wait"])
`,
        )
        yield* eventually(() => running().length > 0 ? undefined : "it does not run yet")
      }))
      yield* eventually(() => running().map(({ pid }) => `${pid} still runs`)[0], 5)
    }))

  it.effect("29: tokens or secrets in the environment: none", () =>
    Effect.gen(function* () {
      const { token } = yield* KernelGateway.KernelGateway
      assert.isDefined(token)
      const secret = token === undefined ? "" : Redacted.value(token)
      const results = yield* attack(`
everything = b"".join(
    open(f"/proc/{pid}/{name}", "rb").read()
    for pid in ("self", *filter(str.isdigit, os.listdir("/proc"))) for name in ("environ", "cmdline")
    if os.access(f"/proc/{pid}/{name}", os.R_OK)
)
attempt("token", lambda: ${py(secret)}.encode() in everything or ${py(secret)} in str(os.environ))
attempt("names", lambda: sorted(os.environ))
`)
      assert.strictEqual(results["token"], "false")
      const names: ReadonlyArray<string> = JSON.parse(results["names"] ?? "")
      assert.isAbove(names.length, 20)
      assert.deepStrictEqual(names.filter((name) => /TOKEN|SECRET|KEY|^KG_|AUTH|CREDENTIAL/.test(name)), [])
      // Of ours there is only what kernels inherit; TMPDIR, HOME and the proxy are the sandbox's.
      const inherited = Object.keys(process.env).filter((name) => names.includes(name))
      const fine = /^(PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_ALL|LC_CTYPE|TZ|TMPDIR)$/
      const own =
        /^(PWD|SHLVL|_|TERM|NO_COLOR|PAGER|GIT_PAGER|IPYTHONDIR|JUPYTER_.*|MPL.*|XDG_CACHE_HOME|.*_proxy|.*_PROXY)$/
      assert.deepStrictEqual(inherited.filter((name) => !fine.test(name) && !own.test(name)), [])
    }))

  it.effect("30: host file handles among open descriptors: none", () =>
    Effect.gen(function* () {
      const results = yield* attack(`
def describe(number):
    try:
        status = os.fstat(number)
    except OSError:
        return None
    path = os.readlink(f"/proc/self/fd/{number}")
    if path.startswith("/memfd:"):
        return "/memfd"
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return path
    return path.split(":")[0]

attempt("descriptors", lambda: sorted(filter(None, {describe(int(name)) for name in os.listdir("/proc/self/fd")})))
`)
      // The memory file is the connection's, the pipes and sockets are the kernel's own.
      assert.deepStrictEqual(JSON.parse(results["descriptors"] ?? ""), [
        "/dev/null",
        "/memfd",
        "anon_inode",
        "pipe",
        "socket",
      ])
    }))
})
