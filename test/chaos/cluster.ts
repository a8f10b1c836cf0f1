/**
 * The chaos run of a cluster: runners are killed, frozen and stopped while the kernels of all keys print. A model of one
 * owner judges every answer: a kernel counts its executions, and answers no more once another one of its key has. Kernels
 * of a shared gateway are never another one.
 */
import { Clock, Duration, Effect, FiberSet, Layer } from "effect"
import { randomUUID } from "node:crypto"
import { KernelGateway } from "../../src/mod.ts"
import * as Platform from "../../src/platform.ts"
import * as Cluster from "../support/cluster.ts"
import * as Postgres from "../support/postgres.ts"
import { descendants, eventually, survivors } from "../support/processes.ts"
import * as Dice from "./dice.ts"

/** It is likely to be running when something happens. */
const code = `
import time
n = globals().get("n", 0) + 1
for _ in range(20):
    print(end="", flush=True)
    time.sleep(0.02)
print(n, end="", flush=True)`

/**
 * The time within which every key answers again, and a runner's processes are gone: the lock's, or the 20 seconds for
 * which an HTTP server waits for its connections, and that of a busy machine.
 */
const bound = Duration.seconds(30)

/** How an execution may fail whose owner, or whose own process, is disturbed. */
const expected = ["ConnectionLost", "Ended", "ExecutionAborted", "KernelDied"]

export interface Options {
  readonly seed: number
  /** The number of runners to kill. Some others are frozen or stopped. */
  readonly kills: number
  readonly runners?: number
  readonly keys?: number
  /** Has the kernels on a shared gateway, which outlive the runners. */
  readonly isShared?: boolean
  readonly onEvent?: (event: string) => Effect.Effect<void>
}

/** What is known of a key. */
interface Key {
  readonly name: string
  readonly dice: Dice.Dice
  readonly kernelIds: Array<string>
  count: number
  /** Executions after the last answer, which may have run. */
  failed: number
  answeredAt: number
}

/** Compares an answer with what one owner can give; returns what is wrong. */
function judge(
  key: Key,
  { kernelId, reason, text }: typeof Cluster.Answer.Type,
  isShared: boolean,
): string | undefined {
  if (reason !== undefined || kernelId === undefined) {
    key.failed++
    const isExpected = expected.includes(String(reason)) && !(isShared && reason === "KernelDied")
    return isExpected ? undefined : `"${key.name}" failed with ${reason}`
  }
  const count = Number(text)
  const isSame = key.kernelIds.at(-1) === kernelId
  const least = isSame ? key.count + 1 : 1
  const most = least + key.failed
  const wrong = !isSame && key.kernelIds.includes(kernelId)
    ? `"${key.name}" has two owners: ${kernelId} answers after ${key.kernelIds.at(-1)}`
    : !isSame && isShared && key.kernelIds.length > 0
    ? `"${key.name}" has lost its kernel ${key.kernelIds.at(-1)}`
    : !(count >= least && count <= most)
    ? `"${key.name}" counts ${text} instead of ${least} to ${most}, ${isSame ? "in the" : "in a new"} kernel`
    : undefined
  if (!isSame) key.kernelIds.push(kernelId)
  key.count = count
  key.failed = 0
  return wrong
}

