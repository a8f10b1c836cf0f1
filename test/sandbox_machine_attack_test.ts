/** Sandboxed kernels and the rest of the machine: what others left open, and what others can see or get in the way of. */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { createServer } from "node:net"
import process from "node:process"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow } from "./support/kernel.ts"
import { asOrdinaryUser } from "./support/ordinary_user.ts"
import { descendants } from "./support/processes.ts"
import { attacker, isRoot, outcomes, py, sandboxUser, workspace } from "./support/sandbox.ts"

const on = <A, E, R>(
  gateway: KernelGateway.KernelGateway["Service"],
  effect: Effect.Effect<A, E, R>,
) => Effect.provideService(effect, KernelGateway.KernelGateway, gateway)

/** Code that changes the settings of tools in a workspace. */
const plant = `
for name in (".bashrc", ".mcp.json", ".vscode/settings.json", ".git/config"):
    attempt(name, lambda: write(name))
`
const planted = {
  ".bashrc": "EACCES",
  ".mcp.json": "EACCES",
  ".vscode/settings.json": "ENOTDIR",
  ".git/config": "ENOTDIR",
}

layer(Platform.layer, slow)("the machine around a sandbox", (it) => {
  it.effect("pipes, sockets and devices that all users may write: opening them is refused", () =>
    Effect.gen(function* () {
      const [folder, elsewhere] = [yield* workspace({ "a/file": "", "b/file": "" }), yield* workspace()]
      execFileSync("mkfifo", ["-m", "666", `${elsewhere}/pipe`])
      if (isRoot) execFileSync("mknod", ["-m", "666", `${elsewhere}/device`, "c", "1", "3"])
      const server = yield* Effect.acquireRelease(
        Effect.sync(() => createServer().listen(`${elsewhere}/socket`)),
        (server) => Effect.sync(() => server.close()),
      )
      assert.isTrue(server.listening)
      const gateway = yield* KernelGateway.make({ workingDir: folder, sandbox: sandboxUser })
      const results = yield* on(gateway, attacker()).pipe(Effect.flatMap((kernel) =>
        outcomes(
          kernel,
          `
os.chdir(os.getcwd())
place = ${py(elsewhere)}
for name in ("pipe", "device"):
    for label, flags in (("write", os.O_WRONLY | os.O_NONBLOCK), ("both", os.O_RDWR), ("append", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)):
        if os.path.exists(os.path.join(place, name)):
            attempt(f"{name} {label}", lambda: os.open(os.path.join(place, name), flags) and "opened")
os.symlink(os.path.join(place, "pipe"), "link")
attempt("pipe by a link", lambda: os.open("link", os.O_RDWR) and "opened")
attempt("pipe by root", lambda: os.open("/proc/self/root" + os.path.join(place, "pipe"), os.O_RDWR) and "opened")
attempt("pipe by its handle", lambda: os.open(f"/proc/self/fd/{os.open(os.path.join(place, 'pipe'), os.O_PATH)}", os.O_RDWR) and "opened")
attempt("pipe in a child", lambda: in_child(lambda: os.open(os.path.join(place, "pipe"), os.O_RDWR) and "opened"))
attempt("socket", lambda: socket.socket(socket.AF_UNIX).connect(os.path.join(place, "socket")) or "connected")
# What has to work.
os.mkfifo("own")
attempt("own pipe", lambda: os.open("own", os.O_RDWR) and "opened")
attempt("own temporary pipe", lambda: os.mkfifo(os.path.join(here, "own")) or os.open(os.path.join(here, "own"), os.O_RDWR) and "opened")
for name in ("/dev/null", "/dev/full", "/dev/ptmx", "/proc/self/comm"):
    attempt(name, lambda: os.open(name, os.O_RDWR) and "opened")
attempt("anonymous pipe", lambda: os.open(f"/proc/self/fd/{os.pipe()[1]}", os.O_WRONLY) and "opened")
attempt("rename", lambda: os.rename("a/file", "b/moved") or "moved")
attempt("link", lambda: os.link("b/file", "a/linked") or "linked")
attempt("program", lambda: subprocess.run("echo hello > a/said && cat a/said", shell=True, capture_output=True).stdout.decode())
`,
        )
      ))
      const { "own pipe": own, "own temporary pipe": temporary, link, program, rename, ...rest } = results
      assert.deepStrictEqual([own, temporary, link, program, rename], [
        "opened",
        "opened",
        "linked",
        "hello\n",
        "moved",
      ])
      for (const [label, outcome] of Object.entries(rest)) {
        const expected = /^\/|^anonymous/.test(label)
          ? ["opened"]
          : label === "socket"
          ? ["EPERM"]
          : ["EACCES"]
        assert.include(expected, outcome, label)
      }
    }).pipe(Effect.scoped))

  it.effect("no secret and no variable of a user is a word of a command", () =>
    Effect.gen(function* () {
      const env = {
        NODE_AUTH_TOKEN: "sEcReT-node",
        PYTHONSECRET: "sEcReT-python",
        LD_X: "sEcReT-ld",
        PLAIN: "sEcReT-plain",
      }
      const folder = yield* workspace()
      const options = { workingDir: folder, env: { GIVEN: "sEcReT-gateway" } }
      const sandboxed = yield* KernelGateway.make({
        ...options,
        sandbox: { ...sandboxUser, allowNet: ["example.org"] },
      })
      const plain = yield* KernelGateway.make(options)
      const kernel = yield* on(sandboxed, attacker({ env }))
      yield* on(plain, KernelClient.make({ env }))
      const { git, proxy, seen } = yield* outcomes(
        kernel,
        `
attempt("proxy", lambda: os.environ["HTTP_PROXY"].split("@")[0].split(":")[-1])
attempt("git", lambda: os.environ["GIT_SSH_COMMAND"])
attempt("seen", lambda: [os.environ[name] for name in ("NODE_AUTH_TOKEN", "PYTHONSECRET", "LD_X", "PLAIN", "GIVEN")])
`,
      )
      assert.deepStrictEqual(JSON.parse(seen ?? ""), [...Object.values(env), "sEcReT-gateway"])
      assert.match(proxy ?? "", /^[0-9a-f]{32}$/)
      assert.notInclude(git, proxy ?? "")
      assert.include(git, "proxyauthfile=")
      const commands = descendants(process.pid).map(({ command }) => command.join(" "))
      assert.isTrue(commands.some((command) => command.includes("bwrap")))
      for (const command of commands) {
        assert.notInclude(command, "sEcReT")
        assert.notInclude(command, proxy ?? "")
      }
      const status = yield* outcomes(
        kernel,
        `attempt("inside", lambda: "EFFECT_JUPYTER_INSIDE" in os.environ)`,
      )
      assert.deepStrictEqual(status, { inside: "false" })
    }).pipe(Effect.scoped))

  it.effect("gateways of one workspace leave each other's sandboxes alone, however their kernels begin and end", () =>
    Effect.gen(function* () {
      const folder = yield* workspace({ "plain.txt": "" })
      const options = { workingDir: folder, sandbox: sandboxUser }
      const [one, other] = yield* Effect.all([KernelGateway.make(options), KernelGateway.make(options)], {
        concurrency: 2,
      })
      const lasting = yield* on(one, attacker())
      // Each begins while another ends.
      yield* Effect.forEach(Array.from({ length: 10 }), () => on(other, Effect.scoped(KernelClient.make())), {
        concurrency: 2,
      })
      assert.deepStrictEqual(yield* outcomes(lasting, plant), planted)
      const rounds = (gateway: typeof one) =>
        Effect.forEach(Array.from({ length: 5 }), () => on(gateway, Effect.scoped(KernelClient.make())))
      yield* Effect.all([rounds(one), rounds(other)], { concurrency: 2 })
      assert.deepStrictEqual(yield* outcomes(lasting, plant), planted)
      // A whole gateway that ends.
      yield* Effect.scoped(
        Effect.flatMap(KernelGateway.make(options), (third) => on(third, KernelClient.make())),
      )
      assert.deepStrictEqual(yield* outcomes(lasting, plant), planted)
      assert.include(readdirSync(folder), ".bashrc")
    }).pipe(Effect.scoped))

  it.effect("the workspace is as it was when the last kernel of several gateways ended", () =>
    Effect.gen(function* () {
      const folder = yield* workspace({ "plain.txt": "" })
      const options = { workingDir: folder, sandbox: sandboxUser }
      const [one, other] = [yield* KernelGateway.make(options), yield* KernelGateway.make(options)]
      yield* Effect.scoped(Effect.all([on(one, KernelClient.make()), on(other, KernelClient.make())]))
      assert.deepStrictEqual(readdirSync(folder), ["plain.txt"])
    }).pipe(Effect.scoped))

  for (
    const prepare of [
      "mkfifo -m 666 /tmp/pipe && ln -s /nowhere/at/all /tmp/claude && ln -s /etc /tmp/effect-jupyter-000000000000",
      "mkfifo -m 666 /tmp/pipe && mkfifo /tmp/claude && mkdir /tmp/effect-jupyter-000000000000",
    ]
  ) {
    it.effect(`an ordinary user's kernels see no other gateway and no open pipe, and start (${prepare})`, () =>
      Effect.gen(function* () {
        if (!isRoot) execFileSync("sh", ["-c", "test -e /tmp/pipe || mkfifo -m 666 /tmp/pipe"])
        const { isThere, results, written } = yield* asOrdinaryUser("ordinary_attacks.ts", { prepare })
        const { gateways, pipe, "pipe both ways": both, "/tmp": tmp, workspace: own, ...directories } =
          results
        assert.deepStrictEqual([gateways, pipe, both, tmp, own], [
          "true",
          "EACCES",
          "EACCES",
          "EROFS",
          "written",
        ])
        // The directories of two gateways that were started later, and the token of a shared one.
        assert.deepStrictEqual(Object.values(directories), ["ENOENT", "ENOENT", "ENOENT"])
        assert.isTrue(isThere)
        assert.deepStrictEqual(written, [0, 0])
      }))
  }
})
