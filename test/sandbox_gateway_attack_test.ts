/** Attacks on the gateway of sandboxed kernels, and the state after parts of it were killed. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, FileSystem, Redacted, Schema } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { ChildProcess } from "effect/process"
import { readdirSync, readFileSync } from "node:fs"
import process from "node:process"
import { KernelGateway } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow, temporary } from "./support/kernel.ts"
import { descendants, eventually, supervisors, survivors } from "./support/processes.ts"
import { attacker, isRoot, outcomes, py, sandboxUser, workspace } from "./support/sandbox.ts"

const attackerOf = (gateway: KernelGateway.KernelGateway["Service"]) =>
  Effect.provideService(attacker(), KernelGateway.KernelGateway, gateway)

/** A folder outside of the workspace that all users may write: its files were not written in a sandbox. */
const outside = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* temporary
  yield* Effect.orDie(fs.chmod(folder, 0o777))
  return folder
})

/** Modules that a gateway, its supervisor, its helper's start and a kernel's launcher import. */
const modules = [
  "nbformat",
  "jupyter_server",
  "kernel_gateway",
  "jupyter_client",
  "tornado",
  "zmq",
  "traitlets",
  "effect_jupyter",
  "json",
  "socket",
  "array",
  "shutil",
  "tempfile",
  "asyncio",
  "sitecustomize",
  "usercustomize",
  "rfc3987_syntax",
]

const Model = Schema.Struct({ id: Schema.String })

/** Starts a kernel by the REST API alone, as a client with the token can. */
const post = Effect.fnUntraced(function* (gateway: KernelGateway.KernelGateway["Service"], body: object) {
  const token = gateway.token === undefined ? "" : Redacted.value(gateway.token)
  const response = yield* HttpClient.execute(
    HttpClientRequest.post(`${gateway.url}/api/kernels`).pipe(
      HttpClientRequest.setHeader("authorization", `token ${token}`),
      HttpClientRequest.bodyJsonUnsafe(body),
    ),
  )
  return { status: response.status, body: yield* response.json }
})

