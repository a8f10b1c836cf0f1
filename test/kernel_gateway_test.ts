import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, FileSystem, Layer, Redacted, Schedule, Scope } from "effect"
import { HttpClient } from "effect/http"
import { ChildProcess } from "effect/process"
import { createServer } from "node:http"
import { inspect } from "node:util"
import { KernelClient, KernelGateway, KernelPool, PythonEnvironment } from "../src/mod.ts"
import * as Connection from "../src/gateway/connection.ts"
import * as Channel from "../src/jupyter/channel.ts"
import * as Platform from "../src/platform.ts"
import { kernelLayer, overServer, slow, temporary, text } from "./support/kernel.ts"
import { descendants, eventually, processes, supervisors, survivors } from "./support/processes.ts"
import { tied } from "./support/tied.ts"

const tokenOf = (gateway: KernelGateway.KernelGateway["Service"]): string =>
  gateway.token === undefined ? "" : Redacted.value(gateway.token)

const request = (url: string, headers: Record<string, string> = {}) =>
  Effect.promise(() => fetch(url, { headers }).then((response) => response.status))

layer(kernelLayer(), slow)("KernelGateway", (it) => {
  it.effect("is protected by a random token and listens on this machine only", () =>
    Effect.gen(function* () {
      const gateway = yield* KernelGateway.KernelGateway
      assert.match(gateway.url, /^http:\/\/127\.0\.0\.1:\d+$/)
      assert.match(tokenOf(gateway), /^[0-9a-f]{64}$/)
      assert.strictEqual(yield* request(`${gateway.url}/api`), 401)
      assert.strictEqual(
        yield* request(`${gateway.url}/api`, { authorization: `token ${tokenOf(gateway)}` }),
        200,
      )
      assert.notInclude(JSON.stringify(gateway), tokenOf(gateway))
    }))

  it.effect("has a process group and a private runtime directory of its own, sockets in it", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const [supervisor] = supervisors(process.pid)
      assert.isDefined(supervisor)
      if (supervisor === undefined) return
      assert.strictEqual(supervisor.group, supervisor.pid)
      assert.isBelow(supervisor.runtimeDir.length, 57)
      const info = yield* fs.stat(supervisor.runtimeDir)
      assert.strictEqual(info.mode & 0o777, 0o700)
      const files = yield* fs.readDirectory(supervisor.runtimeDir)
      assert.isAtLeast(files.filter((file) => /^kernel-.*\.sock$/.test(file)).length, 1)
      const commands = descendants(supervisor.pid).map(({ command }) => command.join(" "))
      const token = tokenOf(yield* KernelGateway.KernelGateway)
      assert.isFalse(commands.some((command) => command.includes(token)), "the token is no argument")
    }))

  it.effect("messages are not held back: 20 executions take less than 20 delayed acknowledgements", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const all = yield* Effect.forEach(Array.from({ length: 20 }), () => text(kernel.execute("1 + 1")))
      assert.deepStrictEqual(all, Array.from({ length: 20 }, () => "2"))
    }))

  for (const fork of [true, false]) {
    it.effect(`reset makes the workingDir of the gateway again, ${fork ? "forked" : "started"}`, () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const workingDir = `${yield* fs.realPath(yield* temporary)}/inner`
        yield* fs.makeDirectory(workingDir)
        const gateway = yield* Layer.build(KernelGateway.layer({ fork, workingDir }))
        const kernel = yield* Effect.provide(KernelClient.make(), gateway)
        const error = yield* Effect.flip(kernel.execute("import os; os.rmdir(os.getcwd()); [][1]"))
        assert.include(error.message, "IndexError")
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("import os; os.getcwd()")), `'${workingDir}'`)
        yield* kernel.execute(`os.rmdir(os.getcwd()); open("${workingDir}", "w").close()`)
        const refused = yield* Effect.flip(kernel.reset)
        assert.include(refused.message, "is gone and cannot be made again: File exists")
      }))
  }

  it.effect("a kernel that is deleted takes with it what it started, in whatever session", () =>
    Effect.gen(function* () {
      const code = "import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)"
      const pid = yield* KernelClient.make().pipe(
        Effect.flatMap((kernel) => text(kernel.execute(code))),
        Effect.scoped,
      )
      yield* eventually(() => survivors([Number(pid)]), 5)
    }))

  it.effect("both wire formats work", () =>
    Effect.gen(function* () {
      const gateway = overServer(yield* KernelGateway.KernelGateway)
      const { id } = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
      for (const [protocols, expected] of [[undefined, "v1"], [[], "legacy"]] as const) {
        const channel = yield* Channel.make({
          url: gateway.url,
          headers: { authorization: `token ${tokenOf(gateway)}` },
          kernelId: id,
          session: `session-${expected}`,
          pingInterval: "10 seconds",
          onUnclaimed: () => {},
          onMalformed: () => {},
          ...(protocols === undefined ? {} : { protocols }),
        })
        assert.strictEqual(channel.protocol, expected)
      }
    }))

  it.effect("a taken port is a typed failure that names it", () =>
    Effect.gen(function* () {
      const port = Number(new URL((yield* KernelGateway.KernelGateway).url).port)
      const error = yield* Effect.flip(Effect.scoped(KernelGateway.make({ port })))
      assert.deepInclude({ ...error }.reason, { _tag: "PortInUse", port })
      assert.include(error.message, `"${port}"`)
    }))

  it.effect("a remote client uses the same server", () =>
    Effect.gen(function* () {
      const { token, url } = yield* KernelGateway.KernelGateway
      const output = yield* KernelClient.make().pipe(
        Effect.flatMap((kernel) => text(kernel.execute("6 * 7"))),
        Effect.scoped,
        Effect.provide(KernelGateway.layerRemote({ url: `${url}/`, token: token ?? "" })),
      )
      assert.strictEqual(output, "42")
    }))

  it.effect("a wrong token is refused", () =>
    Effect.gen(function* () {
      const { url } = yield* KernelGateway.KernelGateway
      const error = yield* Effect.flip(
        Effect.provide(KernelGateway.KernelGateway, KernelGateway.layerRemote({ url, token: "wrong" })),
      )
      assert.strictEqual(error.reason._tag, "Unauthorized")
    }))

  it.effect("a gateway service made by hand will do", () =>
    Effect.gen(function* () {
      const { kernels, kernelspecs, token, url } = yield* KernelGateway.KernelGateway
      const made = { url, token, join: Effect.never, kernelspecs, kernels }
      const kernel = yield* KernelClient.make().pipe(
        Effect.provideService(KernelGateway.KernelGateway, made),
      )
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
    }))

  it.effect("HttpClient and FileSystem come from the context where it has them", () =>
    Effect.gen(function* () {
      const { token, url } = yield* KernelGateway.KernelGateway
      const requests: Array<string> = []
      const counted = HttpClient.mapRequest(yield* HttpClient.HttpClient, (request) => {
        requests.push(`${request.method} ${request.url.replace(url, "")}`)
        return request
      })
      const written: Array<string> = []
      const files = yield* FileSystem.FileSystem
      const kernel = yield* KernelClient.make({ imagesDir: `${yield* temporary}/new` }).pipe(
        Effect.provide(KernelGateway.layerRemote({ url, token: token ?? "" })),
        Effect.provideService(HttpClient.HttpClient, counted),
        Effect.provideService(FileSystem.FileSystem, {
          ...files,
          makeDirectory: (path, options) => {
            written.push(path)
            return files.makeDirectory(path, options)
          },
        }),
      )
      assert.include(requests, "POST /api/kernels")
      assert.include(requests.join("\n"), "GET /api/kernels")
      yield* kernel.reset
      assert.lengthOf(requests.filter((request) => request === "POST /api/kernels"), 2)
      const png =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
      yield* kernel.execute(`display({"image/png": "${png}"}, raw=True)`)
      assert.isNotEmpty(written)
    }))

  it.effect("KernelGateway that is decorated stays a gateway of our own and shares its connection", () =>
    Effect.gen(function* () {
      const gateway = yield* KernelGateway.KernelGateway
      const known = yield* Connection.of(gateway)
      assert.isTrue(known.isOwn)
      const joined = yield* Connection.of({ ...gateway, join: Effect.never })
      assert.strictEqual(joined.rest, known.rest, "clients of the same address share its connection")
      assert.notStrictEqual(joined.ended, known.ended)
      const url = gateway.url.replace("127.0.0.1", "localhost")
      const moved = yield* Connection.of({ ...gateway, url })
      assert.deepInclude(moved, { url, isOwn: true, ownConnection: undefined })
      for (const shown of [inspect(gateway, { depth: 9 }), JSON.stringify(gateway)]) {
        assert.notInclude(shown, tokenOf(gateway))
      }
      const layerDecorated = Layer.effect(
        KernelGateway.KernelGateway,
        Effect.map(KernelGateway.KernelGateway, (gateway) => ({ ...gateway, url })),
      )
      const kernel = yield* Effect.provide(KernelClient.make(), layerDecorated)
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
    }))
})

