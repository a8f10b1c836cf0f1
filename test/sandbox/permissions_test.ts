import {
  DANGEROUS_FILES,
  getDangerousDirectories,
} from "../../node_modules/@anthropic-ai/sandbox-runtime/dist/sandbox/sandbox-utils.js"
import { assert, describe, it } from "@effect/vitest"
import { SandboxRuntimeConfigSchema } from "@anthropic-ai/sandbox-runtime"
import { Effect, FileSystem, Layer, Logger, Path, Result } from "effect"
import { Sandbox } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"
import * as Permissions from "../../src/sandbox/permissions.ts"
import * as Protected from "../../src/sandbox/protected.ts"
import * as Rules from "../../src/sandbox/rules.ts"
import { temporary } from "../support/kernel.ts"

/** A workspace with the folders `data` and `data/in`, and a file to be settings. */
const folder = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const workspace = yield* temporary
  yield* Effect.orDie(fs.makeDirectory(path.join(workspace, "data", "in"), { recursive: true }))
  return {
    workspace,
    settings: (content: unknown) => {
      const file = path.join(workspace, "settings.json")
      const text = typeof content === "string" ? content : JSON.stringify(content)
      return Effect.as(Effect.orDie(fs.writeFileString(file, text)), { settings: file })
    },
  }
})

const rules = (input: unknown, workspace: string) =>
  Effect.flatMap(Permissions.read(input), (given) => Rules.resolve(given, workspace))

const narrowed = (wide: unknown, narrow: unknown, workspace: string) =>
  Effect.gen(function* () {
    return yield* Rules.narrow(yield* rules(wide, workspace), yield* Permissions.read(narrow), workspace)
  })

/** The reason of a refusal, which has to be the one of invalid settings. */
const refusal = <A, R>(effect: Effect.Effect<A, Sandbox.SandboxError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => {
    assert.instanceOf(reason, Sandbox.InvalidSettings)
    return reason
  })

