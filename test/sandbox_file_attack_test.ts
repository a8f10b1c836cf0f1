/** Attacks of sandboxed code on files. */
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, FileSystem } from "effect"
import { execFileSync } from "node:child_process"
import { readdirSync, statSync } from "node:fs"
import process from "node:process"
import { KernelClient, KernelGateway, PythonEnvironment, type Sandbox } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow } from "./support/kernel.ts"
import { supervisors } from "./support/processes.ts"
import {
  attack,
  attacker,
  entries,
  isRoot,
  outcomes,
  py,
  repository,
  sandboxLayer,
  sandboxUser,
  Workspace,
  workspace,
} from "./support/sandbox.ts"

const files = {
  ".env": "SECRET=1",
  "sub/.env": "SECRET=2",
  "deep/er/.env": "SECRET=3",
  ".vscode/settings.json": "{}",
  "plain.txt": "plain",
}

/** The runtime directories of the gateways of this file. */
const runtimeDirs = () => supervisors(process.pid).map(({ runtimeDir }) => runtimeDir)

/** A folder outside of any workspace that all users may write. */
const open = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* Effect.orDie(
    fs.makeTempDirectoryScoped({ directory: "/var/tmp", prefix: "effect-jupyter-test-" }),
  )
  yield* Effect.orDie(fs.chmod(folder, 0o777))
  return folder
})

/** Writes where srt looks for what an editor, a shell or an agent would run later. */
const plant = `
for name in (
    ".bashrc", ".bash_profile", ".profile", ".zshrc", ".zprofile", ".mcp.json", ".gitconfig", ".gitmodules", ".ripgreprc",
    ".vscode/settings.json", ".vscode/tasks.json", ".idea/workspace.xml", ".claude/settings.json", ".claude/commands/x.md",
):
    attempt(name, lambda: write(name))
for name in (".bashrc", ".mcp.json", ".gitconfig"):
    attempt(f"{name} unlink", lambda: os.unlink(name))
    attempt(f"{name} replace", lambda: os.replace("plain.txt", name))
attempt(".vscode rename", lambda: os.rename(".vscode", "vscode"))
attempt(".vscode remove", lambda: os.rmdir(".vscode"))
attempt(".claude rename", lambda: os.rename(".claude", "claude"))
`

/** The outcome: a masked file is owned by the user nobody, a masked folder cannot be changed. */
const planted = {
  ".bashrc": "EACCES",
  ".bash_profile": "EACCES",
  ".profile": "EACCES",
  ".zshrc": "EACCES",
  ".zprofile": "EACCES",
  ".mcp.json": "EACCES",
  ".gitconfig": "EACCES",
  ".gitmodules": "EACCES",
  ".ripgreprc": "EACCES",
  ".vscode/settings.json": "EROFS",
  ".vscode/tasks.json": "EROFS",
  // The place of a folder that does not exist is taken by a file.
  ".idea/workspace.xml": "ENOTDIR",
  ".claude/settings.json": "EROFS",
  ".claude/commands/x.md": "ENOENT",
  ".bashrc unlink": "EBUSY",
  ".bashrc replace": "EBUSY",
  ".mcp.json unlink": "EBUSY",
  ".mcp.json replace": "EBUSY",
  ".gitconfig unlink": "EBUSY",
  ".gitconfig replace": "EBUSY",
  ".vscode rename": "EBUSY",
  ".vscode remove": "EBUSY",
  ".claude rename": "EBUSY",
}

