/** Kernels that are forked are like those that are started, share nothing, and give way where they cannot be. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, FileSystem, Option, Schema, Stream } from "effect"
import { execFileSync } from "node:child_process"
import process from "node:process"
import { fileURLToPath } from "node:url"
import { Execution, KernelClient, KernelGateway, PythonEnvironment } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow, temporary, text } from "./support/kernel.ts"
import { eventually, processes, survivors } from "./support/processes.ts"

/** The command of the process that a kernel is a child of. */
const parentOf = (kernel: KernelClient.Kernel) =>
  Effect.gen(function* () {
    const pid = Number(yield* text(kernel.execute("import os; os.getppid()")))
    return processes().find((process) => process.pid === pid)?.command.join(" ") ?? "gone"
  })
const isForked = (kernel: KernelClient.Kernel) =>
  Effect.map(parentOf(kernel), (command) => command.includes("zygote.py"))

const client = (gateway: KernelGateway.KernelGateway["Service"], options?: KernelClient.ClientOptions) =>
  Effect.provideService(KernelClient.make(options), KernelGateway.KernelGateway, gateway)

/** The properties of its process that code can see, except those that differ between kernels. */
const look = `
import json, os, signal, stat, sys, threading

def kind(fd):
    path = os.readlink(f"/proc/self/fd/{fd}")
    return path.split(":")[0] if ":" in path else "file"

env = {name: value for name, value in os.environ.items()
       if name not in ("EFFECT_JUPYTER_KERNEL", "JPY_PARENT_PID", "IPYTHONDIR", "KERNEL_ID")}
print(json.dumps({
    "env": env,
    "is parent told": os.environ["JPY_PARENT_PID"] == str(os.getppid()),
    "is leader": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "cwd": os.getcwd(),
    "argv": [len(sys.argv), sys.argv[0].rpartition("/")[2]],
    "path": sys.path,
    "flags": list(sys.flags),
    "main": [__name__, sorted(name for name in globals() if not name.startswith("_"))],
    "handlers": [str(signal.getsignal(number)).split(" at ")[0]
                 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "umask": [old := os.umask(0), os.umask(old)][0],
    "threads": sorted(thread.name.rstrip("0123456789") for thread in threading.enumerate()),
    "descriptors": sorted(kind(fd) for fd in os.listdir("/proc/self/fd")[3:] if os.path.lexists(f"/proc/self/fd/{fd}")),
    "stdin": sys.__stdin__.read(),
    "debugpy": "debugpy" in sys.modules,
    "shell": [type(each).__name__ for each in get_ipython().configurables],
    "start": [get_ipython().starting_dir == os.getcwd(), get_ipython().history_manager.session_number, len(In), _dh == [os.getcwd()]],
    "names": sorted(get_ipython().user_ns_hidden),
    "extensions": [get_ipython().colors, sorted(get_ipython().extension_manager.loaded),
                   sorted(get_ipython().magics_manager.magics["line"])],
    "builtins": sorted(vars(__import__("builtins"))),
    "modules": sorted(name for name in sys.modules if name.startswith("effect_jupyter") and "prepared" not in name),
}))`

const Seen = Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown))
const see = (kernel: KernelClient.Kernel) =>
  Effect.flatMap(text(kernel.execute(look)), (seen) => Schema.decodeUnknownEffect(Seen)(seen))

