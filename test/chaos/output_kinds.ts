/** Operations whose output is checked: text, streams, displays, exceptions, input, late output. */
import { Effect, Schema, Stream } from "effect"
import { type Kind, kind } from "./kind.ts"
import { tagOf, violation } from "./model.ts"
import { cellOf, conduct, conductStream, expect, isExplained, same } from "./subject.ts"
import { eventually } from "../support/processes.ts"

const numbered = (marker: string, count: number, padding = ""): string =>
  Array.from({ length: count }, (_, index) => `${marker}.${index}${padding}`).join("\n")

const png = "b'\\x89PNG\\r\\n\\x1a\\n'"

const print = kind("print", 14, (dice) => ({
  lines: dice.pick([0, 1, 3, 20, 200]),
  size: dice.pick([0, 0, 10, 2000]),
  flush: dice.int(1, 7),
}), (subject, { flush, lines, size }) =>
  Effect.map(
    conduct(
      subject,
      cellOf(
        subject,
        "p",
        `for i in range(${lines}): print('${subject.marker}.%d' % i + 'x' * ${size}, flush=i % ${flush} == 0)`,
        numbered(subject.marker, lines, "x".repeat(size)),
      ),
    ),
    ({ tag }) => tag,
  ))

const large = kind(
  "large",
  1,
  (dice) => ({ bytes: dice.int(100_000, 3_000_000) }),
  (subject, { bytes }) =>
    Effect.map(
      conduct(subject, cellOf(subject, "b", `print('ab' * ${bytes >> 1})`, "ab".repeat(bytes >> 1))),
      ({ tag }) => tag,
    ),
)

const system = kind("system", 3, (dice) => ({
  how: dice.pick([
    "os.system('echo MARK')",
    "subprocess.run(['echo', 'MARK'])",
    "os.write(1, b'MARK\\n')",
    "subprocess.run(['echo', 'MARK'], stdout=sys.stderr.fileno())",
  ]),
}), (subject, { how }) => {
  const text = `${subject.marker}.system`
  return Effect.map(
    conduct(
      subject,
      cellOf(subject, "y", `import os, subprocess, sys\nok = ${how.replace("MARK", text)}`, text),
    ),
    ({ tag }) => tag,
  )
})

const stream = kind("stream", 6, (dice) => ({
  lines: dice.pick([1, 10, 100, 1000]),
  pause: dice.pick([0, 0, 1, 5]),
}), (subject, { lines, pause }) =>
  Effect.map(
    conductStream(
      subject,
      cellOf(
        subject,
        "s",
        `import time\nfor i in range(${lines}):\n    print('${subject.marker}.%d' % i, flush=i % 5 == 0)\n    if i % 50 == 0: time.sleep(${
          pause / 1000
        })`,
        numbered(subject.marker, lines),
      ),
    ),
    ({ tag }) => tag,
  ))

const flood = kind("flood to a slow consumer", 2, (dice) => ({
  lines: dice.pick([500, 5000]),
  size: dice.pick([10, 1000]),
  pause: dice.int(1, 20),
}), (subject, { lines, pause, size }) =>
  Effect.map(
    conductStream(
      subject,
      cellOf(
        subject,
        "f",
        `for i in range(${lines}): print('${subject.marker}.%d' % i + 'x' * ${size}, flush=i % 10 == 0)`,
        numbered(subject.marker, lines, "x".repeat(size)),
      ),
      (count) => count % 50 === 49 ? Effect.sleep(pause) : Effect.void,
    ),
    ({ tag }) => tag,
  ))

const limited = kind("outputLimit", 2, (dice) => ({
  limit: dice.int(100, 5000),
}), (subject, { limit }) => {
  const code = `for i in range(3000): print('${subject.marker}.%d' % i)`
  return Effect.gen(function* () {
    const result = yield* expect(subject, "outputLimit", subject.kernel.execute(code, { outputLimit: limit }))
    if (result === undefined) return "tolerated"
    const { text = "" } = result
    if (text.length > limit + 200) {
      return yield* violation(`${text.length} characters, with a limit of ${limit}`)
    }
    if (!text.startsWith(`${subject.marker}.0\n`) || !text.endsWith(`${subject.marker}.2999`)) {
      return yield* violation(`The text keeps neither head nor tail: ${text.slice(0, 100)}`)
    }
    return "ExecutionResult"
  })
})

