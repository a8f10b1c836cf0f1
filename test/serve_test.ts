/**
 * `effect-jupyter serve` and the programs that use it. What kernels do there is in `parity_test.ts`, what passes through a
 * gateway byte by byte in `python/join_test.py`.
 *
 * A connection of a kernel over a network is either whole or ends with `ConnectionLost`, and the kernel with it: what a
 * cut took could not be had again. `reconnect: true` gives Jupyter's channels, which are restored, without flow control.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import {
  Clock,
  Context,
  Effect,
  Fiber,
  FileSystem,
  Layer,
  Logger,
  Redacted,
  Result,
  Schedule,
  Schema,
  type Scope,
  Stream,
} from "effect"
import { readFileSync } from "node:fs"
import process from "node:process"
import { Execution, KernelClient, KernelGateway, KernelPool, PythonEnvironment } from "../src/mod.ts"
import * as Connection from "../src/gateway/connection.ts"
import * as Platform from "../src/platform.ts"
import { slow, temporary, text } from "./support/kernel.ts"
import { reasonOf, timed } from "./support/outcome.ts"
import { descendants, eventually, supervisors, survivors } from "./support/processes.ts"
import { sandboxUser, workspace } from "./support/sandbox.ts"
import * as Serve from "./support/serve.ts"
import * as TcpProxy from "./support/tcp_proxy.ts"

/** A server for several tests. */
class Server extends Context.Service<Server, Serve.Served>()("test/Server") {}

const served = (...args: ReadonlyArray<string>) =>
  Layer.effect(Server, Serve.start(...args)).pipe(Layer.provideMerge(Platform.layer))

/** A kernel of a server, at its address or at that of a proxy. */
const kernelOf = Effect.fnUntraced(function* (
  server: Pick<Serve.Served, "url" | "token">,
  options?: KernelClient.ClientOptions,
  remote?: Partial<KernelGateway.RemoteOptions>,
) {
  const gateway = yield* Serve.connect(server, remote)
  return yield* Effect.provideService(KernelClient.make(options), KernelGateway.KernelGateway, gateway)
})

const failureOf = (effect: Effect.Effect<unknown, Execution.ExecutionFailure>) =>
  Effect.map(Effect.flip(effect), reasonOf)

/** The ids of the kernels of a server. */
const kernelIds = (server: Serve.Served) =>
  Effect.flatMap(
    Serve.connect(server),
    ({ kernels }) => Effect.map(kernels, (all) => all.map(({ id }) => id)),
  )

/** Waits until a kernel is gone from its server. */
const untilGone = Effect.fnUntraced(function* (server: Serve.Served, id: string) {
  let ids: ReadonlyArray<string> = [id]
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.delay(Effect.tap(kernelIds(server), (all) => Effect.sync(() => ids = all)), "50 millis"),
    ),
  )
  yield* eventually(() => ids.includes(id) ? "The kernel is still there" : undefined)
})

/** Megabytes of resident memory of processes. */
const memory = (pids: ReadonlyArray<number>): number =>
  pids.reduce((sum, pid) => {
    try {
      const [, kB = "0"] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? []
      return sum + Number(kB) / 1024
    } catch {
      return sum
    }
  }, 0)

const pidsOf = ({ pid }: Serve.Served) => [pid, ...descendants(pid).map((process) => process.pid)]

/** Code that prints without an end. */
const endless = "while True: print('x' * 1000)"

/** Starts an execution whose output is not taken, and waits until all queues are full. */
const pausedConsumer = Effect.fnUntraced(function* (kernel: KernelClient.Kernel, code = endless) {
  let isTaken = false
  const consumer = yield* kernel.stream(code).pipe(
    Stream.tap(() => {
      isTaken = true
      return Effect.never
    }),
    Stream.runDrain,
    Effect.forkChild,
  )
  yield* eventually(() => isTaken ? undefined : "The first chunk did not come", 30)
  yield* Effect.sleep("2 seconds")
  return consumer
})

