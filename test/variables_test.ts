/** `variables` of values whose methods raise, hang or lie. */
import { assert, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, Latch, Stream } from "effect"
import { KernelClient } from "../src/mod.ts"
import { collect, kernelLayer, slow, text, texts } from "./support/kernel.ts"

/** A new kernel that has executed the code. */
const after = Effect.fnUntraced(function* (code: string) {
  const kernel = yield* KernelClient.make()
  yield* kernel.execute(code)
  return kernel
})
const look = Effect.fnUntraced(function* (kernel: KernelClient.Kernel) {
  const [elapsed, variables] = yield* Effect.timed(kernel.variables)
  const of = (name: string) => variables.find((variable) => variable.name === name)
  return { elapsed: Duration.toMillis(elapsed), names: variables.map(({ name }) => name), of, variables }
})

layer(kernelLayer(), slow)("variables", (it) => {
  it.effect("with methods that raise, lie, print, or give what is no number", () =>
    Effect.gen(function* () {
      const kernel = yield* after(`import numpy
class Raises:
    shape = nbytes = property(lambda self: 1 / 0)
    def __repr__(self): raise SystemExit
    def __sizeof__(self): raise KeyboardInterrupt
    def __getattribute__(self, name): raise GeneratorExit
class Lies:
    __class__ = int
    nbytes = 10 ** 400
    shape = (10 ** 400, -1)
    def __repr__(self): return "lies"
class Meta(type):
    __module__ = property(lambda self: 1 / 0)
    __qualname__ = "\\ud800"
    def __getattribute__(self, name): raise SystemExit
class Odd(metaclass=Meta):
    def __repr__(self): return "\\ud800 odd"
class Text(str):
    def __str__(self): raise ValueError
    def __getitem__(self, key): raise ValueError
    def __len__(self): raise ValueError
class Prints:
    def __repr__(self): print("from a repr", flush=True); return "prints"
class Huge:
    def __repr__(self): return "x" * 100_000_000
class Nan:
    nbytes = float("nan")
    shape = (float("nan"),)
raises, lies, odd, text, prints, huge, nan = Raises(), Lies(), Odd(), Text("text"), Prints(), Huge(), Nan()
class Named(Text): pass
class Repr:
    def __repr__(self): return Text("sub")
sub = Repr()
globals()["\\ud800"] = 1
globals()[5] = 1
nameless = {}
exec("Nameless = type('Nameless', (), {})", nameless)
homeless = nameless["Nameless"]()
true = numpy.bool_(True)`)
      const { of, names } = yield* look(kernel)
      assert.deepStrictEqual([of("raises")?.type, of("raises")?.repr, of("raises")?.bytes], [
        "Raises",
        "?",
        0,
      ])
      assert.deepStrictEqual([of("lies")?.type, of("lies")?.repr, of("lies")?.shape], ["Lies", "lies", []])
      assert.isAbove(of("lies")?.bytes ?? 0, 0)
      assert.deepStrictEqual([of("odd")?.type, of("odd")?.repr], ["Odd", "? odd"])
      assert.deepStrictEqual([of("text")?.type, of("text")?.repr], ["Text", "'text'"])
      assert.strictEqual(of("prints")?.repr, "prints")
      assert.deepStrictEqual([of("huge")?.repr.length, of("huge")?.repr.at(-1)], [200, "…"])
      assert.deepStrictEqual(of("nan")?.shape, [])
      assert.strictEqual(of("sub")?.repr, "sub")
      assert.strictEqual(of("true")?.type, "numpy.bool")
      assert.strictEqual(of("homeless")?.type, "Nameless")
      assert.include(names, "?")
      assert.notInclude(names, "numpy")
      // Nothing of it reached the next output.
      assert.strictEqual(yield* text(kernel.execute("print('own')")), "own")
    }))

  it.effect("with methods that do not end: bounded, and threads do not pile up", () =>
    Effect.gen(function* () {
      const kernel = yield* after(`import time
class Sleeps:
    def __repr__(self): time.sleep(600)
class Loops:
    def __repr__(self):
        while True: pass
class Stubborn:
    def __repr__(self):
        while True:
            try: time.sleep(0.01)
            except BaseException: pass
class Endless(tuple):
    def __iter__(self):
        while True: yield 1
class Shape:
    shape = Endless()
before = 1
sleeps, loops, stubborn, shape = [Sleeps() for _ in range(3)], Loops(), Stubborn(), Shape()
sleeping, again = Sleeps(), Sleeps()
list = [1, 2]
after = 2`)
      for (let round = 0; round < 3; round++) {
        const { elapsed, of } = yield* look(kernel)
        assert.isBelow(elapsed, 4500)
        assert.deepStrictEqual(["before", "after"].map((name) => of(name)?.repr), ["1", "2"])
        for (const name of ["loops", "stubborn", "sleeping", "again"]) {
          assert.strictEqual(of(name)?.repr, "…", name)
        }
        // A list is not to be blamed for what is in it.
        assert.strictEqual(of("list")?.repr, "[1, 2]")
        assert.include(["…", "[…, …, …]"], of("sleeps")?.repr)
        assert.deepStrictEqual(of("shape")?.shape.length, 64)
      }
      const left = yield* text(kernel.execute(`import threading
sum(thread.name == "effect-jupyter-variables" for thread in threading.enumerate())`))
      assert.isAtMost(Number(left), 4)
      assert.strictEqual(yield* text(kernel.execute("1 + 1")), "2")
    }))

  it.effect("of any size are told in no time", () =>
    Effect.gen(function* () {
      const kernel = yield* after(`import array, collections, decimal, numpy, sys
sys.set_int_max_str_digits(0)
integer = 1 << 50_000_000
big = bytes(200_000_000)
strings = "🙂" * 20_000_000
mapping = dict.fromkeys(range(3_000_000))
members = set(range(3_000_000))
counter = collections.Counter(range(1_000_000))
deque = collections.deque(range(3_000_000))
doubles = array.array("d", bytes(80_000_000))
nested = [[[[[integer, big]]]], {"key": big}, {1}, (2,), frozenset([3]), set(), ()]
numpy.set_printoptions(threshold=sys.maxsize)
numbers = numpy.ones((3000, 3000))
scalar = numpy.array(5.0)
loop = []
loop.append(loop)`)
      const { elapsed, of, variables } = yield* look(kernel)
      assert.isBelow(elapsed, 1500)
      for (const { name, repr } of variables) {
        assert.isAtMost(Array.from(repr).length, 200, name)
        assert.notInclude(["?", "…"], repr, name)
      }
      assert.strictEqual(of("integer")?.repr, "<int of 50000001 bits>")
      assert.strictEqual(of("members")?.repr, "{0, 1, 2, 3, 4, 5, …}")
      assert.strictEqual(of("counter")?.repr, "collections.Counter({0: 1, 1: 1, 2: 1, 3: 1, …})")
      assert.deepStrictEqual(of("numbers")?.shape, [3000, 3000])
      assert.strictEqual(of("numbers")?.bytes, 72_000_000)
      assert.strictEqual(of("scalar")?.repr, "array(5.)")
      assert.include(of("nested")?.repr, "[[[[…]]], {'key': b'")
      assert.strictEqual(of("loop")?.repr, "[[[[…]]]]")
    }))

  it.effect("in any number, and those made last if there are more than 10,000", () =>
    Effect.gen(function* () {
      const kernel = yield* after("for i in range(30_000): globals()[f'variable{i}'] = [i]")
      const { elapsed, names, of } = yield* look(kernel)
      assert.isBelow(elapsed, 4500)
      assert.lengthOf(names, 10_000)
      assert.strictEqual(names.at(-1), "variable29999")
      assert.strictEqual(of("variable20001")?.type, "list")
    }))

  it.effect("leaves out modules, lazy ones untouched, private names and IPython's own", () =>
    Effect.gen(function* () {
      const kernel = yield* after(`import importlib.util, sys, types
class Lazy(types.ModuleType):
    def __getattribute__(self, name): raise SystemExit("touched")
lazy = Lazy("lazy")
spec = importlib.util.find_spec("wave")
loader = importlib.util.LazyLoader(spec.loader)
spec.loader = loader
wave = importlib.util.module_from_spec(spec)
loader.exec_module(wave)
_private, __very = 1, 2
quit = "mine"
del get_ipython
del exit`)
      const { names, of } = yield* look(kernel)
      assert.deepStrictEqual(names, ["quit", "Lazy", "spec", "loader"])
      assert.strictEqual(of("quit")?.repr, "'mine'")
      assert.strictEqual(
        yield* text(kernel.execute("object.__getattribute__(wave, '__class__').__name__")),
        "'_LazyModule'",
      )
    }))

  it.effect("where names of Python's are gone", () =>
    Effect.gen(function* () {
      const kernel = yield* after(`del get_ipython
len = repr = type = getattr = isinstance = sorted = None
__builtins__ = {}
x = [1]`)
      const { of } = yield* look(kernel)
      assert.strictEqual(of("x")?.repr, "[1]")
      assert.strictEqual(of("len")?.repr, "None")
      assert.include((yield* kernel.complete("prin", undefined, { timeout: "30 seconds" })).matches, "print")
    }))

  it.effect("does not change the state of the user, nor the output of what runs", () =>
    Effect.gen(function* () {
      const kernel = yield* after(
        "class Prints:\n    def __repr__(self): print('from a repr'); return 'prints'\np = Prints()",
      )
      yield* kernel.execute("40 + 2")
      const state =
        "(_, list(Out.items()), len(In), __import__('threading').active_count(), [n for n in globals() if n[:2] != '_i'])"
      const before = yield* text(kernel.execute(`before = None\nbefore = ${state}`))
      for (let i = 0; i < 3; i++) yield* kernel.variables
      const difference = yield* text(kernel.execute(
        `after = ${state}\nprint([(a, b) for a, b in zip(before, after) if a != b])`,
      ))
      assert.isUndefined(before)
      // One more cell, one more name, and the subshell.
      const lines = difference?.split("\n") ?? []
      assert.lengthOf(lines, 1)
      assert.match(lines[0] ?? "", /^\[\(\d+, \d+\), \(\d+, \d+\)\]$/)
      assert.lengthOf(yield* kernel.history(), 4)

      const begun = yield* Latch.make()
      const running = yield* kernel.stream(
        "import time\nfor i in range(20): print(i, flush=True); time.sleep(0.05)",
      ).pipe(
        Stream.tap(() => begun.open),
        collect,
        Effect.forkChild,
      )
      yield* begun.await
      assert.strictEqual((yield* look(kernel)).of("p")?.repr, "prints")
      yield* kernel.variables
      const lines2 = texts(yield* Fiber.join(running)).join("").trim().split("\n")
      assert.deepStrictEqual(lines2, Array.from({ length: 20 }, (_, i) => String(i)))
    }))
})