const display = kind("display", 4, (dice) => ({
  updates: dice.int(0, 4),
  image: dice.chance(0.3),
  clear: dice.chance(0.3),
}), (subject, { clear, image, updates }) =>
  Effect.gen(function* () {
    const { kernel, marker } = subject
    const code = [
      "from IPython.display import Image, clear_output, display",
      ...(clear ? [`print('${marker}.gone'); clear_output()`] : []),
      `shown = display('${marker}.0', display_id='${marker}')`,
      ...Array.from({ length: updates }, (_, index) => `shown.update('${marker}.${index + 1}')`),
      ...(image ? [`display(Image(${png}))`] : []),
    ].join("\n")
    const result = yield* expect(subject, "display", kernel.execute(code))
    if (result === undefined) return "tolerated"
    const [first] = result.displays
    yield* same(`${marker} display`, first?.text, `'${marker}.${updates}'`)
    yield* same(`${marker} displays`, result.displays.length, image ? 2 : 1)
    yield* same(`${marker} images`, result.images.length, image ? 1 : 0)
    // A text is what was written, an update changes the display alone.
    const begin = clear ? `${marker}.gone\n'${marker}.0'` : `'${marker}.0'`
    const { text = "" } = result
    if (!text.startsWith(begin) || text.split(marker).length !== begin.split(marker).length) {
      return yield* violation(`${marker} shows ${text}`)
    }
    return "ExecutionResult"
  }))

const raises = {
  "raise ValueError('MARK')": "ValueError",
  "raise KeyboardInterrupt('MARK')": "KeyboardInterrupt",
  "def f(n): return f(n + 1)\nf(0)": "RecursionError",
  "class MARK(BaseException): pass\nraise MARK('MARK')": "MARK",
  "1 / 0": "ZeroDivisionError",
  "import asyncio\nawait asyncio.wait_for(asyncio.sleep(9), 0.01)": "TimeoutError",
} as const

const raise = kind("raise", 4, (dice) => ({
  what: dice.pick([
    "raise ValueError('MARK')",
    "raise KeyboardInterrupt('MARK')",
    "def f(n): return f(n + 1)\nf(0)",
    "class MARK(BaseException): pass\nraise MARK('MARK')",
    "1 / 0",
    "import asyncio\nawait asyncio.wait_for(asyncio.sleep(9), 0.01)",
  ]),
}), (subject, { what }) =>
  Effect.gen(function* () {
    const cell = cellOf(subject, "e", what.replaceAll("MARK", subject.marker))
    const { failure, tag } = yield* conduct(subject, cell, ["ExecutionError"])
    if (failure?._tag === "ExecutionError") {
      yield* same("ename", failure.ename, raises[what].replace("MARK", subject.marker))
      if (what.includes("MARK")) yield* same("evalue", failure.evalue, subject.marker)
      if (failure.traceback.length === 0) return yield* violation("The traceback is empty")
      const { text = "" } = failure.partial
      if (!text.startsWith(cell.marker)) return yield* violation(`${cell.marker} lost its output: ${text}`)
    }
    return tag
  }))

const invalid = kind(
  "invalid code",
  1,
  (dice) => ({ code: dice.pick(["1 +* 2", "def f(:", "'open", "  x = 1\n y"]) }),
  (
    subject,
    { code },
  ) =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(subject.kernel.execute(code)).pipe(
        Effect.catch(() => violation(`${code} succeeded`)),
      )
      const tag = tagOf(failure)
      subject.model.failed(tag)
      if (tag === "ExecutionError" || isExplained(subject, tag)) return tag
      return yield* violation(`${code} failed with ${tag}`)
    }),
)

