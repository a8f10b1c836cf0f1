import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Path, Schema, type Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { globSync } from "node:fs"
import { KernelClient, KernelGateway, PythonEnvironment } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { temporary } from "./support/kernel.ts"
import { descendants, eventually, survivors } from "./support/processes.ts"

const Outcome = Schema.fromJsonString(Schema.Struct({
  python: Schema.optionalKey(Schema.String),
  _tag: Schema.optionalKey(Schema.String),
  detail: Schema.optionalKey(Schema.String),
  output: Schema.optionalKey(Schema.Array(Schema.String)),
}))

/** Variables that would decide which interpreter is used, or where packages come from. */
const nothing = {
  EFFECT_JUPYTER_PYTHON: undefined,
  VIRTUAL_ENV: undefined,
  PIP_FIND_LINKS: undefined,
  PIP_RETRIES: "0",
} as const
const unreachable = {
  PIP_INDEX_URL: "http://127.0.0.1:9/simple",
  UV_INDEX_URL: "http://127.0.0.1:9/simple",
  UV_HTTP_RETRIES: "0",
}

/** The environment of a machine whose package index holds empty packages of the right names. */
const offline = Effect.gen(function* () {
  const wheels = yield* temporary
  yield* run("python3", [
    "test/support/make_wheels.py",
    wheels,
    "jupyter_kernel_gateway==3.0.1",
    "ipykernel==7.4.0",
    "matplotlib==3.11.2",
    "extra_package==1.0",
  ])
  return {
    ...nothing,
    PIP_NO_INDEX: "1",
    PIP_FIND_LINKS: wheels,
    UV_NO_INDEX: "1",
    UV_FIND_LINKS: wheels,
    UV_OFFLINE: "1",
  }
})

const start = (
  cacheDir: string,
  env: Record<string, string | undefined>,
  packages: ReadonlyArray<string> = [],
) =>
  ChildProcess.make("node", ["test/support/provision.ts", cacheDir, ...packages], {
    env,
    extendEnv: true,
    stdin: "ignore",
    stderr: "inherit",
    forceKillAfter: "5 seconds",
  })

const run = (command: string, args: ReadonlyArray<string>) =>
  ChildProcess.make(command, args, { extendEnv: true, stdin: "ignore", stderr: "inherit" }).pipe(
    Effect.flatMap((handle) => handle.stdout.pipe(Stream.decodeText(), Stream.mkString)),
    Effect.scoped,
  )

/** Runs `PythonEnvironment.make` in another process. */
const provision = (
  cacheDir: string,
  env: Record<string, string | undefined>,
  packages?: ReadonlyArray<string>,
) =>
  start(cacheDir, env, packages).pipe(
    Effect.flatMap((handle) => handle.stdout.pipe(Stream.decodeText(), Stream.mkString)),
    Effect.flatMap(Schema.decodeUnknownEffect(Outcome)),
    Effect.scoped,
  )

/** The output of such a process, with its log. */
const everything = (
  cacheDir: string,
  env: Record<string, string | undefined>,
  packages: ReadonlyArray<string> = [],
) =>
  ChildProcess.make("node", ["test/support/provision.ts", cacheDir, ...packages], {
    env,
    extendEnv: true,
    stdin: "ignore",
  }).pipe(
    Effect.flatMap((handle) => handle.all.pipe(Stream.decodeText(), Stream.mkString)),
    Effect.scoped,
  )

/** Everything below the cache directory, two levels deep. */
const listing = Effect.fnUntraced(function* (cacheDir: string) {
  const fs = yield* FileSystem.FileSystem
  const [environment = ""] = yield* fs.readDirectory(cacheDir)
  return yield* fs.readDirectory(`${cacheDir}/${environment}`)
})
const isBuilding = (cacheDir: string): boolean => globSync(`${cacheDir}/*/build-*/*`).length > 0
const builds = (files: ReadonlyArray<string>): ReadonlyArray<string> =>
  files.filter((file) => file.startsWith("build-"))

