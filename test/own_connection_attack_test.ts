/** What is tried at the socket of a kernel that serves its client itself. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Result } from "effect"
import { spawnSync } from "node:child_process"
import { chmodSync, readFileSync } from "node:fs"
import { dirname } from "node:path"
import process from "node:process"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import * as Connection from "../src/gateway/connection.ts"
import { type Message, request } from "../src/jupyter/message.ts"
import * as WireV1 from "../src/jupyter/wire_v1.ts"
import { inSandbox, kernelLayer, slow, text } from "./support/kernel.ts"
import { connectTo, frame, handshake, payload, type RawClient } from "./support/raw_client.ts"

/** A kernel that waits for its client at a socket. */
const start = Effect.gen(function* () {
  const { rest } = yield* Connection.of(yield* KernelGateway.KernelGateway)
  const model = yield* rest.start({ env: { EFFECT_JUPYTER_OWN_CONNECTION: "1" }, timeout: "30 seconds" })
  const { connection } = model
  if (connection === undefined) return yield* Effect.die("It has no connection of its own")
  const exists = Effect.map(Effect.result(rest.get(model.id)), Result.isSuccess)
  return { ...connection, id: model.id, exists, get: rest.get(model.id) }
})

/** Connects as the client of a kernel does. */
const open = Effect.fnUntraced(
  function* ({ path, token }: { readonly path: string; readonly token: string }) {
    const [shell, control] = [yield* connectTo(path), yield* connectTo(path)]
    yield* shell.send(handshake("/shell", token))
    yield* control.send(handshake("/control", token))
    assert.deepStrictEqual([yield* shell.status, yield* control.status], [101, 101])
    return { shell, control }
  },
)

const ask = (id: string, channel: "shell" | "control" = "shell"): Message =>
  request("kernel_info_request", { id, session: "raw", channel, content: {} })

/** Reads messages until one of a type comes. */
const awaitMessage = Effect.fnUntraced(function* (client: RawClient, type: string) {
  while (true) {
    const received = yield* client.frame
    if (received === undefined) return yield* Effect.die(`It ended before "${type}" came`)
    const decoded = WireV1.decode(new Uint8Array(received.data))
    if (Result.isSuccess(decoded) && decoded.success.header.msg_type === type) return decoded.success
  }
})

/** The code with which a kernel closes a connection; `undefined` if it does without one. */
const closeCode = Effect.fnUntraced(function* (client: RawClient) {
  while (true) {
    const received = yield* client.frame
    if (received === undefined) return undefined
    if (received.opcode === 8) return received.data.readUInt16BE(0)
  }
})

