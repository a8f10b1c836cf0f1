/** Gateways that several programs share, and that outlive them. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Queue, Redacted, Schema, Stream } from "effect"
import { HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import { ChildProcess } from "effect/process"
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Connection from "../src/gateway/connection.ts"
import { KernelClient, KernelGateway, Sandbox } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { descendants, eventually, survivors } from "./support/processes.ts"
import { sandboxUser, workspace } from "./support/sandbox.ts"

/** The runtime directory of this user for these tests. */
const runtimeDir = mkdtempSync(join(tmpdir(), "effect-jupyter-test-"))
// @effect-diagnostics-next-line processEnv:off
process.env.XDG_RUNTIME_DIR = runtimeDir
afterAll(() => rmSync(runtimeDir, { recursive: true }))
const folderOf = (name: string) => join(runtimeDir, "effect-jupyter", name)

const State = Schema.fromJsonString(Schema.Struct({ id: Schema.String, pid: Schema.Int, port: Schema.Int }))
const stateOf = (name: string) =>
  Schema.decodeSync(State)(readFileSync(join(folderOf(name), "gateway.json"), "utf8"))

const idOf = (gateway: KernelGateway.KernelGateway["Service"]) =>
  Effect.provide(Effect.map(Connection.of(gateway), ({ serverId }) => serverId), Platform.layer)
const kernelIds = (gateway: KernelGateway.KernelGateway["Service"]) =>
  Effect.map(gateway.kernels, (kernels) => kernels.map(({ id }) => id))
const kernelOf = (gateway: KernelGateway.KernelGateway["Service"]) =>
  KernelClient.make().pipe(Effect.provideService(KernelGateway.KernelGateway, gateway))
const kill = (pid: number) => Effect.sync(() => process.kill(pid, "SIGKILL"))

/** Waits until nothing is left of a gateway: no process, no file. */
const untilGone = (name: string, pids: ReadonlyArray<number>) =>
  Effect.andThen(
    eventually(() => survivors(pids), 20),
    eventually(() => existsSync(folderOf(name)) ? `${folderOf(name)} is there` : undefined, 20),
  )

/** Code that runs longer than an unused gateway stays. */
const seconds = "import time; time.sleep(4)"

/** Sends code to a kernel, and closes the connection when it runs. */
const begin = (url: string, code: string) =>
  Effect.callback<void>((resume) => {
    const socket = new WebSocket(url)
    const header = { msg_id: "1", msg_type: "execute_request", session: "1", username: "", version: "5.4" }
    const content = { code, silent: false }
    const request = { header, parent_header: {}, metadata: {}, content, channel: "shell" }
    socket.onopen = () => socket.send(JSON.stringify(request))
    socket.onmessage = ({ data }) => String(data).includes("execute_input") ? socket.close() : undefined
    socket.onclose = () => resume(Effect.void)
  })

/** The processes of a gateway; the first is its supervisor. */
const processesOf = (name: string) => {
  const { pid } = stateOf(name)
  return [pid, ...descendants(pid).map((process) => process.pid)]
}

/** Starts a program; `run` executes code in its kernel. */
const program = Effect.fnUntraced(function* (options: KernelGateway.SharedOptions) {
  const input = yield* Queue.unbounded<string>()
  const handle = yield* ChildProcess.make(
    "node",
    ["test/support/shared_program.ts", JSON.stringify(options)],
    {
      extendEnv: true,
      stdin: Stream.encodeText(Stream.map(Stream.fromQueue(input), (line) => `${line}\n`)),
      stderr: "inherit",
      forceKillAfter: "1 second",
    },
  )
  const lines = yield* Stream.toQueue(handle.stdout.pipe(Stream.decodeText(), Stream.splitLines), {
    capacity: 16,
  })
  const next = Effect.map(Queue.take(lines), (line) => JSON.parse(line))
  const ready: { readonly serverId: string; readonly kernelId: string } = yield* next
  const run = (code: string) => Effect.andThen(Queue.offer(input, code), next)
  return { ...ready, pid: handle.pid, run }
})

