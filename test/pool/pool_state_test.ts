/** The state of a pool with kernels that are objects and a test clock, so that every order of events can be tested. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Random, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Execution } from "../../src/mod.ts"
import * as PoolState from "../../src/pool/pool_state.ts"
import * as Plan from "../../src/pool/plan.ts"
import type { KernelLifecycle, Source } from "../../src/pool/source.ts"

/** A kernel without a process. */
class Fake implements KernelLifecycle {
  isFrozen = false
  readonly id: string
  private reason: Execution.KernelErrorReason | undefined
  private readonly listeners = new Set<(reason: Execution.KernelErrorReason) => void>()
  constructor(id: string) {
    this.id = id
  }
  readonly endReason = (): Execution.KernelErrorReason | undefined => this.reason
  readonly end = (reason: Execution.KernelErrorReason): void => {
    if (this.reason !== undefined) return
    this.reason = reason
    for (const listener of [...this.listeners]) listener(reason)
  }
  readonly onEnded = (listener: (reason: Execution.KernelErrorReason) => void): () => void => {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}

/** A gateway of fakes, each of which takes a second to start and half a second to delete. */
class FakeSource implements Source<Fake> {
  readonly name: string
  readonly alive = new Map<string, Fake>()
  readonly ended = Deferred.makeUnsafe<string>()
  readonly gone: Effect.Effect<string> = Deferred.await(this.ended)
  /** The failures of the next starts. */
  failure: string | undefined
  startTime = 1000
  /** Starts in all, under way, and the most that there were at one time of these and of kernels. */
  starts = 0
  starting = 0
  mostStarting = 0
  mostAlive = 0
  constructor(name = "gateway") {
    this.name = name
  }
  readonly start: Effect.Effect<Fake, Execution.KernelError, Scope.Scope> = Effect.suspend(() => {
    const fake = new Fake(`${this.name} ${++this.starts}`)
    this.mostStarting = Math.max(this.mostStarting, ++this.starting)
    const born = Effect.sync(() => {
      this.alive.set(fake.id, fake)
      this.mostAlive = Math.max(this.mostAlive, this.alive.size)
    })
    const die = Effect.andThen(Effect.sleep(500), Effect.sync(() => this.alive.delete(fake.id)))
    const reason = (detail: string) => new Execution.KernelStartFailed({ kernelId: fake.id, detail })
    return Effect.acquireRelease(born, () => die).pipe(
      Effect.andThen(Effect.suspend(() => Effect.sleep(this.startTime))),
      Effect.andThen(
        Effect.suspend(() =>
          this.failure === undefined
            ? Effect.succeed(fake)
            : Effect.fail(new Execution.KernelError({ reason: reason(this.failure) }))
        ),
      ),
      Effect.ensuring(Effect.sync(() => this.starting--)),
    )
  })
}

const make = Effect.fnUntraced(function* (
  sources: ReadonlyArray<FakeSource>,
  { limits = {}, ...options }: Partial<Omit<PoolState.PoolStateOptions<Fake>, "limits" | "sources">> & {
    readonly limits?: Parameters<typeof Plan.limits>[0]
  } = {},
) {
  const state = yield* PoolState.make<Fake>({
    limits: Plan.limits(limits),
    sources,
    isAlive: (fake) => fake.isFrozen ? Effect.as(Effect.sleep(2000), false) : Effect.succeed(true),
    idleTimeToLive: "5 minutes",
    acquireTimeout: "1 minute",
    maxWaiting: 100,
    replacementDelay: 0,
    ...options,
  })
  // At the end of the test the clock goes on: kernels take time to be deleted.
  yield* Effect.addFinalizer(() => Effect.forkDetach(Effect.replicateEffect(pass(500), 10)))
  return state
})

/** A borrower: a scope of its own and the fiber that asks for a kernel. */
const borrow = Effect.fnUntraced(function* (state: PoolState.KernelPoolState<Fake>, isReset = false) {
  const scope = yield* Scope.make()
  const fiber = yield* state.acquire({ isReset }).pipe(
    Scope.provide(scope),
    Effect.forkChild({ startImmediately: true }),
  )
  return {
    fiber,
    id: () => {
      const exit = fiber.pollUnsafe()
      return exit !== undefined && Exit.isSuccess(exit) ? exit.value.id : undefined
    },
    error: Effect.map(Effect.flip(Fiber.join(fiber)), ({ message }) => message),
    close: Scope.close(scope, Exit.void),
  }
})
const pass = (millis: number) => TestClock.adjust(millis)
const counted = ({ inventory }: PoolState.KernelPoolState<Fake>) => {
  const { sources: _, ...counts } = inventory()
  return counts
}
const none = { busy: 0, starting: 0, stopping: 0, waiting: 0, warm: 0 }

describe("pool_state", () => {
  it.effect("starts two at a time, hands out at once what is warm, and replaces it", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      const state = yield* make([source], { limits: { size: 5 } })
      assert.deepStrictEqual(counted(state), { ...none, starting: 2 })
      yield* pass(1000)
      assert.deepStrictEqual(counted(state), { ...none, warm: 2, starting: 2 })
      yield* pass(2000)
      assert.deepStrictEqual(counted(state), { ...none, warm: 5 })
      assert.strictEqual(source.mostStarting, 2)

      const one = yield* borrow(state)
      assert.strictEqual(one.id(), "gateway 1", "without time passing")
      yield* one.close
      assert.deepStrictEqual(counted(state), { ...none, warm: 4, stopping: 1 })
      yield* pass(500)
      assert.deepStrictEqual(counted(state), { ...none, warm: 4, starting: 1 })
      yield* pass(1000)
      assert.deepStrictEqual(counted(state), { ...none, warm: 5 })
      assert.strictEqual(source.mostAlive, 5)
    }))

