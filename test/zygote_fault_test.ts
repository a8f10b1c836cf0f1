/** Faults of the process that kernels are forked from, which must affect no kernel. */
import { assert, it, layer } from "@effect/vitest"
import { Duration, Effect, Schedule } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from "node:fs"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { KernelClient, KernelGateway, PythonEnvironment } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow, text } from "./support/kernel.ts"
import { processes } from "./support/processes.ts"

const parentOf = (kernel: KernelClient.Kernel) =>
  Effect.map(text(kernel.execute("import os; os.getppid()")), Number)
const isZygote = (pid: number) =>
  processes().some((process) =>
    process.pid === pid && process.command.some((word) => word.endsWith("zygote.py"))
  )
const signal = (pid: number, name: NodeJS.Signals) => Effect.sync(() => process.kill(pid, name))

/** Lets a process fork no more while an effect runs: by a group of processes for root, whom no limit of a user binds. */
const withoutForks = (pid: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  const above = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].find((folder) => existsSync(folder)) ?? ""
  const group = `${above}/effect-jupyter-test-${pid}`
  const move = (to: string) => writeFileSync(`${to}/cgroup.procs`, String(pid))
  const limit = (most: string) => execFileSync("prlimit", ["--pid", String(pid), `--nproc=${most}`])
  const isRoot = process.geteuid?.() === 0
  return Effect.acquireUseRelease(
    Effect.sync(() => {
      if (!isRoot) return void limit("1:")
      mkdirSync(group)
      writeFileSync(`${group}/pids.max`, "1")
      move(group)
    }),
    () => effect,
    () =>
      Effect.sync(() => {
        if (!isRoot) return void limit("unlimited:")
        move(above)
        rmdirSync(group)
      }),
  )
}

layer(KernelGateway.layer(), slow)("the process that kernels are forked from", (it) => {
  it.effect("survives a fork that fails: that kernel is started, the others go on", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute("x = 1")
      const zygote = yield* parentOf(kernel)
      assert.isTrue(isZygote(zygote))
      const started = yield* withoutForks(zygote)(KernelClient.make())
      assert.isFalse(isZygote(yield* parentOf(started)))
      const forked = yield* KernelClient.make()
      assert.strictEqual(yield* parentOf(forked), zygote)
      assert.strictEqual(yield* text(kernel.execute("x")), "1")
    }))

  it.effect("hides no death while it is stopped, and is replaced", () =>
    Effect.gen(function* () {
      const [dies, lives] = [yield* KernelClient.make(), yield* KernelClient.make()]
      yield* lives.execute("x = 1")
      const zygote = yield* parentOf(dies)
      yield* signal(zygote, "SIGSTOP")
      const [took, error] = yield* dies.execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        .pipe(
          Effect.flip,
          Effect.timed,
        )
      assert.strictEqual(error._tag === "KernelError" && error.reason._tag, "KernelDied")
      assert.isBelow(Duration.toSeconds(took), 5)
      const another = yield* Effect.scoped(Effect.flatMap(KernelClient.make(), parentOf)).pipe(
        Effect.repeat({ until: isZygote, schedule: Schedule.recurs(30) }),
        Effect.andThen(Effect.scoped(Effect.flatMap(KernelClient.make(), parentOf))),
      )
      assert.notStrictEqual(another, zygote)
      assert.isTrue(isZygote(another))
      yield* signal(zygote, "SIGCONT")
      assert.strictEqual(yield* text(lives.execute("x")), "1")
      assert.strictEqual(yield* parentOf(lives), zygote)
    }))
})

it.live("zygote.py survives messages that mean nothing", () =>
  Effect.gen(function* () {
    const { python } = yield* PythonEnvironment.make()
    const code = `
import os, socket, sys, time
sys.path.append(sys.argv[1])
from effect_jupyter.gateway import zygote_client
env = {**os.environ, zygote_client.MARK: "x" * zygote_client.MARK_LENGTH}
zygote = zygote_client.Zygote([], env=env, cwd="/")
zygote.wait_until_ready()
process = zygote._process
process._socket.setblocking(True)
null = os.open(os.devnull, os.O_RDONLY)
nonsense = (b"{", b"\\xff", b"[]", b"1", b"{}", b'{"request": 99}', b'{"request": 99, "stderr": true}', b'{"reap": 1}',
            b'{"reap": "x"}', b'{"reap": 99999999999999999999}', b'[' * 100000, b'{"request": 99, "stderr": false}')
for message in nonsense:
    socket.send_fds(process._socket, [message], [null])
process._socket.setblocking(False)

def fork(cwd):
    forked = zygote.fork(["kernel.py", "/no/such/file"], env, cwd)
    return forked is not None

# What nonsense is answered with may be taken for the answer of a request once for each.
print(any(fork("/") for _ in range(len(nonsense) + 1)), fork("/no/such/folder"), fork("/"))
kernel = zygote.fork(["kernel.py", "/no/such/file"], env, "/")
process._request += 1
process._on_forked(kernel.pid, process._request - 1, False)
print("A kernel that is told to be forked late lives:", process._unwanted == [])
print(zygote.failure, process.failure, process._process.poll(), zygote._process is process)
`
    const folder = fileURLToPath(new URL("../src/python", import.meta.url))
    const output = execFileSync(python, ["-c", code, folder], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    })
    assert.strictEqual(
      output,
      "True False True\nA kernel that is told to be forked late lives: True\nNone None None True\n",
    )
  }).pipe(Effect.provide(Platform.layer)), 60_000)