describe("layerShared", () => {
  it.live(
    "a program that is killed leaves the gateway, and the kernels of others",
    () =>
      Effect.gen(function* () {
        const options = { name: "two", idleTimeToLive: "1 minute" } as const
        const [first, second] = yield* Effect.all([program(options), program(options)], { concurrency: 2 })
        assert.strictEqual(first.serverId, second.serverId)
        yield* second.run("x = 20")
        yield* first.run("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
        yield* kill(first.pid)
        const gateway = yield* KernelGateway.makeShared(options)
        assert.strictEqual(yield* idOf(gateway), second.serverId)
        assert.strictEqual(yield* second.run("print(x + 1)"), "21")
        // The kernel of the killed program ends with it.
        yield* Effect.repeat(kernelIds(gateway), { until: (ids) => !ids.includes(first.kernelId) })
        assert.deepStrictEqual(yield* kernelIds(gateway), [second.kernelId])
        const pids = processesOf("two")
        yield* KernelGateway.stopShared("two")
        // The last one has removed everything before it ends.
        yield* eventually(() => survivors(pids), 2)
        assert.isFalse(existsSync(folderOf("two")))
      }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
    120_000,
  )

  it.live("ten programs that start at once have one gateway", () =>
    Effect.gen(function* () {
      const options = { name: "ten", idleTimeToLive: 0 } as const
      const ids = yield* Effect.scoped(
        Effect.all(
          Array.from({ length: 10 }, () => Effect.flatMap(KernelGateway.makeShared(options), idOf)),
          { concurrency: "unbounded" },
        ),
      )
      assert.strictEqual(new Set(ids).size, 1)
      yield* untilGone("ten", [])
    }), 120_000)

  it.live("a gateway that no program has used for idleTimeToLive ends", () =>
    Effect.gen(function* () {
      const options = { name: "idle", idleTimeToLive: "1 second" } as const
      const { gateway, pids } = yield* Effect.scoped(Effect.gen(function* () {
        const gateway = yield* KernelGateway.makeShared(options)
        yield* kernelOf(gateway)
        assert.deepStrictEqual((yield* gateway.kernels).map(({ state }) => state), ["idle"])
        return { gateway, pids: processesOf("idle") }
      }))
      // A client that is not one of the programs: while its kernel has a connection or runs code, the gateway is used.
      yield* Effect.scoped(Effect.gen(function* () {
        const { token, url } = gateway
        const remote = yield* Layer.build(
          KernelGateway.layerRemote({ url, ...(token === undefined ? {} : { token }) }),
        )
        const kernel = yield* Effect.provide(KernelClient.make(), remote)
        yield* kernel.execute("import time; time.sleep(4)")
        assert.strictEqual((yield* kernel.execute("print(1)")).text, "1")
      }))
      yield* untilGone("idle", pids)
    }), 120_000)

  it.live(
    "a gateway is used while a kernel runs code, also if no program has a connection",
    () =>
      Effect.gen(function* () {
        const options = { name: "busy", idleTimeToLive: "1 second" } as const
        const pids = yield* Effect.scoped(Effect.gen(function* () {
          const { token, url } = yield* KernelGateway.makeShared(options)
          const secret = token === undefined ? "" : Redacted.value(token)
          // The request of no program: its kernel stays when the scope closes.
          const kernel = yield* HttpClient.execute(
            HttpClientRequest.post(`${url}/api/kernels`).pipe(
              HttpClientRequest.setHeader("authorization", `token ${secret}`),
            ),
          ).pipe(Effect.flatMap(HttpClientResponse.schemaBodyJson(Schema.Struct({ id: Schema.String }))))
          yield* begin(
            `${url.replace("http", "ws")}/api/kernels/${kernel.id}/channels?token=${secret}`,
            seconds,
          )
          return processesOf("busy")
        }))
        yield* Effect.sleep("3 seconds")
        assert.isDefined(survivors(pids))
        yield* untilGone("busy", pids)
      }).pipe(Effect.provide(Platform.layer)),
    120_000,
  )

  it.live(
    "a gateway that was killed is started anew, and its programs are told",
    () =>
      Effect.gen(function* () {
        const options = { name: "killed", idleTimeToLive: 0 } as const
        const first = yield* KernelGateway.makeShared(options)
        const pids = processesOf("killed")
        yield* kill(pids[1] ?? 0)
        const error = yield* Effect.flip(first.join)
        assert.strictEqual(error.reason._tag, "Exited")
        const second = yield* KernelGateway.makeShared(options)
        assert.notStrictEqual(yield* idOf(second), yield* idOf(first))
        yield* eventually(() => survivors(pids), 10)
      }).pipe(Effect.scoped, Effect.andThen(untilGone("killed", []))),
    120_000,
  )

  it.live(
    "what listens at the port of a gateway that was killed is not contacted",
    () =>
      Effect.gen(function* () {
        const options = { name: "stale", idleTimeToLive: 0 } as const
        const first = yield* Effect.scoped(Effect.gen(function* () {
          const id = yield* Effect.flatMap(
            KernelGateway.makeShared({ ...options, idleTimeToLive: "1 minute" }),
            idOf,
          )
          const { pid, port } = stateOf("stale")
          const pids = processesOf("stale")
          yield* kill(pid)
          yield* eventually(() => survivors(pids), 10)
          return { id, port }
        }))
        assert.strictEqual(stateOf("stale").id, first.id)
        let requests = 0
        yield* Effect.acquireRelease(
          Effect.callback<ReturnType<typeof createServer>>((resume) => {
            const server = createServer((_, response) => response.end(String(requests++)))
            server.on("connection", () => requests++)
            server.listen(first.port, "127.0.0.1", () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void))),
        )
        const second = yield* KernelGateway.makeShared(options)
        assert.notStrictEqual(yield* idOf(second), first.id)
        assert.strictEqual(requests, 0)
      }).pipe(Effect.scoped, Effect.andThen(untilGone("stale", []))),
    120_000,
  )

  it.live("programs with other options are refused, and told which", () =>
    Effect.gen(function* () {
      const options = { name: "options", idleTimeToLive: 0 } as const
      yield* KernelGateway.makeShared(options)
      const others = { ...options, workingDir: runtimeDir, fork: false, port: 1 }
      const { reason } = yield* Effect.flip(Effect.asVoid(KernelGateway.makeShared(others)))
      assert.strictEqual(reason._tag, "OptionsMismatch")
      if (reason._tag !== "OptionsMismatch") return
      assert.deepStrictEqual(reason.differences.map(({ option }) => option), ["port", "workingDir", "fork"])
      assert.include(reason.message, `"fork" is true there, and false here`)
      // Every program has its own environment.
      const other = yield* KernelGateway.makeShared({ ...options, env: { WHOSE: "mine" }, logLevel: "Error" })
      const kernel = yield* kernelOf(other)
      assert.strictEqual((yield* kernel.execute("import os; print(os.environ['WHOSE'])")).text, "mine")
    }).pipe(Effect.scoped, Effect.andThen(untilGone("options", []))), 120_000)

  it.live("closing the scope deletes the kernels of this program only", () =>
    Effect.gen(function* () {
      const options = { name: "scopes", idleTimeToLive: 0 } as const
      const gateway = yield* KernelGateway.makeShared(options)
      const stays = yield* kernelOf(gateway)
      yield* Effect.scoped(Effect.gen(function* () {
        const other = yield* KernelGateway.makeShared(options)
        yield* kernelOf(other)
        assert.strictEqual((yield* kernelIds(gateway)).length, 2)
      }))
      assert.deepStrictEqual(yield* kernelIds(gateway), [stays.id])
    }).pipe(Effect.scoped, Effect.andThen(untilGone("scopes", []))), 120_000)

  it.live(
    "a folder of another user, a link, and one that others can use are refused",
    () =>
      Effect.gen(function* () {
        const refused = (name: string) =>
          Effect.map(
            Effect.flip(Effect.scoped(Effect.asVoid(KernelGateway.makeShared({ name })))),
            ({ reason }) => assert.strictEqual(reason._tag, "FolderRefused"),
          )
        mkdirSync(folderOf("open"), { recursive: true, mode: 0o700 })
        chmodSync(folderOf("open"), 0o750)
        yield* refused("open")
        symlinkSync(folderOf("open"), folderOf("link"))
        yield* refused("link")
        if (process.geteuid?.() === 0) {
          mkdirSync(folderOf("foreign"), { mode: 0o700 })
          chownSync(folderOf("foreign"), 65534, 65534)
          yield* refused("foreign")
        }
      }),
    60_000,
  )

  it.live(
    "a start that fails is told to all programs that wait, and hinders no other",
    () =>
      Effect.gen(function* () {
        const options = { name: "failed", idleTimeToLive: 0 } as const
        const failing = Effect.flip(
          Effect.scoped(Effect.asVoid(KernelGateway.makeShared({ ...options, preload: ["no_such_module"] }))),
        )
        const errors = yield* Effect.all([failing, failing], { concurrency: 2 })
        for (const { message, reason } of errors) {
          assert.strictEqual(reason._tag, "StartFailed")
          assert.include(message, "no_such_module")
        }
        yield* KernelGateway.makeShared(options)
      }).pipe(Effect.scoped, Effect.andThen(untilGone("failed", []))),
    120_000,
  )

  it.live(
    "a program that is killed while it starts the gateway leaves nothing",
    () =>
      Effect.gen(function* () {
        for (const file of ["socket", "gateway.json"]) {
          const handle = yield* ChildProcess.make(
            "node",
            ["test/support/shared_program.ts", JSON.stringify({ name: "early", idleTimeToLive: 0 })],
            {
              extendEnv: true,
              stdin: "ignore",
              stdout: "ignore",
              stderr: "ignore",
              forceKillAfter: "1 second",
            },
          )
          yield* eventually(() => existsSync(join(folderOf("early"), file)) ? undefined : `no ${file}`, 60)
          yield* kill(handle.pid)
          yield* untilGone("early", [])
        }
      }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
    120_000,
  )

  it.live(
    "a sandboxed gateway tells each program the violations of its own kernels",
    () =>
      Effect.gen(function* () {
        const options = {
          name: "sandboxed",
          workingDir: yield* workspace(),
          sandbox: sandboxUser,
          idleTimeToLive: 0,
        }
        const one = yield* KernelGateway.makeShared(options)
        const other = yield* KernelGateway.makeShared(options)
        const sandbox = { ...sandboxUser, allowNet: ["example.org"], limits: { processes: 100 } }
        const { reason } = yield* Effect.flip(
          Effect.asVoid(KernelGateway.makeShared({ ...options, sandbox })),
        )
        assert.strictEqual(reason._tag, "OptionsMismatch")
        if (reason._tag !== "OptionsMismatch") return
        const different = ["sandbox.allowNet", "sandbox.limits"]
        assert.deepStrictEqual(reason.differences.map(({ option }) => option), different)

        const seen: Array<readonly [string, string | undefined]> = []
        for (const [program, gateway] of [["one", one], ["other", other]] as const) {
          yield* Stream.runForEach(
            Sandbox.violations,
            ({ host }) => Effect.sync(() => seen.push([program, host])),
          ).pipe(
            Effect.provideService(KernelGateway.KernelGateway, gateway),
            Effect.forkScoped({ startImmediately: true }),
          )
        }
        for (const [program, gateway] of [["one", one], ["other", other]] as const) {
          const kernel = yield* kernelOf(gateway)
          const request = `urllib.request.urlopen("http://${program}.example.org/")`
          yield* Effect.flip(kernel.execute(`import urllib.request; ${request}`))
          const { text } = yield* kernel.execute(`try:
    open("/etc/planted", "w")
except OSError as error:
    print(error.errno in (13, 30))`)
          assert.strictEqual(text, "True")
        }
        yield* eventually(() => seen.length >= 2 ? undefined : JSON.stringify(seen))
        assert.deepStrictEqual(seen, [["one", "one.example.org:80"], ["other", "other.example.org:80"]])
      }).pipe(Effect.scoped, Effect.provide(Platform.layer), Effect.andThen(untilGone("sandboxed", []))),
    120_000,
  )

  it.live("stopShared succeeds if there is no gateway, and refuses names that are no file names", () =>
    Effect.gen(function* () {
      yield* KernelGateway.stopShared("nothing")
      const { reason } = yield* Effect.flip(KernelGateway.stopShared("../up"))
      assert.strictEqual(reason._tag, "InvalidOption")
    }))
})
