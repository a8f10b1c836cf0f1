/** Python environments of tools that tests need besides the packages of kernels. */
import { Effect, Path, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"
import * as Cache from "../../src/gateway/cache.ts"

const script = fileURLToPath(
  new URL("../../src/python/effect_jupyter/gateway/provision.py", import.meta.url),
)

/** Returns the interpreter of an environment in the user's cache; `undefined` if it cannot be installed. */
export const provision = Effect.fnUntraced(
  function* (name: string, requirements: ReadonlyArray<string>) {
    const path = yield* Path.Path
    const directory = path.join(yield* Cache.folder, name)
    const handle = yield* ChildProcess.make("python3", [script, directory, ...requirements], {
      extendEnv: true,
      stderr: "ignore",
    })
    const python = yield* Stream.mkString(Stream.decodeText(handle.stdout))
    return (yield* handle.exitCode) === 0 ? python.trim() : undefined
  },
  Effect.scoped,
  Effect.timeout("4 minutes"),
  Effect.orElseSucceed(() => undefined),
)