  it.effect("delays a start without waiting requests by replacementDelay", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      const state = yield* make([source], { limits: { min: 0, warm: 1, max: 3 }, replacementDelay: 30 })
      yield* pass(0)
      assert.strictEqual(source.starts, 1, "no kernel is in use")
      yield* pass(1000)
      yield* borrow(state)
      yield* pass(29)
      assert.strictEqual(source.starts, 1)
      assert.deepStrictEqual(counted(state), { ...none, busy: 1, starting: 1 })
      yield* pass(1)
      assert.strictEqual(source.starts, 2)
      yield* borrow(state)
      yield* borrow(state)
      yield* pass(0)
      assert.strictEqual(source.starts, 3, "a request waits")
    }))

  it.effect("who asks within the head start of another does not wait for its end", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      const state = yield* make([source], { limits: { min: 0, warm: 1, max: 3 }, replacementDelay: 30 })
      yield* pass(1000)
      yield* borrow(state)
      yield* pass(10)
      assert.deepStrictEqual(counted(state), { ...none, busy: 1, starting: 1 })
      assert.strictEqual(source.starts, 1)
      const second = yield* borrow(state)
      yield* pass(0)
      assert.strictEqual(source.starts, 3, "its own kernel, and the next spare")
      yield* pass(1000)
      assert.strictEqual(second.id(), "gateway 2")
    }))

  it.effect("keeps spares beside the kernels in use, as far as max allows", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      const state = yield* make([source], { limits: { min: 0, warm: 1, max: 3 } })
      yield* pass(1000)
      const borrowers = []
      for (const [warm, busy] of [[1, 1], [1, 2], [0, 3]]) {
        borrowers.push(yield* borrow(state))
        yield* pass(1000)
        assert.deepStrictEqual(counted(state), { ...none, warm, busy })
      }
      for (const borrower of borrowers) yield* borrower.close
      yield* pass(1500)
      assert.deepStrictEqual(counted(state), { ...none, warm: 1 })
    }))

  it.effect("serves who came first", () =>
    Effect.gen(function* () {
      const state = yield* make([new FakeSource()], { limits: { size: 1 } })
      const borrowers = yield* Effect.replicateEffect(borrow(state), 4)
      const order = () => borrowers.map((borrower) => borrower.id())
      yield* pass(1000)
      assert.deepStrictEqual(order(), ["gateway 1", undefined, undefined, undefined])
      for (const [index, borrower] of borrowers.entries()) {
        assert.isDefined(borrower.id(), `${index}`)
        yield* borrower.close
        yield* pass(1500)
      }
      assert.deepStrictEqual(order(), ["gateway 1", "gateway 2", "gateway 3", "gateway 4"])
    }))

  it.effect("who replaces a kernel goes before who has none, and after who replaced before", () =>
    Effect.gen(function* () {
      const state = yield* make([new FakeSource()], { limits: { size: 1 }, maxWaiting: 1 })
      const holder = yield* borrow(state)
      yield* pass(1000)
      const newcomer = yield* borrow(state)
      const resets = [yield* borrow(state, true), yield* borrow(state, true)]
      for (const borrower of [holder, ...resets]) {
        assert.isDefined(borrower.id())
        assert.isUndefined(newcomer.id())
        yield* borrower.close
        yield* pass(1500)
      }
      assert.isDefined(newcomer.id())
    }))

  it.effect("turns away who comes when too many wait, and who waits for too long", () =>
    Effect.gen(function* () {
      const state = yield* make([new FakeSource()], { limits: { size: 1 }, maxWaiting: 2 })
      yield* pass(1000)
      const [, second, , fourth] = yield* Effect.replicateEffect(borrow(state), 4)
      assert.isDefined(fourth)
      assert.isDefined(second)
      if (fourth === undefined || second === undefined) return
      assert.match(yield* fourth.error, /2 requests wait .* "maxWaiting"/)
      yield* pass(60_000)
      assert.match(yield* second.error, /No kernel of the pool was free within 1m, 1 of at most 1 are in use/)
      assert.deepStrictEqual(counted(state), { ...none, busy: 1 })
    }))

  it.effect("acquire with maxWaiting 0 fails without a spare, and succeeds with one", () =>
    Effect.gen(function* () {
      const state = yield* make([new FakeSource()], { limits: { size: 1 }, maxWaiting: 0 })
      assert.match(yield* (yield* borrow(state)).error, /maxWaiting/)
      yield* pass(1000)
      assert.isDefined((yield* borrow(state)).id())
    }))

  it.effect("notices a spare that ends, and replaces it", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      const state = yield* make([source], { limits: { size: 2 } })
      yield* pass(1000)
      source.alive.get("gateway 1")?.end(new Execution.KernelDied({ kernelId: "gateway 1" }))
      assert.deepStrictEqual(counted(state), { ...none, warm: 1, stopping: 1 })
      yield* pass(1500)
      assert.deepStrictEqual([...source.alive.keys()], ["gateway 2", "gateway 3"])
      assert.strictEqual((yield* borrow(state)).id(), "gateway 2")
    }))

  it.effect("does not hand out a spare that stands still, and who got it keeps his place", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      const state = yield* make([source], { limits: { size: 1 }, maxWaiting: 1 })
      yield* pass(1000)
      for (const fake of source.alive.values()) fake.isFrozen = true
      const first = yield* borrow(state)
      const second = yield* borrow(state)
      yield* pass(2000)
      yield* pass(1500)
      assert.deepStrictEqual([first.id(), second.id()], ["gateway 2", undefined])
      assert.deepStrictEqual([...source.alive.keys()], ["gateway 2"])
    }))

  it.effect("a start that fails now and then is not noticed", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      source.failure = "no"
      const state = yield* make([source], { limits: { size: 1 } })
      const borrower = yield* borrow(state)
      yield* pass(1000)
      source.failure = undefined
      yield* pass(500)
      yield* pass(1100)
      assert.strictEqual(borrower.id(), "gateway 2")
    }))

  it.effect("starts that fail again and again: all who wait hear of it, who comes too, and it heals", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      source.failure = "no such kernel"
      const state = yield* make([source], { limits: { size: 2 } })
      const borrowers = yield* Effect.replicateEffect(borrow(state), 3)
      yield* pass(10_000)
      for (const { error } of borrowers) {
        assert.strictEqual(yield* error, `The kernel "gateway 4" could not be started: no such kernel`)
      }
      assert.match(yield* (yield* borrow(state)).error, /no such kernel/)
      const before = source.starts
      yield* pass(60_000)
      assert.isAtLeast(source.starts - before, 4, "it goes on to try")
      assert.isAtMost(source.starts - before, 20, "but not too often")
      source.failure = undefined
      yield* pass(15_000)
      assert.isDefined((yield* borrow(state)).id())
      assert.deepStrictEqual(source.alive.size, 2)
    }))

  it.effect("spares beyond min are deleted after idleTimeToLive, and started again with a request", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      const state = yield* make([source], { limits: { min: 1, warm: 3, max: 8 } })
      yield* pass(2000)
      assert.deepStrictEqual(counted(state), { ...none, warm: 3 })
      yield* pass(290_000)
      const borrower = yield* borrow(state)
      yield* pass(290_000)
      assert.deepStrictEqual(counted(state), { ...none, warm: 3, busy: 1 }, "after a request")
      yield* pass(10_000)
      yield* pass(500)
      assert.deepStrictEqual(counted(state), { ...none, busy: 1 })
      yield* borrower.close
      yield* pass(1500)
      assert.deepStrictEqual(counted(state), { ...none, warm: 1 })
      const next = yield* borrow(state)
      assert.isDefined(next.id())
      yield* pass(3000)
      assert.deepStrictEqual(counted(state), { ...none, warm: 3, busy: 1 })
    }))

  it.effect("spreads kernels over gateways, and lives on with those that are left", () =>
    Effect.gen(function* () {
      const sources = [new FakeSource("a"), new FakeSource("b"), new FakeSource("c")]
      const [a, b, c] = sources
      const state = yield* make(sources, { limits: { size: 6, startConcurrency: 3 } })
      yield* pass(2000)
      assert.deepStrictEqual(sources.map(({ alive }) => alive.size), [2, 2, 2])
      const borrowers = yield* Effect.replicateEffect(borrow(state), 2)
      if (a === undefined || b === undefined || c === undefined) return
      yield* Deferred.succeed(a.ended, "a fell over")
      yield* pass(500)
      yield* pass(1000)
      assert.deepStrictEqual(
        sources.map(({ starts }) => starts),
        [2, 3, 2],
        "its spare is replaced elsewhere",
      )
      const reasons = [...a.alive.values()].map((fake) => fake.endReason())
      assert.deepInclude(
        reasons[0],
        { _tag: "ConnectionLost", detail: "a fell over" },
        "its borrower hears of it",
      )
      for (const borrower of borrowers) yield* borrower.close
      yield* pass(500)
      yield* pass(1000)
      assert.deepStrictEqual(sources.map(({ alive }) => alive.size), [0, 3, 3])
      assert.deepStrictEqual(state.inventory().sources, [
        { name: "a", kernels: 0, isGone: true },
        { name: "b", kernels: 3, isGone: false },
        { name: "c", kernels: 3, isGone: false },
      ])

      const busy = yield* Effect.replicateEffect(borrow(state), 7)
      yield* Deferred.succeed(b.ended, "b fell over")
      yield* Deferred.succeed(c.ended, "c fell over")
      assert.match(yield* busy[6]?.error ?? Effect.succeed(""), /No gateway .* is left: .*c fell over/)
      assert.match(yield* (yield* borrow(state)).error, /No gateway of the pool is left/)
    }))

  it.effect("a gateway that fails is left alone for a while: another one serves", () =>
    Effect.gen(function* () {
      const sources = [new FakeSource("a"), new FakeSource("b")]
      const [a, b] = sources
      if (a === undefined || b === undefined) return
      a.failure = "out of memory"
      const state = yield* make(sources, { limits: { size: 4, startConcurrency: 4 } })
      const borrowers = yield* Effect.replicateEffect(borrow(state), 4)
      for (let second = 0; second < 5; second++) yield* pass(1000)
      assert.isTrue(borrowers.every((borrower) => borrower.id()?.startsWith("b")))
      assert.strictEqual(a.alive.size, 0)
    }))

  it.effect("a gateway that hangs does not block the other one, and is used again when it works", () =>
    Effect.gen(function* () {
      const sources = [new FakeSource("a"), new FakeSource("b")]
      const [a, b] = sources
      if (a === undefined || b === undefined) return
      a.failure = "no answer"
      a.startTime = 30_000
      const state = yield* make(sources, { limits: { min: 0, max: 8, warm: 1, startConcurrency: 2 } })
      // The first ones find out.
      yield* borrow(state)
      yield* borrow(state)
      yield* pass(31_000)
      for (let turn = 0; turn < 20; turn++) {
        const borrower = yield* borrow(state)
        yield* pass(2000)
        assert.match(borrower.id() ?? "nothing", /^b/)
        yield* borrower.close
        yield* pass(1000)
      }
      a.failure = undefined
      a.startTime = 1000
      yield* pass(60_000)
      const [one, two] = [yield* borrow(state), yield* borrow(state)]
      yield* pass(2000)
      assert.include([one.id()?.[0], two.id()?.[0]], "a")
    }))

  it.effect("when it closes, who waits hears of it and no kernel is left, started or not", () =>
    Effect.gen(function* () {
      const source = new FakeSource()
      const scope = yield* Scope.make()
      const state = yield* Scope.provide(make([source], { limits: { size: 3 } }), scope)
      yield* pass(1000)
      const borrowers = yield* Effect.replicateEffect(borrow(state), 4)
      assert.strictEqual(source.starting, 1)
      const kernel = yield* Effect.fromNullishOr(source.alive.get(borrowers[0]?.id() ?? ""))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* pass(500)
      yield* Fiber.join(closing)
      assert.strictEqual(source.alive.size, 0, "within the time of one deletion")
      assert.deepInclude(kernel.endReason(), { _tag: "ExecutionAborted" })
      assert.match(yield* borrowers[3]?.error ?? Effect.succeed(""), /The pool is closed/)
      assert.match(yield* (yield* borrow(state)).error, /The pool is closed/)
      for (const borrower of borrowers) yield* borrower.close
    }))

  it.effect.prop(
    "whatever happens in whatever order: never more kernels than max, and nothing is lost",
    [Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4 })), Schema.Array(Schema.Int)],
    ([max, seeds]) =>
      Effect.gen(function* () {
        const source = new FakeSource()
        const scope = yield* Scope.make()
        const state = yield* Scope.provide(make([source], { limits: { min: 0, warm: 1, max } }), scope)
        const borrowers: Array<Effect.Success<ReturnType<typeof borrow>>> = []
        const pick = Effect.map(Random.nextBetween(0, borrowers.length || 1), (index) =>
          borrowers[Math.floor(index)])
        for (const seed of seeds) {
          const borrower = yield* pick
          switch (Math.abs(seed) % 6) {
            case 0:
            case 1:
              borrowers.push(yield* borrow(state, seed < 0))
              break
            case 2:
              if (borrower !== undefined) {
                yield* Fiber.interrupt(borrower.fiber)
              }
              break
            case 3:
              if (borrower !== undefined) {
                yield* borrower.close
              }
              break
            case 4:
              for (const fake of source.alive.values()) {
                if (seed % 7 === 0) {
                  fake.end(new Execution.KernelDied({ kernelId: fake.id }))
                }
                fake.isFrozen = seed % 5 === 0
              }
              break
            default:
              yield* pass(Math.abs(seed) % 1300)
          }
          const { busy, starting, stopping, warm } = state.inventory()
          assert.isAtMost(busy + starting + stopping + warm, max)
          assert.isAtMost(source.mostAlive, max)
          assert.isAtMost(source.mostStarting, 2)
        }
        for (const { close, fiber } of borrowers) {
          yield* Fiber.interrupt(fiber)
          yield* close
        }
        for (const fake of source.alive.values()) {
          fake.isFrozen = false
        }
        for (let second = 0; second < 6; second++) {
          yield* pass(1000)
        }
        const { warm, ...rest } = counted(state)
        assert.deepStrictEqual({ ...rest, warm: 0 }, none)
        assert.isAtLeast(warm, 1)
        assert.strictEqual(source.alive.size, warm)
        yield* pass(300_000)
        assert.deepStrictEqual({ ...counted(state), stopping: 0 }, none)
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* pass(2000)
        yield* Fiber.join(closing)
        assert.strictEqual(source.alive.size, 0)
      }),
    { arbitrary: { runs: 200, size: 40 } },
  )
})