describe("the life of a gateway", () => {
  const live = it.live

  live("join ends with the scope, and nothing stays", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const scope = yield* Scope.make()
      const gateway = yield* Scope.provide(KernelGateway.make(), scope)
      const kernel = yield* KernelClient.make().pipe(
        Effect.provideService(KernelGateway.KernelGateway, gateway),
        Scope.provide(scope),
      )
      // A child of the kernel and one that tries to get away.
      yield* kernel.execute(
        "import subprocess; subprocess.Popen(['sleep', '1000']); subprocess.Popen(['sleep', '1001'], start_new_session=True)",
      )
      const joined = yield* Effect.forkChild(gateway.join, { startImmediately: true })
      const [supervisor] = supervisors(process.pid)
      assert.isDefined(supervisor)
      const all = supervisor === undefined ? [] : [supervisor, ...descendants(supervisor.pid)]
      assert.isAtLeast(all.length, 5)
      yield* Scope.close(scope, Exit.void)
      assert.isUndefined(survivors(all.map(({ pid }) => pid)))
      assert.isFalse(yield* fs.exists(supervisor?.runtimeDir ?? "/"))
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(joined)))
    }).pipe(Effect.provide(Platform.layer)))

  live("a gateway that is killed is a typed end of join, with exit code", () =>
    Effect.gen(function* () {
      const gateway = yield* KernelGateway.make()
      const [supervisor] = supervisors(process.pid)
      const [child] = supervisor === undefined ? [] : descendants(supervisor.pid)
      assert.isDefined(child)
      yield* Effect.sync(() => process.kill(child?.pid ?? 0, "SIGKILL"))
      const error = yield* Effect.flip(gateway.join)
      assert.deepInclude({ ...error.reason }, { _tag: "Exited", exitCode: 137 })
    }))

  live("a parent that is killed leaves nothing behind", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const handle = yield* ChildProcess.make("node", ["test/support/parent.ts"], {
        stdout: "inherit",
        stderr: "inherit",
      })
      const started = (): ReadonlyArray<number> => descendants(handle.pid).map(({ pid }) => pid)
      const hasKernel = () =>
        processes().some(({ command, parent }) => started().includes(parent) && command.includes("sleep"))
      yield* eventually(() => hasKernel() ? undefined : "no kernel yet", 30)
      const runtimeDir = supervisors(handle.pid)[0]?.runtimeDir ?? "/"
      const pids = started()
      yield* Effect.sync(() => process.kill(handle.pid, "SIGKILL"))
      yield* eventually(() => survivors(pids), 5)
      assert.isFalse(yield* fs.exists(runtimeDir))
    }).pipe(Effect.provide(Platform.layer)))

  live(
    "an interpreter that cannot run the gateway is a typed failure that says what to install",
    () =>
      Effect.gen(function* () {
        const missing = yield* Effect.flip(KernelGateway.make({ python: { python: "/no/such/python" } }))
        assert.strictEqual(missing.reason._tag, "PythonNotFound")
        assert.include(missing.message, `"/no/such/python"`)
        const bare = yield* Effect.flip(
          KernelGateway.make({ python: { packages: ["no-such-package-zz"], ...(yield* found) } }),
        )
        assert.strictEqual(bare.reason._tag, "PythonNotFound")
        assert.include(bare.message, "no-such-package-zz")
        assert.include(bare.message, "pip install")
      }),
  )

  live("a start that takes too long is a typed failure, and nothing stays", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.scoped(KernelGateway.make({ startTimeout: "50 millis" })))
      assert.strictEqual(error.reason._tag, "StartTimeout")
      assert.lengthOf(supervisors(process.pid), 0)
    }))

  live("kernels start in the working directory", () =>
    Effect.gen(function* () {
      const folder = yield* FileSystem.FileSystem.use((fs) =>
        Effect.flatMap(temporary, (path) => fs.realPath(path))
      )
      const gateway = yield* KernelGateway.make({ workingDir: folder })
      const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
      assert.strictEqual(yield* text(kernel.execute("import os; print(os.getcwd())")), folder)
    }).pipe(Effect.scoped, Effect.provide(Platform.layer)))

  live(
    "a working directory that does not exist is a typed failure that names it",
    () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Effect.scoped(KernelGateway.make({ workingDir: "/does/not/exist" })))
        assert.strictEqual(error.reason._tag, "StartFailed")
        assert.include(error.message, "/does/not/exist")
      }),
  )
})

