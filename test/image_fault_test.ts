/** Images that cannot be saved: the text of an execution is never lost by them, and a chunk says what happened. */
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Path } from "effect"
import * as Base64 from "effect/encoding/Base64"
import { Buffer } from "node:buffer"
import { spawnSync } from "node:child_process"
import process from "node:process"
import * as Images from "../src/output/images.ts"
import { Execution, KernelClient } from "../src/mod.ts"
import * as Platform from "../src/platform.ts"
import { collect, kernelLayer, slow, temporary, texts } from "./support/kernel.ts"

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

/** Prints, shows what the Python expression `data` stands for, and prints again. */
const showing = (data: string): string =>
  `import base64
from IPython.display import publish_display_data
print('before', flush=True)
publish_display_data({'image/png': ${data}, 'text/plain': 'shown'})
print('after', flush=True)`

/** Runs code of {@link showing} whose image cannot be saved; gives the chunk that says why. */
const complaintOf = Effect.fnUntraced(function* (imagesDir: string, data: string) {
  const kernel = yield* KernelClient.make({ imagesDir })
  const elements = yield* collect(kernel.stream(showing(data)))
  const result = elements.at(-1)
  assert.instanceOf(result, Execution.ExecutionResult)
  assert.lengthOf(result.images, 0)
  assert.lengthOf(result.displays, 1)
  assert.strictEqual(result.displays[0]?.text, "shown")
  const complaints = texts(elements).filter((text) => text.startsWith("[effect-jupyter]"))
  assert.lengthOf(complaints, 1)
  const [complaint = ""] = complaints
  assert.strictEqual(result.text, `before\nshown\n${complaint}after`)
  // The client is none the worse for it.
  assert.strictEqual((yield* kernel.execute("print('fine')")).text, "fine")
  return complaint
})

/** A file system of one megabyte in a folder of its own, or nothing where none may be mounted. */
const smallDisk = Effect.gen(function* () {
  const folder = yield* temporary
  const mounted = yield* Effect.acquireRelease(
    Effect.sync(() => spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).status === 0),
    (mounted) => Effect.sync(() => mounted ? void spawnSync("umount", ["-l", folder]) : undefined),
  )
  return mounted ? folder : undefined
})

layer(kernelLayer(), slow)("images", (it) => {
  for (
    const [what, data] of [
      ["no base64", "'!!!'"],
      ["cut short", `'${png.slice(0, -1)}'`],
      ["bent in the middle", `'${png.slice(0, 20)}é${png.slice(21)}'`],
      ["of another alphabet", "'_-_-'"],
      ["no text", "{'a': 1}"],
    ] as const
  ) {
    it.effect(`base64 that is ${what}`, () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const path = yield* Path.Path
        const imagesDir = path.join(yield* temporary, "images")
        const complaint = yield* complaintOf(imagesDir, data)
        assert.include(complaint, `The image of type "image/png" could not be saved`)
        assert.isFalse(yield* fs.exists(imagesDir))
      }))
  }

  it.effect("a directory that is a file", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const file = path.join(yield* temporary, "images")
      yield* fs.writeFileString(file, "mine")
      assert.include(yield* complaintOf(file, `'${png}'`), file)
      assert.strictEqual(yield* fs.readFileString(file), "mine")
    }))

  it.effect("a directory that is not writable", () =>
    Effect.gen(function* () {
      // Not even root makes files here.
      assert.include(yield* complaintOf("/proc/images", `'${png}'`), "/proc/images")
    }))

  it.effect("a full disk", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const disk = yield* smallDisk
      const data = "base64.b64encode(bytes(2_000_000)).decode()"
      // If nothing can be mounted, the device that is always full replaces it.
      if (disk === undefined) return yield* fullDevice
      const complaint = yield* complaintOf(disk, data)
      assert.match(complaint, /ENOSPC|no space left/i)
      assert.deepStrictEqual(yield* fs.readDirectory(disk), [], "No half of an image stays")
      // Room for a small one is left.
      const kernel = yield* KernelClient.make({ imagesDir: disk })
      assert.lengthOf((yield* kernel.execute(showing(`'${png}'`))).images, 1)
    }))

  // Most of the time, seven seconds on an idle machine, is the kernel's and the gateway's.
  it.effect("200 MB: all of it", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const size = 200_000_000
      const kernel = yield* KernelClient.make({ imagesDir: yield* temporary })
      const result = yield* kernel.execute(showing(`base64.b64encode(bytes(${size})).decode()`))
      assert.strictEqual(result.text, "before\nshown\nafter")
      const [image] = result.images
      assert.strictEqual(Number((yield* fs.stat(image?.path ?? "")).size), size)
      assert.strictEqual((yield* kernel.execute("print('fine')")).text, "fine")
    }), 180_000)
})

/** A full disk without a mount: the failure comes from the device `/dev/full`. */
const fullDevice = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const onFullDisk: FileSystem.FileSystem = {
    ...fs,
    writeFile: (_, bytes) => fs.writeFile("/dev/full", bytes),
  }
  const error = yield* Effect.flip(
    Effect.provideService(
      Images.keep({ "image/png": png }, { imagesDir: yield* temporary }),
      FileSystem.FileSystem,
      onFullDisk,
    ),
  )
  assert.match(error.message, /ENOSPC|no space left/i)
})

layer(Platform.layer, slow)("without a kernel", (it) => {
  it.effect("a full disk", () => fullDevice)

  it.effect("saving 200 MB takes this thread less time than Effect's decoder alone would", () =>
    Effect.gen(function* () {
      const data = Buffer.alloc(200_000_000, 1).toString("base64")
      // Processor time: other processes take turns with this one.
      const started = process.threadCpuUsage()
      yield* Images.keep({ "image/png": data }, { imagesDir: yield* temporary })
      const ours = process.threadCpuUsage(started)
      const decodes = process.threadCpuUsage()
      Base64.decode(data)
      const theirs = process.threadCpuUsage(decodes)
      assert.isBelow(ours.user + ours.system, theirs.user + theirs.system)
    }))
})
