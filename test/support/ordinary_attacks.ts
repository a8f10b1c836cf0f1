/** Attacks on the machine of an ordinary user; see `ordinary_user.ts`. Prints their outcomes as JSON. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { existsSync, mkdirSync, readdirSync } from "node:fs"
import process from "node:process"
import * as SharedFolder from "../../src/gateway/shared_folder.ts"
import { KernelClient, KernelGateway } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"
import { supervisors } from "./processes.ts"
import { attacker, outcomes, py } from "./sandbox.ts"

const [, , python = "", folder = ""] = process.argv

Effect.gen(function* () {
  for (const name of ["workspace", "elsewhere"]) mkdirSync(`${folder}/${name}`)
  const options = { workingDir: `${folder}/workspace`, python: { python } }
  const gateway = yield* KernelGateway.make({ ...options, sandbox: true })
  const kernel = yield* attacker({ imagesDir: `${folder}/workspace/images` }).pipe(
    Effect.provideService(KernelGateway.KernelGateway, gateway),
  )
  // Started later than the kernel.
  const others = [
    yield* KernelGateway.make(options),
    yield* KernelGateway.make({ ...options, sandbox: true }),
  ]
  const shared = yield* Effect.provide(SharedFolder.find("attacked"), Platform.layer)
  yield* Effect.acquireRelease(
    KernelGateway.makeShared({ ...options, name: "attacked" }),
    () => Effect.ignore(KernelGateway.stopShared("attacked")),
  )
  yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, others[0] ?? gateway)
  const { images } = yield* kernel.execute(`
from IPython.display import display
os.symlink(${py(`${folder}/elsewhere`)}, "images")
display({"image/svg+xml": "<svg/>"}, raw=True)
`)
  const results = yield* outcomes(
    kernel,
    `
for directory in ${py(supervisors(process.pid).map(({ runtimeDir }) => runtimeDir))}:
    if directory != runtime:
        attempt(f"directory {directory}", lambda: os.listdir(directory))
attempt("gateways", lambda: os.listdir(os.path.dirname(runtime)) == [os.path.basename(runtime)])
attempt("shared gateway", lambda: open(${py(`${shared}/gateway.json`)}).read())
attempt("pipe", lambda: os.open("/tmp/pipe", os.O_WRONLY | os.O_NONBLOCK))
attempt("pipe both ways", lambda: os.open("/tmp/pipe", os.O_RDWR))
attempt("/tmp", lambda: write("/tmp/planted"))
attempt("workspace", lambda: write("planted"))
`,
  )
  const written = [images.length, readdirSync(`${folder}/elsewhere`).length]
  const isThere = existsSync(`${shared}/gateway.json`)
  process.stdout.write(`\n${JSON.stringify({ results, written, isThere })}\n`)
}).pipe(Effect.scoped, NodeRuntime.runMain)