describe("a forked kernel", { concurrent: false }, () => {
  it.live("sees what a started one sees", () =>
    Effect.gen(function* () {
      const workingDir = yield* temporary
      const options = { workingDir, env: { OF_THE_GATEWAY: "1" } }
      const forking = yield* KernelGateway.make(options)
      const starting = yield* KernelGateway.make({ ...options, fork: false })
      const forked = yield* client(forking, { env: { OF_THE_KERNEL: "ä\n=" } })
      const started = yield* client(starting, { env: { OF_THE_KERNEL: "ä\n=" } })
      assert.deepStrictEqual([yield* isForked(forked), yield* isForked(started)], [true, false])
      assert.deepStrictEqual(yield* see(forked), yield* see(started))
    }).pipe(Effect.provide(Platform.layer)), 60_000)

  it.live("has a shell from before the fork, unless IPython is configured", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* temporary
      const gateway = yield* KernelGateway.make({ env: { IPYTHONDIR: folder } })
      yield* fs.makeDirectory(`${folder}/profile_default/startup`, { recursive: true })
      yield* fs.writeFileString(`${folder}/profile_default/startup/colors.ipy`, "%colors linux")
      const shell =
        "print(id(get_ipython()), get_ipython().kernel.ident, get_ipython().colors, get_ipython().display_formatter.active_types)"
      const look = Effect.scoped(
        Effect.flatMap(client(gateway), (kernel) =>
          Effect.all([
            isForked(kernel),
            text(kernel.execute(shell)),
            Effect.option(text(kernel.execute("configured"))),
          ])),
      )
      const [one, other] = [yield* look, yield* look]
      assert.deepStrictEqual([one[0], other[0]], [true, true])
      // Objects of copies have one address.
      const [address, ident, colors] = one[1]?.split(" ") ?? []
      assert.strictEqual(colors?.toLowerCase(), "nocolor", "although a startup file of the user chose others")
      assert.strictEqual(other[1]?.split(" ")[0], address)
      assert.notStrictEqual(other[1]?.split(" ")[1], ident)
      yield* fs.writeFileString(
        `${folder}/profile_default/ipython_config.py`,
        "c.InteractiveShellApp.exec_lines = ['configured = 1']\nc.DisplayFormatter.active_types = ['text/plain']",
      )
      const configured = yield* look
      assert.isTrue(configured[0])
      assert.match(configured[1] ?? "", /nocolor \['text\/plain'\]/i)
      assert.deepStrictEqual(configured[2], Option.some("1"))
    }).pipe(Effect.provide(Platform.layer)), 60_000)
})