layer(Platform.layer, slow)("KernelStartFailed", (it) => {
  it.effect("begins with the last words of the kernel, then says what to do", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* temporary
      yield* fs.writeFileString(`${folder}/sitecustomize.py`, "raise SystemExit('100% broken %s')")
      const specs = {
        absent: ["/no/such/program", "{connection_file}"],
        loud: ["sh", "-c", "echo before >&2; echo 'no license found' >&2; exit 3", "{connection_file}"],
        silent: ["sh", "-c", "exit 3", "{connection_file}"],
        killed: ["sh", "-c", "kill -9 $$", "{connection_file}"],
      }
      for (const [name, argv] of Object.entries(specs)) {
        yield* fs.makeDirectory(`${folder}/data/kernels/${name}`, { recursive: true })
        const spec = JSON.stringify({ argv, display_name: name, language: "cobol" })
        yield* fs.writeFileString(`${folder}/data/kernels/${name}/kernel.json`, spec)
      }
      const gateway = yield* KernelGateway.make({ env: { JUPYTER_DATA_DIR: `${folder}/data` } })
      const failure = (options: KernelClient.ClientOptions) =>
        Effect.scoped(KernelClient.make(options)).pipe(
          Effect.flip,
          Effect.map(({ reason }) => reason._tag === "KernelStartFailed" ? reason.detail : reason._tag),
          Effect.provideService(KernelGateway.KernelGateway, gateway),
        )
      assert.match(yield* failure({ env: { PYTHONPATH: folder } }), /^SystemExit: 100% broken %s \(.*"env"/)
      assert.match(
        yield* failure({ env: { PYTHONHOME: "/nowhere" } }),
        /^ModuleNotFoundError: No module named 'encodings' \(/,
      )
      assert.match(
        yield* failure({ kernelName: "absent" }),
        /^"\/no\/such\/program" of the kernelspec "absent"/,
      )
      const loud = yield* failure({ kernelName: "loud" })
      assert.match(loud, /^no license found \(/)
      assert.match(loud, /\nbefore\nno license found$/)
      assert.match(yield* failure({ kernelName: "silent" }), /^It ended with exit code 3/)
      assert.match(yield* failure({ kernelName: "killed" }), /^It was ended by SIGKILL \(/)
      assert.strictEqual(yield* failure({ kernelName: "cobol" }), "NoSuchKernelspec")
    }))

  it.effect("of a gateway: the exception comes first, the log after it", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(KernelGateway.make({ env: { PYTHONHOME: "/nowhere" } }))
      assert.strictEqual(error.reason._tag, "StartFailed")
      assert.match(
        error.message,
        /^The kernel gateway could not be started: ModuleNotFoundError: .* \(It ended with exit code 1; .*"env"/,
      )
    }))
})

describe("InvalidOption", () => {
  const gatewayOptions: Record<string, ReadonlyArray<KernelGateway.GatewayOptions>> = {
    port: [{ port: 70_000 }, { port: -1 }, { port: Number.NaN }, { port: 1.5 }],
    host: [{ host: "" }, { host: "no such host" }, { host: "http://localhost" }],
    workingDir: [{ workingDir: "" }, { workingDir: "a\0b" }],
    startTimeout: [{ startTimeout: -1 }, { startTimeout: Number.NaN }],
    "env.A=B": [{ env: { "A=B": "1" } }],
    "env.A": [{ env: { A: "secret\0" } }],
  }
  it.live("KernelGateway.make names the option, its value and what to give", () =>
    Effect.gen(function* () {
      for (const [option, all] of Object.entries(gatewayOptions)) {
        for (const options of all) {
          const error = yield* Effect.flip(Effect.scoped(KernelGateway.make(options)))
          assert.deepInclude({ ...error.reason }, { _tag: "InvalidOption", option })
          assert.include(error.message, `"${option}"`)
          assert.notInclude(error.message, "secret")
        }
      }
    }))

  it.live("layerRemote trims a token and refuses what no header can be, without showing it", () =>
    Effect.gen(function* () {
      for (
        const options of [
          { token: "sec\nret" },
          { token: Redacted.make("sec ret") },
          { headers: { "a b": "secret" } },
          { headers: { "x-a": "sec\r\nret" } },
        ]
      ) {
        const error = yield* KernelGateway.KernelGateway.pipe(
          Effect.provide(KernelGateway.layerRemote({ url: "http://127.0.0.1:9", ...options })),
          Effect.flip,
        )
        assert.strictEqual(error.reason._tag, "InvalidOption")
        assert.notInclude(error.message, "sec")
      }
    }))
})

layer(kernelLayer(), slow)("InvalidOption of kernels, and addresses of pages", (it) => {
  const refused = (options: KernelClient.ClientOptions) =>
    Effect.map(
      Effect.flip(Effect.scoped(KernelClient.make(options))),
      ({ reason }) => reason._tag === "InvalidOption" ? reason.option : reason._tag,
    )

  it.effect("KernelClient.make and execute name the option, and the kernel stays usable", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* refused({ pingInterval: 0 }), "pingInterval")
      assert.strictEqual(yield* refused({ maxMessageSize: NaN }), "maxMessageSize")
      assert.strictEqual(yield* refused({ usageInterval: 0 }), "usageInterval")
      assert.strictEqual(yield* refused({ initTimeout: -5 }), "initTimeout")
      assert.strictEqual(yield* refused({ kernelName: "../python3" }), "kernelName")
      assert.strictEqual(yield* refused({ env: { "": "1" } }), "env.")
      const pool = yield* KernelPool.make({ pingInterval: 0 })
      const fromPool = yield* Effect.flip(Effect.scoped(pool.get))
      assert.deepInclude({ ...fromPool.reason }, { _tag: "InvalidOption", option: "pingInterval" })
      const kernel = yield* KernelClient.KernelClient
      for (const outputLimit of [Number.NaN, -1, Number.POSITIVE_INFINITY, 0.5]) {
        const { reason } = yield* Effect.flip(Effect.scoped(kernel.execute("1", { outputLimit }))).pipe(
          Effect.filterOrFail((error) => error._tag === "KernelError"),
        )
        assert.deepInclude({ ...reason }, {
          _tag: "InvalidOption",
          option: "outputLimit",
          value: `${outputLimit}`,
        })
      }
      const error = yield* Effect.flip(kernel.execute("1", { timeout: Number.NaN }))
      assert.include(error.message, `"timeout" cannot be NaN`)
      assert.strictEqual(
        yield* text(kernel.execute("6 * 7", { outputLimit: 100, timeout: "1 minute" })),
        "42",
      )
    }))

  it.effect("layerRemote understands the address that Jupyter prints", () =>
    Effect.gen(function* () {
      const gateway = yield* KernelGateway.KernelGateway
      const token = tokenOf(gateway)
      for (
        const page of [
          "/lab?token=TOKEN",
          "/tree/folder?token=TOKEN#there",
          "/?token=TOKEN",
          "/lab/tree/a.ipynb?token=TOKEN",
          "///notebooks//a.ipynb/?token=TOKEN&reset",
          "/LAB?factory=Editor&token=TOKEN",
        ]
      ) {
        const remote = KernelGateway.layerRemote({ url: ` ${gateway.url}${page.replace("TOKEN", token)}\n` })
        const found = yield* Effect.provide(KernelGateway.KernelGateway, remote)
        assert.strictEqual(found.url, gateway.url)
        assert.strictEqual(tokenOf(found), token)
      }
      const given = KernelGateway.layerRemote({ url: `${gateway.url}/lab?token=other`, token: `${token}\n` })
      assert.strictEqual(tokenOf(yield* Effect.provide(KernelGateway.KernelGateway, given)), token)
    }))

  it.effect("a token or a password of an address is in no message", () =>
    Effect.gen(function* () {
      const gateway = yield* KernelGateway.KernelGateway
      const host = gateway.url.replace("http://", "")
      for (
        const url of [
          `${gateway.url}/lab?token=s3cret`,
          `http://ada:s3cret@${host}/tree?token=s3cret#s3cret`,
          "http://127.0.0.1:9/lab?token=s3cret",
          "127.0.0.1:8888/lab?token=s3cret",
          "ftp://ada:s3cret@host/lab?token=s3cret",
          `http://ada:s3cret%ff@${host}/`,
          // A password that is not escaped ends the host, the path or the query.
          "http://ada:p/s3cret@host/lab",
          "http://ada:s3cret?p@host:80/",
          "http://ada:s3cret#p@host/?token=a@s3cret",
          "http//ada:s3cret@host",
          "http://host:port/lab&token=s3cret",
          // No header may have this token.
          `${gateway.url}/lab?token=s3cret%0As3cret`,
          `${gateway.url}/lab?token=s3cret%C3%A9%E2%82%AC`,
        ]
      ) {
        const error = yield* KernelGateway.KernelGateway.pipe(
          Effect.provide(KernelGateway.layerRemote({ url })),
          Effect.flip,
        )
        assert.notInclude(`${error.message} ${JSON.stringify(error)}`, "s3cret")
      }
    }))
})