layer(sandboxLayer({}, files), slow)("the files of a sandbox", (it) => {
  it.effect("16: .env read directly, nested, by symlink, hardlink, rename, /proc/self/cwd: denied", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* Workspace
      const results = yield* attack(`
for name in (".env", "sub/.env", "deep/er/.env"):
    attempt(name, lambda: read(name))
    attempt(f"{name} absolute", lambda: read(os.path.abspath(name)))
    attempt(f"{name} by cwd", lambda: read(f"/proc/self/cwd/{name}"))
    attempt(f"{name} by root", lambda: read(f"/proc/self/root{os.path.abspath(name)}"))
    link = name.replace("/", "-") + ".link"
    os.symlink(name, link)
    attempt(f"{name} by symlink", lambda: read(link))
    attempt(f"{name} hardlink", lambda: os.link(name, link + "2"))
    attempt(f"{name} rename", lambda: os.rename(name, link + "3"))
    attempt(f"{name} unlink", lambda: os.unlink(name))
    attempt(f"{name} write", lambda: write(name))
    attempt(f"{name} truncate", lambda: os.truncate(name, 0))
os.symlink("sub", "sub-link")
attempt("by a folder's symlink", lambda: read("sub-link/.env"))
attempt("by another program", lambda: subprocess.run(["cat", ".env", "sub/.env"], capture_output=True).stdout.decode())
attempt("by init", lambda: read("/proc/1/cwd/.env"))
attempt("rename of its folder", lambda: os.rename("sub", "bus"))
`)
      for (const name of [".env", "sub/.env", "deep/er/.env"]) {
        for (const way of ["", " absolute", " by cwd", " by root", " by symlink", " write"]) {
          assert.strictEqual(results[`${name}${way}`], "EACCES", `${name}${way}`)
        }
        // The mask is on another file system, and it cannot be taken away.
        assert.strictEqual(results[`${name} hardlink`], "EXDEV")
        assert.strictEqual(results[`${name} rename`], "EBUSY")
        assert.strictEqual(results[`${name} unlink`], "EBUSY")
        assert.strictEqual(results[`${name} truncate`], "EINVAL")
        assert.include(yield* fs.readFileString(`${folder}/${name}`), "SECRET")
      }
      assert.strictEqual(results["by a folder's symlink"], "EACCES")
      assert.strictEqual(results["by another program"], "")
      assert.strictEqual(results["by init"], "EACCES")
      assert.strictEqual(results["rename of its folder"], "EBUSY")
      // A folder further up may move: its mask moves along.
      const moved = yield* attack(`
attempt("rename", lambda: os.rename("deep", "moved"))
attempt("there", lambda: read("moved/er/.env" if os.path.exists("moved") else "deep/er/.env"))
`)
      assert.strictEqual(moved["there"], "EACCES", JSON.stringify(moved))
    }))

  it.effect("17: writes to /etc, home, /tmp, /var/tmp: EROFS", () =>
    Effect.gen(function* () {
      const folder = yield* open
      const home = Platform.variable("HOME") ?? "/root"
      const results = yield* attack(`
for folder in ("/", "/etc", "/tmp", "/var/tmp", "/var", "/usr", "/usr/local/bin", "/opt", "/run", "/srv", "/home", ${
        py(folder)
      }):
    attempt(folder, lambda: write(os.path.join(folder, "effect-jupyter-planted")))
    attempt(f"{folder} mkdir", lambda: os.mkdir(os.path.join(folder, "effect-jupyter-planted")))
attempt("home", lambda: write(os.path.join(${py(home)}, "effect-jupyter-planted")))
# These are the sandbox's own.
attempt("/dev/shm", lambda: write("/dev/shm/effect-jupyter-planted"))
attempt("/dev", lambda: write("/dev/effect-jupyter-planted"))
`)
      const { "/dev": dev, "/dev/shm": shm, home: inHome, ...others } = results
      assert.lengthOf(Object.keys(others), 24)
      assert.deepStrictEqual([...new Set(Object.values(others))], ["EROFS"])
      // Another user's home cannot even be entered.
      assert.include(isRoot ? ["EACCES", "EROFS"] : ["EROFS"], inHome)
      assert.deepStrictEqual([dev, shm], ["EROFS", "written"])
      for (const place of ["/etc", "/tmp", "/var/tmp", "/dev", "/dev/shm", home, folder]) {
        assert.notInclude(readdirSync(place), "effect-jupyter-planted", place)
      }
    }))

  it.effect("17: /tmp/claude, which srt shares between all commands, cannot be written", () =>
    Effect.gen(function* () {
      // `global_setup.ts` sees to it that it is there.
      const results = yield* attack(`
attempt("mkdir", lambda: os.mkdir("/tmp/claude"))
attempt("write", lambda: write("/tmp/claude/effect-jupyter-planted"))
`)
      assert.deepStrictEqual(results, { mkdir: "EEXIST", write: "EROFS" })
      assert.notInclude(readdirSync("/tmp/claude"), "effect-jupyter-planted")
    }))

  it.effect("18: writes to the virtual environment, the shim, srt: denied", () =>
    Effect.gen(function* () {
      const { python } = yield* PythonEnvironment.make()
      const results = yield* attack(`
import sysconfig
srt = ${py(`${repository}/node_modules/@anthropic-ai/sandbox-runtime`)}
folders = {
    "environment": sys.prefix,
    "interpreter": sys.base_prefix,
    "packages": sysconfig.get_paths()["purelib"],
    "shim": ${py(`${repository}/src/python`)},
    "helper": ${py(`${repository}/src/sandbox`)},
    "srt": srt,
    "bridges": os.path.join(runtime, "helper"),
}
for label, folder in folders.items():
    attempt(f"{label} listed", lambda: len(os.listdir(folder)) > 0)
    attempt(label, lambda: write(os.path.join(folder, "effect-jupyter-planted")))
for label, file in {
    "python": os.path.realpath(sys.executable),
    "os.py": os.__file__,
    "sandboxed_kernel.py": sys.argv[0],
    "helper.ts": os.path.join(folders["helper"], "helper.ts"),
    "index.js": os.path.join(srt, "dist", "index.js"),
}.items():
    attempt(label, lambda: os.open(file, os.O_WRONLY))
attempt("same", lambda: os.path.samefile(sys.prefix, ${py(python.replace(/\/bin\/[^/]*$/, ""))}))
`)
      for (const label of ["environment", "interpreter", "packages", "shim", "helper", "srt", "bridges"]) {
        assert.strictEqual(results[`${label} listed`], "true", label)
        assert.include(["EACCES", "EROFS"], results[label], label)
      }
      for (const label of ["python", "os.py", "sandboxed_kernel.py", "helper.ts", "index.js"]) {
        // Whose they are is looked at first.
        assert.include(["EACCES", "EROFS"], results[label], label)
      }
      assert.strictEqual(results["same"], "true")
    }))

  it.effect("19: symlink or hardlink out of the workspace: denied", () =>
    Effect.gen(function* () {
      const folder = yield* open
      const results = yield* attack(`
outside = ${py(folder)}
os.symlink(outside, "out")
attempt("symlink", lambda: write("out/planted"))
os.symlink(os.path.join(outside, "planted"), "out-file")
attempt("symlink to a file", lambda: write("out-file"))
attempt("hardlink in", lambda: os.link("/etc/hostname", "hostname"))
attempt("hardlink out", lambda: os.link("plain.txt", os.path.join(outside, "planted")))
attempt("rename out", lambda: os.rename("plain.txt", os.path.join(outside, "planted")))
attempt("dots", lambda: write("../planted"))
attempt("openat", lambda: os.open("../planted", os.O_CREAT | os.O_WRONLY, dir_fd=os.open(".", os.O_RDONLY)))
attempt("by root", lambda: write(f"/proc/self/root{outside}/planted"))
attempt("reopened", lambda: os.open(f"/proc/self/fd/{os.open('/etc/hostname', os.O_RDONLY)}", os.O_WRONLY))
attempt("device", lambda: os.mknod("disk", stat.S_IFBLK | 0o666, os.makedev(254, 0)))
`)
      assert.deepStrictEqual(results, {
        symlink: "EROFS",
        "symlink to a file": "EROFS",
        "hardlink in": "EXDEV",
        "hardlink out": "EROFS",
        "rename out": "EXDEV",
        dots: "EROFS",
        openat: "EROFS",
        "by root": "EROFS",
        // The file is root's, which is looked at first.
        reopened: "EACCES",
        device: "EPERM",
      })
      assert.deepStrictEqual(readdirSync(folder), [])
    }))

  it.effect("20: .bashrc, .mcp.json, .vscode, .gitconfig in the workspace: denied, also after a sibling kernel ended", () =>
    Effect.gen(function* () {
      const folder = yield* Workspace
      assert.deepStrictEqual(yield* attack(plant), planted)
      yield* Effect.scoped(Effect.gen(function* () {
        const sibling = yield* attacker()
        assert.deepStrictEqual(yield* outcomes(sibling, plant), planted)
      }))
      assert.deepStrictEqual(yield* attack(plant), planted)
      assert.deepStrictEqual(
        entries(folder).filter((path) =>
          /bashrc|mcp|git|tasks|claude\//.test(path) && statSync(path).size > 0
        ),
        [],
      )
    }))

  it.effect("21: R, cookie secret, sibling connection files and sockets: not there", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const sibling = yield* attacker()
      const paths = runtimeDirs().flatMap(entries)
      // The kernel's own folder and the bridges to the proxy are there on purpose.
      const hidden = paths.filter((path) =>
        !/\/(helper|places)(\/|$)/.test(path) || path.includes(`/places/${sibling.id}`)
      )
      assert.isTrue(hidden.some((path) => path.endsWith(".json")))
      assert.isTrue(hidden.some((path) => path.endsWith("-ipc-1")))
      assert.isTrue(hidden.some((path) => path.includes(`/places/${sibling.id}/`)))
      const results = yield* outcomes(
        kernel,
        `
for path in ${py(hidden)}:
    attempt(path, lambda: os.lstat(path))
`,
      )
      assert.sameMembers(Object.keys(results), [...new Set(hidden)])
      assert.deepStrictEqual([...new Set(Object.values(results))], ["ENOENT"])
      const { names, places, bridges } = yield* outcomes(
        kernel,
        `
attempt("names", lambda: sorted(os.listdir(runtime)))
attempt("places", lambda: os.listdir(os.path.join(runtime, "places")) == [os.path.basename(here)])
attempt("bridges", lambda: sorted({stat.S_IFMT(os.lstat(os.path.join(runtime, "helper", name)).st_mode) for name in os.listdir(os.path.join(runtime, "helper"))}))
`,
      )
      assert.strictEqual(names, '["helper", "places"]')
      assert.strictEqual(places, "true")
      // Sockets, which no code in here can connect to, and an empty folder.
      assert.strictEqual(bridges, JSON.stringify([0o040000, 0o140000]).replace(",", ", "))
    }))
})

