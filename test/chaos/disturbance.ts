/** Disturbances of an operation from outside: links are cut, processes are stopped or killed. */
import { Effect } from "effect"
import { performance } from "node:perf_hooks"
import type { Cut } from "../support/tcp_proxy.ts"
import type { Dice } from "./dice.ts"
import type { Mode } from "./kind.ts"
import { type Part, pidOf, signal, type World } from "./world.ts"

/** A disturbance and its time. */
export type Disturbance =
  & { readonly afterMs: number }
  & (
    | { readonly _tag: "Cut"; readonly how: Cut; readonly times: number }
    | { readonly _tag: "FreezeLink" }
    | { readonly _tag: "Refuse"; readonly forMs: number }
    | { readonly _tag: "Stop"; readonly forMs: number }
    | { readonly _tag: "StopPart"; readonly part: Part; readonly forMs: number }
    | { readonly _tag: "Kill" }
  )

const drawMs = (dice: Dice): number => dice.pick([0, 2, 10, 30, 100, 300])

/** Draws a disturbance for an operation; most have none. */
export function draw(dice: Dice, mode: Mode): Disturbance | undefined {
  const chance = dice.next()
  const afterMs = drawMs(dice)
  if (mode === "proxy") {
    if (chance < 0.2) {
      const how = dice.pick<Cut>(["reset", "end", 1000, 1001, 1009, 1011])
      return { _tag: "Cut", how, times: dice.pick([1, 1, 2, 4]), afterMs }
    }
    if (chance < 0.23) return { _tag: "FreezeLink", afterMs }
    if (chance < 0.26) return { _tag: "Refuse", forMs: dice.int(50, 2000), afterMs }
  }
  if (mode !== "proxy" && chance < 0.03) {
    const part = dice.pick<Part>(["gateway", "zygote", "supervisor"])
    return { _tag: "StopPart", part, forMs: dice.pick([50, 300, 1500]), afterMs }
  }
  if (mode === "sandboxed") return undefined
  if (chance > 0.97) return { _tag: "Kill", afterMs }
  if (chance > 0.92) return { _tag: "Stop", forMs: dice.pick([50, 300, 1500]), afterMs }
  return undefined
}

/** The failures of an operation that it allows. */
export function tolerated(disturbance: Disturbance | undefined): ReadonlySet<string> {
  switch (disturbance?._tag) {
    case "Cut":
    case "FreezeLink":
    case "Refuse":
      return new Set(["ConnectionLost"])
    case "Kill":
      return new Set(["KernelDied"])
    case "Stop":
    case "StopPart":
    case undefined:
      return new Set()
  }
}

/** Does it, and says what the kernel is afterwards. */
export const disturb = Effect.fnUntraced(function* (world: World, disturbance: Disturbance) {
  const { model, proxy } = world
  const pid = world.pid()
  yield* Effect.sleep(disturbance.afterMs)
  switch (disturbance._tag) {
    case "Cut":
      for (let time = 0; time < disturbance.times; time++) {
        proxy?.cut(disturbance.how)
        yield* Effect.sleep(disturbance.afterMs)
      }
      return
    case "FreezeLink":
      return proxy?.freeze()
    case "Refuse":
      proxy?.refuse()
      proxy?.cut("reset")
      yield* Effect.sleep(disturbance.forMs)
      return proxy?.heal()
    case "Stop": {
      const goesOn = world.stops.begin(performance.now())
      yield* signal(pid, "SIGSTOP")
      yield* Effect.sleep(disturbance.forMs)
      yield* signal(pid, "SIGCONT")
      return goesOn(performance.now())
    }
    case "StopPart": {
      const part = pidOf(disturbance.part)
      yield* signal(part, "SIGSTOP")
      yield* Effect.sleep(disturbance.forMs)
      return yield* signal(part, "SIGCONT")
    }
    case "Kill":
      yield* signal(pid, "SIGKILL")
      model.life = "dead"
      return
  }
})

/** The usability of the kernel after it: the next execution may find that the link is cut. */
export function afterwards({ model }: World, disturbance: Disturbance | undefined): void {
  if (disturbance?._tag === "Kill") model.life = "dead"
  else if (tolerated(disturbance).has("ConnectionLost") && model.life === "alive") model.life = "unsure"
}