describe("layerRemote", () => {
  it.live("fails with Unreachable if no server listens", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Effect.provide(KernelGateway.KernelGateway, KernelGateway.layerRemote({ url: "http://127.0.0.1:9" })),
      )
      assert.strictEqual(error.reason._tag, "Unreachable")
      assert.include(error.message, "127.0.0.1:9")
    }))

  it.live("fails with Unreachable for text that is not a URL", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Effect.provide(KernelGateway.KernelGateway, KernelGateway.layerRemote({ url: "localhost" })),
      )
      assert.include(error.message, `"localhost"`)
    }))

  it.live("fails with Unreachable for another web server", () =>
    Effect.gen(function* () {
      const server = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const server = createServer((_, response) => response.writeHead(500).end("<h1>Not here</h1>"))
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close()),
      )
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      const error = yield* Effect.flip(
        Effect.provide(
          KernelGateway.KernelGateway,
          KernelGateway.layerRemote({ url: `http://127.0.0.1:${port}` }),
        ),
      )
      assert.strictEqual(error.reason._tag, "Unreachable")
      assert.include(error.message, "Not here")
    }))

  it.live("connects to a plain Jupyter Server, in both wire formats", () =>
    Effect.gen(function* () {
      const folder = yield* temporary
      const { python } = yield* PythonEnvironment.make()
      for (const subprotocol of ["v1.kernel.websocket.jupyter.org", ""]) {
        const port = 20_000 + (process.pid % 20_000) + (subprotocol === "" ? 1 : 0)
        yield* tied(python, [
          "-m",
          "jupyter_server",
          "--no-browser",
          "--allow-root",
          `--ServerApp.root_dir=${folder}`,
          `--ServerApp.port=${port}`,
          "--ServerApp.port_retries=0",
          "--IdentityProvider.token=secret",
          `--ZMQChannelsWebsocketConnection.kernel_ws_protocol=${subprotocol}`,
        ], { extendEnv: true, stdout: "ignore", stderr: "ignore", forceKillAfter: "3 seconds" })
        const gateway = KernelGateway.layerRemote({ url: `http://127.0.0.1:${port}`, token: "secret" })
        const output = yield* KernelClient.make({ workingDir: folder }).pipe(
          Effect.flatMap((kernel) =>
            Effect.all([
              text(kernel.execute("print('v' * 100_000)")),
              Effect.flip(kernel.execute("1 / 0")),
              Effect.flip(kernel.execute("import time; time.sleep(20)", { timeout: "200 millis" })),
              text(kernel.execute("print('fine')")),
            ])
          ),
          Effect.scoped,
          Effect.provide(gateway),
          Effect.retry({
            schedule: Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: "30 seconds" })),
            while: (error) => error._tag === "GatewayError" && error.reason._tag === "Unreachable",
          }),
        )
        assert.strictEqual(output[0], "v".repeat(100_000))
        assert.strictEqual(output[1]._tag, "ExecutionError")
        assert.strictEqual(output[2]._tag, "ExecutionTimeout")
        assert.strictEqual(output[3], "fine")
      }
    }).pipe(Effect.provide(Platform.layer)))
})

/** The interpreter that the other tests use. */
const found = Effect.map(PythonEnvironment.make(), ({ python }) => ({ python }))
