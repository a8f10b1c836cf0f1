/** Random operations against a model, for a time or a number of them. */
import { Cause, Clock, Duration, Effect, Exit, Fiber, Logger, Option, Scope } from "effect"
import { performance } from "node:perf_hooks"
import process from "node:process"
import { crashes } from "../support/crashes.ts"
import { descendants, eventually, processes, survivors } from "../support/processes.ts"
import * as Dice from "./dice.ts"
import * as Disturbance from "./disturbance.ts"
import { endKinds, sleepFor, type WorldSubject } from "./end_kinds.ts"
import { interruptKinds } from "./interrupt_kinds.ts"
import type { Kind, Mode, Perform } from "./kind.ts"
import { type Violation, violation } from "./model.ts"
import { outputKinds } from "./output_kinds.ts"
import { cellOf, conduct, type Subject } from "./subject.ts"
import * as World from "./world.ts"

/** One run. */
export interface RunOptions {
  readonly seed: number
  readonly mode: Mode
  readonly duration: Duration.Input
  /** Told of each operation before it is done. */
  readonly onOperation?: (label: string) => Effect.Effect<void>
}

/** The outcome of a run. */
export interface Report {
  readonly seed: number
  readonly mode: Mode
  readonly operations: number
  readonly outcomes: ReadonlyMap<string, number>
  readonly violations: ReadonlyArray<string>
  readonly slowest: string
  readonly memory: string
}

/** Bound of an operation, of which a completion alone may take 30 seconds, and of what makes the kernel usable after it. */
const operationBound = Duration.seconds(45)
const recoveryBound = Duration.seconds(45)

/** A run that finds so many violations has found enough. */
const maxViolations = 10

interface Operation {
  readonly index: number
  readonly label: string
  readonly name: string
  readonly perform: Perform<WorldSubject>
  readonly disturbance: Disturbance.Disturbance | undefined
}

/** The operations of a seed and a mode: nothing that happens changes them. */
export function* operations(seed: number, mode: Mode): Generator<Operation, never> {
  const dice = Dice.make(seed)
  const plain: ReadonlyArray<Kind<WorldSubject>> = [...outputKinds, ...interruptKinds]
  const all = [...plain, ...endKinds.filter(({ name }) => mode === "pooled" || name !== "burst")]
  for (let index = 0;; index++) {
    const kind = dice.weighted(all) ?? all[0]
    if (kind === undefined) throw new Error("There are no operations")
    const { parameters, perform } = kind.draw(dice)
    const drawn = Disturbance.draw(dice, mode)
    const disturbance = plain.includes(kind) ? drawn : undefined
    const around = disturbance === undefined ? "" : ` beside ${JSON.stringify(disturbance)}`
    const label = `${kind.name} ${JSON.stringify(parameters).slice(0, 300)}${around}`
    yield { index, label, name: kind.name, perform, disturbance }
  }
}

/** Waits for an effect within a bound, also for one that cannot be interrupted. */
const bounded = <A, E>(
  effect: Effect.Effect<A, E>,
  bound: Duration.Duration,
): Effect.Effect<A, E | Violation> =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkDetach(effect, { startImmediately: true })
    const exit = yield* Effect.timeoutOption(Fiber.await(fiber), bound)
    if (Option.isSome(exit)) return yield* exit.value
    fiber.interruptUnsafe()
    return yield* violation(`It has not ended after ${Duration.format(bound)}`)
  })

/** The subject of an operation, with its scope. */
const subjectOf = (world: World.World, marker: string, tolerated: ReadonlySet<string>): WorldSubject => ({
  kernel: world.kernel(),
  model: world.model,
  marker,
  tolerated,
  isStoppedLong: () => world.stops.canCountAsOne(performance.now()),
  late: world.late,
  beside: world.beside,
  world,
})

const perform = Effect.fnUntraced(
  function* (world: World.World, { disturbance, index, ...operation }: Operation) {
    const subject = subjectOf(world, `op${index}`, Disturbance.tolerated(disturbance))
    const disturbing = yield* Effect.forkChild(
      disturbance === undefined ? Effect.void : Disturbance.disturb(world, disturbance),
      { startImmediately: true },
    )
    const outcome = yield* Effect.scoped(operation.perform(subject))
    yield* Fiber.join(disturbing)
    Disturbance.afterwards(world, disturbance)
    return outcome
  },
)

