/** A defect of a callback ends what waits for it by a typed error that names it, and is logged with its cause. */
import { assert, layer } from "@effect/vitest"
import { Cause, Effect, Logger, Redacted } from "effect"
import * as Channel from "../src/jupyter/channel.ts"
import { KernelClient, KernelGateway } from "../src/mod.ts"
import { kernelLayer, overServer, slow } from "./support/kernel.ts"

/** Runs an effect and gives the causes that it logs at level Error, too. */
const logged = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  const causes: Array<string> = []
  const logger = Logger.make(({ cause, logLevel }) => {
    if (logLevel === "Error") causes.push(Cause.pretty(cause))
  })
  return Effect.map(Effect.provide(effect, Logger.layer([logger])), (value) => ({ causes, value }))
}

const open = (id: string, onMessage: () => void) =>
  Effect.gen(function* () {
    const { token, url } = yield* KernelGateway.KernelGateway
    const channel = yield* Channel.make({
      url,
      headers: { authorization: `token ${token === undefined ? "" : Redacted.value(token)}` },
      kernelId: id,
      session: "defect",
      pingInterval: "10 seconds",
      onUnclaimed: onMessage,
      onMalformed: () => {},
    })
    return yield* Effect.flip(channel.lost)
  }).pipe(Effect.scoped)

layer(kernelLayer(), slow)("a defect", (it) => {
  it.effect("of a listener ends the channel by an error that names it", () =>
    Effect.gen(function* () {
      const gateway = overServer(yield* KernelGateway.KernelGateway)
      const kernel = yield* Effect.provideService(KernelClient.make(), KernelGateway.KernelGateway, gateway)
      const asking = Effect.delay(kernel.execute("1"), "100 millis")
      const { causes, value } = yield* logged(
        Effect.raceFirst(
          open(kernel.id, () => {
            throw new Error("a listener died")
          }),
          Effect.andThen(asking, Effect.never),
        ),
      )
      assert.include(value.detail, "a listener died")
      assert.lengthOf(causes, 1)
      assert.include(causes[0], "a listener died")
      assert.strictEqual((yield* kernel.execute("6 * 7")).text, "42", "other channels go on")
    }))

  it.effect("of onInput and of images costs no more than before, and is logged", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.KernelClient
      const { causes, value } = yield* logged(Effect.flip(kernel.execute("input('?')", {
        onInput: () => {
          throw new Error("no answer")
        },
      })))
      assert.strictEqual(value._tag === "KernelError" && value.reason._tag, "InputRequested")
      assert.include(causes.join("\n"), "no answer")
      const shown = yield* logged(kernel.execute(
        "from IPython.display import Image\nImage(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(16), format='png')",
        { images: () => Effect.die(new Error("no sink")) },
      ))
      assert.deepStrictEqual(shown.value.images, [])
      assert.include(shown.causes.join("\n"), "no sink")
    }))
})