describe("PythonEnvironment", () => {
  const test = (title: string, body: Effect.Effect<void, unknown, Platform.Platform | Scope.Scope>) =>
    it.live(title, () => Effect.provide(body, Platform.layer), 120_000)

  test(
    "base: the newest interpreter of the PATH is found, one that is too old is passed over, and names are kept apart",
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const real = (yield* run("python3", ["-c", "import sys; print(sys.executable)"])).trim()
      const folder = yield* temporary
      const script = Effect.fnUntraced(function* (name: string, body: string) {
        yield* fs.writeFileString(`${folder}/${name}`, `#!/bin/sh\n${body}\n`)
        yield* fs.chmod(`${folder}/${name}`, 0o755)
      })
      const node = (yield* run("which", ["node"])).trim().replace(/\/node$/, "")
      const env = { ...(yield* offline), PATH: `${folder}:${node}` }
      const old = `exec ${real} -E -S -c "import sys; sys.version_info = (3, 9, 18); $4" "$5"`
      yield* script("python3", old)
      yield* script("python", "exit 1")
      const cacheDir = yield* temporary
      const failed = yield* provision(cacheDir, env)
      assert.strictEqual(failed._tag, "PythonNotFound")
      assert.include(failed.detail, "3.9.18")
      assert.include(failed.detail, `"base"`)
      // As a shim of pyenv does whose version is not chosen.
      yield* script("python3.14", "exit 127")
      yield* script("python3.11", `exec ${real} "$@"`)
      const found = yield* provision(cacheDir, env)
      assert.isString(found.python)
      const named = yield* provision(cacheDir, { ...env, TEST_BASE: real })
      assert.isString(named.python)
      assert.notStrictEqual(named.python, found.python)
      const tooOld = yield* provision(cacheDir, { ...env, TEST_BASE: `${folder}/python3` })
      assert.strictEqual(tooOld._tag, "PythonNotFound")
      assert.include(tooOld.detail, "3.9.18")
      const explicit = yield* provision(cacheDir, { ...env, EFFECT_JUPYTER_PYTHON: `${folder}/python3` })
      assert.include(explicit.detail, "3.9.18")
    }),
  )

  test(
    "settings of pip that lead elsewhere, and variables of Python, change neither the environment nor other places",
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const elsewhere = yield* temporary
      yield* fs.writeFileString(`${elsewhere}/pip.conf`, `[install]\ntarget = ${elsewhere}/by-file\n`)
      const env = {
        ...(yield* offline),
        PIP_CONFIG_FILE: `${elsewhere}/pip.conf`,
        PIP_PREFIX: `${elsewhere}/prefix`,
        PIP_USER: "1",
        PYTHONUSERBASE: `${elsewhere}/user`,
        PYTHONHOME: `${elsewhere}/home`,
        PYTHONPATH: elsewhere,
      }
      const { detail, output, python = "" } = yield* provision(yield* temporary, env, ["extra-package>=1"])
      assert.notStrictEqual(python, "", `${detail} ${output?.join("\n")}`)
      assert.deepStrictEqual(yield* fs.readDirectory(elsewhere), ["pip.conf"])
      assert.include(yield* run(python, ["-m", "pip", "list"]), "extra")
    }),
  )

  test(
    "a folder that cannot be written to is a typed failure that names cacheDir",
    Effect.gen(function* () {
      const failed = yield* provision("/proc/effect-jupyter", nothing)
      assert.strictEqual(failed._tag, "ProvisioningFailed")
      assert.include(failed.detail, `"cacheDir"`)
    }),
  )

  test(
    "a home and a /tmp that are read-only, and no home at all, are no obstacle",
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { python } = yield* PythonEnvironment.make()
      const folder = yield* fs.makeTempDirectoryScoped({ directory: "/var/tmp", prefix: "ej-" })
      const home = process.env.HOME ?? "/root"
      const code = "import os, jedi; print(os.access(jedi.settings.cache_directory, os.W_OK) or " +
        "os.environ.get('XDG_CACHE_HOME'), os.environ.get('TMPDIR'))"
      const machine = (env: Record<string, string | undefined>) =>
        ChildProcess.make("bwrap", [
          ...["--dev-bind", "/", "/", "--ro-bind", "/tmp", "/tmp", "--ro-bind", home, home],
          ...["node", "test/support/run_code.ts", code],
        ], {
          env: { EFFECT_JUPYTER_PYTHON: python, ...env },
          extendEnv: true,
          stdin: "ignore",
        }).pipe(
          Effect.flatMap((handle) => handle.all.pipe(Stream.decodeText(), Stream.mkString)),
          Effect.scoped,
        )
      assert.match(
        yield* machine({ TMPDIR: folder }),
        new RegExp(`^${folder}/effect-jupyter-[0-9a-f]{12}/[0-9a-f]{8}/cache ${folder}\n$`),
      )
      assert.match(yield* machine({ TMPDIR: folder, HOME: undefined }), /\/cache /)
      assert.include(yield* machine({ TMPDIR: undefined }), "TMPDIR")
    }),
  )

  test(
    "an explicit interpreter needs what a gateway needs, not matplotlib",
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { python } = yield* PythonEnvironment.make()
      const where = "import sysconfig; print(sysconfig.get_path('purelib'))"
      const packages = (yield* run(python, ["-c", where])).trim()
      const folder = yield* temporary
      yield* run("python3", ["-m", "venv", "--without-pip", `${folder}/venv`])
      const own = (yield* run(`${folder}/venv/bin/python`, ["-c", where])).trim()
      for (const name of yield* fs.readDirectory(packages)) {
        if (!/^(matplotlib|mpl_toolkits|pylab)(?!_inline)/.test(name)) {
          yield* fs.symlink(`${packages}/${name}`, `${own}/${name}`)
        }
      }
      const gateway = yield* KernelGateway.make({ python: { python: `${folder}/venv/bin/python` } })
      const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
      const code =
        "import importlib.util, sys; print(importlib.util.find_spec('matplotlib'), sys.prefix)\n!python -c 'import sys; print(sys.prefix)'"
      const { text } = yield* kernel.execute(code)
      assert.strictEqual(text, `None ${folder}/venv\n${folder}/venv`)
    }),
  )

  test(
    "two processes at once make one environment, which the next one finds",
    Effect.gen(function* () {
      const cacheDir = yield* temporary
      const env = yield* offline
      const [one, two] = yield* Effect.all([provision(cacheDir, env), provision(cacheDir, env)], {
        concurrency: 2,
      })
      assert.isString(one.python)
      assert.strictEqual(two.python, one.python)
      assert.lengthOf(builds(yield* listing(cacheDir)), 1)
      // Without any index nothing could be installed a second time.
      const found = yield* provision(cacheDir, { ...nothing, ...unreachable })
      assert.strictEqual(found.python, one.python)
    }),
  )

  test(
    "other packages are another environment",
    Effect.gen(function* () {
      const cacheDir = yield* temporary
      const env = yield* offline
      const { python } = yield* provision(cacheDir, env, ["extra-package>=1"])
      assert.include(yield* run(python ?? "", ["-m", "pip", "list"]), "extra")
      const missing = yield* provision(cacheDir, env, ["no-such-package"])
      assert.strictEqual(missing._tag, "ProvisioningFailed")
      assert.include(missing.output?.join("\n"), "no-such-package")
    }),
  )

  test(
    "a build whose process is killed leaves no process, is not used, and is removed by the next",
    Effect.gen(function* () {
      const cacheDir = yield* temporary
      const env = yield* offline
      const handle = yield* start(cacheDir, env)
      yield* eventually(() => isBuilding(cacheDir) ? undefined : "nothing is being built", 30)
      const pids = descendants(handle.pid).map(({ pid }) => pid)
      yield* Effect.sync(() => process.kill(handle.pid, "SIGKILL"))
      yield* eventually(() => survivors(pids), 5)
      const [left] = builds(yield* listing(cacheDir))
      assert.isDefined(left)
      assert.notInclude(yield* listing(cacheDir), "current")
      const { python } = yield* provision(cacheDir, env)
      assert.isString(python)
      assert.notInclude(yield* listing(cacheDir), left)
    }),
  )

  test(
    "a build that is interrupted leaves no process and no directory",
    Effect.gen(function* () {
      const cacheDir = yield* temporary
      const env = yield* offline
      const pids = yield* Effect.scoped(Effect.gen(function* () {
        const handle = yield* start(cacheDir, env)
        yield* eventually(() => isBuilding(cacheDir) ? undefined : "nothing is being built", 30)
        return descendants(handle.pid).map(({ pid }) => pid)
      }))
      yield* eventually(() => survivors(pids), 5)
      assert.deepStrictEqual(builds(yield* listing(cacheDir)), [])
    }),
  )

  test(
    "a network that fails is a typed failure with pip's last lines, and leaves nothing half-made",
    Effect.gen(function* () {
      const cacheDir = yield* temporary
      const failed = yield* provision(cacheDir, { ...nothing, ...unreachable })
      assert.strictEqual(failed._tag, "ProvisioningFailed")
      assert.include(failed.output?.join("\n"), "No matching distribution")
      assert.deepStrictEqual(builds(yield* listing(cacheDir)), [])
    }),
  )

  test(
    "uv is used where it is on the PATH",
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const tools = yield* temporary
      yield* run("python3", [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--root-user-action=ignore",
        "--target",
        tools,
        "uv",
      ])
      const cacheDir = yield* temporary
      const env = yield* offline
      const { python = "" } = yield* provision(cacheDir, {
        ...env,
        PATH: `${tools}/bin:${process.env.PATH ?? ""}`,
      })
      assert.include(yield* fs.readFileString(path.resolve(python, "../../pyvenv.cfg")), "uv =")
      assert.include(yield* run(path.resolve(python, "../pip"), ["--version"]), path.resolve(python, "../.."))
    }),
  )

  test(
    "an active virtual environment is used if it has the packages",
    Effect.gen(function* () {
      const cacheDir = yield* temporary
      const env = yield* offline
      const { python = "" } = yield* provision(cacheDir, env)
      const active = python.replace(/\/bin\/python$/, "")
      const fitting = yield* provision("/nowhere", { ...nothing, ...unreachable, VIRTUAL_ENV: active })
      assert.strictEqual(fitting.python, python)
      const lacking = yield* provision(cacheDir, { ...env, VIRTUAL_ENV: active }, ["extra-package"])
      assert.isString(lacking.python)
      assert.notStrictEqual(lacking.python, python)
      const said = yield* everything(cacheDir, { ...env, VIRTUAL_ENV: active }, ["extra-package"])
      assert.match(said, /INFO.*A managed Python environment is used instead of the active one/)
      assert.include(said, `"${active}"`)
      assert.include(said, "lacks extra-package")
    }),
  )

  test(
    "an interpreter named by the environment variable has to do",
    Effect.gen(function* () {
      const failed = yield* provision("/nowhere", { EFFECT_JUPYTER_PYTHON: "/no/such/python" })
      assert.strictEqual(failed._tag, "PythonNotFound")
      const noPython = yield* provision("/nowhere", { EFFECT_JUPYTER_PYTHON: "/bin/echo" })
      assert.strictEqual(noPython._tag, "PythonNotFound")
      assert.include(noPython.detail, "is it Python?")
      const lacking = yield* provision("/nowhere", { EFFECT_JUPYTER_PYTHON: "/usr/bin/env" })
      assert.strictEqual(lacking._tag, "PythonNotFound")
    }),
  )

  test(
    "a person who watches is told what takes so long",
    Effect.gen(function* () {
      const cacheDir = yield* temporary
      const env = yield* offline
      // The terminal is Python's: stdin is closed, so that it ends with the program.
      const script = `import pty, sys; pty.spawn(["node", "test/support/provision.ts", sys.argv[1]])`
      const output = yield* ChildProcess.make("python3", ["-c", script, cacheDir], {
        env,
        extendEnv: true,
        stdin: "ignore",
      }).pipe(
        Effect.flatMap((handle) => handle.stdout.pipe(Stream.decodeText(), Stream.mkString)),
        Effect.scoped,
      )
      assert.include(output, "Installing Python packages")
      // Without a terminal the log says where, and when it is done.
      const other = yield* temporary
      const said = yield* everything(other, env)
      assert.match(said, /INFO.*Installing Python packages into/)
      assert.match(said, /INFO.*Installed Python packages into/)
      assert.include(said, `"${other}/python-`)
      assert.notInclude(yield* everything(other, env), "Python packages")
    }),
  )

  it.live("options name the interpreter", () =>
    Effect.gen(function* () {
      const { python } = yield* PythonEnvironment.make()
      const again = yield* Effect.provide(
        PythonEnvironment.PythonEnvironment,
        PythonEnvironment.layer({ python }),
      )
      assert.strictEqual(again.python, python)
    }))

  it.live("layer provides the interpreter of gateways whose options name none", () =>
    Effect.gen(function* () {
      const error = yield* KernelGateway.make().pipe(
        Effect.scoped,
        Effect.provideService(PythonEnvironment.PythonEnvironment, { python: "/no/such/python" }),
        Effect.flip,
      )
      assert.strictEqual(error.reason._tag, "StartFailed")
      assert.include(error.message, "/no/such/python")
      const named = yield* KernelGateway.make({ python: { python: "/named/python" } }).pipe(
        Effect.scoped,
        Effect.provideService(PythonEnvironment.PythonEnvironment, { python: "/no/such/python" }),
        Effect.flip,
      )
      assert.include(named.message, "/named/python")
    }))
})