/** Makes the kernel usable, and checks that it is what the operation left. */
const recover = Effect.fnUntraced(function* (world: World.World, index: number) {
  const { model } = world
  const subject: Subject = subjectOf(world, `after${index}`, new Set())
  switch (model.life) {
    case "alive":
      return
    case "dead":
      yield* conduct(subject, cellOf(subject, "d", ""), ["KernelDied", "KernelNotFound"])
      return yield* world.reset
    case "stuck":
    case "unsure": {
      model.life = "alive"
      const allowed = ["ExecutionResult", "ConnectionLost", "KernelUnresponsive", "KernelDied"]
      const { tag } = yield* conduct(subject, cellOf(subject, "u", ""), allowed)
      if (tag !== "ExecutionResult") yield* world.reset
    }
  }
})

const MB = 1024 * 1024
const memory = (): { readonly rss: number; readonly heap: number } => {
  globalThis.gc?.()
  const { heapUsed, rss } = process.memoryUsage()
  return { rss: Math.round(rss / MB), heap: Math.round(heapUsed / MB) }
}

/** Ends a world and checks that nothing of it is left. */
const end = Effect.fnUntraced(function* (scope: Scope.Closeable) {
  const pids = descendants(process.pid).map(({ pid }) => pid)
  yield* bounded(Scope.close(scope, Exit.void), recoveryBound)
  const left = () =>
    survivors(pids) ?? processes().find(({ command }) => command.includes(sleepFor))?.command.join(" ")
  yield* Effect.catch(eventually(left, 5), ({ what }) => violation(`Processes are left: ${what}`))
})

/** Does operations until the time is over. */
export const run = Effect.fnUntraced(function* ({ duration, mode, onOperation, seed }: RunOptions) {
  const outcomes = new Map<string, number>()
  const violations: Array<string> = []
  const logged: Array<string> = []
  const source = operations(seed, mode)
  const deadline = (yield* Clock.currentTimeMillis) + Duration.toMillis(duration)
  let slowest = { millis: 0, label: "" }
  let done = 0
  let current = "the start"
  let before = memory()

  /** Records what an effect violates. */
  const check = <A>(effect: Effect.Effect<A, Violation>): Effect.Effect<Option.Option<A>> =>
    Effect.map(Effect.exit(effect), (exit) => {
      for (const crash of crashes()) violations.push(`${current}: unhandled: ${String(crash)}`)
      for (const line of logged.splice(0)) violations.push(`${current}: logged: ${line}`)
      if (Exit.isSuccess(exit)) return Option.some(exit.value)
      const found = Cause.findErrorOption(exit.cause)
      violations.push(`${current}: ${Option.isSome(found) ? found.value.detail : Cause.pretty(exit.cause)}`)
      return Option.none()
    })

  const inWorld = (world: World.World) =>
    Effect.gen(function* () {
      while (!world.isLost && violations.length < maxViolations) {
        const started = yield* Clock.currentTimeMillis
        // A busy machine may take longer for the start.
        if (started >= deadline && done > 0) return
        const operation = source.next().value
        current = `operation ${operation.index} of seed ${seed}, ${mode}: ${operation.label}`
        if (onOperation !== undefined) yield* onOperation(current)
        const outcome = yield* check(bounded(perform(world, operation), operationBound))
        const millis = (yield* Clock.currentTimeMillis) - started
        if (millis > slowest.millis) slowest = { millis, label: current }
        const name = `${operation.name}: ${Option.getOrElse(outcome, () => "violation")}`
        outcomes.set(name, (outcomes.get(name) ?? 0) + 1)
        done++
        if (done === 50) before = memory()
        if (Option.isNone(outcome)) world.isLost = true
        if (world.isLost) return
        if (Option.isNone(yield* check(bounded(recover(world, operation.index), recoveryBound)))) return
      }
    })

  const capture = Logger.make<unknown, void>(({ cause, logLevel, message }) => {
    if (logLevel === "Error" || logLevel === "Fatal") logged.push(`${String(message)} ${Cause.pretty(cause)}`)
  })
  yield* Effect.gen(function* () {
    while (violations.length < maxViolations) {
      const scope = yield* Scope.make()
      const world = yield* check(bounded(Scope.provide(World.make(mode), scope), recoveryBound))
      if (Option.isSome(world)) yield* inWorld(world.value)
      yield* check(end(scope))
      if (Option.isNone(world) || (yield* Clock.currentTimeMillis) >= deadline) return
    }
  }).pipe(Effect.provide(Logger.layer([capture])))
  const after = memory()
  const report: Report = {
    seed,
    mode,
    operations: done,
    outcomes,
    violations,
    slowest: `${slowest.millis} ms, ${slowest.label}`,
    memory: `RSS ${before.rss} to ${after.rss} MB, heap ${before.heap} to ${after.heap} MB`,
  }
  return report
})
