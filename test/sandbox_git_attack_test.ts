/** Attacks of sandboxed code on repositories, which would make the user's next git command run programs. */
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, readdirSync } from "node:fs"
import { KernelGateway, type Sandbox } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { slow } from "./support/kernel.ts"
import { attacker, entries, give, isRoot, outcomes, py, sandboxUser, workspace } from "./support/sandbox.ts"

const git = (folder: string, ...words: ReadonlyArray<string>): string =>
  execFileSync("git", ["-c", "safe.directory=*", "-c", "user.name=a", "-c", "user.email=a@b", ...words], {
    cwd: folder,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  })

const giveAll = (folder: string) =>
  Effect.forEach([folder, ...entries(folder)], (path) => existsSync(path) ? give(path) : Effect.void)

/** A kernel in a workspace, which ends with the effect. */
const attackIn = (
  workingDir: string,
  code: string,
  sandbox: Sandbox.Permissions = {},
) =>
  Effect.gen(function* () {
    const gateway = yield* KernelGateway.make({ workingDir, sandbox: { ...sandboxUser, ...sandbox } })
    const kernel = yield* Effect.provideService(attacker(), KernelGateway.KernelGateway, gateway)
    return yield* outcomes(kernel, code)
  }).pipe(Effect.scoped)

/** Tries to write all that git reads in a git directory. */
const plantIn = (directory: string) => `
for name in (
    "commondir", "config", "config.worktree", "HEAD", "info/attributes", "hooks/post-checkout", "modules/sub/config",
    "worktrees/tree/commondir", "worktrees/tree/gitdir", "objects/info/alternates", "refs/heads/planted", "index",
):
    path = os.path.join(${py(directory)}, name)
    def plant():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return write(path)
    attempt(f"{path}", plant)
attempt(${py(`${directory} moved`)}, lambda: os.rename(${py(directory)}, "moved"))
`

const refused = ["EROFS", "EBUSY", "EACCES", "ENOTDIR", "EEXIST", "EISDIR", "EXDEV"]

const assertRefused = (results: Record<string, string>, count: number): void => {
  assert.lengthOf(Object.keys(results), count)
  for (const [label, outcome] of Object.entries(results)) assert.include(refused, outcome, label)
}