/** A kernel in a workspace with files that a shell makes, which ends with the effect. */
const attackIn = Effect.fnUntraced(function* (
  shell: string,
  code: string,
  permissions: Sandbox.Permissions = {},
) {
  const workingDir = yield* workspace()
  execFileSync("bash", ["-c", shell], { cwd: workingDir })
  if (isRoot) execFileSync("chown", ["-hR", "65534:65534", workingDir])
  const gateway = yield* KernelGateway.make({ workingDir, sandbox: { ...sandboxUser, ...permissions } })
  const kernel = yield* Effect.provideService(attacker(), KernelGateway.KernelGateway, gateway)
  return yield* outcomes(kernel, code)
}, Effect.scoped)

layer(Platform.layer, slow)("names in a sandbox", (it) => {
  it.effect("a .env below a folder of any name that is UTF-8 is hidden", () =>
    Effect.gen(function* () {
      const names = [
        "line\nfeed",
        "--bind",
        "--",
        "a b",
        "$HOME",
        "[x]",
        "{a,b}",
        "?",
        "*",
        "\\",
        "'",
        '"',
        "ü",
        "%s",
      ]
      const make = (name: string) => {
        const quoted = `'./${name.replaceAll("'", `'"'"'`)}'`
        return `mkdir ${quoted}; echo SECRET > ${quoted}/.env`
      }
      const results = yield* attackIn(
        names.map(make).join("\n"),
        `for name in ${py(names)}: attempt(name, lambda: read(f"{name}/.env"))`,
      )
      assert.deepStrictEqual(results, Object.fromEntries(names.map((name) => [name, "EACCES"])))
    }))

  it.effect("what a rule is about is refused below a name that is not UTF-8, and other files are not", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [string, string, Sandbox.Permissions?]> = [
        ["mkdir -p $'bad\\xff'; echo SECRET > $'bad\\xff/.env'", "bad\\xff/.env"],
        ["mkdir -p $'a/\\xff/b'; echo SECRET > $'a/\\xff/b/.env'", "a/\\xff/b/.env"],
        ["mkdir $'\\xff'; echo SECRET > $'\\xff/s'; ln -s $'\\xff/s' .env", "\\xff/s"],
        ["mkdir $'\\xff'; ln -s $'\\xff' link; mkdir link/.env", "\\xff/.env"],
        ["echo SECRET > $'\\xff.key'", "\\xff.key", { denyRead: ["**/*.key"] }],
        ["mkdir -p $'\\xff/.vscode'", "\\xff/.vscode"],
      ]
      for (const [shell, name, permissions] of cases) {
        const error = yield* Effect.flip(attackIn(shell, "", permissions))
        assert.include(error.message, `${name}' cannot be protected: Its name is not UTF-8; rename it`, shell)
      }
      const shell = "mkdir $'\\xff'; echo plain > $'\\xff/plain.txt'"
      assert.deepStrictEqual(
        yield* attackIn(shell, `attempt("plain", lambda: read(b"\\xff/plain.txt"))`),
        { plain: "read" },
      )
    }))

  it.effect("a thousand git directories and secrets are protected as few are", () =>
    Effect.gen(function* () {
      const results = yield* attackIn(
        "mkdir -p r{1..1000}/.git; touch r{1..1000}/.git/HEAD; echo SECRET | tee r{1..500}/.env > /dev/null",
        `
attempts = {
    "write": lambda folder: write(folder + "/.git/config"),
    "rename": lambda folder: os.rename(folder, "moved"),
    "rename .git": lambda folder: os.rename(folder + "/.git", folder + "/moved"),
}
for label, action in attempts.items():
    attempt(label, lambda: sorted({outcome(lambda: action(f"r{number}")) for number in range(1, 1001)}))
attempt("read", lambda: sorted({outcome(lambda: read(f"r{number}/.env")) for number in range(1, 501)}))
attempt("umount", lambda: call("umount2", b"r1/.git", 2))
attempt("umount in a namespace", lambda: in_child(lambda: [call("unshare", 0x10020000), call("umount2", b"r1/.git", 2)]))
attempt("other files", lambda: write("r1/plain.txt"))
`,
      )
      const { "umount in a namespace": inNamespace, ...others } = results
      assert.deepStrictEqual(others, {
        write: '["EROFS"]',
        rename: '["EBUSY"]',
        "rename .git": '["EBUSY"]',
        read: '["EACCES"]',
        umount: "EPERM",
        "other files": "written",
      })
      assert.include(["EPERM", "EINVAL"], inNamespace)
    }))

  it.effect("more files and folders to protect than can be mounted are refused at once", () =>
    Effect.gen(function* () {
      const [time, error] = yield* Effect.timed(
        Effect.flip(attackIn("mkdir r{1..3100}; touch r{1..3100}/.env", "")),
      )
      assert.include(error.message, "more than 3000 files and folders to protect")
      assert.include(error.message, 'set "allowGit"')
      assert.isBelow(Duration.toSeconds(time), 15)
    }))
})
