/** The patches of Jupyter: they apply only to parts of the expected form, and everything works without them. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, FileSystem, Redacted, Schedule, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"
import { KernelClient, KernelGateway, PythonEnvironment } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { overServer, temporary, text } from "./support/kernel.ts"

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** An interpreter whose Jupyter looks different to the gateway and to plain kernels, and where it writes its log. */
const otherJupyter = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const { python } = yield* PythonEnvironment.make()
  const folder = yield* temporary
  yield* fs.copyFile(file("support/other_jupyter.py"), `${folder}/sitecustomize.py`)
  const script = `#!/bin/sh\nexport PYTHONPATH=${folder}\nexec ${python} "$@" 2>>${folder}/log\n`
  yield* fs.writeFileString(`${folder}/python`, script)
  yield* fs.chmod(`${folder}/python`, 0o755)
  return { python: `${folder}/python`, log: fs.readFileString(`${folder}/log`) }
})

/** Waits until the gateway says so about a kernel with a connected client. */
const whenItIs = (gateway: KernelGateway.KernelGateway["Service"], id: string, state: string) =>
  Effect.promise(async () => {
    const token = gateway.token === undefined ? "" : Redacted.value(gateway.token)
    const headers = { authorization: `token ${token}` }
    const response = await fetch(`${gateway.url}/api/kernels/${id}`, { headers })
    const model: { readonly execution_state: string; readonly connections: number } = await response.json()
    return model
  }).pipe(
    Effect.repeat({
      until: (model) => model.execution_state === state && model.connections === 1,
      schedule: Schedule.spaced("10 millis"),
    }),
    Effect.timeout("10 seconds"),
  )

/** The gateway tells others that a kernel is busy while it is. */
const seesWhatKernelsDo = Effect.fnUntraced(function* (
  gateway: KernelGateway.KernelGateway["Service"],
  kernel: KernelClient.Kernel,
) {
  yield* whenItIs(gateway, kernel.id, "idle")
  const sleeping = yield* Effect.forkChild(Effect.exit(kernel.execute("import time; time.sleep(60)")))
  yield* whenItIs(gateway, kernel.id, "busy")
  yield* Fiber.interrupt(sleeping)
  yield* whenItIs(gateway, kernel.id, "idle")
})

/** The names of the patches that a gateway left out. */
const leftOut = (log: string) => [...log.matchAll(/^Left out: (.+) \(/gm)].map(([, patch]) => patch).sort()

const all = [
  "an environment for each kernel",
  "connections that replace others at once",
  "detection of the end of kernels",
  "inputs that are asked for again",
  "large requests",
]

it.live(
  "each patch is tried out, and left out where a part that it needs is another",
  () =>
    Effect.gen(function* () {
      const { python } = yield* PythonEnvironment.make()
      const handle = yield* ChildProcess.make(python, [
        file("support/gateway_patches.py"),
        file("../src/python"),
      ], {
        stdin: "ignore",
        stderr: "inherit",
      })
      const output = yield* handle.stdout.pipe(Stream.decodeText(), Stream.mkString)
      assert.deepStrictEqual(output.trimEnd().split("\n").map((line) => JSON.parse(line)), [
        "patches_are_left_out_where_they_do_not_fit",
        "all_or_nothing_is_put_in_its_place",
        "a_start_that_fails_is_reported_once",
        "kernels_are_left_as_they_are_where_they_do_not_fit",
        "cells_are_left_to_ipython_where_it_does_not_fit",
        "frames_are_those_of_jupyter",
        "messages_are_those_of_jupyter",
      ])
      assert.strictEqual(yield* handle.exitCode, 0)
    }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
  120_000,
)

it.live("the Jupyter that we install has all of them", () =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const { python } = yield* PythonEnvironment.make()
    const folder = yield* temporary
    yield* fs.writeFileString(`${folder}/python`, `#!/bin/sh\nexec ${python} "$@" 2>>${folder}/log\n`)
    yield* fs.chmod(`${folder}/python`, 0o755)
    const gateway = yield* KernelGateway.make({ python: { python: `${folder}/python` } })
    const kernel = yield* KernelClient.make().pipe(
      Effect.provideService(KernelGateway.KernelGateway, gateway),
    )
    assert.strictEqual(yield* text(kernel.execute("type(get_ipython().kernel).__name__")), "'PythonKernel'")
    assert.strictEqual(yield* text(kernel.execute("import sys; type(sys.stdout).__name__")), "'Stream'")
    const other = yield* KernelClient.make().pipe(
      Effect.provideService(KernelGateway.KernelGateway, overServer(gateway)),
    )
    yield* seesWhatKernelsDo(gateway, other)
    assert.deepStrictEqual(leftOut(yield* fs.readFileString(`${folder}/log`)), [])
  }).pipe(Effect.scoped, Effect.provide(Platform.layer)), 120_000)

it.live("without any of them kernels and connections still work", () =>
  Effect.gen(function* () {
    const other = yield* otherJupyter
    const gateway = yield* KernelGateway.make({ python: { python: other.python } })
    const kernel = yield* KernelClient.make().pipe(
      Effect.provideService(KernelGateway.KernelGateway, gateway),
    )
    assert.strictEqual(yield* text(kernel.execute("1 + 1")), "2")
    assert.strictEqual((yield* text(kernel.execute("print('x' * 20_000_000)")))?.length, 20_000_000)
    const lines = yield* text(kernel.execute("for i in range(2000): print(i, flush=True)"))
    assert.strictEqual(lines, Array.from({ length: 2000 }, (_, index) => index).join("\n"))
    const failure = yield* Effect.flip(kernel.execute("1 / 0"))
    assert.strictEqual(failure._tag, "ExecutionError")
    yield* seesWhatKernelsDo(gateway, kernel)
    assert.deepStrictEqual(leftOut(yield* other.log), all)
  }).pipe(Effect.scoped, Effect.provide(Platform.layer)), 120_000)

it.live(
  "a kernel of another ipykernel is reached over the gateway, and the log says so",
  () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const other = yield* otherJupyter
      const folder = (yield* fs.readFileString(other.python)).match(/PYTHONPATH=(.*)/)?.[1] ?? ""
      yield* fs.writeFileString(
        `${folder}/sitecustomize.py`,
        `import ipykernel.kernelbase
dispatch = ipykernel.kernelbase.Kernel.dispatch_shell
async def other(self, *args, **kwargs):
    await dispatch(self, *args, **kwargs)
ipykernel.kernelbase.Kernel.dispatch_shell = other`,
      )
      for (const fork of [true, false]) {
        const gateway = yield* KernelGateway.make({
          python: { python: other.python },
          env: { PYTHONPATH: folder },
          fork,
        })
        const kernel = yield* KernelClient.make().pipe(
          Effect.provideService(KernelGateway.KernelGateway, gateway),
        )
        assert.strictEqual(yield* text(kernel.execute("print('over the gateway')")), "over the gateway")
        yield* seesWhatKernelsDo(gateway, kernel)
      }
      const log = leftOut(yield* other.log)
      // The process that kernels are forked from reports it, too.
      assert.deepStrictEqual(log, Array.from({ length: 3 }, () => "the connection of the kernel"))
    }).pipe(Effect.scoped, Effect.provide(Platform.layer)),
  120_000,
)