layer(Platform.layer, slow)("a gateway of sandboxed kernels", (it) => {
  it.effect("31: planted nbformat/ in the workspace, then a gateway restart: not executed", () =>
    Effect.gen(function* () {
      const folder = yield* workspace()
      const out = yield* outside
      const sandbox = { ...sandboxUser, allowWrite: [".", out] }
      yield* Effect.scoped(Effect.gen(function* () {
        const kernel = yield* attackerOf(yield* KernelGateway.make({ workingDir: folder, sandbox }))
        const results = yield* outcomes(
          kernel,
          `
# Writing there is allowed in this sandbox and not in the next: so that a check of the trap itself is possible.
trap = f"""
try:
    with open({os.path.join(${py(out)}, "")!r} + __name__, "w") as file:
        file.write("executed")
except OSError:
    pass
"""
for name in ${py(modules)}:
    os.mkdir(name)
    with open(os.path.join(name, "__init__.py"), "w") as file:
        file.write(trap)
os.mkdir("trap")
with open("trap/__init__.py", "w") as file:
    file.write(trap)
import trap
attempt("planted", lambda: os.path.exists("nbformat/__init__.py"))
`,
        )
        assert.strictEqual(results["planted"], "true")
      }))
      assert.deepStrictEqual(readdirSync(out), ["trap"])
      const gateway = yield* KernelGateway.make({ workingDir: folder, sandbox: sandboxUser })
      const kernel = yield* attackerOf(gateway)
      assert.deepStrictEqual(yield* outcomes(kernel, 'attempt("alive", lambda: 6 * 7)'), { alive: "42" })
      assert.deepStrictEqual(readdirSync(out), ["trap"])
    }))

  it.effect("32: POST with name=python3 or path=../..: still sandboxed, no new write root", () =>
    Effect.gen(function* () {
      const out = yield* outside
      const startup = `
import errno, json, os

def outcome(path):
    try:
        open(path, "w").close()
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]

status = dict(line[:-1].split(":\\t", 1) for line in open("/proc/self/status"))
report = {
    "workspace": os.getcwd(),
    "outside": outcome(${py(out)} + "/planted"),
    "parent": outcome(os.path.join(${py(out)}, "..", "effect-jupyter-planted")),
    "/etc": outcome("/etc/effect-jupyter-planted"),
    "NoNewPrivs": status["NoNewPrivs"],
    "CapEff": status["CapEff"],
    "pids": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "user": os.getuid() != 0,
    # What is not for the outside arrives all the same.
    "library": os.environ.get("LD_LIBRARY_PATH"),
}
with open(os.environ["REPORT"] + ".part", "w") as file:
    json.dump(report, file)
os.rename(os.environ["REPORT"] + ".part", os.environ["REPORT"])
`
      const folder = yield* workspace({
        "startup.py": startup,
        "evil.json": JSON.stringify({ command: `touch ${out}/launched`, user: null, paths: [], home: "/" }),
      })
      const gateway = yield* KernelGateway.make({ workingDir: folder, sandbox: sandboxUser })
      const bodies: Record<string, { name?: string; path?: string; env?: Record<string, string> }> = {
        "name=python3": { name: "python3" },
        "path=../..": { name: "python3", path: "../.." },
        "absolute path": { name: "python3", path: "/etc" },
        "path of a folder": { name: "python3", path: "startup.py/../.." },
        "launch file": {
          env: { EFFECT_JUPYTER_LAUNCH: `${folder}/evil.json`, EFFECT_JUPYTER_KERNEL: "other" },
        },
        // The launcher runs outside: its loader must not be told anything.
        loader: {
          env: {
            LD_DEBUG: "files",
            LD_DEBUG_OUTPUT: `${out}/loader`,
            LD_LIBRARY_PATH: "/usr/lib/nowhere and else",
          },
        },
        shell: { env: { BASH_ENV: `${folder}/shell.sh`, ENV: `${folder}/shell.sh` } },
      }
      yield* FileSystem.FileSystem.use((fs) =>
        fs.writeFileString(`${folder}/shell.sh`, `touch ${out}/shell\n`)
      )
      for (const [label, { env = {}, ...body }] of Object.entries(bodies)) {
        const report = `${folder}/report-${label.replaceAll(/\W/g, "-")}`
        const { body: model, status } = yield* post(gateway, {
          ...body,
          env: {
            PATH: Platform.variable("PATH"),
            PYTHONSTARTUP: `${folder}/startup.py`,
            REPORT: report,
            ...env,
          },
        })
        assert.strictEqual(status, 201, `${label}: ${JSON.stringify(model)}`)
        yield* Schema.decodeUnknownEffect(Model)(model)
        yield* eventually(
          () => readdirSync(folder).some((name) => `${folder}/${name}` === report) ? undefined : label,
          30,
        )
        assert.deepStrictEqual(JSON.parse(readFileSync(report, "utf8")), {
          workspace: folder,
          outside: "EROFS",
          parent: "EROFS",
          "/etc": "EROFS",
          NoNewPrivs: "1",
          CapEff: "0000000000000000",
          pids: 2,
          user: true,
          library: label === "loader" ? "/usr/lib/nowhere and else" : null,
        }, label)
      }
      assert.deepStrictEqual(readdirSync(out), [])

      const rules = {
        allowNet: [],
        denyNet: [],
        allowWrite: ["/"],
        denyWrite: [],
        denyRead: [],
        allowRead: [],
      }
      const wider = { rules: { ...rules, strict: false, limits: {} }, secret: "guessed" }
      const refused: Record<string, readonly [body: object, status: number]> = {
        "another specification": [{ name: "ir" }, 400],
        "rules of its own": [{ env: { EFFECT_JUPYTER_SANDBOX: JSON.stringify(wider) } }, 403],
        "rules that are none": [{ env: { EFFECT_JUPYTER_SANDBOX: "[]" } }, 403],
      }
      for (const [label, [body, expected]] of Object.entries(refused)) {
        const { body: answer, status } = yield* post(gateway, body)
        assert.strictEqual(status, expected, `${label}: ${JSON.stringify(answer)}`)
      }
    }))
})