layer(KernelGateway.layer({ preload: ["numpy", "matplotlib.pyplot"] }), slow)("forked kernels", (it) => {
  it.effect("have random numbers and a history of their own, and what they preload works", () =>
    Effect.gen(function* () {
      const code = `
import os, random, secrets, sqlite3, sys, tempfile, uuid
loaded = "numpy" in sys.modules and "matplotlib.pyplot" in sys.modules
import numpy
print(loaded, numpy.ones((300, 300)).dot(numpy.ones((300, 300)))[0, 0], end="|")
print(random.random(), numpy.random.rand(), numpy.random.default_rng().random(), secrets.token_hex(),
      uuid.uuid1(), uuid.uuid4(), os.urandom(8).hex(), tempfile.mktemp(),
      sqlite3.connect(":memory:").execute("SELECT random()").fetchone()[0],
      get_ipython().history_manager.get_session_info()[1], sep="|")`
      const outputs = yield* Effect.forEach(
        Array.from({ length: 3 }),
        () => Effect.scoped(Effect.flatMap(KernelClient.make(), (kernel) => text(kernel.execute(code)))),
      )
      const [ours = [], ...others] = outputs.map((output) => (output ?? "").split("|"))
      assert.strictEqual(ours[0], "True 300.0")
      assert.lengthOf(ours, 11)
      for (const other of others) {
        assert.strictEqual(other[0], "True 300.0")
        other.slice(1).forEach((value, index) => assert.notStrictEqual(value, ours[index + 1]))
      }
    }))

  it.effect("import no module that the process they are forked from could have imported for all", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      // What was there before the fork, the garbage collector does not see.
      const code = `
import gc, sys
later = {id(each) for each in gc.get_objects()}
print(gc.get_freeze_count() > 0, [name for name, module in sys.modules.items() if id(module) in later])`
      yield* kernel.execute("1 + 1")
      assert.strictEqual(yield* text(kernel.execute(code)), "True []")
    }))

  it.effect("draw plots", () =>
    Effect.gen(function* () {
      const imagesDir = yield* temporary
      const kernel = yield* KernelClient.make({ imagesDir })
      const { images } = yield* kernel.execute(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
      )
      assert.lengthOf(images, 1)
    }).pipe(Effect.provide(Platform.layer)))

  it.effect("share neither state nor descriptors, nor what was run in them", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Effect.all([KernelClient.make(), KernelClient.make()])
      yield* a.execute("password = 'hunter2'")
      assert.notInclude(yield* text(b.execute("%history -g")), "hunter2")
      yield* a.execute("import json, os; json.planted = x = 1; os.environ['PLANTED'] = '1'; os.chdir('/')")
      const code =
        "import json, os; print(hasattr(json, 'planted'), 'x' in globals(), 'PLANTED' in os.environ)"
      assert.strictEqual(yield* text(b.execute(code)), "False False False")
      // All but the streams that go to the log.
      const sockets = `import os
names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
print(*sorted(set(names) - {os.readlink(f"/proc/{os.getppid()}/fd/2")}))`
      const of = (kernel: KernelClient.Kernel) =>
        Effect.map(
          text(kernel.execute(sockets)),
          (names = "") => names.split(" ").filter((name) => name.startsWith("socket:")),
        )
      const [ofA, ofB] = [yield* of(a), yield* of(b)]
      assert.isAbove(ofA.length, 0)
      assert.deepStrictEqual(ofA.filter((name) => ofB.includes(name)), [])
    }))

  it.effect("take with them what they forked, in whatever session", () =>
    Effect.gen(function* () {
      const code = `
import os, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        time.sleep(1000)
    os._exit(0)
print(os.read(reader, 20).decode())`
      const pid = yield* Effect.scoped(
        Effect.flatMap(KernelClient.make(), (kernel) => text(kernel.execute(code))),
      )
      assert.match(String(pid), /^\d+$/)
      yield* eventually(() => survivors([Number(pid)]), 5)
    }))

  it.effect("are started if their environment changes what was read early", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make({ env: { PYTHONHASHSEED: "1", OMP_NUM_THREADS: "1" } })
      assert.isFalse(yield* isForked(kernel))
      const other = yield* KernelClient.make({ env: { PYTHONHASHSEED: "1" } })
      const hash = "hash('a')"
      assert.strictEqual(yield* text(kernel.execute(hash)), yield* text(other.execute(hash)))
    }))

  it.effect("are started if nothing is forked in time, and those that are there go on", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute("x = 1")
      const zygote = Number(yield* text(kernel.execute("import os; os.getppid()")))
      yield* Effect.sync(() => process.kill(zygote, "SIGSTOP"))
      const other = yield* KernelClient.make().pipe(
        Effect.ensuring(Effect.sync(() => process.kill(zygote, "SIGCONT"))),
      )
      assert.isFalse(yield* isForked(other))
      // Nothing is forked until the zygote has been heard of again, which is a matter of moments.
      const isForkedNow = Effect.scoped(Effect.flatMap(KernelClient.make(), isForked))
      yield* Effect.repeat(isForkedNow, { until: (isSo) => isSo, times: 20 })
      const next = yield* KernelClient.make()
      assert.isTrue(yield* isForked(next))
      yield* eventually(() =>
        processes().filter(({ parent }) => parent === zygote).length === 2
          ? undefined
          : "the late one is there"
      )
      for (const each of [kernel, other, next]) assert.strictEqual(yield* text(each.execute("6 * 7")), "42")
      assert.strictEqual(yield* text(kernel.execute("print(x)")), "1")
    }))

  it.effect("end with the process they are forked from, and others are started", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      assert.isTrue(yield* isForked(kernel))
      const error = yield* kernel.stream(
        "print('before', os.getppid(), flush=True); import time; time.sleep(60)",
      ).pipe(
        // Output that the process has not sent is lost with it, so that it must arrive before the end.
        Stream.runForEach((chunk) =>
          Effect.sync(() => {
            if (chunk._tag === "TextChunk") process.kill(Number(chunk.text.split(" ")[1]), "SIGKILL")
          })
        ),
        Effect.flip,
      )
      assert.instanceOf(error, Execution.KernelError)
      assert.strictEqual(error.reason._tag, "KernelDied")
      assert.match(error.partial?.text ?? "", /^before \d+$/)
      yield* kernel.reset
      assert.isFalse(yield* isForked(kernel))
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
    }))
})