const input = kind("input", 3, (dice) => ({
  how: dice.pick(["answered", "unanswered", "refused", "slow"]),
  ms: dice.int(0, 100),
}), (subject, { how, ms }) => {
  const answer = `${subject.marker}.answer`
  const cell = cellOf(subject, "i", `print(input('${subject.marker}? '))`, answer)
  switch (how) {
    case "answered":
      // Also when a link takes the question or the answer with it.
      return Effect.map(
        conduct(subject, cell, ["ExecutionResult"], {
          onInput: ({ prompt }) => Effect.delay(Effect.succeed(prompt.replace("? ", ".answer")), ms),
        }),
        ({ tag }) => tag,
      )
    case "unanswered":
      return Effect.map(conduct(subject, cell, ["InputRequested"]), ({ tag }) => tag)
    case "refused":
      return Effect.map(conduct(subject, cell, ["ExecutionError"], { allowStdin: false }), ({ tag }) => tag)
    case "slow":
      return Effect.map(
        conduct(subject, cell, ["ExecutionTimeout"], { onInput: () => Effect.never, timeout: 50 + ms }),
        ({ tag }) => tag,
      )
  }
})

const late = kind("late output", 4, (dice) => ({
  threads: dice.int(1, 3),
  ms: dice.int(0, 60),
  isWaitedFor: dice.chance(0.7),
}), (subject, { isWaitedFor, ms, threads }) =>
  Effect.gen(function* () {
    const { late, marker, tolerated } = subject
    const texts = Array.from({ length: threads }, (_, index) => `${marker}.late.${index};`)
    const begun = yield* conduct(
      subject,
      cellOf(
        subject,
        "l",
        `import threading, time
go = threading.Event()
def work(text, go=go):
    go.wait(); time.sleep(${ms / 1000}); print(text)
for i in range(${threads}): threading.Thread(target=work, args=('${marker}.late.%d;' % i,), daemon=True).start()`,
      ),
    )
    if (begun.tag !== "ExecutionResult") return begun.tag
    const { tag } = yield* conduct(subject, cellOf(subject, "m", "go.set()"))
    if (tag !== "ExecutionResult" || tolerated.size > 0 || !isWaitedFor) return tag
    yield* eventually(() => texts.every((text) => late().includes(text)) ? undefined : "late output").pipe(
      Effect.catch(() => violation(`${marker}: Late output is lost`)),
    )
    const doubled = texts.filter((text) => late().split(text).length !== 2)
    if (doubled.length > 0) return yield* violation(`Late output came twice: ${doubled.join(" ")}`)
    return "LateOutput"
  }))

/** Elements as far as they are asked for; a generator that is left is closed. */
const iterate = kind("iterate", 4, (dice) => ({
  count: dice.int(0, 400),
  take: dice.int(1, 200),
  batchSize: dice.pick([1, 10, 1000]),
}), (subject, { batchSize, count, take }) =>
  Effect.gen(function* () {
    const { kernel, marker } = subject
    const body = `def ${marker}():
    global closed
    try:
        for i in range(${count}): yield i
    finally: closed = '${marker}'`
    const { tag } = yield* conduct(subject, cellOf(subject, "g", body))
    if (tag !== "ExecutionResult") return tag
    const elements = yield* expect(
      subject,
      "iterate",
      kernel.iterate(`${marker}()`, Schema.Int, { batchSize }).pipe(Stream.take(take), Stream.runCollect),
    )
    if (elements === undefined) return "tolerated"
    yield* same(
      `${marker} elements`,
      elements,
      Array.from({ length: Math.min(count, take) }, (_, index) => index),
    )
    const closed = yield* expect(subject, "evaluate", kernel.evaluate("closed", Schema.String))
    if (closed !== undefined) yield* same("closed", closed, marker)
    return "Values"
  }))

export const outputKinds: ReadonlyArray<Kind> = [
  print,
  large,
  system,
  stream,
  flood,
  limited,
  display,
  raise,
  invalid,
  input,
  late,
  iterate,
]
