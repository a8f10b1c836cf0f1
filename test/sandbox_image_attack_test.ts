/** Images of sandboxed kernels: the program writes them where kernels can write too. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, FileSystem, Stream } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { KernelClient, type KernelGateway } from "../src/mod.ts"
import * as Guarded from "../src/output/guarded_directory.ts"
import { slow } from "./support/kernel.ts"
import { py, sandboxLayer, Workspace, workspace } from "./support/sandbox.ts"

const svg = "<svg>planted</svg>"

/** Shows an image after some code has run. */
const show = (code: string) => `
import os, shutil
from IPython.display import SVG, display
${code}
display({"image/svg+xml": ${py(svg)}}, raw=True)
`

const withKernel = <A, E, R>(
  imagesDir: string,
  use: (kernel: KernelClient.Kernel) => Effect.Effect<A, E, R>,
): Effect.Effect<
  A,
  E | Effect.Error<ReturnType<typeof KernelClient.make>>,
  R | KernelGateway.KernelGateway
> => Effect.scoped(Effect.flatMap(KernelClient.make({ imagesDir }), use))

layer(sandboxLayer(), slow)("images of sandboxed kernels", (it) => {
  it.effect("images are written below the workspace, in directories that are made", () =>
    Effect.gen(function* () {
      const folder = yield* Workspace
      const { images } = yield* withKernel(`${folder}/some/images`, (kernel) => kernel.execute(show("")))
      assert.lengthOf(images, 1)
      assert.strictEqual(readFileSync(images[0]?.path ?? "", "utf8"), svg)
    }))

  it.effect("an image is not written through a link, of whatever kind and wherever on the way", () =>
    Effect.gen(function* () {
      const folder = yield* Workspace
      const elsewhere = yield* workspace()
      const attempts = [
        ["images", `os.symlink(${py(elsewhere)}, "images")`],
        ["images", `os.symlink("../" + os.path.basename(${py(elsewhere)}), "images")`],
        ["images", `os.symlink("/proc/self/cwd", "images")`],
        ["deep/er/images", `os.mkdir("deep"); os.symlink(${py(elsewhere)}, "deep/er")`],
        ["images", `os.symlink("images", "images")`],
        ["images", `os.mkfifo("images")`],
        ["images", `open("images", "w").close()`],
      ] as const
      for (const [dir, code] of attempts) {
        const { images, text } = yield* withKernel(
          `${folder}/${dir}`,
          (kernel) => kernel.execute(show(code), { timeout: "20 seconds" }),
        )
        assert.deepStrictEqual(images, [], code)
        assert.match(text ?? "", /could not be saved: ".*" is a link or a file, not a directory/, code)
        yield* withKernel(folder, (kernel) =>
          kernel.execute(
            `import os, shutil\nfor name in ("images", "deep"): shutil.rmtree(name) if os.path.isdir(name) and not os.path.islink(name) else os.path.lexists(name) and os.unlink(name)`,
          ))
      }
      assert.deepStrictEqual(readdirSync(elsewhere), [])
    }))

  it.effect("an image that is shown after its execution is not written through a link either", () =>
    Effect.gen(function* () {
      const folder = yield* Workspace
      const elsewhere = yield* workspace()
      const outputs = yield* withKernel(`${folder}/late`, (kernel) =>
        Effect.gen(function* () {
          const reading = yield* kernel.output.pipe(
            Stream.take(2),
            Stream.runCollect,
            Effect.forkScoped({ startImmediately: true }),
          )
          const late = `os.symlink(${py(elsewhere)}, "late")\nimport threading\n` +
            `threading.Timer(0.1, display, [{"image/svg+xml": ${py(svg)}}], {"raw": True}).start()`
          yield* kernel.execute(`import os\nfrom IPython.display import display\n${late}`)
          return yield* Fiber.join(reading)
        }))
      const [shown, told] = outputs.map(({ chunk }) => chunk)
      assert.isTrue(shown?._tag === "DisplayChunk" && shown.image === undefined)
      assert.match(told?._tag === "TextChunk" ? told.text : "", /could not be saved/)
      assert.deepStrictEqual(readdirSync(elsewhere), [])
    }))

  it.effect("a directory that is replaced by a link while images are shown leads none of them elsewhere", () =>
    Effect.gen(function* () {
      const folder = yield* Workspace
      const elsewhere = yield* workspace()
      yield* withKernel(`${folder}/racing`, (kernel) =>
        kernel.execute(
          `
import os, threading
from IPython.display import display
os.makedirs("racing", exist_ok=True)
os.symlink(${py(elsewhere)}, "link")
done = threading.Event()
def swap():
    while not done.is_set():
        os.rename("racing", "aside"); os.rename("link", "racing")
        os.rename("racing", "link"); os.rename("aside", "racing")
thread = threading.Thread(target=swap)
thread.start()
for _ in range(300):
    display({"image/svg+xml": ${py(svg)}}, raw=True)
done.set()
thread.join()
`,
          { timeout: "1 minute" },
        ))
      assert.deepStrictEqual(readdirSync(elsewhere), [])
    }))

  it.effect("locate follows links that are the user's, and none of untrusted code", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const [own, untrusted] = [yield* workspace(), yield* workspace()]
      yield* fs.symlink(untrusted, `${own}/link`)
      yield* fs.symlink(`${untrusted}/sub/../images`, `${own}/odd`)
      assert.deepStrictEqual(yield* Guarded.locate(`${own}/link/images`, [untrusted]), {
        folder: untrusted,
        names: ["images"],
      })
      assert.isUndefined(yield* Guarded.locate(`${own}/images`, [untrusted]))
      assert.include((yield* Effect.flip(Guarded.locate(`${own}/odd`, [untrusted]))).message, "leads out of")
    }))
})