layer(kernelLayer(), slow)("the socket of a kernel", (it) => {
  it.effect("lets in no one without its token, to another path, or with another protocol", () =>
    Effect.gen(function* () {
      const kernel = yield* start
      const refused = [
        [handshake("/shell", "wrong"), 401],
        [handshake("/shell", ""), 401],
        [handshake("/shell", kernel.token).replace(/Authorization.*\r\n/, ""), 401],
        [handshake("/shell", kernel.token.slice(1)), 401],
        [handshake("/iopub", kernel.token), 404],
        [handshake("/shell", kernel.token).replace("GET", "POST"), 400],
        [handshake("/shell", kernel.token, { "Sec-WebSocket-Protocol": "other" }), 400],
        [handshake("/shell", kernel.token, { "Sec-WebSocket-Version": "8" }), 400],
        [handshake("/shell", kernel.token, { "Sec-WebSocket-Key": "short" }), 400],
        [`${handshake("/shell", kernel.token)}more`, 400],
        ["nothing of HTTP\r\n\r\n", 401],
        [`GET /shell HTTP/1.1\r\nno field\r\n\r\n`, 400],
        [`GET /shell HTTP/1.1\r\nx: ${"x".repeat(10_000)}`, 431],
      ] as const
      for (const [words, status] of refused) {
        const client = yield* connectTo(kernel.path)
        yield* client.send(words)
        assert.strictEqual(yield* client.status, status, words.slice(0, 200))
      }
      const cut = yield* connectTo(kernel.path)
      yield* cut.send(handshake("/shell", kernel.token).slice(0, 50))
      yield* cut.end
      assert.isUndefined(yield* cut.status)
      // It is as if nothing had happened.
      const { shell } = yield* open(kernel)
      yield* shell.send(frame(payload(ask("1"))))
      yield* awaitMessage(shell, "kernel_info_reply")
    }))

  it.effect("lets its client in beside many who say nothing, or slowly", () =>
    Effect.gen(function* () {
      const kernel = yield* start
      const silent = yield* Effect.forEach(Array.from({ length: 40 }), () => connectTo(kernel.path))
      for (const client of silent) yield* client.send("G")
      const { shell } = yield* open(kernel)
      yield* shell.send(frame(payload(ask("1"))))
      yield* awaitMessage(shell, "kernel_info_reply")
      for (const client of silent) assert.isUndefined(yield* client.status)
    }))

  it.effect("has one client: another one is refused before, while and after it connects", () =>
    Effect.gen(function* () {
      const kernel = yield* start
      const shell = yield* connectTo(kernel.path)
      yield* shell.send(handshake("/shell", kernel.token))
      assert.strictEqual(yield* shell.status, 101)
      const second = yield* connectTo(kernel.path)
      yield* second.send(handshake("/shell", kernel.token))
      assert.strictEqual(yield* second.status, 409)
      const control = yield* connectTo(kernel.path)
      yield* control.send(handshake("/control", kernel.token))
      assert.strictEqual(yield* control.status, 101)
      yield* shell.send(frame(payload(ask("1"))))
      yield* awaitMessage(shell, "kernel_info_reply")
      assert.isTrue(Result.isFailure(yield* Effect.result(connectTo(kernel.path))))
      yield* control.send(frame(payload(ask("2", "control"))))
      yield* awaitMessage(control, "kernel_info_reply")
    }))

  it.effect("is the only way to its kernel: the gateway refuses clients at once, and says why", () =>
    Effect.gen(function* () {
      const gateway = yield* Connection.of(yield* KernelGateway.KernelGateway)
      const kernel = yield* start
      const attempt = Effect.gen(function* () {
        const { code } = yield* Effect.flip(
          gateway.openSocket(`${gateway.url}/api/kernels/${kernel.id}/channels`, {
            protocols: [WireV1.subprotocol],
            openTimeout: "5 seconds",
          }),
        )
        return code
      })
      assert.strictEqual(yield* attempt, 409)
      const { shell } = yield* open(kernel)
      assert.strictEqual(yield* attempt, 409)
      yield* shell.send(frame(payload(ask("1"))))
      yield* awaitMessage(shell, "kernel_info_reply")
    }))

  it.effect.skipIf(process.geteuid?.() !== 0 || inSandbox)(
    "is closed to other users of the machine",
    () =>
      Effect.gen(function* () {
        const kernel = yield* start
        const attempt = (path: string) =>
          spawnSync("python3", [
            "-c",
            `import socket, sys
connected = socket.socket(socket.AF_UNIX)
try:
    connected.connect(sys.argv[1])
    connected.sendall(sys.argv[2].encode())
    print(connected.recv(100))
except OSError as error:
    print(type(error).__name__)`,
            path,
            handshake("/shell", kernel.token),
          ], { uid: 65534, gid: 65534, encoding: "utf8", cwd: "/" }).stdout.trim()
        assert.strictEqual(attempt(kernel.path), "PermissionError")
        // Whatever becomes of the permissions.
        for (let folder = dirname(kernel.path); folder.length > 5; folder = dirname(folder)) {
          chmodSync(folder, 0o755)
        }
        chmodSync(kernel.path, 0o666)
        assert.include(["b''", "ConnectionResetError", "BrokenPipeError"], attempt(kernel.path))
        chmodSync(dirname(kernel.path), 0o700)
        yield* open(kernel)
      }),
  )

  const broken: ReadonlyArray<readonly [string, Uint8Array, number | undefined]> = [
    ["not masked", frame(payload(ask("1")), { mask: new Uint8Array() }), 1002],
    ["longer than the longest", frame(new Uint8Array(), { length: 2 ** 40 }), 1009],
    ["of text", frame(payload(ask("1")), { first: 0x81 }), 1003],
    ["with bits that are reserved", frame(payload(ask("1")), { first: 0xc2 }), 1002],
    ["of an unknown kind", frame(payload(ask("1")), { first: 0x83 }), 1002],
    ["that continues nothing", frame(payload(ask("1")), { first: 0x80 }), 1002],
    ["of control that is long", frame(new Uint8Array(200), { first: 0x89 }), 1002],
    ["of control in fragments", frame(new Uint8Array(2), { first: 0x09 }), 1002],
    [
      "that begins amid another",
      Buffer.concat([frame(new Uint8Array(2), { first: 0x02 }), frame(new Uint8Array(2))]),
      1002,
    ],
  ]
  it.effect.each(broken)(
    "ends its kernel after a frame %s, and no other",
    ([, bytes, code]) =>
      Effect.gen(function* () {
        const other = yield* KernelClient.KernelClient
        const kernel = yield* start
        const { shell } = yield* open(kernel)
        yield* shell.send(bytes)
        assert.strictEqual(yield* closeCode(shell), code)
        assert.strictEqual(yield* text(other.execute("1 + 1")), "2")
        yield* Effect.repeat(Effect.delay(kernel.exists, "20 millis"), { while: (exists) => exists })
      }),
  )

  it.effect("takes a frame that is cut short for the end, and holds no memory for what does not come", () =>
    Effect.gen(function* () {
      const kernel = yield* start
      const { control, shell } = yield* open(kernel)
      yield* control.send(frame(payload(
        request("usage_request", { id: "1", session: "raw", channel: "control", content: {} }),
      )))
      const { content } = yield* awaitMessage(control, "usage_reply")
      const pid = Number(content["pid"])
      yield* shell.send(frame(new Uint8Array(10), { length: 2 ** 29 }))
      yield* control.send(frame(payload(ask("2", "control"))))
      yield* awaitMessage(control, "kernel_info_reply")
      if (!inSandbox) {
        const [, kB = "0"] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? []
        assert.isBelow(Number(kB) / 1024, 150)
      }
      yield* shell.end
      yield* Effect.repeat(Effect.delay(kernel.exists, "20 millis"), { while: (exists) => exists })
    }))

  it.effect("reads messages in fragments and slow ones, answers pings between them, and ignores garbage", () =>
    Effect.gen(function* () {
      const kernel = yield* start
      const { control, shell } = yield* open(kernel)
      const message = payload(ask("1"))
      yield* shell.send(frame(message.subarray(0, 10), { first: 0x02 }))
      yield* shell.send(frame(new Uint8Array([1, 2, 3]), { first: 0x89 }))
      yield* shell.send(frame(message.subarray(10, 20), { first: 0x00 }))
      yield* shell.send(frame(new Uint8Array(), { first: 0x00 }))
      yield* shell.send(frame(message.subarray(20), { first: 0x80 }))
      const pong = yield* shell.frame
      assert.deepStrictEqual(pong, { opcode: 0xa, data: Buffer.from([1, 2, 3]) })
      yield* awaitMessage(shell, "kernel_info_reply")
      // Byte after byte: what is asked beside that does not wait.
      const slow = frame(payload(ask("2")))
      for (const byte of slow.subarray(0, 30)) yield* shell.send(Uint8Array.of(byte))
      yield* control.send(frame(payload(ask("3", "control"))))
      yield* awaitMessage(control, "kernel_info_reply")
      for (const byte of slow.subarray(30)) {
        yield* Effect.andThen(shell.send(Uint8Array.of(byte)), Effect.yieldNow)
      }
      yield* awaitMessage(shell, "kernel_info_reply")
      const garbage = [
        new Uint8Array(),
        new Uint8Array(7),
        new Uint8Array(100),
        new Uint8Array(1000).fill(255),
        Buffer.from(message).fill(0, 60, 80),
        message.subarray(0, 100),
      ]
      for (const data of garbage) yield* shell.send(frame(data))
      yield* shell.send(frame(payload(ask("4"))))
      assert.strictEqual((yield* awaitMessage(shell, "kernel_info_reply")).parentHeader.msg_id, "4")
    }))

  it.effect("takes many requests at once, one after the other", () =>
    Effect.gen(function* () {
      const kernel = yield* start
      const { shell } = yield* open(kernel)
      for (let number = 0; number < 500; number++) yield* shell.send(frame(payload(ask(`${number}`))))
      for (let number = 0; number < 500; number++) {
        assert.strictEqual(
          (yield* awaitMessage(shell, "kernel_info_reply")).parentHeader.msg_id,
          `${number}`,
        )
      }
    }))
})