layer(served("--preload", "xml.dom.minidom", "--env", "COLOR=blue"), slow)("serve", (it) => {
  it.effect("prints one line, keeps its token to itself, and gives kernels what its options say", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const server = yield* Server
      const { mode } = yield* fs.stat(server.tokenFile)
      assert.strictEqual(mode & 0o777, 0o600)
      const token = Redacted.value(server.token)
      assert.match(token, /^[0-9a-f]{64}$/)
      const forked = yield* kernelOf(server)
      const code = "import os, sys; print(os.environ['COLOR'], 'xml.dom.minidom' in sys.modules)"
      assert.strictEqual(yield* text(forked.execute(code)), "blue True")
      const other = yield* kernelOf(server, { env: { COLOR: "red" } })
      assert.strictEqual(yield* text(other.execute("import os; print(os.environ['COLOR'])")), "red")
      const commands = [server.pid, ...pidsOf(server)].map((pid) =>
        readFileSync(`/proc/${pid}/cmdline`, "utf8")
      )
      for (const shown of [...commands, ...server.log, ...server.lines]) assert.notInclude(shown, token)
      assert.lengthOf(server.lines, 1)
    }))

  it.effect("is used over connections that the gateway joins; four kernels start at once", () =>
    Effect.gen(function* () {
      const gateway = yield* Serve.connect(yield* Server)
      const { isServed, ownConnection, rest } = yield* Connection.of(gateway)
      assert.deepStrictEqual([isServed, ownConnection], [true, "joined"])
      const kernels = yield* Effect.all(Array.from({ length: 4 }, () => KernelClient.make()), {
        concurrency: 4,
      }).pipe(
        Effect.provideService(KernelGateway.KernelGateway, gateway),
      )
      for (const kernel of kernels) {
        const { connection, connections, joins } = yield* rest.get(kernel.id)
        assert.deepStrictEqual([connection, connections, joins?.ended], [undefined, 0, null])
        assert.isAbove(joins?.shell?.sent ?? 0, 100)
        assert.isAbove(joins?.control?.sent ?? 0, 100)
      }
    }))

  it.effect("refuses a wrong token, for requests and for WebSockets", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const error = yield* Effect.flip(Serve.connect({ ...server, token: Redacted.make("wrong") }))
      assert.strictEqual(error.reason._tag, "Unauthorized")
      const gateway = yield* Serve.connect(server)
      const { rest } = yield* Connection.of(gateway)
      const { id } = yield* rest.start({ env: { EFFECT_JUPYTER_OWN_CONNECTION: "1" }, timeout: "30 seconds" })
      const statusOf = (path: string, headers: Record<string, string>) =>
        Effect.map(
          Effect.promise(() => fetch(`${server.url}/api/kernels/${path}`, { headers })),
          ({ status }) => status,
        )
      const right = { authorization: `token ${Redacted.value(server.token)}` }
      const key = { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" }
      const path = `${id}/shell?max_message_size=1000`
      assert.strictEqual(yield* statusOf(path, key), 401)
      assert.strictEqual(yield* statusOf(path, { ...key, authorization: "token wrong" }), 401)
      assert.strictEqual(yield* statusOf(path, right), 400, "no handshake")
      assert.strictEqual(yield* statusOf(`${id}/shell`, { ...right, ...key }), 400, "no maximum")
      assert.strictEqual(yield* statusOf(`${id}x/shell?max_message_size=1`, { ...right, ...key }), 404)
      assert.strictEqual(yield* statusOf(`${id}/stdin?max_message_size=1`, { ...right, ...key }), 404)
    }))

  it.effect("says why a kernel ended, as a local gateway does", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const dying = yield* kernelOf(server)
      const died = yield* Effect.flip(dying.execute("print('last', flush=True)\nimport os; os._exit(3)"))
      assert.deepStrictEqual([reasonOf(died), died.partial?.text], ["KernelDied", "last"])
      const killed = yield* kernelOf(server)
      const pid = Number(yield* text(killed.execute("import os; print(os.getpid())")))
      const running = yield* Effect.forkChild(failureOf(killed.execute("import time; time.sleep(60)")))
      process.kill(pid, "SIGKILL")
      assert.strictEqual(yield* Fiber.join(running), "KernelDied")
      yield* killed.reset
      assert.strictEqual(yield* text(killed.execute("6 * 7")), "42")
      const deleted = yield* kernelOf(server)
      const waiting = yield* Effect.forkChild(failureOf(deleted.execute("import time; time.sleep(60)")))
      const status = yield* Effect.promise(() =>
        fetch(`${server.url}/api/kernels/${deleted.id}`, {
          method: "DELETE",
          headers: { authorization: `token ${Redacted.value(server.token)}` },
        })
      )
      assert.strictEqual(status.status, 204)
      assert.strictEqual(yield* Fiber.join(waiting), "KernelNotFound")
      const broken = yield* Effect.flip(kernelOf(server, { env: { PYTHONHOME: "/nowhere" } }))
      assert.include(broken.message, "PYTHONHOME")
    }))

  it.effect("stops the kernel whose output is not taken: nothing grows anywhere", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const kernel = yield* kernelOf(server)
      const consumer = yield* pausedConsumer(kernel)
      const look = () => ({ theirs: memory(pidsOf(server)), ours: memory([process.pid]) })
      const before = look()
      assert.include((yield* kernel.info).banner, "Python", "it can be asked")
      yield* Effect.sleep("3 seconds")
      const after = look()
      assert.isBelow(after.theirs - before.theirs, 20, "MB that kernel, gateway and server grew")
      assert.isBelow(after.ours - before.ours, 60, "MB that the program grew")
      const [, stopping] = yield* timed(Fiber.interrupt(consumer))
      assert.isBelow(stopping, 10_000)
      assert.strictEqual(yield* text(kernel.execute("print('clean')")), "clean")
    }))

  it.effect("carries large messages both ways, and refuses those above maxMessageSize", () =>
    Effect.gen(function* () {
      const kernel = yield* kernelOf(yield* Server, { maxMessageSize: 30_000_000 })
      const bytes = new Uint8Array(20_000_000).fill(7)
      yield* kernel.set("data", bytes)
      const returned = yield* kernel.evaluate("data[::-1]", Schema.Uint8Array)
      assert.strictEqual(returned.length, bytes.length)
      assert.strictEqual(
        yield* failureOf(kernel.execute("display({'text/plain': 'x' * 40_000_000}, raw=True)")),
        "ProtocolViolation",
      )
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
    }))

  it.effect("does not take a kernel that holds its interpreter for one that is cut off", () =>
    Effect.gen(function* () {
      const kernel = yield* kernelOf(yield* Server, { pingInterval: "100 millis" })
      // Python answers no ping meanwhile.
      const code = "import ctypes; ctypes.PyDLL(None).sleep(8); print('slept')"
      assert.strictEqual(yield* text(kernel.execute(code)), "slept")
    }))

  it.effect("ends a kernel whose connection is cut with ConnectionLost, however it is cut", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const proxy = yield* TcpProxy.make(server.url)
      for (const how of ["reset", "end", 1001] as const) {
        const kernel = yield* kernelOf({ ...server, url: proxy.url })
        const running = yield* Effect.forkChild(failureOf(kernel.execute("import time; time.sleep(60)")))
        yield* Effect.sleep("200 millis")
        proxy.cut(how)
        assert.strictEqual(yield* Fiber.join(running), "ConnectionLost", String(how))
        assert.strictEqual(yield* failureOf(kernel.execute("1")), "ConnectionLost", String(how))
        yield* untilGone(server, kernel.id)
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42", "a new one")
      }
    }))

  it.effect("finds out that a connection is cut which no one has ended, and deletes the kernel", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const proxy = yield* TcpProxy.make(server.url)
      for (const code of ["import time; time.sleep(60)", "while True: print('x', flush=True)"]) {
        const kernel = yield* kernelOf({ ...server, url: proxy.url }, { pingInterval: "100 millis" })
        const running = yield* Effect.forkChild(failureOf(kernel.execute(code)))
        yield* Effect.sleep("200 millis")
        const start = yield* Clock.currentTimeMillis
        proxy.freeze()
        assert.strictEqual(yield* Fiber.join(running), "ConnectionLost", code)
        assert.isBelow((yield* Clock.currentTimeMillis) - start, 15_000)
        yield* kernel.reset
        assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      }
    }))

  it.effect("deletes a kernel whose client is killed", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const proxy = yield* TcpProxy.make(server.url)
      const kernel = yield* kernelOf({ ...server, url: proxy.url })
      // The code does not end by itself when its client does.
      const code = "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: pass"
      yield* Effect.forkChild(Effect.exit(kernel.execute(code)))
      yield* Effect.sleep("200 millis")
      proxy.refuse()
      proxy.cut("reset")
      yield* untilGone(server, kernel.id)
      proxy.heal()
    }))

  it.effect("restores Jupyter's channels if the option reconnect says so", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const proxy = yield* TcpProxy.make(server.url)
      const kernel = yield* kernelOf({ ...server, url: proxy.url }, {}, { reconnect: true })
      yield* kernel.execute("x = 1")
      const running = yield* Effect.forkChild(
        text(kernel.execute("import time; time.sleep(2); print('there', x)")),
      )
      yield* Effect.sleep("300 millis")
      proxy.cut("reset")
      assert.strictEqual(yield* Fiber.join(running), "there 1")
      assert.isAbove(proxy.opened(), 1)
    }))

  it.effect("serves others while a client sends its request slowly", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const proxy = yield* TcpProxy.make(server.url)
      const { port } = new URL(proxy.url)
      const half = yield* Effect.promise(async () => {
        const { connect } = await import("node:net")
        return connect(Number(port), "127.0.0.1").on("error", () => {})
      })
      half.write("GET /api/kernels HTTP/1.1\r\nHost:")
      const kernel = yield* kernelOf(server)
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
      half.destroy()
    }))

  it.effect("is used below the path of a proxy", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const url = yield* Serve.httpProxy(server.url, { prefix: "/kernels/one" })
      const gateway = yield* Serve.connect({ ...server, url })
      const { ownConnection, url: found } = yield* Connection.of(gateway)
      assert.deepStrictEqual([ownConnection, found], ["joined", url])
      const kernel = yield* kernelOf({ ...server, url })
      assert.strictEqual(
        yield* text(kernel.execute("input('? ')", { onInput: () => Effect.succeed("yes") })),
        "'yes'",
      )
      assert.strictEqual(
        yield* failureOf(kernel.execute("import time; time.sleep(60)", { timeout: "200 millis" })),
        "ExecutionTimeout",
      )
    }))

  it.effect("of another version is used as any Jupyter server, and the log says so", () =>
    Effect.gen(function* () {
      const server = yield* Server
      const url = yield* Serve.httpProxy(server.url, { headers: { "x-effect-jupyter": "2" } })
      const messages: Array<string> = []
      const logger = Logger.make(({ message }) => void messages.push(String(message)))
      const gateway = yield* Effect.provide(Serve.connect({ ...server, url }), Logger.layer([logger]))
      assert.include(
        messages.join("\n"),
        `"${url}" runs "effect-jupyter serve" with version 2 of its protocol`,
      )
      const { isOwn, ownConnection } = yield* Connection.of(gateway)
      assert.deepStrictEqual([isOwn, ownConnection], [false, undefined])
      const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
      assert.strictEqual(yield* text(kernel.execute("6 * 7")), "42")
    }))

  it.effect("cannot restrict kernels without a sandbox", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(kernelOf(yield* Server, { sandbox: true }))
      assert.include(error.message, "The gateway has no sandbox")
    }))
})

