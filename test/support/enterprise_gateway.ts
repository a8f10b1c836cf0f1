/** A Python with Enterprise Gateway, which needs older packages than anything else here and so has its own. */
import { Effect, Path, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"
import * as Cache from "../../src/gateway/cache.ts"
import type * as Platform from "../../src/platform.ts"

const requirements = ["jupyter_enterprise_gateway==3.3.0", "ipykernel>=6,<6.20"]
const script = fileURLToPath(new URL("../../src/python/effect_jupyter/gateway/provision.py", import.meta.url))

/** The interpreter, in the user's cache; `undefined` where it cannot be installed, as on Pythons after 3.11. */
export const provision: Effect.Effect<
  string | undefined,
  never,
  Platform.Platform
> = Effect.gen(function* () {
  const path = yield* Path.Path
  const directory = path.join(yield* Cache.folder, "test-enterprise-gateway")
  const handle = yield* ChildProcess.make("python3", [script, directory, ...requirements], {
    extendEnv: true,
    stderr: "ignore",
  })
  const python = yield* Stream.mkString(Stream.decodeText(handle.stdout))
  return (yield* handle.exitCode) === 0 ? python.trim() : undefined
}).pipe(Effect.scoped, Effect.timeout("4 minutes"), Effect.orElseSucceed(() => undefined))
