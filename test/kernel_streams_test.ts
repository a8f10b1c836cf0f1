/** All that code, its programs and its processes write reaches the execution, whole and in order. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { Execution, KernelClient } from "../src/mod.ts"
import { collect, kernelLayer, slow, temporary, text, texts } from "./support/kernel.ts"

const { KernelClient: Client } = KernelClient

/** The output of an execution in order; consecutive texts of one stream are joined. */
const outputs = Effect.fnUntraced(function* (code: string) {
  const found: Array<readonly [string, string]> = []
  for (const element of yield* collect((yield* Client).stream(code))) {
    if (element._tag === "TextChunk") {
      const last = found.at(-1)
      if (last?.[0] === element.name) found[found.length - 1] = [element.name, last[1] + element.text]
      else found.push([element.name, element.text])
    } else if (element._tag === "DisplayChunk") {
      found.push(["display", element.text ?? ""])
    }
  }
  return found
})

const stdout = (code: string) =>
  Effect.map(Effect.flatMap(Client, (kernel) => collect(kernel.stream(code))), (all) => texts(all).join(""))

/** The Python program as an argument of a process. */
const program = (code: string) => `subprocess.run([sys.executable, '-c', ${JSON.stringify(code)}])`

layer(kernelLayer(), slow)("kernel streams", (it) => {
  const all = Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join("")

  it.effect("execute has all that a program wrote before the cell ended", () =>
    Effect.gen(function* () {
      yield* stdout("import os, sys, subprocess, ctypes, time, contextlib, io; from pathlib import Path")
      for (let round = 0; round < 5; round++) {
        assert.strictEqual(yield* stdout("_ = os.system('seq 1 20000')"), all)
        assert.strictEqual(yield* stdout("_ = os.system('seq 1 20000 >&2')"), all)
      }
      assert.strictEqual(yield* stdout("_ = os.system('printf without_end')"), "without_end")
    }))

  it.effect("execute has what C code wrote, with and without an end of the line", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* stdout("_ = os.write(1, b'first\\n' * 1000)"), "first\n".repeat(1000))
      yield* stdout("libc = ctypes.CDLL(None)")
      assert.strictEqual(yield* stdout("_ = libc.puts(b'puts'); libc.printf(b'printf');"), "puts\nprintf")
      assert.strictEqual(yield* stdout("_ = print('plain', end='', file=sys.__stdout__)"), "plain")
    }))

  it.effect("execute has what a program wrote while sys.stdout is something else", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* stdout("stdout = sys.stdout; sys.stdout = io.StringIO(); os.system('echo a');"),
        "a\n",
      )
      assert.strictEqual(yield* stdout("os.system('echo b'); sys.stdout = stdout;"), "b\n")
    }))

  it.effect("sys.stdout is there again after code that leaves none", () =>
    Effect.gen(function* () {
      const kernel = yield* Client
      for (
        const code of [
          "import sys; sys.stdout = None",
          "del sys.stdout",
          "del sys.stdout; 5",
          "del sys.stderr; {}[0]",
        ]
      ) {
        yield* Effect.exit(kernel.execute(code, { timeout: "10 seconds" }))
        const { text } = yield* kernel.execute("print('out'); print('err', file=sys.stderr); 5")
        assert.strictEqual(text, "out\nerr\n5")
      }
    }))

  it.effect("execute does not wait for a process in the background, whose output goes on", () =>
    Effect.gen(function* () {
      // The last line is whole, or what is left of its character would be the beginning of what comes next.
      const written = yield* stdout(
        "command = 'echo é€😀; echo é€😀; echo >&2; exec yes é€😀'\n" +
          "child = subprocess.Popen(command, shell=True, stderr=subprocess.PIPE); _ = child.stderr.read(1)\n" +
          "os.system('echo end'); child.kill(); child.wait()\n" +
          "_ = os.write(1, b'\\n')",
      )
      assert.include(written, "end\n")
      assert.include(written, "é€😀\né€😀\n")
      const slowly =
        "child = subprocess.Popen('while :; do echo x; echo >&2; sleep 0.001; done', shell=True, stderr=subprocess.PIPE)"
      assert.strictEqual((yield* stdout(`${slowly}; print('begin')`)).replaceAll("x\n", ""), "begin\n")
      // The first of these reads ends what was written before this cell, the last waits for a line after it.
      const waiting = "for _ in range(3): os.read(child.stderr.fileno(), 65536)\n"
      assert.include(yield* stdout(`${waiting}child.kill(); child.wait();`), "x\n")
      assert.strictEqual(yield* stdout("print('after')"), "after\n")
    }))

  it.effect("stream has programs, prints, displays and errors in the order in which they wrote", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* outputs(
          "print('a', end=''); os.system('echo b'); print('c'); os.system('echo d >&2'); display('e')\n" +
            "os.system('echo f'); clear = print('g', file=sys.stderr); libc.puts(b'h'); print('i')\n" +
            "for index in range(3): print(index, end=' '); _ = os.system('echo x')\n" +
            "def show(part): print(part, end='')\n" +
            "show('l'); os.system('echo m'); show('n')\n" +
            "with contextlib.redirect_stdout(io.StringIO()): display('j')\n" +
            "os.system('echo k')",
        ),
        [
          ["stdout", "ab\nc\n"],
          ["stderr", "d\n"],
          ["display", "'e'"],
          ["stdout", "f\n"],
          ["stderr", "g\n"],
          ["stdout", "h\ni\n0 x\n1 x\n2 x\nlm\nn"],
          ["display", "'j'"],
          ["stdout", "k\n"],
          ["display", "0"],
        ],
      )
      assert.deepStrictEqual(
        yield* outputs("for i in range(3): print('e', i, file=sys.stderr); print('o', i)"),
        [
          ["stderr", "e 0\n"],
          ["stdout", "o 0\n"],
          ["stderr", "e 1\n"],
          ["stdout", "o 1\n"],
          ["stderr", "e 2\n"],
          ["stdout", "o 2\n"],
        ],
      )
      assert.deepStrictEqual(
        yield* outputs(
          "print('0%\\r100%', end='', file=sys.stderr); print('done'); os.system('printf x >&2');",
        ),
        [["stderr", "0%\r100%"], ["stdout", "done\n"], ["stderr", "x"]],
      )
    }))

  it.effect("stream has whole characters of a program, and a replacement for each that is none", () =>
    Effect.gen(function* () {
      const characters = "é€😀".repeat(3000)
      const write = (bytes: string) => program(`import sys; sys.stdout.buffer.write(${bytes})`)
      assert.strictEqual(yield* stdout(`_ = ${write("('é€😀' * 3000).encode()")}`), characters)
      assert.strictEqual(yield* stdout(`_ = ${write("b'a\\xff\\xfeb\\xe2\\x82'")}`), "a\ufffd\ufffdb\ufffd")
      assert.strictEqual(
        yield* stdout("for byte in 'é€😀'.encode(): os.write(1, bytes([byte])); time.sleep(0.001)"),
        "é€😀",
      )
    }))

  it.effect("stdout and stderr are files for programs", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* outputs(
          "subprocess.run(['echo', 'out'], stdout=sys.stdout)\n" +
            "subprocess.run('echo err >&2', shell=True, stderr=sys.stderr)\n" +
            "subprocess.run('echo both; echo here >&2', shell=True, stdout=sys.stderr, stderr=sys.stdout)\n" +
            "os.write(sys.stdout.fileno(), b'written');",
        ).pipe(
          Effect.map((found) =>
            found.flatMap(([name, text]) => text.trim().split("\n").map((line) => `${name} ${line}`)).sort()
          ),
        ),
        ["stderr both", "stderr err", "stdout here", "stdout out", "stdout written"],
      )
    }))

  it.effect("print goes on beside a process that writes a line without end, or lines without end", () =>
    Effect.gen(function* () {
      for (const flood of ["os.write(1, b'x' * 65536)", "os.write(1, b'x\\n' * 32768)"]) {
        const child = `import os\nwhile True: ${flood}`
        const { displays } = yield* (yield* Client).execute(
          `import os, subprocess, sys
child = subprocess.Popen([sys.executable, '-c', ${JSON.stringify(child)}])
for index in range(300): print(index)
print(*range(3000), sep=' ')
for index in range(3000): print(index, end=' ')
child.kill(); child.wait()
index`,
          { timeout: "30 seconds", outputLimit: 10_000 },
        )
        assert.strictEqual(displays[0]?.text, "2999")
      }
    }))

  it.effect("threads print whole lines", () =>
    Effect.gen(function* () {
      const written = yield* stdout(`import threading, time
def work(name):
    for index in range(100): print(name, index, name, 'z'); time.sleep(0.0001)
threads = [threading.Thread(target=work, args=(name,)) for name in 'abcdefgh']
for thread in threads: thread.start()
for thread in threads: thread.join()`)
      const lines = written.trimEnd().split("\n")
      assert.strictEqual(lines.length, 800)
      for (const line of lines) assert.match(line, /^(.) \d+ \1 z$/)
    }))

  it.effect("print comes behind all that a program wrote, however much that is", () =>
    Effect.gen(function* () {
      const numbers = Array.from({ length: 300_000 }, (_, index) => `${index + 1}\n`).join("")
      const code = "os.system('seq 1 300000'); print('end')\n"
      const written = yield* stdout(`import os\n${code.repeat(3)}`)
      assert.isTrue(written === `${numbers}end\n`.repeat(3))
    }))

  it.effect("text of any size comes in messages of a mebibyte, and waits for those before it", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const elements = yield* collect(kernel.stream("print('x' * 5_000_000)", { outputLimit: 1000 }))
      assert.isBelow(Math.max(...texts(elements).map(({ length }) => length)), 1024 * 1024 + 1)
      // The queue of the thread that sends: each of these lines is a message.
      const flood = "import sys\nwhile True: print('a'); print('b', file=sys.stderr)"
      const consumer = yield* Effect.forkScoped(
        Stream.runForEach(kernel.stream(flood), () => Effect.never),
        { startImmediately: true },
      )
      yield* Effect.sleep("2 seconds")
      yield* Fiber.interrupt(consumer)
      assert.strictEqual(yield* text(kernel.execute("print('on')")), "on")
    }))

  it.effect("an exception that does not end the code is where it was shown", () =>
    Effect.gen(function* () {
      const { text } = yield* (yield* Client).execute(`class Shown:
    def __repr__(self): raise ValueError('no text')
print('a'); display(Shown()); print('b'); get_ipython().run_cell('1 / 0'); print('c')
sys.excepthook(KeyError, KeyError('key'), None); print('d')`)
      assert.match(text ?? "", /^a\n-+\nValueError[^]*no text\nb\n-+\nZeroDiv[^]*by zero\nc\n[^]*'key'\nd$/)
    }))

  it.effect("a forked process that reaches the end of the code ends as a program", () =>
    Effect.gen(function* () {
      for (
        const [end, status] of [["sys.exit(3)", 3], ["pass", 0], ["1 / 0", 1], [
          "sys.exit('why')",
          1,
        ]] as const
      ) {
        for (const first of ["", "await asyncio.sleep(0)\n"]) {
          const { text } = yield* (yield* Client).execute(
            `import asyncio, os, sys\n${first}process = os.fork()
if process == 0:
    print('child')
    ${end}
else: print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))`,
          )
          assert.match(text ?? "", new RegExp(`^child\n[^]*${status}$`))
          assert.notMatch(text ?? "", /SystemExit|To exit/)
        }
      }
    }))

  it.effect("processes of a pool write whole lines", () =>
    Effect.gen(function* () {
      const written = yield* stdout(
        "from concurrent.futures import ProcessPoolExecutor, as_completed\n" +
          "import multiprocessing\n" +
          "def work(index):\n" +
          "    for line in range(200): print('worker', index, line, 'x' * 50)\n" +
          "    print('long', index, 'y' * 100_000)\n" +
          "    return index\n" +
          "fork = multiprocessing.get_context('fork')\n" +
          "with ProcessPoolExecutor(4, mp_context=fork) as pool:\n" +
          "    for future in as_completed([pool.submit(work, index) for index in range(8)]):\n" +
          "        for line in range(50): print('main', future.result(), line)",
      )
      const lines = written.split("\n")
      const whole = /^(worker \d \d+ x{50}|long \d y{100000}|main \d \d+|)$/
      assert.deepStrictEqual(lines.filter((line) => !whole.test(line)).map((line) => line.slice(0, 80)), [])
      assert.strictEqual(lines.length, 8 * (200 + 1 + 50) + 1)
      assert.strictEqual(
        yield* stdout(
          "print('before', end=' ')\nchild = fork.Process(target=print, args=('child',), kwargs={'end': ' '})\n" +
            "child.start(); child.join(); print('after')",
        ),
        "before child after\n",
      )
    }))

  it.effect("what was put out takes no memory of the kernel afterwards", () =>
    Effect.gen(function* () {
      const kernel = yield* KernelClient.make()
      const memory = Effect.map(
        kernel.execute(
          "import gc, ctypes; gc.collect(); ctypes.CDLL(None).malloc_trim(0); print(open('/proc/self/statm').read().split()[1])",
        ),
        ({ text }) => Number(text) * 4096,
      )
      const cell = "for _ in range(1000): print('x' * 9_999)\nget_ipython().displayhook('z')"
      const fail = "raise ValueError('y' * 1_000_000)"
      yield* kernel.execute(cell, { outputLimit: 1000 })
      yield* Effect.flip(kernel.execute(fail))
      const before = yield* memory
      for (let index = 0; index < 5; index++) yield* kernel.execute(cell, { outputLimit: 1000 })
      yield* Effect.flip(kernel.execute(fail))
      assert.isBelow((yield* memory) - before, 20_000_000)
      const file = `${yield* temporary}/kept.ipynb`
      yield* kernel.execute(`%notebook ${file}`)
      assert.include(yield* text(kernel.execute(`print(open("${file}").read())`)), "displayhook")
    }))

  it.effect("halves of surrogate pairs are replaced, the rest is whole", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* outputs(
          "print('a\\ud83d'); print('rest', '\\ud83d\\ude00', file=sys.stderr)\n" +
            "display({'text/plain': 'b\\ude00c', 'text/html': '\\ud83d'}, raw=True)\n" +
            "if os.fork() == 0: print('d\\ud83d'); os._exit(0)\n" +
            "os.wait();",
        ),
        [
          ["stdout", "a\ufffd\n"],
          ["stderr", "rest 😀\n"],
          ["display", "b\ufffdc"],
          ["stdout", "d\ufffd\n"],
        ],
      )
      const error = yield* Effect.flip((yield* Client).execute("print('e'); raise ValueError('f\\ud83dg')"))
      assert.instanceOf(error, Execution.ExecutionError)
      assert.strictEqual(error.evalue, "f\ufffdg")
      assert.strictEqual(error.partial.text, "e")
    }))

  it.effect("execute runs code that was cut within a character", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* stdout("print('\ud83d')  # \ude00"), "\ufffd\n")
    }))

  const task = (code: string) => `import asyncio, sys\nasync def work(): ${code}`
  const callback = "asyncio.get_running_loop().call_soon(lambda: sys.exit(5))"
  const sum = Array.from({ length: 3000 }, () => "1").join(" + ")
  const raises = "import ast\nclass T(ast.NodeTransformer):\n" +
    "    def visit(self, node): get_ipython().ast_transformers.clear(); raise ERROR('no')\n" +
    "get_ipython().ast_transformers.append(T())"
  for (
    const [title, before, code, ename] of [
      ["too many terms", "0", sum, /^RecursionError$/],
      ["too many terms and await", "0", `await f() + ${sum}`, /^RecursionError$/],
      ["a null byte", "0", "x = 1\0", /^(SyntaxError|ValueError)$/],
      [
        "one whose text cannot be made",
        "class Silent(Exception):\n    def __str__(self): raise ValueError('no text')",
        "raise Silent('x')",
        /^Silent$/,
      ],
      [
        "one whose text is none",
        "class Odd(Exception):\n    def __str__(self): return 5",
        "raise Odd",
        /^Odd$/,
      ],
      ["an exit of a task", task("raise SystemExit(2)"), "await asyncio.create_task(work())", /^SystemExit$/],
      [
        "an interrupt that a task raises",
        task("raise KeyboardInterrupt"),
        "await asyncio.create_task(work())",
        /^KeyboardInterrupt$/,
      ],
      ["an exit of a callback", task("pass"), `${callback}; await asyncio.sleep(30)`, /^CancelledError$/],
      [
        "what a signal handler raises while the code waits",
        "import asyncio, signal\nhandler = signal.signal(signal.SIGALRM, lambda *_: 1 / 0)",
        "signal.setitimer(signal.ITIMER_REAL, 0.1); await asyncio.sleep(30)",
        /^CancelledError$/,
      ],
      ["too many brackets", "0", "(".repeat(300) + ")".repeat(300), /^SyntaxError$/],
      ["too deep an operator", "0", `${"-".repeat(20_000)}1`, /^(MemoryError|RecursionError)$/],
      ["a deep list", "0", `${"[".repeat(190)}${"]".repeat(190)} + ${sum}`, /^(RecursionError|MemoryError)$/],
      ["a transformer that exits", raises.replace("ERROR", "SystemExit"), "await f()", /^SystemExit$/],
      [
        "a transformer that interrupts",
        raises.replace("ERROR", "KeyboardInterrupt"),
        "1",
        /^KeyboardInterrupt$/,
      ],
      [
        "a transformer of input that raises",
        "def raises(lines): return {}[lines[0]] if lines[0].startswith('fail') else lines\n" +
        "get_ipython().input_transformers_post.append(raises)",
        "fail",
        /^KeyError$/,
      ],
    ] as const
  ) {
    it.effect(`execute fails with an ExecutionError that names it: ${title}`, () =>
      Effect.gen(function* () {
        const kernel = yield* Client
        yield* kernel.execute(before)
        const error = yield* Effect.flip(kernel.execute(code))
        assert.instanceOf(error, Execution.ExecutionError)
        assert.match(error.ename, ename)
        assert.strictEqual(yield* stdout("print('on')"), "on\n")
      }))
  }
})
