/** A JupyterHub with its proxy: from PyPI and npm, in the user's cache, with servers that are local processes. */
import { Effect, FileSystem, Path, Schedule } from "effect"
import { ChildProcess } from "effect/process"
import process from "node:process"
import * as Cache from "../../src/gateway/cache.ts"
import { temporary } from "./kernel.ts"
import * as ToolEnvironment from "./tool_environment.ts"
import { tied } from "./tied.ts"

/** The token of a service that may do everything which the tests need. */
const adminToken = "admin-of-the-tests"

/** Installs the proxy and returns its program; `undefined` if it cannot be installed. */
const provisionProxy = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = path.join(yield* Cache.folder, "test-http-proxy-5.3.0")
  const program = path.join(
    folder,
    "node_modules",
    "configurable-http-proxy",
    "bin",
    "configurable-http-proxy",
  )
  if (!(yield* fs.exists(program))) {
    yield* fs.makeDirectory(path.dirname(folder), { recursive: true })
    // Renamed when it is complete; another process may do the same.
    const building = yield* fs.makeTempDirectoryScoped({
      directory: path.dirname(folder),
      prefix: "test-http-proxy-",
    })
    const npm = yield* ChildProcess.make(
      "npm",
      ["install", "--no-audit", "--no-fund", "--prefix", building, "configurable-http-proxy@5.3.0"],
      { extendEnv: true, cwd: building, stdout: "ignore", stderr: "ignore" },
    )
    const code = yield* npm.exitCode
    if (code !== 0) return undefined
    yield* Effect.ignore(fs.rename(building, folder))
  }
  return (yield* fs.exists(program)) ? program : undefined
}).pipe(Effect.scoped, Effect.timeout("2 minutes"), Effect.orElseSucceed(() => undefined))

/** Installs what a hub needs; `undefined` if that cannot be installed. */
export const provision = Effect.gen(function* () {
  const python = yield* ToolEnvironment.provision("test-jupyterhub", [
    "jupyterhub==6.1.1",
    "jupyter_server",
    "ipykernel",
  ])
  const proxy = yield* provisionProxy
  return python === undefined || proxy === undefined ? undefined : { python, proxy }
})

/** A user whose name has characters that addresses, shells and HTML escape. */
export const oddUser = "zoë o'hara+1@x.org"

/** Starts a hub with the users "ada", "eve" and {@link oddUser}, below the path "/base"; it ends with the scope. */
export const serve = Effect.fnUntraced(function* (
  { proxy, python }: { readonly python: string; readonly proxy: string },
  port: number,
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* temporary
  const config = {
    JupyterHub: {
      bind_url: `http://127.0.0.1:${port}/base/`,
      hub_bind_url: `http://127.0.0.1:${port + 1}`,
      spawner_class: "simple",
      authenticator_class: "dummy",
      allow_named_servers: true,
      db_url: `sqlite:///${folder}/hub.sqlite`,
      cookie_secret_file: `${folder}/secret`,
      pid_file: `${folder}/hub.pid`,
      services: [{ name: "tests", api_token: adminToken }],
      load_roles: [{
        name: "tests",
        scopes: ["admin:users", "tokens", "servers", "admin:servers", "access:servers"],
        services: ["tests"],
      }],
      log_level: "WARN",
    },
    ConfigurableHTTPProxy: {
      command: [process.execPath, proxy],
      api_url: `http://127.0.0.1:${port + 2}`,
      pid_file: `${folder}/proxy.pid`,
    },
    Authenticator: { allowed_users: ["ada", "eve", oddUser] },
    Spawner: {
      cmd: [python, "-m", "jupyterhub.singleuser"],
      args: ["--allow-root"],
      notebook_dir: folder,
      // The variable SPAWN_OPTION of a server is an option of its start.
      pre_spawn_hook: "hook",
    },
    SimpleLocalProcessSpawner: { home_dir_template: `${folder}/{username}` },
  }
  const lines = Object.entries(config).flatMap(([section, settings]) =>
    Object.entries(settings).map(([name, value]) =>
      name === "pre_spawn_hook"
        ? `c.Spawner.pre_spawn_hook = hook`
        : `c.${section}.${name} = ${toPython(value)}`
    )
  )
  const file = path.join(folder, "config.py")
  yield* fs.writeFileString(
    file,
    [
      "import asyncio",
      "async def hook(spawner):",
      "    option = spawner.user_options.get('option', 'none')",
      "    if option == 'impossible':",
      "        raise RuntimeError('There is no such option')",
      "    if option == 'slow':",
      "        await asyncio.sleep(2)",
      "    spawner.environment['SPAWN_OPTION'] = option",
      ...lines,
      "",
    ].join("\n"),
  )
  yield* tied(python, ["-m", "jupyterhub", "-f", file], {
    cwd: folder,
    extendEnv: true,
    stdout: "ignore",
    stderr: process.env.EFFECT_JUPYTER_TEST_HUB_LOG === undefined ? "ignore" : "inherit",
    forceKillAfter: "5 seconds",
  })
  const url = `http://127.0.0.1:${port}/base`
  /** Sends a request to the hub, and returns the status and the JSON of the answer. */
  const api = (method: string, path: string, body?: unknown) =>
    Effect.tryPromise(async () => {
      const response = await fetch(`${url}/hub/api/${path}`, {
        method,
        headers: { authorization: `token ${adminToken}` },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      const text = await response.text()
      return { status: response.status, json: text.startsWith("{") ? JSON.parse(text) : undefined }
    })
  yield* api("GET", "users").pipe(
    Effect.filterOrFail(({ status }) => status === 200),
    Effect.retry(Schedule.spaced("200 millis").pipe(Schedule.upTo({ duration: "60 seconds" }))),
  )
  /** Makes a token of a user, who may use their own servers. */
  const tokenOf = (user: string) =>
    Effect.map(
      api("POST", `users/${encodeURIComponent(user)}/tokens`, { note: "of the tests" }),
      ({ json }): string => String(json.token),
    )
  /** Deletes the tokens that were made by {@link tokenOf}. */
  const revoke = Effect.fnUntraced(function* (user: string) {
    const { json } = yield* api("GET", `users/${user}/tokens`)
    for (const { id, note } of json.api_tokens) {
      if (note === "of the tests") yield* api("DELETE", `users/${user}/tokens/${id}`)
    }
  })
  /** The names of the servers of a user that run. */
  const running = (user: string) =>
    Effect.map(
      api("GET", `users/${encodeURIComponent(user)}`),
      ({ json }) => Object.keys(json.servers ?? {}).toSorted(),
    )
  return { url, api, tokenOf, revoke, running }
})

/** Returns a value as an expression of Python. */
function toPython(value: unknown): string {
  if (value === true) return "True"
  if (value === false) return "False"
  if (Array.isArray(value)) return `[${value.map(toPython).join(", ")}]`
  if (typeof value === "object" && value !== null) {
    return `{${
      Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${toPython(item)}`).join(", ")
    }}`
  }
  return JSON.stringify(value)
}