layer(kernelLayer(), slow)("the code of a sandboxed kernel", (it) => {
  it.effect.skipIf(!inSandbox)(
    "reaches the socket of no kernel, and has no listener",
    () =>
      Effect.gen(function* () {
        const other = yield* start
        const kernel = yield* KernelClient.KernelClient
        const outcome = yield* text(kernel.execute(`
import os, socket, stat
try:
    socket.socket(socket.AF_UNIX)
    print("made")
except PermissionError:
    print("refused")
print(os.path.exists(${JSON.stringify(other.path)}), "EFFECT_JUPYTER_LISTENER" in os.environ)
def listens(descriptor):
    try:
        with socket.socket(fileno=os.dup(descriptor)) as known:
            return known.family == socket.AF_UNIX and known.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError:
        return False
print([number for number in map(int, os.listdir("/proc/self/fd")) if listens(number)])`))
        assert.strictEqual(outcome, "refused\nFalse False\n[]")
        yield* open(other)
      }),
  )
})

layer(kernelLayer(), slow)("code that breaks its connection", (it) => {
  const broken = {
    "its sockets": `import os, stat
for number in map(int, os.listdir("/proc/self/fd")):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode): os.close(number)
    except OSError:
        pass`,
    "all descriptors": "import os; os.closerange(3, 1000)",
    "what sends": "import socket; socket.socket.sendmsg = None",
    "what encodes": "import json; json.dumps = None",
  }
  it.effect.each(Object.entries(broken))("ends its kernel: %s", ([, code]) =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const error = yield* Effect.flip(kernel.execute(code))
      assert.strictEqual(error._tag === "KernelError" && error.reason._tag, "KernelDied")
    }))
})

describe("a process that the code forks", () => {
  it.live("holds no connection: the end of the kernel is known at once", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      yield* kernel.execute("import os, signal, time\nif os.fork() == 0: time.sleep(1000)")
      const start = performance.now()
      const error = yield* Effect.flip(kernel.execute("os.kill(os.getpid(), signal.SIGKILL)"))
      assert.strictEqual(error._tag === "KernelError" && error.reason._tag, "KernelDied")
      assert.isBelow(performance.now() - start, 1000)
    }).pipe(Effect.provide(kernelLayer())), 60_000)
})