describe("the option preload", { concurrent: false }, () => {
  it.live(
    "takes modules of the working directory, which kernels do not share then",
    () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const workingDir = yield* temporary
        yield* fs.writeFileString(`${workingDir}/mine.py`, "values = []")
        const gateway = yield* KernelGateway.make({ workingDir, preload: ["mine"] })
        const [a, b] = [yield* client(gateway), yield* client(gateway)]
        yield* a.execute("import mine; mine.values.append(1)")
        assert.strictEqual(yield* text(b.execute("import sys; sys.modules['mine'].values")), "[]")
      }).pipe(Effect.provide(Platform.layer)),
    60_000,
  )

  for (const [module, why] of [["no_such_module_zz", "ModuleNotFoundError"], ["leaves", "SystemExit"]]) {
    it.live(
      `refuses "${module}", which cannot be loaded, with a typed error that names it`,
      () =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const workingDir = yield* temporary
          yield* fs.writeFileString(`${workingDir}/leaves.py`, "raise SystemExit('done')")
          const error = yield* Effect.flip(
            KernelGateway.make({ workingDir, preload: ["json", module ?? ""] }),
          )
          assert.strictEqual(error.reason._tag, "StartFailed")
          assert.include(error.message, `The module "${module}" could not be loaded: ${why}`)
        }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
      60_000,
    )
  }

  it.live(
    "starts kernels plainly if a module has threads, which are in no copy",
    () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const workingDir = yield* temporary
        const code =
          "import threading, time\nthreading.Thread(target=time.sleep, args=[1000], daemon=True).start()"
        yield* fs.writeFileString(`${workingDir}/threaded.py`, code)
        const gateway = yield* KernelGateway.make({ workingDir, preload: ["threaded"] })
        const kernel = yield* client(gateway)
        assert.isFalse(yield* isForked(kernel))
        assert.strictEqual(yield* text(kernel.execute("import threaded; 6 * 7")), "42")
      }).pipe(Effect.provide(Platform.layer)),
    60_000,
  )
})

it.live("a Jupyter that starts processes in another way is left as it is", () =>
  Effect.gen(function* () {
    const { python } = yield* PythonEnvironment.make()
    const code = `
import sys, types
sys.path.append(sys.argv[1])
from effect_jupyter.gateway import forks
from jupyter_client.provisioning import local_provisioner

class Zygote:
    failure = None
    def give_up(self, why):
        self.failure = why

def launch_kernel(cmd, env=None):
    pass

class OtherProvisioner:
    async def launch_kernel(self, cmd, **kwargs):
        return cmd

for changed in ({"launch_kernel": launch_kernel}, {"LocalProvisioner": OtherProvisioner}, {"launch_kernel": None}):
    other = types.SimpleNamespace(**{**vars(local_provisioner), **changed})
    before, zygote = other.launch_kernel, Zygote()
    print(forks.install(zygote, "kernel.py", other), other.launch_kernel is before, zygote.failure is not None)
known = types.SimpleNamespace(**vars(local_provisioner))
print(forks.install(Zygote(), "kernel.py", known), known.launch_kernel is local_provisioner.launch_kernel)`
    const folder = fileURLToPath(new URL("../src/python", import.meta.url))
    const output = execFileSync(python, ["-c", code, folder], { encoding: "utf8" })
    assert.strictEqual(output, `${"False True True\n".repeat(3)}True False\n`)
  }).pipe(Effect.provide(Platform.layer)))