describe("serve", () => {
  const live = (name: string, test: Effect.Effect<void, unknown, Platform.Platform | Scope.Scope>) =>
    it.live(name, () => Effect.scoped(Effect.provide(test, Platform.layer)), 120_000)

  /** The exit code and the messages of a command. */
  const outcome = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
    const handle = yield* Serve.command("serve", "--port", "0", ...args)
    const message = yield* Stream.mkString(Stream.decodeText(handle.stderr))
    return { code: Number(yield* handle.exitCode), message }
  })

  live(
    "refuses an address for other machines without a token, and a token that others know",
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const open = yield* outcome("--host", "0.0.0.0")
      assert.strictEqual(open.code, 1)
      assert.match(open.message, /"host" cannot be "0\.0\.0\.0".*"--token-file"/)
      const file = `${yield* temporary}/token`
      yield* fs.writeFileString(file, "0123456789abcdef\n", { mode: 0o644 })
      const readable = yield* outcome("--token-file", file)
      assert.strictEqual(readable.code, 1)
      assert.include(readable.message, `chmod 600 ${file}`)
      yield* fs.chmod(file, 0o600)
      yield* fs.writeFileString(file, "short")
      const short = yield* outcome("--token-file", file)
      assert.strictEqual(short.code, 1)
      assert.include(short.message, "is no token")
      assert.notInclude(short.message, '"short"')
      // No header has it.
      yield* fs.writeFileString(file, "0".repeat(100_000))
      const long = yield* outcome("--token-file", file)
      assert.strictEqual(long.code, 1)
      assert.include(long.message, "16 to 4096 characters")
    }),
  )

  live(
    "uses the token of a file, and leaves nothing behind after SIGTERM",
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const file = `${yield* temporary}/token`
      yield* fs.writeFileString(file, "0123456789abcdef\n", { mode: 0o600 })
      const server = yield* Serve.start("--token-file", file)
      assert.strictEqual(Redacted.value(server.token), "0123456789abcdef")
      const kernel = yield* kernelOf(server)
      yield* kernel.execute("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
      const running = yield* Effect.forkChild(failureOf(kernel.execute("import time; time.sleep(60)")))
      const pids = pidsOf(server)
      const directories = supervisors(server.pid).map(({ runtimeDir }) => runtimeDir)
      assert.lengthOf(directories, 1)
      process.kill(server.pid, "SIGTERM")
      assert.strictEqual(Number(yield* server.handle.exitCode), 0)
      assert.strictEqual(yield* Fiber.join(running), "ConnectionLost")
      yield* eventually(() => survivors(pids))
      for (const directory of directories) assert.isFalse(yield* fs.exists(directory))
    }),
  )

  live(
    "several are the gateways of one pool, which goes on with the rest when one ends",
    Effect.gen(function* () {
      const servers = yield* Effect.all([Serve.start(), Serve.start()], { concurrency: 2 })
      const [one, other] = servers
      const gateways = servers.map(({ token, url }) => KernelGateway.layerRemote({ url, token }))
      const pool = yield* KernelPool.make({ gateways, min: 2, max: 6, warm: 2 })
      const counts = Effect.forEach(servers, (server) => Effect.map(kernelIds(server), (ids) => ids.length))
      yield* Effect.scoped(Effect.gen(function* () {
        const kernels = yield* Effect.all([pool.get, pool.get], { concurrency: 2 })
        const answers = yield* Effect.forEach(kernels, (kernel) => text(kernel.execute("6 * 7")), {
          concurrency: 2,
        })
        assert.deepStrictEqual(answers, ["42", "42"])
        // The first ones may all be of the gateway that is ready first.
        yield* Effect.repeat(counts, {
          until: (all) => Math.min(...all) > 0,
          schedule: Schedule.spaced("50 millis"),
        }).pipe(Effect.timeout("30 seconds"))
      }))
      const pids = pidsOf(one)
      process.kill(one.pid, "SIGKILL")
      // Until then it may hand out a kernel.
      yield* eventually(() => survivors(pids))
      assert.strictEqual(
        yield* Effect.scoped(Effect.flatMap(pool.get, (kernel) => text(kernel.execute("7")))),
        "7",
      )
      assert.isAtLeast((yield* kernelIds(other)).length, 1)
    }),
  )

  live(
    "with a sandbox: clients may have less than it allows, and never more",
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* workspace({ "open.txt": "open", "hidden/secret.txt": "secret" })
      const { python } = yield* PythonEnvironment.make()
      const file = `${yield* temporary}/permissions.json`
      yield* fs.writeFileString(file, JSON.stringify({ ...sandboxUser, limits: { memory: 2_000_000_000 } }))
      const server = yield* Serve.start(
        ...["--permissions", file, "--allow-net", "example.org", "--working-dir", folder, "--python", python],
      )
      const kernel = yield* kernelOf(server, {
        sandbox: { denyRead: ["hidden"], limits: { memory: 1_000_000_000, cpuTime: "1 minute" } },
      })
      const code = `
import os, resource
for name in ("open.txt", "hidden/secret.txt", ${JSON.stringify(server.tokenFile)}):
    try: print(open(name).read())
    except OSError as error: print(type(error).__name__)
print(resource.getrlimit(resource.RLIMIT_CPU)[0], resource.getrlimit(resource.RLIMIT_DATA)[0])
open("new.txt", "w").close()`
      const [open, ...others] = ((yield* text(kernel.execute(code))) ?? "").split("\n")
      assert.strictEqual(open, "open")
      for (const denied of others.slice(0, 2)) assert.match(denied, /Error$/)
      assert.strictEqual(others[2], "60 1000000000")
      const refusals = {
        [`"example.com" is not allowed`]: { allowNet: ["example.com"] },
        [`"3000000000" is more than "2000000000"`]: { limits: { memory: 3_000_000_000 } },
        [`"/etc" is not allowed`]: { allowWrite: ["/etc"] },
        [`"${server.tokenFile}" is not allowed`]: { allowRead: [server.tokenFile] },
      }
      for (const [words, sandbox] of Object.entries(refusals)) {
        const error = yield* Effect.flip(kernelOf(server, { sandbox }))
        assert.include(error.message, words)
      }
      // What a program could send that does not use this library.
      const { rest } = yield* Connection.of(yield* Serve.connect(server))
      for (
        const [name, value] of [
          ["EFFECT_JUPYTER_PERMISSIONS", "[]"],
          ["EFFECT_JUPYTER_PERMISSIONS", `{"allowNet": "*"}`],
          ["EFFECT_JUPYTER_PERMISSIONS", `{"unknown": true}`],
          ["EFFECT_JUPYTER_SANDBOX", `{"secret": "guess", "rules": {}}`],
        ] as const
      ) {
        const result = yield* Effect.result(rest.start({ env: { [name]: value }, timeout: "30 seconds" }))
        assert.isTrue(Result.isFailure(result), value)
      }
    }),
  )
})