/** Runs until the given number of runners has been killed. */
export const run = Effect.fnUntraced(
  function* (options: Options) {
    const { isShared = false, kills, onEvent = () => Effect.void, seed } = options
    const { keys: keyCount = 6, runners: runnerCount = 3 } = options
    const dice = Dice.make(seed)
    const violations: Array<string> = []
    const failures = new Map<string, number>()
    let executions = 0
    let slowest = Duration.zero

    const database = yield* Effect.flatMap(Postgres.serve, Postgres.makeDatabase)
    const gateway = isShared ? `chaos-${randomUUID().slice(0, 8)}` : undefined
    if (gateway !== undefined) {
      yield* Effect.addFinalizer(() => Effect.ignore(KernelGateway.stopShared(gateway)))
    }
    const runners = yield* Effect.forEach(
      Array.from({ length: runnerCount }),
      () => Cluster.run(database, gateway),
      { concurrency: "unbounded" },
    )
    let usable: ReadonlyArray<Cluster.Runner> = runners
    yield* Cluster.settled(database, runners)

    const keys = Array.from({ length: keyCount }, (_, index): Key => ({
      name: `key-${index}`,
      dice: Dice.make(seed + index),
      kernelIds: [],
      count: 0,
      failed: 0,
      answeredAt: 0,
    }))
    const loops = yield* FiberSet.make()
    for (const key of keys) {
      const ask = Effect.gen(function* () {
        const [first, ...others] = usable
        if (first === undefined) return yield* Effect.die("There is no runner")
        const answer = yield* key.dice.pick([first, ...others]).execute(key.name, code)
        executions++
        if (answer.reason !== undefined) {
          failures.set(answer.reason, (failures.get(answer.reason) ?? 0) + 1)
        }
        const wrong = judge(key, answer, isShared)
        if (wrong !== undefined) violations.push(wrong)
        if (answer.reason === undefined) key.answeredAt = yield* Clock.currentTimeMillis
      })
      yield* FiberSet.run(loops, Effect.forever(ask))
    }

    /** Waits until all keys have answered since a moment; returns how long that took. */
    const answered = Effect.fnUntraced(function* (since: number) {
      yield* eventually(
        () => keys.find(({ answeredAt }) => answeredAt <= since)?.name,
        Duration.toSeconds(bound),
      ).pipe(Effect.catch(({ what }) => Effect.sync(() => violations.push(`"${what}" does not answer`))))
      return Duration.millis((yield* Clock.currentTimeMillis) - since)
    })

    let killed = 0
    while (killed < kills && violations.length === 0) {
      yield* answered(yield* Clock.currentTimeMillis)
      const index = dice.int(0, runners.length - 1)
      const runner = runners[index]
      if (runner === undefined) break
      const kind = dice.next() < 0.6 ? "kill" : dice.next() < 0.5 ? "freeze" : "stop"
      // A shared gateway, and its kernels, are of no runner.
      const pids = isShared ? [] : descendants(runner.pid).map(({ pid }) => pid)
      const since = yield* Clock.currentTimeMillis
      usable = runners.filter((other) => other !== runner)
      switch (kind) {
        case "freeze": {
          // Until no request waits in its process.
          yield* answered(since)
          yield* runner.kill("SIGSTOP")
          const took = yield* answered(yield* Clock.currentTimeMillis)
          yield* onEvent(`freeze: all answer after ${Duration.format(took)}`)
          yield* runner.kill("SIGCONT")
          usable = runners
          break
        }
        case "kill":
        case "stop": {
          yield* runner.kill(kind === "kill" ? "SIGKILL" : "SIGTERM")
          const [took, next] = yield* Effect.all([answered(since), Cluster.run(database, gateway)], {
            concurrency: "unbounded",
          })
          yield* onEvent(`${kind}: all answer after ${Duration.format(took)}`)
          if (kind === "kill") {
            killed++
            slowest = Duration.max(slowest, took)
          }
          const left = yield* Effect.flip(eventually(() => survivors(pids), Duration.toSeconds(bound))).pipe(
            Effect.option,
          )
          if (left._tag === "Some") violations.push(`After a ${kind} there is ${left.value.what}`)
          runners[index] = next
          usable = runners
        }
      }
      yield* Cluster.settled(database, runners).pipe(
        Effect.catch(() => Effect.sync(() => violations.push(`The locks are not as due after a ${kind}`))),
      )
    }
    yield* FiberSet.clear(loops)
    return { violations, executions, failures, slowest }
  },
  Effect.scoped,
  Effect.provide(Layer.fresh(Platform.layer)),
)