describe("a sandbox of root", () => {
  it.live("33: uid 0: typed refusal", () =>
    Effect.gen(function* () {
      const folder = yield* workspace()
      const before = supervisors(process.pid).length
      if (isRoot) {
        for (const sandbox of [true, {}, { allowNet: ["example.org"] }] as const) {
          const error = yield* Effect.flip(KernelGateway.make({ workingDir: folder, sandbox }))
          assert.strictEqual(error._tag, "SandboxError")
          assert.strictEqual(error.reason._tag, "RunningAsRoot")
          assert.include(error.message, '"user"')
        }
      } else {
        // Only root can name another user.
        const user = { uid: 65534, gid: 65534 }
        const error = yield* Effect.flip(KernelGateway.make({ workingDir: folder, sandbox: { user } }))
        assert.strictEqual(error.reason._tag, "InvalidSettings")
      }
      const root = yield* Effect.flip(
        KernelGateway.make({ workingDir: folder, sandbox: { user: { uid: 0, gid: 0 } } }),
      )
      assert.strictEqual(root.reason._tag, "InvalidSettings")
      assert.lengthOf(supervisors(process.pid), before)
    }).pipe(Effect.provide(Platform.layer)), 120_000)
})

describe("a sandbox whose parts are killed with SIGKILL", () => {
  const victims = {
    "34: gateway": (parent: number) =>
      descendants(parent).find(({ parent: above }) => supervisors(parent).some(({ pid }) => pid === above)),
    "34: helper": (parent: number) =>
      descendants(parent).find(({ command }) => command.some((word) => /helper\.[tj]s$/.test(word))),
    "34: supervisor": (parent: number) => supervisors(parent)[0],
    "34: parent": (parent: number) => ({ pid: parent }),
  } as const
  for (const [name, find] of Object.entries(victims)) {
    it.live(
      `${name} SIGKILL: no survivors within 5 s, and nothing in the workspace after the next start`,
      () =>
        Effect.gen(function* () {
          const folder = yield* workspace({ "mine.txt": "mine", ".env": "SECRET=1" })
          const before = readdirSync(folder).toSorted()
          const parent = yield* ChildProcess.make("node", ["test/support/sandbox_parent.ts", folder], {
            stdin: "ignore",
            stdout: "ignore",
            stderr: "inherit",
            extendEnv: true,
            forceKillAfter: "1 second",
          })
          const hasDaemon = () => descendants(parent.pid).some(({ command }) => command[0] === "sleep")
          yield* eventually(() => hasDaemon() ? undefined : "no daemon yet", 60)
          const directories = supervisors(parent.pid).map(({ runtimeDir }) => runtimeDir)
          assert.lengthOf(directories, 1)
          const pids = descendants(parent.pid).map(({ pid }) => pid)
          assert.isAbove(pids.length, 7)
          // It is there while a kernel runs: what is checked below is not trivial.
          assert.include(readdirSync(folder), ".bashrc")
          const victim = find(parent.pid)
          assert.isDefined(victim)
          if (victim === undefined) return
          yield* Effect.sync(() => process.kill(victim.pid, "SIGKILL"))
          yield* eventually(() => survivors(pids), 5)
          yield* Effect.scoped(Effect.flatMap(
            KernelGateway.make({ workingDir: folder, sandbox: sandboxUser }),
            attackerOf,
          ))
          assert.deepStrictEqual(readdirSync(folder).toSorted(), before)
          assert.strictEqual(readFileSync(`${folder}/mine.txt`, "utf8"), "mine")
          const fs = yield* FileSystem.FileSystem
          for (const directory of directories) assert.isFalse(yield* fs.exists(directory))
        }).pipe(Effect.provide(Platform.layer)),
      180_000,
    )
  }
})