layer(Platform.layer, slow)("git in a sandbox", (it) => {
  it.effect("the repository of the workspace, nested ones, worktrees, submodules and bare ones: read-only", () =>
    Effect.gen(function* () {
      const folder = yield* workspace({ "a/file": "", "plain.txt": "" })
      git(folder, "init", "-q")
      git(folder, "add", ".")
      git(folder, "commit", "-q", "-m", "one")
      git(folder, "init", "-q", "deep/er/nested/far/away/repository")
      git(folder, "init", "-q", "--bare", "some/bare")
      git(folder, "worktree", "add", "-q", "tree")
      yield* giveAll(folder)
      const before = git(folder, "status", "--short")
      const places = [".git", "deep/er/nested/far/away/repository/.git", "some/bare", ".git/worktrees/tree"]
      const results = yield* attackIn(
        folder,
        `${places.map(plantIn).join("")}
attempt("the file of a worktree", lambda: write("tree/.git"))
attempt("which is removed", lambda: os.unlink("tree/.git"))
attempt("git", lambda: subprocess.run(["git", "init"], capture_output=True).returncode != 0 and "EROFS")
`,
      )
      // One of them twice.
      assertRefused(results, 4 * 13 + 3 - 1)
      assert.strictEqual(git(folder, "status", "--short"), before)
    }))

  it.effect("a submodule that is not checked out gets no repository, nor one below the top", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const names = ["sub", "work/libs/sub", "work/libs/two"]
      const superproject = Effect.fnUntraced(function* (indexVersion: string) {
        const folder = yield* workspace({ "work/file": "" })
        git(folder, "init", "-q")
        git(folder, "config", "index.version", indexVersion)
        for (const name of names) {
          git(folder, "update-index", "--add", "--cacheinfo", `160000,${"1".repeat(40)},${name}`)
          yield* fs.makeDirectory(`${folder}/${name}`, { recursive: true })
        }
        git(folder, "add", "work/file")
        git(folder, "commit", "-q", "-m", "one")
        yield* giveAll(folder)
        return folder
      })
      const plant = (sub: string) => `
attempt("init ${sub}", lambda: subprocess.run(["git", "init", ${
        py(sub)
      }], capture_output=True).returncode != 0 and "EROFS")
attempt("mkdir ${sub}", lambda: os.mkdir(${py(sub)} + "/.git"))
attempt("rename ${sub}", lambda: os.rename(${py(sub)}, "moved"))
`
      const folder = yield* superproject("2")
      const rename = `attempt("rename", lambda: os.rename("work/libs", "moved"))`
      assertRefused(yield* attackIn(folder, `${names.map(plant).join("")}${rename}`), 10)
      assert.strictEqual(git(folder, "status", "--short"), "")

      // The repository is above of what the kernel may write; names in its index are shortened.
      const above = yield* superproject("4")
      assertRefused(yield* attackIn(`${above}/work`, plant("libs/two")), 3)
      assert.strictEqual(git(above, "status", "--short"), "")
    }))

  it.effect("allowGit gives it back, but not hooks and settings", () =>
    Effect.gen(function* () {
      const folder = yield* workspace({ "plain.txt": "" })
      git(folder, "init", "-q")
      yield* giveAll(folder)
      const results = yield* attackIn(
        folder,
        `
attempt("commit", lambda: subprocess.run(
    "git add plain.txt && git -c user.name=a -c user.email=a@b commit -q -m one", shell=True, capture_output=True, text=True).stderr)
attempt("hooks", lambda: write(".git/hooks/post-checkout"))
attempt("config", lambda: write(".git/config"))
`,
        { allowGit: true },
      )
      assert.deepStrictEqual(results, { commit: "", hooks: "EROFS", config: "EROFS" })
      assert.include(git(folder, "log", "--format=%s"), "one")
    }))

  it.effect("a workspace without a repository does not become one, nor a bare one, and is clean afterwards", () =>
    Effect.gen(function* () {
      const folder = yield* workspace({ "inside/plain.txt": "" })
      const ran = `${folder}/ran`
      const become = `
def bare():
    for name in ("objects", "refs"):
        os.makedirs(name, exist_ok=True)
    with open("HEAD", "w") as file:
        file.write("ref: refs/heads/main")
    with open("config", "w") as file:
        file.write("[core]\\nrepositoryformatversion = 0\\nbare = false\\nworktree = .\\nfsmonitor = touch ${ran}")
    return "written"
attempt("mkdir", lambda: os.mkdir(".git"))
attempt("file", lambda: write(".git"))
attempt("init", lambda: subprocess.run(["git", "init"], capture_output=True).returncode != 0 and "EEXIST")
attempt("link", lambda: os.symlink("inside", ".git"))
attempt("remove", lambda: os.rmdir(".git") if os.path.isdir(".git") else os.unlink(".git"))
attempt("rename", lambda: os.rename("inside", ".git"))
attempt("bare", bare)
`
      // The command runs outside of the sandbox.
      const status = (place: string) => {
        try {
          return git(place, "status", "--short")
        } catch (error) {
          return String(error)
        }
      }
      assertRefused(yield* attackIn(folder, become), 7)
      assert.notInclude(readdirSync(folder), ".git")
      assert.include(status(folder), "not a git repository")
      assert.isFalse(existsSync(ran))

      // In a repository whose top the kernel may not write: git goes on to find that one.
      const outer = yield* workspace({ "work/inside/plain.txt": "" })
      git(outer, "init", "-q")
      yield* giveAll(outer)
      const inner = `${outer}/work`
      const results = yield* attackIn(
        inner,
        `${become}
attempt("above", lambda: subprocess.run(["git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel"], capture_output=True, text=True).stdout.strip())
`,
      )
      assert.strictEqual(results["above"], outer)
      assertRefused(Object.fromEntries(Object.entries(results).filter(([label]) => label !== "above")), 7)
      assert.include(status(inner), "?? ")
      assert.isFalse(existsSync(ran))
      assert.notIncludeMembers(readdirSync(inner), [".git"])
    }))

  it.effect("hundreds of repositories and secrets, more than a command line can have: protected all the same", () =>
    Effect.gen(function* () {
      const numbers = Array.from({ length: 400 }, (_, number) => `${"long-name-".repeat(12)}${number}`)
      const folder = yield* workspace(
        Object.fromEntries(
          numbers.flatMap((name) => [[`${name}/.env`, "SECRET"], [`${name}/.git/HEAD`, "ref:"]]),
        ),
      )
      const results = yield* attackIn(
        folder,
        `
for name in ${py(numbers)}:
    attempt(name, lambda: [outcome(lambda: read(f"{name}/.env")), outcome(lambda: write(f"{name}/.git/commondir"))])
`,
      )
      assert.lengthOf(Object.keys(results), numbers.length)
      assert.deepStrictEqual([...new Set(Object.values(results))], ['["EACCES", "EROFS"]'])
    }))

  it.effect("a repository that an earlier kernel hid is protected, and one whose .git is a link", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* workspace({ "linked/plain.txt": "", "zz/work/plain.txt": "" })
      const names = ["zz/project", "zz/work/project", "store"]
      for (const name of names) git(folder, "init", "-q", name)
      yield* fs.symlink("../store/.git", `${folder}/linked/.git`)
      yield* giveAll(folder)
      yield* attackIn(
        folder,
        `
for number in range(10_001):
    os.mkdir(f"a{number}")
os.chmod("zz/work", 0)
`,
      )
      const results = yield* attackIn(
        folder,
        `
attempt("chmod", lambda: os.chmod("zz/work", 0o755))
for name in ${py(names)}:
    attempt(f"write {name}", lambda: write(f"{name}/.git/commondir"))
    attempt(f"rename {name}", lambda: os.rename(f"{name}/.git", "moved"))
attempt("write the link", lambda: write("linked/.git/commondir"))
attempt("replace the link", lambda: os.unlink("linked/.git"))
attempt("rename the folder of the link", lambda: os.rename("linked", "moved"))
`,
        // Otherwise folders that cannot be searched for secrets are hidden.
        { denyRead: [] },
      )
      yield* fs.chmod(`${folder}/zz/work`, 0o755)
      // Root searches the folder all the same, and protects the repository in it.
      const { chmod, ...others } = results
      if (!isRoot) assert.strictEqual(chmod, "EROFS")
      assertRefused(others, 2 * names.length + 3)
    }))

  it.effect("a link named .git and a file that refer to nothing get no repository, in a missing folder neither", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* workspace({
        "plain.txt": "",
        "link/file": "",
        "self/file": "",
        "under/file": "",
        "tree/.git": "gitdir: ../gone/repository",
      })
      git(folder, "init", "-q")
      const links = { link: "../store", self: ".git", under: "../plain.txt/store" }
      for (const [name, target] of Object.entries(links)) yield* fs.symlink(target, `${folder}/${name}/.git`)
      yield* giveAll(folder)
      const statuses = () =>
        Object.keys(links).map((name) => {
          try {
            return git(`${folder}/${name}`, "status", "--short")
          } catch (error) {
            return String(error)
          }
        })
      const before = statuses()
      const plant = (name: string) => `
attempt("mkdir " + ${py(name)}, lambda: os.makedirs(${py(name)} + "/hooks"))
attempt("init " + ${py(name)}, lambda: subprocess.run(["git", "init", "--bare", ${
        py(name)
      }], capture_output=True).returncode != 0 and "EROFS")
`
      const results = yield* attackIn(
        folder,
        `${["store", "gone/repository", "plain.txt/store"].map(plant).join("")}
attempt("remove the file", lambda: os.unlink("plain.txt"))
attempt("replace the link", lambda: os.unlink("link/.git"))
`,
      )
      assertRefused(results, 8)
      assert.deepStrictEqual(statuses(), before)
      assert.notInclude(readdirSync(folder), "store")
    }))

  it.effect("what cannot be protected is refused: a link named .git, a git directory", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* workspace({ "link/plain.txt": "", "elsewhere/plain.txt": "" })
      yield* fs.symlink(`${folder}/elsewhere`, `${folder}/link/.git`)
      git(folder, "init", "-q", "--bare", "bare")
      for (const [name, what] of [["link", "is a link"], ["bare", "is a git directory"]] as const) {
        const options = { workingDir: `${folder}/${name}`, sandbox: sandboxUser }
        const error = yield* Effect.flip(Effect.scoped(KernelGateway.make(options)))
        assert.include(error.message, what)
        assert.include(error.message, "allowGit")
      }
    }))

  it.effect("a repository whose name is not UTF-8 is told, and one with wildcards in its name is protected", () =>
    Effect.gen(function* () {
      const folder = yield* workspace()
      const names = ["a[b]", "a*", "q?", "{a,b}", "$HOME", "~x", "line\nfeed"]
      for (const name of names) git(folder, "init", "-q", name)
      yield* giveAll(folder)
      const code = names.map((name, index) => `
attempt("${index} write", lambda: write(${py(name)} + "/.git/commondir"))
attempt("${index} rename", lambda: os.rename(${py(name)}, "moved"))
`).join("")
      assertRefused(yield* attackIn(folder, code), 2 * names.length)
      execFileSync("bash", ["-c", "git init -q $'inside-\\xff'"], { cwd: folder })
      const error = yield* Effect.flip(attackIn(folder, ""))
      assert.include(error.message, "inside-\\xff")
      assert.include(error.message, "is not UTF-8; rename it")
    }))
})