it.layer(Layer.fresh(Platform.layer))("permissions", (it) => {
  describe("protected paths", () => {
    it("inWorkspace has the files that srt protects, and the settings of agents", () => {
      const names = [...DANGEROUS_FILES, ...getDangerousDirectories()].map((name) => name.split("/")[0])
      assert.deepStrictEqual([...Protected.inWorkspace].sort(), [...new Set(names)].sort())
    })

    it.effect("resolve refuses a home directory, or a parent of one, unless allowHome is set", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const home = yield* fs.realPath(Platform.variable("HOME") ?? "/root")
        for (const folder of ["/", "/home", home, "~", "/root"]) {
          const { detail, key } = yield* refusal(rules({ allowWrite: [folder] }, "/var/tmp"))
          assert.strictEqual(key, "allowWrite[0]")
          assert.include(detail, "home directory")
          assert.include(detail, 'choose another "workingDir"')
        }
        const { detail } = yield* refusal(rules({}, home))
        assert.include(detail, `"${home}" is a home directory`)
        assert.deepStrictEqual((yield* rules({ allowHome: true }, home)).allowWrite, [home])
        // Only what can be written counts.
        yield* rules({ allowWrite: [] }, home)
      }))

    it.effect("narrow allows git directories only if the kernel and its gateway have allowGit", () =>
      Effect.gen(function* () {
        const { workspace } = yield* folder
        assert.isFalse((yield* rules({}, workspace)).allowGit)
        assert.isFalse((yield* narrowed({ allowGit: true }, {}, workspace)).allowGit)
        assert.isTrue((yield* narrowed({ allowGit: true }, { allowGit: true }, workspace)).allowGit)
        assert.strictEqual((yield* refusal(narrowed({}, { allowGit: true }, workspace))).key, "allowGit")
      }))

    it.effect("resolve does not follow a link out of the workspace", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const [{ workspace }, elsewhere] = [yield* folder, yield* temporary]
        yield* fs.symlink(elsewhere, `${workspace}/out`)
        assert.include(
          (yield* refusal(rules({ allowWrite: ["out"] }, workspace))).detail,
          "leads out of the workspace",
        )
        assert.deepStrictEqual((yield* rules({ allowWrite: [elsewhere] }, workspace)).allowWrite, [elsewhere])
      }))
  })

  describe("resolved permissions", () => {
    it.effect("resolve without permissions allows no network, writes in the workspace, and no .env", () =>
      Effect.gen(function* () {
        const { workspace } = yield* folder
        const given = yield* rules({}, workspace)
        assert.deepStrictEqual(given.allowNet, [])
        assert.deepStrictEqual(given.allowWrite, [workspace])
        assert.deepStrictEqual(given.denyRead, [`${workspace}/.env`, `${workspace}/**/.env`])
        assert.isFalse(given.strict)
        // Except the file itself, which is never writable.
        const { denyWrite, ...preset } = yield* rules(true, workspace)
        const { denyWrite: _, ...same } = given
        assert.deepStrictEqual(preset, same)
        assert.isTrue(denyWrite.every((path) => path.endsWith("sandbox/default.json")))
      }))

    it.effect("read accepts the settings files of the package", () =>
      Effect.gen(function* () {
        const { workspace } = yield* folder
        assert.deepStrictEqual(
          (yield* rules({ settings: "sandbox/example_org.json" }, workspace)).allowNet,
          ["example.org"],
        )
        const strict = yield* rules({ settings: "sandbox/strict.json" }, workspace)
        assert.isTrue(strict.strict)
        const given = yield* rules({ strict: true }, workspace)
        assert.deepStrictEqual([...strict.denyRead].sort(), [...given.denyRead].sort())
        assert.deepStrictEqual(strict.allowRead, given.allowRead)
      }))

    it.effect("read handles each key of the sandbox runtime's settings", () =>
      Effect.gen(function* () {
        const { settings, workspace } = yield* folder
        const network = { allowedDomains: ["example.org"], deniedDomains: ["*:22"] }
        const filesystem = { denyRead: [], allowWrite: [{ path: "data", literal: true }], denyWrite: [] }
        const warnings: Array<unknown> = []
        const logger = Logger.make(({ message }) => void warnings.push(message))
        const treated = (content: unknown) =>
          Effect.gen(function* () {
            return yield* rules(yield* settings(content), workspace)
          }).pipe(Effect.provide(Logger.layer([logger])))

        // As ipybox has it.
        const weaker = yield* treated({ network, filesystem, enableWeakerNestedSandbox: true })
        assert.deepStrictEqual(weaker.allowWrite, [`${workspace}/data`])
        assert.deepStrictEqual(weaker.denyNet, ["*:22"])
        assert.include(String(warnings), `"enableWeakerNestedSandbox"`)
        assert.include(String(warnings), "has no effect")

        const { shape } = SandboxRuntimeConfigSchema._def.schema
        const paths = [
          ...Object.keys(shape).filter((key) => !["network", "filesystem"].includes(key)).map((key) => [key]),
          ...Object.keys(shape.network.shape).map((key) => ["network", key]),
          ...Object.keys(shape.filesystem.shape).map((key) => ["filesystem", key]),
        ]
        const honored = ["network.parentProxy", "filesystem.allowRead"]
        const all: { readonly [key: string]: unknown } = { network, filesystem }
        for (const path of paths) {
          const key = path.join(".")
          const [group = "", name = ""] = path
          const given = (value: unknown) =>
            path.length === 1
              ? { ...all, [group]: value }
              : { ...all, [group]: { ...(group === "network" ? network : filesystem), [name]: value } }
          if (honored.includes(key) || name in network || name in filesystem) continue
          warnings.length = 0
          const exit = yield* Effect.result(treated(given(true)))
          const said = Result.isFailure(exit) ? exit.failure.message : String(warnings)
          assert.include(said, `"${key}"`)
          assert.notInclude(said, "no such key")
          // Values that are equivalent to absence are accepted for each key, without a warning.
          warnings.length = 0
          yield* treated(given(false))
          assert.deepStrictEqual(warnings, [], key)
        }
        assert.isAbove(paths.length, 35)
      }))

    it.effect("resolve returns limits, a user and a proxy", () =>
      Effect.gen(function* () {
        const { settings, workspace } = yield* folder
        const user = { uid: 1000, gid: 1000 }
        const file = yield* settings({
          network: { allowedDomains: ["example.org"], deniedDomains: ["bad.example.org"] },
          filesystem: { denyRead: [], allowWrite: ["data"], denyWrite: ["data/in"] },
        })
        const given = yield* rules(
          { ...file, user, limits: { cpuTime: "90 seconds", memory: 10 } },
          workspace,
        )
        assert.deepStrictEqual(given.user, user)
        assert.deepStrictEqual(given.limits, { cpuTime: 90, memory: 10 })
        assert.deepStrictEqual(given.denyNet, ["bad.example.org"])
        assert.deepStrictEqual(given.denyWrite, [`${workspace}/data/in`, `${workspace}/settings.json`])
        const proxied = yield* rules({ upstreamProxy: "http://127.0.0.1:3128" }, workspace)
        assert.deepStrictEqual(proxied.parentProxy, {
          http: "http://127.0.0.1:3128",
          https: "http://127.0.0.1:3128",
          noProxy: "",
        })
      }))
  })

  describe("refused permissions, by key", () => {
    const cases: ReadonlyArray<readonly [input: unknown, key: string, says: string]> = [
      [{ allowNet: ["example.org"], allowRun: ["ls"] }, "allowRun", "no such key"],
      [{ limits: { memory: 1, memroy: 1 } }, "limits.memroy", "no such key"],
      [{ allowNet: ["example.org", "https://example.com"] }, "allowNet[1]", `"https://example.com" is a URL`],
      [{ allowNet: "example.org" }, "allowNet", "array"],
      [{ allowNet: ["*"] }, "allowNet[0]", `"*"`],
      [{ allowWrite: ["data/*.csv"] }, "allowWrite[0]", `"data/*.csv" has a wildcard`],
      [{ allowWrite: ["nowhere"] }, "allowWrite[0]", "does not exist"],
      [
        { allowWrite: ["data", "../elsewhere"] },
        "allowWrite[1]",
        `"../elsewhere" leads out of the workspace`,
      ],
      [{ denyRead: ["data/../../x"] }, "denyRead[0]", "leads out of the workspace"],
      [{ allowRead: [""] }, "allowRead[0]", "not a path"],
      [{ denyRead: ["a\0b"] }, "denyRead[0]", "not a path"],
      [{ user: { uid: 0, gid: 0 } }, "user.uid", "between 1 and"],
      // For the system it means: leave it as it is.
      [{ user: { uid: 4294967295, gid: 1 } }, "user.uid", "between 1 and"],
      [{ user: { uid: 1000 } }, "user.gid", "Missing"],
      [{ limits: { memory: -1 } }, "limits.memory", `greater than 0, not "-1"`],
      [{ limits: { processes: 1.5 } }, "limits.processes", "integer"],
      [{ limits: { cpuTime: "soon" } }, "limits.cpuTime", `a duration as in "30 seconds", not "soon"`],
      [{ limits: { cpuTime: 0 } }, "limits.cpuTime", "longer than nothing"],
      [{ upstreamProxy: "example.org:3128" }, "upstreamProxy", `"example.org:3128" is not an http`],
      [{ strict: "yes" }, "strict", "boolean"],
      ["default.json", "", "object"],
      [false, "", "object"],
      [null, "", "object"],
      [{ settings: "default.json", allowNet: [] }, "allowNet", "no such key"],
    ]
    for (const [input, key, says] of cases) {
      it.effect(`${JSON.stringify(input)}`, () =>
        Effect.gen(function* () {
          const { workspace } = yield* folder
          const reason = yield* refusal(rules(input, workspace))
          assert.strictEqual(reason.key, key)
          assert.include(reason.detail, says)
          if (key !== "") assert.include(reason.message, `"${key}"`)
        }))
    }

    const network = { allowedDomains: [] }
    const filesystem = { denyRead: [], allowWrite: [] }
    const files: ReadonlyArray<readonly [content: unknown, key: string, says: string]> = [
      ["{", "", "not valid JSON"],
      ["", "", "not valid JSON"],
      [{ network }, "filesystem", "Missing"],
      [
        { network: { ...network, allowAllUnixSockets: true }, filesystem },
        "network.allowAllUnixSockets",
        "sockets of the machine",
      ],
      [
        { network, filesystem, enableWeakerNestedSandboxes: true },
        "enableWeakerNestedSandboxes",
        "no such key",
      ],
      [
        { network: { ...network, allowEverything: true }, filesystem },
        "network.allowEverything",
        "no such key",
      ],
      [{ network, filesystem: { ...filesystem, disabled: true } }, "filesystem.disabled", "allowWrite"],
      [
        { network: { ...network, mitmProxy: { socketPath: "/x" } }, filesystem },
        "network.mitmProxy",
        "parentProxy",
      ],
      [
        { network, filesystem, credentials: { envVars: [{ name: "TOKEN", mode: "deny" }] } },
        "credentials",
        `the option "env"`,
      ],
      [{ network, filesystem, mandatoryDenySearchDepth: 9 }, "mandatoryDenySearchDepth", "denyWrite"],
      [{ network: { allowedDomains: ["com"] }, filesystem }, "network.allowedDomains[0]", `"com"`],
      [
        { network, filesystem: { ...filesystem, allowWrite: ["../x"] } },
        "filesystem.allowWrite[0]",
        "leads out of the workspace",
      ],
    ]
    for (const [content, key, says] of files) {
      it.effect(`a file with ${JSON.stringify(content)}`, () =>
        Effect.gen(function* () {
          const { settings, workspace } = yield* folder
          const input = yield* settings(content)
          const reason = yield* refusal(rules(input, workspace))
          assert.strictEqual(reason.key, key)
          assert.strictEqual(reason.file, input.settings)
          assert.include(reason.detail, says)
        }))
    }

    it.effect("a missing file", () =>
      Effect.gen(function* () {
        const { workspace } = yield* folder
        const reason = yield* refusal(rules({ settings: `${workspace}/none.json` }, workspace))
        assert.include(reason.message, `${workspace}/none.json`)
      }))
  })

  describe("permissions of a kernel", () => {
    it.effect("narrow restricts the rules of the gateway", () =>
      Effect.gen(function* () {
        const { workspace } = yield* folder
        const wide = { allowNet: ["*.example.org", "example.com"], limits: { memory: 1000 } }
        const narrow = {
          allowNet: ["www.example.org:443"],
          allowWrite: ["data"],
          denyRead: ["/etc"],
          limits: { memory: 100, processes: 20 },
        }
        const rules = yield* narrowed(wide, narrow, workspace)
        assert.deepStrictEqual(rules.allowNet, ["www.example.org:443"])
        assert.deepStrictEqual(rules.allowWrite, [`${workspace}/data`])
        assert.deepStrictEqual(rules.denyRead, [`${workspace}/.env`, `${workspace}/**/.env`, "/etc"])
        assert.deepStrictEqual(rules.limits, { memory: 100, processes: 20 })
      }))

    it.effect("narrow denies what is not given, except writing and limits of the gateway", () =>
      Effect.gen(function* () {
        const { workspace } = yield* folder
        const wide = {
          allowNet: ["example.org"],
          allowWrite: ["data"],
          limits: { memory: 1000 },
          strict: true,
        }
        const rules = yield* narrowed(wide, {}, workspace)
        assert.deepStrictEqual(rules.allowNet, [])
        assert.deepStrictEqual(rules.allowWrite, [`${workspace}/data`])
        assert.deepStrictEqual(rules.limits, { memory: 1000 })
        assert.isTrue(rules.strict)
        assert.include(rules.denyRead, "/")
      }))

    const wide = {
      allowNet: ["example.org:443"],
      allowWrite: ["data"],
      denyRead: ["secret", "**/.env"],
      allowRead: ["secret/open"],
      limits: { memory: 1000 },
      user: { uid: 1000, gid: 1000 },
      upstreamProxy: "http://127.0.0.1:1",
    }
    const cases: ReadonlyArray<readonly [input: unknown, key: string]> = [
      [{ allowNet: ["example.com"] }, "allowNet[0]"],
      [{ allowNet: ["example.org"] }, "allowNet[0]"],
      [{ allowWrite: ["."] }, "allowWrite[0]"],
      [{ allowWrite: ["data/in", "/etc"] }, "allowWrite[1]"],
      [{ allowRead: ["secret"] }, "allowRead[0]"],
      [{ allowRead: ["/"] }, "allowRead[0]"],
      [{ allowRead: ["data/.env"] }, "allowRead[0]"],
      [{ allowRead: ["s*"] }, "allowRead[0]"],
      [{ allowRead: ["**"] }, "allowRead[0]"],
      [{ allowRead: ["/**"] }, "allowRead[0]"],
      [{ limits: { memory: 1001 } }, "limits.memory"],
      [{ user: { uid: 1001, gid: 1000 } }, "user"],
      [{ upstreamProxy: "http://127.0.0.1:2" }, "upstreamProxy"],
    ]
    for (const [input, key] of cases) {
      it.effect(`never add: ${JSON.stringify(input)}`, () =>
        Effect.gen(function* () {
          const { workspace } = yield* folder
          const reason = yield* refusal(narrowed(wide, input, workspace))
          assert.strictEqual(reason.key, key)
          assert.include(reason.detail, "may not do more than its gateway allows")
        }))
    }

    it.effect("narrow keeps strict, and allows to read what the gateway allows", () =>
      Effect.gen(function* () {
        const { workspace } = yield* folder
        assert.strictEqual(
          (yield* refusal(narrowed({ strict: true }, { strict: false }, workspace))).key,
          "strict",
        )
        const rules = yield* narrowed(wide, { allowRead: ["secret/open/more", "/usr"] }, workspace)
        assert.include(rules.allowRead, `${workspace}/secret/open/more`)
      }))
  })
})
