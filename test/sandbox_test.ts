/** Sandboxed kernels as their users see them. What attackers see is in `sandbox_*_attack_test.ts`. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Cause, Effect, Exit, FileSystem, Option, Path } from "effect"
import process from "node:process"
import { Execution, KernelClient, KernelGateway, PythonEnvironment, Sandbox } from "../src/mod.ts"
import * as Connection from "../src/gateway/connection.ts"
import * as Platform from "../src/platform.ts"
import { nobody, slow, text } from "./support/kernel.ts"
import { fakeProxy } from "./support/fake_proxy.ts"
import { descendants } from "./support/processes.ts"
import { entries, isRoot, sandboxLayer, sandboxUser, Workspace, workspace, write } from "./support/sandbox.ts"

const fetchCode = (url: string) => `
import urllib.request
print(urllib.request.urlopen(${JSON.stringify(url)}, timeout=20).status)`

layer(sandboxLayer(), slow)("a sandbox", (it) => {
  it.effect("blocks the network", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const error = yield* Effect.flip(kernel.execute(fetchCode("https://example.org")))
      assert.instanceOf(error, Execution.ExecutionError)
      assert.strictEqual(error.ename, "URLError")
    }))

  it.effect("of a KernelGateway that is decorated stays its sandbox", () =>
    Effect.gen(function* () {
      const gateway = yield* KernelGateway.KernelGateway
      const decorated = { ...gateway, url: gateway.url.replace("127.0.0.1", "localhost") }
      const sandbox = Connection.sandboxOf(gateway)
      assert.isDefined(sandbox)
      for (
        const other of [decorated, { ...decorated, token: undefined }, { ...gateway, join: Effect.never }]
      ) {
        assert.strictEqual(Connection.sandboxOf(other), sandbox)
        assert.strictEqual((yield* Connection.of(other)).isOwn, true)
      }
      // These exist only on a gateway with a sandbox.
      const kernel = yield* KernelClient.make({ sandbox: { allowWrite: [] } }).pipe(
        Effect.provideService(KernelGateway.KernelGateway, decorated),
      )
      const error = yield* Effect.flip(kernel.execute("open('denied.txt', 'w')"))
      assert.include(error.message, "Read-only file system")
    }))

  it.effect("starts beside the relays to its proxies, which all code finds listening", () =>
    Effect.gen(function* () {
      const folder = yield* Workspace
      yield* write(
        `${folder}/early/sitecustomize.py`,
        "import builtins, socket\n" +
          "builtins.early = [socket.create_connection(('localhost', port), 1).close() for port in (3128, 1080)]\n",
      )
      const kernel = yield* KernelClient.make({ env: { PYTHONPATH: `${folder}/early` } })
      assert.strictEqual(yield* text(kernel.execute("early")), "[None, None]")
      if (process.platform !== "linux") return
      const commands = descendants(process.pid).map(({ command }) => command.join(" "))
      assert.isTrue(commands.some((command) => command.includes("_srt_http")))
      assert.isFalse(commands.some((command) => command.includes("_srt_since")))
    }))

  it.effect("lets the workspace be written, and nothing else", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      assert.strictEqual(
        yield* text(kernel.execute("open('x.txt', 'w').write('abc'); print(open('x.txt').read())")),
        "abc",
      )
      const error = yield* Effect.flip(kernel.execute("open('/tmp/x.txt', 'w')"))
      assert.instanceOf(error, Execution.ExecutionError)
      assert.include(error.evalue, "Read-only file system")
    }))

  it.effect("keeps state, plots, and gives a clean kernel after a reset", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute("x = 41")
      assert.strictEqual(yield* text(kernel.execute("x + 1")), "42")
      const { images } = yield* kernel.execute(
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
      )
      assert.lengthOf(images, 1)
      yield* kernel.reset
      const error = yield* Effect.flip(kernel.execute("x"))
      assert.instanceOf(error, Execution.ExecutionError)
      assert.strictEqual(error.ename, "NameError")
    }))

  it.effect("holds eight kernels at once, each with a folder of its own for temporary files", () =>
    Effect.gen(function* () {
      const numbers = Array.from({ length: 8 }, (_, index) => index)
      const kernels = yield* Effect.forEach(numbers, () => KernelClient.make(), { concurrency: 2 })
      const folders = yield* Effect.forEach(
        kernels,
        (kernel) =>
          text(
            kernel.execute(
              "import tempfile, os; print(tempfile.mkdtemp(), os.listdir(os.environ['TMPDIR']))",
            ),
          ),
        {
          concurrency: 8,
        },
      )
      assert.strictEqual(new Set(folders).size, 8)
    }).pipe(Effect.scoped))

  it.effect("may be narrower for one kernel, and never wider", () =>
    Effect.gen(function* () {
      const narrow = yield* KernelClient.make({ sandbox: { allowWrite: [] } })
      const error = yield* Effect.flip(narrow.execute("open('y.txt', 'w')"))
      assert.include(error.message, "Read-only file system")

      const wide = yield* Effect.flip(
        Effect.scoped(KernelClient.make({ sandbox: { allowNet: ["example.org"] } })),
      )
      assert.instanceOf(wide.reason, Execution.KernelStartFailed)
      assert.include(wide.message, `"allowNet[0]"`)
      assert.include(wide.message, `"example.org" is not allowed`)
    }).pipe(Effect.scoped))

  it.effect("may be strict for several kernels at once, wherever the settings of agents are", () =>
    Effect.gen(function* () {
      for (const files of [{}, { ".claude/commands/mine.md": "mine" }]) {
        const workingDir = yield* workspace(files)
        const sandbox = { ...sandboxUser, strict: true }
        yield* Effect.gen(function* () {
          const [one, two] = yield* Effect.all([KernelClient.make(), KernelClient.make()], { concurrency: 2 })
          for (const kernel of [one, two]) {
            for (const place of ["settings.json", "commands/planted.md"]) {
              const error = yield* Effect.flip(kernel.execute(`open('.claude/${place}', 'w')`))
              assert.strictEqual(error._tag, "ExecutionError", place)
            }
          }
        }).pipe(Effect.scoped, Effect.provide(KernelGateway.layer({ workingDir, sandbox })))
        assert.deepStrictEqual(
          entries(workingDir).map((path) => path.slice(workingDir.length + 1)).sort(),
          Object.keys(files).length === 0 ? [] : [".claude", ".claude/commands", ".claude/commands/mine.md"],
        )
      }
    }).pipe(Effect.scoped))

  it.effect("is not widened by a variable of the environment", () =>
    Effect.gen(function* () {
      const rules = {
        allowNet: [],
        denyNet: [],
        allowWrite: ["/tmp"],
        denyWrite: [],
        denyRead: [],
        allowRead: [],
      }
      const kernel = yield* KernelClient.make({
        env: {
          EFFECT_JUPYTER_SANDBOX: JSON.stringify({ ...rules, strict: false, limits: {} }),
          GIVEN: "yes",
        },
      })
      const code = "import os; print(os.environ['GIVEN'], os.environ.get('EFFECT_JUPYTER_SANDBOX'))"
      assert.strictEqual(yield* text(kernel.execute(code)), "yes None")
      const error = yield* Effect.flip(kernel.execute("open('/tmp/x.txt', 'w')"))
      assert.include(error.message, "Read-only file system")
    }).pipe(Effect.scoped))
})

it.live("the file of the package lets example.org through and nothing else", () =>
  Effect.gen(function* () {
    const proxy = yield* fakeProxy
    const gateway = yield* KernelGateway.make({
      workingDir: yield* workspace(),
      sandbox: { settings: "sandbox/example_org.json", upstreamProxy: proxy.url, ...sandboxUser },
    })
    const kernel = yield* KernelClient.make().pipe(
      Effect.provideService(KernelGateway.KernelGateway, gateway),
    )
    assert.strictEqual(yield* text(kernel.execute(fetchCode("http://example.org/"))), "200")
    for (const host of ["example.com", "sub.example.org", "example.org.evil.test"]) {
      const error = yield* Effect.flip(kernel.execute(fetchCode(`http://${host}/`)))
      assert.instanceOf(error, Execution.ExecutionError)
      assert.include(error.evalue, "403")
    }
  }).pipe(Effect.scoped, Effect.provide(Platform.layer)), 120_000)

describe("limits", () => {
  const limited = (limits: Sandbox.Limits, code: string) =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make({ sandbox: { limits } })
      const exit = yield* Effect.exit(kernel.execute(code, { timeout: "60 seconds" }))
      const error = Exit.isFailure(exit)
        ? Option.getOrUndefined(Cause.findErrorOption(exit.cause))
        : undefined
      return error === undefined
        ? "no error"
        : error._tag === "ExecutionError"
        ? error.ename
        : error._tag === "KernelError"
        ? error.reason._tag
        : error._tag
    }).pipe(Effect.scoped)

  layer(sandboxLayer(), slow)((it) => {
    const cases: ReadonlyArray<
      readonly [what: string, limits: Sandbox.Limits, code: string, outcome: string]
    > = [
      ["one allocation", { memory: 4e8 }, "x = bytearray(10**9)", "MemoryError"],
      [
        "many processes that allocate",
        { memory: 4e8 },
        "import os, time\nfor _ in range(6): os.fork() or (x := bytearray(10**8))\ntime.sleep(50)",
        "KernelDied",
      ],
      [
        "memory that is a file",
        { memory: 4e8 },
        "with open('/dev/shm/x', 'wb') as file:\n for _ in range(50): file.write(bytes(10**7))",
        "OSError",
      ],
      [
        "memory that is shared",
        { memory: 4e8 },
        "import ctypes\nif ctypes.CDLL(None, use_errno=True).shmget(0, 10**8, 0o1600) == -1:\n raise OSError(ctypes.get_errno(), 'shmget')",
        "PermissionError",
      ],
      [
        "shared memory that is not mapped any more",
        { memory: 4e8 },
        "import mmap\nmmap.mmap(-1, 10**6)",
        "PermissionError",
      ],
      [
        "shared memory of /dev/zero",
        { memory: 4e8 },
        "import mmap, os\nmmap.mmap(os.open('/dev/zero', os.O_RDWR), 10**6)",
        "PermissionError",
      ],
      [
        "tables of pages",
        { memory: 4e8 },
        "import mmap, time\nx = mmap.mmap(-1, 2**42, mmap.MAP_PRIVATE | 0x4000, mmap.PROT_READ)\n" +
        "for at in range(0, 2**42, 2**21): x[at]\ntime.sleep(50)",
        "KernelDied",
      ],
      [
        "files in memory beside other memory",
        { memory: 4e8 },
        "import time\nx = bytearray(25 * 10**7)\nwith open('/dev/shm/x', 'wb') as file:\n" +
        " for _ in range(15): file.write(bytes(10**7))\ntime.sleep(50)",
        "KernelDied",
      ],
      [
        "no processes that share memory as they should",
        { memory: 4e8 },
        "import multiprocessing as m\nfrom multiprocessing import shared_memory as s\n" +
        "v = m.Value('i', 0)\na = m.Array('d', 1000)\nb = s.SharedMemory(create=True, size=10**6)\n" +
        "l = m.Lock()\np = m.get_context('fork').Process(target=lambda: v.get_obj().__class__)\np.start(); p.join()\n" +
        "assert p.exitcode == 0\nb.close(); b.unlink()",
        "no error",
      ],
      [
        "a fork bomb",
        { processes: 60 },
        "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
        "KernelDied",
      ],
      ["a file", { fileSize: 1e6 }, "open('big', 'wb').write(bytes(10**7))", "OSError"],
      ["a loop", { cpuTime: "2 seconds" }, "while True: pass", "KernelDied"],
      ["loops", { cpuTime: "2 seconds" }, "import os\nos.fork(); os.fork()\nwhile True: pass", "KernelDied"],
    ]
    for (const [what, limits, code, outcome] of cases) {
      it.effect(`end ${what}, and a neighbour works on`, () =>
        Effect.gen(function* () {
          const neighbour = yield* KernelClient.KernelClient
          assert.strictEqual(yield* limited(limits, code), outcome)
          assert.strictEqual(yield* text(neighbour.execute("6 * 7")), "42")
        }))
    }
  })
})

const failing = (options: KernelGateway.GatewayOptions) =>
  Effect.map(Effect.flip(Effect.scoped(KernelGateway.make(options))), (error) => {
    assert.instanceOf(error, Sandbox.SandboxError)
    return error
  })

/** A folder with these programs, and links to those of the system that the gateway needs. */
const programs = Effect.fnUntraced(function* (scripts: Readonly<Record<string, string>>, missing = "") {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* workspace()
  for (const name of ["bwrap", "socat", "rg", "bash", "sh"]) {
    if (name !== missing && scripts[name] === undefined) {
      yield* fs.symlink(`/usr/bin/${name}`, path.join(folder, name))
    }
  }
  for (const [name, script] of Object.entries(scripts)) {
    yield* fs.writeFileString(path.join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  }
  return folder
}, Effect.orDie)

it.layer(Platform.layer, slow)("there is no gateway but a typed error", (it) => {
  for (const tool of ["bwrap", "socat", "rg"]) {
    it.effect(`without ${tool}`, () =>
      Effect.gen(function* () {
        const PATH = yield* programs({}, tool)
        const { message, reason } = yield* failing({ env: { PATH }, sandbox: sandboxUser })
        assert.instanceOf(reason, Sandbox.ToolMissing)
        assert.deepStrictEqual(reason.tools, [tool])
        assert.include(message, "apt-get install")
      }))
  }

  const says: ReadonlyArray<readonly [text: string, tag: Sandbox.SandboxErrorReason["_tag"], fix: string]> = [
    [
      "bwrap: No permissions to create new namespace, likely because the kernel does not allow non-privileged user namespaces.",
      "NamespacesDisabled",
      "kernel.unprivileged_userns_clone=1",
    ],
    [
      "bwrap: Creating new namespace failed: No space left on device (ENOSPC)",
      "NamespacesDisabled",
      "user.max_user_namespaces",
    ],
    [
      "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
      "NamespacesDisabled",
      "apparmor_restrict_unprivileged_userns=0",
    ],
    ["bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "NamespacesDisabled", "docker run"],
    ["bwrap: setting up uid map: Permission denied", "NamespacesDisabled", "sysctl"],
    ["bwrap: execvp PYTHON: No such file or directory", "StartFailed", "must be readable"],
    ["bwrap: something else", "StartFailed", "something else"],
  ]
  for (const [words, tag, fix] of says) {
    it.effect(`if bubblewrap says "${words}"`, () =>
      Effect.gen(function* () {
        const { python } = yield* PythonEnvironment.make()
        const PATH = yield* programs({ bwrap: `echo "${words.replace("PYTHON", python)}" >&2; exit 1` })
        const { message, reason } = yield* failing({ env: { PATH }, sandbox: sandboxUser })
        assert.strictEqual(reason._tag, tag)
        assert.include(message, fix)
      }))
  }

  it.effect("if the settings are wrong", () =>
    Effect.gen(function* () {
      const { reason } = yield* failing({ sandbox: { allowWrite: ["*"], ...sandboxUser } })
      assert.instanceOf(reason, Sandbox.InvalidSettings)
      assert.strictEqual(reason.key, "allowWrite[0]")
      const missing = yield* failing({ sandbox: { settings: "/does/not/exist.json", ...sandboxUser } })
      assert.include(missing.message, "/does/not/exist.json")
    }))

  it.effect.runIf(isRoot)(
    "fails with RunningAsRoot for root without a user, and kernels of root's gateway run as the user",
    () =>
      Effect.gen(function* () {
        const { message, reason } = yield* failing({ sandbox: true })
        assert.instanceOf(reason, Sandbox.RunningAsRoot)
        assert.include(message, `"user"`)
        const gateway = yield* KernelGateway.make({
          workingDir: yield* workspace(),
          sandbox: { user: nobody },
        })
        const kernel = yield* KernelClient.make().pipe(
          Effect.provideService(KernelGateway.KernelGateway, gateway),
        )
        assert.strictEqual(
          yield* text(kernel.execute("import os; print(os.getuid(), os.getgid(), os.getgroups())")),
          "65534 65534 []",
        )
      }).pipe(Effect.scoped),
  )

  it.effect.runIf(!isRoot)(
    "fails for an unprivileged user who names another user",
    () =>
      Effect.gen(function* () {
        const { reason } = yield* failing({ sandbox: { user: { uid: 1, gid: 1 } } })
        assert.strictEqual(reason._tag, "InvalidSettings")
      }),
  )

  it.effect("for a kernel with permissions on a gateway without a sandbox", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(KernelClient.make({ sandbox: { allowNet: [] } }))
      assert.instanceOf(error.reason, Execution.KernelStartFailed)
      assert.include(error.message, "The gateway has no sandbox")
    }).pipe(Effect.scoped, Effect.provide(KernelGateway.layer())))
})
