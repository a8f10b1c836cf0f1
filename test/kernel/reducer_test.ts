import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import process from "node:process"
import { Chunk, ClearOutput, DisplayChunk, ExecutionResult, Image, TextChunk } from "../../src/execution.ts"
import type { JsonObject, Message } from "../../src/jupyter/message.ts"
import * as Reducer from "../../src/kernel/reducer.ts"
import type { Output } from "../../src/output/output.ts"
import * as Transcript from "../../src/output/transcript.ts"

const message = (type: string, content: JsonObject): Message => ({
  channel: type === "execute_reply" ? "shell" : "iopub",
  header: { msg_id: "m", msg_type: type },
  parentHeader: { msg_id: "request" },
  metadata: {},
  content,
  buffers: [],
})
const idle = message("status", { execution_state: "idle" })
const reply = message("execute_reply", { status: "ok", execution_count: 3 })

const follow = (...messages: ReadonlyArray<Message>) => {
  let progress = Reducer.initial
  const outputs: Array<Output> = []
  for (const message of messages) {
    const [next, output] = Reducer.step(progress, message)
    progress = next
    if (output !== undefined) outputs.push(output)
  }
  return { progress, outputs }
}

const toChunk = (output: Output): Chunk => {
  switch (output._tag) {
    case "Text":
      return new TextChunk({ name: output.name, text: output.text })
    case "Clear":
      return new ClearOutput({ wait: output.wait })
    case "Display": {
      const { data, displayId, executionCount, metadata, update } = output
      const text = data["text/plain"]
      return new DisplayChunk({
        data,
        metadata,
        text: typeof text === "string" ? text : undefined,
        image: undefined,
        displayId,
        update,
        executionCount,
      })
    }
  }
}
const warned = (text: string) => new TextChunk({ name: "stderr", text })
const said = (text: string) => new TextChunk({ name: "stdout", text })
const shown = (text: string | undefined, options: { id?: string; image?: Image } = {}) =>
  new DisplayChunk({
    data: {},
    metadata: {},
    text,
    image: options.image,
    displayId: options.id,
    executionCount: undefined,
  })
const updateOf = (display: DisplayChunk) => new DisplayChunk({ ...display, update: true })
const clear = new ClearOutput({ wait: false })
const clearLater = new ClearOutput({ wait: true })
const image = (path: string) => new Image({ path, mimeType: "image/png" })

interface Update {
  readonly update: DisplayChunk
}
const resultOf = (...steps: ReadonlyArray<Chunk | Update>): ExecutionResult => {
  const transcript = steps.reduce(
    (transcript, step) => Transcript.append(transcript, "_tag" in step ? step : updateOf(step.update)),
    Transcript.empty(),
  )
  return Transcript.toResult(transcript, undefined)
}
const textsOf = (result: ExecutionResult) => result.displays.map(({ text }) => text)

it("putOutShown makes output of exceptions that the kernel showed, except those of an interrupt", () => {
  const released = (ename: string) =>
    Reducer.putOutShown({ ...Reducer.initial, shown: [{ ename, evalue: "", traceback: ["at line 1"] }] })
  const [next, output] = released("ValueError")
  assert.deepStrictEqual(output, { _tag: "Text", name: "stderr", text: "at line 1\n" })
  assert.deepStrictEqual(Reducer.putOutShown(next), [next])
  assert.isUndefined(released("KeyboardInterrupt")[1])
})

describe("step", () => {
  it("is over when reply and idle have arrived, whichever comes first", () => {
    assert.isFalse(Reducer.isOver(Reducer.initial))
    assert.isFalse(Reducer.isOver(follow(reply).progress))
    assert.isFalse(Reducer.isOver(follow(reply, reply).progress))
    assert.isFalse(Reducer.isOver(follow(idle).progress))
    assert.isFalse(Reducer.isOver(follow(idle, idle).progress))
    assert.isTrue(Reducer.isOver(follow(reply, idle).progress))
    assert.isTrue(Reducer.isOver(follow(idle, reply).progress))
  })

  it("takes output that the reply has overtaken", () => {
    const late = message("stream", { name: "stdout", text: "late" })
    assert.deepStrictEqual(follow(reply, late, idle).outputs, [{
      _tag: "Text",
      name: "stdout",
      text: "late",
    }])
  })

  it("ends with what the reply names, and puts out another exception, where neither has a traceback", () => {
    const { outputs, progress } = follow(
      message("error", { ename: "First", evalue: "1", traceback: [] }),
      message("execute_reply", { status: "error", ename: "Second", evalue: "2", traceback: [] }),
      idle,
    )
    assert.deepStrictEqual(progress.raised, { ename: "Second", evalue: "2", traceback: [] })
    assert.deepStrictEqual(outputs, [{ _tag: "Text", name: "stderr", text: "First: 1\n" }])
  })

  it("keeps few exceptions until it is known which of them ended the code, and puts out the others", () => {
    const error = message("error", { ename: "E", evalue: "", traceback: [] })
    const errors = Array.from({ length: 100 }, () => error)
    for (const before of [[], [message("execute_reply", { status: "error", ename: "E", evalue: "" })]]) {
      const { outputs, progress } = follow(...before, ...errors)
      assert.strictEqual(outputs.length + progress.shown.length, 100)
      assert.isAtMost(progress.shown.length, 8)
    }
  })

  it("takes only idle for idle", () => {
    for (const state of ["busy", "starting", "restarting", "dead", ""]) {
      assert.deepStrictEqual(
        follow(message("status", { execution_state: state })).progress,
        Reducer.initial,
      )
    }
  })

  it("notices when the code begins", () => {
    assert.isTrue(follow(message("execute_input", { code: "1", execution_count: 1 })).progress.started)
    assert.isTrue(follow(message("execute_input", {})).progress.started)
    assert.isFalse(follow(message("status", { execution_state: "busy" })).progress.started)
  })

  it("puts out what streams, displays and results carry", () => {
    const data = { "text/plain": "1", "application/json": { a: [1, null] } }
    const { outputs, progress } = follow(
      message("stream", { name: "stderr", text: "oh" }),
      message("display_data", { data, metadata: { a: 1 }, transient: { display_id: "d" } }),
      message("execute_result", { data, metadata: {}, execution_count: 3 }),
      message("update_display_data", { data, metadata: {}, transient: { display_id: "d" } }),
      message("display_data", { data, transient: { display_id: null }, execution_count: null }),
      message("clear_output", { wait: true }),
      message("clear_output", {}),
    )
    const display: Extract<Output, { readonly _tag: "Display" }> = {
      _tag: "Display",
      update: false,
      data,
      metadata: {},
      displayId: undefined,
      executionCount: undefined,
    }
    assert.deepStrictEqual(outputs, [
      { _tag: "Text", name: "stderr", text: "oh" },
      { ...display, metadata: { a: 1 }, displayId: "d" },
      { ...display, executionCount: 3 },
      { ...display, update: true, displayId: "d" },
      display,
      { _tag: "Clear", wait: true },
      { _tag: "Clear", wait: false },
    ])
    assert.strictEqual(progress, Reducer.initial)
  })

  it("takes text, displays and results for text, in order of arrival", () => {
    const { outputs } = follow(
      message("stream", { name: "stdout", text: " a\n" }),
      message("display_data", { data: { "text/plain": "b" }, metadata: {} }),
      message("stream", { name: "stderr", text: "c" }),
      message("execute_result", { data: { "text/plain": "d\n" }, metadata: {}, execution_count: 1 }),
    )
    assert.strictEqual(resultOf(...outputs.map(toChunk)).text, " a\nb\nc\nd")
  })

  it("counts executions", () => {
    const count = (value: unknown) =>
      follow(message("execute_reply", { status: "ok", execution_count: value })).progress.executionCount
    assert.strictEqual(count(3), 3)
    assert.isUndefined(count(null))
    assert.isUndefined(follow(message("execute_reply", { status: "ok" })).progress.executionCount)
    // Foreign kernels write what they like, and a result takes whole numbers only.
    assert.isUndefined(count(1.5))
    assert.isUndefined(count(1e300))
    assert.deepStrictEqual(
      follow(message("execute_result", { data: {}, execution_count: 1.5 })).outputs.map(toChunk),
      [shown(undefined)],
    )
  })
})

describe("step, on displays of other kernels and users", () => {
  const displayed = (content: JsonObject) =>
    follow(message("display_data", { data: { "text/plain": "a" }, ...content })).outputs.map(toChunk)

  it("takes an id that is a number", () => {
    assert.deepStrictEqual(
      displayed({ transient: { display_id: 5 } }).map((chunk) => "displayId" in chunk && chunk.displayId),
      ["5"],
    )
  })

  it("loses no display for what comes with it", () => {
    const plain = displayed({})
    assert.lengthOf(plain, 1)
    for (
      const transient of [null, {}, { display_id: null }, { display_id: "" }, { display_id: [1] }, "x", 1]
    ) {
      assert.deepStrictEqual(displayed({ transient, metadata: null }), plain)
    }
  })
})

describe("step, on exceptions that are shown and do not end the code", () => {
  const error = (evalue: string) =>
    message("error", { ename: "E", evalue, traceback: [`\u001b[31mE: ${evalue}`, "here"] })
  const text = (evalue: string): Output => ({
    _tag: "Text",
    name: "stderr",
    text: `E: ${evalue}\nhere\n`,
  })

  it("are output, whatever comes first", () => {
    for (const messages of [[error("a"), reply], [reply, error("a")]]) {
      const { outputs, progress } = follow(...messages)
      assert.deepStrictEqual(outputs, [text("a")])
      assert.isUndefined(progress.raised)
    }
  })

  const named = (evalue: string, traceback = [`E: ${evalue}`, "here"]) =>
    message("execute_reply", { status: "error", ename: "E", evalue, traceback })
  const raisedBy = (...messages: ReadonlyArray<Message>) => {
    const { outputs, progress } = follow(...messages)
    return {
      text: outputs.map((output) => output._tag === "Text" ? output.text : ""),
      raised: progress.raised,
    }
  }

  /** All orders in which messages can arrive that keep the order of each channel. */
  const orders = (iopub: ReadonlyArray<Message>, shell: Message) =>
    Array.from({ length: iopub.length + 1 }, (_, index) => iopub.toSpliced(index, 0, shell))

  it("are output if the reply names another one, in whatever order reply, idle and exceptions arrive", () => {
    for (const [ended, other] of [["a", "b"], ["b", "a"]] as const) {
      for (const messages of orders([error("a"), error("b"), idle], named(ended))) {
        const { raised, text } = raisedBy(...messages)
        assert.deepInclude(raised, { ename: "E", evalue: ended })
        assert.deepStrictEqual(text, [`E: ${other}\nhere\n`])
      }
    }
  })

  it("are output if the reply names one that was not shown, whose traceback it does not have", () => {
    for (const messages of orders([error("a"), error("b"), idle], named("c", ["E: b", "here"]))) {
      const { raised, text } = raisedBy(...messages)
      assert.deepStrictEqual(raised, { ename: "E", evalue: "c", traceback: [] })
      assert.strictEqual(text.join(""), "E: a\nhere\nE: b\nhere\n")
    }
  })

  it("are told from the one that ended the code by the traceback, else the last of equal ones ended it", () => {
    const equal = (line: string) => message("error", { ename: "E", evalue: "a", traceback: [line] })
    for (
      const [traceback, ended, other] of [[["1"], "1", "2"], [["2"], "2", "1"], [["3"], "2", "1"]] as const
    ) {
      for (const messages of orders([equal("1"), equal("2"), idle], named("a", [...traceback]))) {
        const { raised, text } = raisedBy(...messages)
        assert.deepStrictEqual([raised?.traceback, text], [[ended], [`${other}\n`]])
      }
    }
  })

  it("are output but for the last if the reply names none", () => {
    for (const content of [{}, { ename: "NoneType", evalue: "None", traceback: ["E: b", "here"] }]) {
      for (
        const messages of orders(
          [error("a"), error("b"), idle],
          message("execute_reply", { status: "error", ...content }),
        )
      ) {
        const { raised, text } = raisedBy(...messages)
        assert.deepStrictEqual([raised?.evalue, text.join("")], ["b", "E: a\nhere\n"])
      }
    }
  })

  it("are output although there are very many", () => {
    const all = Array.from({ length: 1000 }, (_, index) => error(`${index}`))
    for (const messages of orders([...all, idle], named("999")).slice(-3)) {
      const { raised, text } = raisedBy(...messages)
      assert.strictEqual(raised?.evalue, "999")
      assert.strictEqual(text.join("").match(/^E: /gm)?.length, 999)
    }
    assert.isBelow(follow(...all).progress.shown.length, 20)
  })
})

describe("step, on widgets that take output over", () => {
  const capture = (id: string, execution: string) =>
    message("comm_msg", { comm_id: id, data: { method: "update", state: { msg_id: execution } } })
  const stream = message("stream", { name: "stdout", text: "a" })

  it("says where output belongs, the last of them first", () => {
    const { outputs, progress } = follow(
      stream,
      capture("1", "request"),
      stream,
      capture("2", "request"),
      message("display_data", { data: {} }),
      message("clear_output", { wait: true }),
      capture("2", ""),
      message("error", { ename: "E" }),
      capture("1", ""),
      stream,
    )
    assert.deepStrictEqual(outputs.map(({ outputWidget }) => outputWidget), [
      undefined,
      "1",
      "2",
      "2",
      "1",
      undefined,
    ])
    assert.deepStrictEqual(progress, Reducer.initial)
  })

  it("keeps the last of very many", () => {
    const { outputs, progress } = follow(
      ...Array.from({ length: 20_000 }, (_, index) => capture(`${index}`, "request")),
      stream,
      capture("19999", ""),
      stream,
    )
    assert.deepStrictEqual(outputs.map(({ outputWidget }) => outputWidget), ["19999", "19998"])
    assert.isBelow(progress.capturingWidgets.length, 1000)
  })

  it("does not take other messages of widgets for that", () => {
    for (const state of [{}, { msg_id: 1 }, { value: "request" }]) {
      const content = { comm_id: "1", data: { method: "update", state } }
      assert.deepStrictEqual(follow(message("comm_msg", content)).progress, {
        ...Reducer.initial,
        ignored: 1,
      })
    }
    assert.deepStrictEqual(follow(capture("1", "another execution")).progress, Reducer.initial)
  })
})

describe("step, on errors", () => {
  const error = { ename: "ValueError", evalue: "no", traceback: ["frame 1", "frame 2"] }
  const failed = (content: JsonObject) => message("execute_reply", { status: "error", ...content })

  it("takes a syntax error from the reply", () => {
    const { progress } = follow(failed({ ename: "SyntaxError", evalue: "bad", traceback: ["here"] }), idle)
    assert.isTrue(Reducer.isOver(progress))
    assert.strictEqual(progress.reply, "error")
    assert.deepStrictEqual(progress.raised, { ename: "SyntaxError", evalue: "bad", traceback: ["here"] })
  })

  it("takes a runtime error from its message, before and after the reply", () => {
    const other = failed({ ...error, traceback: [] })
    for (const messages of [[message("error", error), other, idle], [other, message("error", error), idle]]) {
      const { progress } = follow(...messages)
      assert.strictEqual(progress.reply, "error")
      assert.deepStrictEqual(progress.raised, error)
    }
  })

  it("strips colours", () => {
    const coloured = {
      ename: "ValueError",
      evalue: "\u001b[31mno\u001b[0m",
      traceback: ["\u001b[0;31mframe 1\u001b[0m", "frame \u001b[38;5;241m2\u001b[39m"],
    }
    assert.deepStrictEqual(follow(message("error", coloured), failed(coloured), idle).progress.raised, error)
    assert.deepStrictEqual(follow(failed(coloured), idle).progress.raised, error)
  })

  it("makes do without a name, a value and a traceback", () => {
    const nameless = { ename: "Error", evalue: "", traceback: [] }
    assert.deepStrictEqual(Reducer.end(follow(message("error", {})).progress)[0].raised, nameless)
    assert.deepStrictEqual(follow(failed({}), idle).progress.raised, nameless)
  })

  it("takes an aborted reply for an end without an error", () => {
    for (const status of ["aborted", "abort", "whatever"]) {
      const { progress } = follow(message("execute_reply", { status, ...error }), idle)
      assert.isTrue(Reducer.isOver(progress))
      assert.strictEqual(progress.reply, "aborted")
      assert.isUndefined(progress.raised)
    }
  })
})

describe("step, on invalid messages", () => {
  const knownTypes = [
    "status",
    "execute_input",
    "stream",
    "display_data",
    "execute_result",
    "update_display_data",
    "clear_output",
    "error",
    "execute_reply",
  ] as const
  const Type = Schema.Union([Schema.Literals([...knownTypes, "comm_open", "input_request"]), Schema.String])
  const orJunk = <S extends Schema.Constraint>(schema: S) =>
    Schema.optionalKey(Schema.Union([schema, Schema.Json]))
  /** Contents that are nearly right. */
  const Content = Schema.Struct({
    execution_state: orJunk(Schema.Literals(["busy", "idle"])),
    name: orJunk(Schema.Literals(["stdout", "stderr"])),
    text: orJunk(Schema.String),
    data: orJunk(Schema.JsonObject),
    metadata: orJunk(Schema.JsonObject),
    transient: orJunk(Schema.Struct({ display_id: orJunk(Schema.String) })),
    execution_count: orJunk(Schema.Int),
    wait: orJunk(Schema.Boolean),
    ename: orJunk(Schema.String),
    evalue: orJunk(Schema.String),
    traceback: orJunk(Schema.Array(Schema.String)),
    status: orJunk(Schema.Literals(["ok", "error", "aborted"])),
  })

  it("counts messages of unknown types", () => {
    const { outputs, progress } = follow(message("comm_open", { data: {} }), message("", {}))
    assert.deepStrictEqual([outputs, progress], [[], { ...Reducer.initial, ignored: 2 }])
  })

  it("counts malformed messages of known types", () => {
    const bad: ReadonlyArray<Message> = [
      message("status", {}),
      message("stream", { name: "stdin", text: "a" }),
      message("stream", { name: "stdout", text: ["a"] }),
      message("display_data", { data: [] }),
      message("execute_result", { data: {}, metadata: 1 }),
      message("update_display_data", { data: 1, transient: { display_id: "d" } }),
      message("clear_output", { wait: "yes" }),
      message("error", { ename: 1 }),
    ]
    for (const one of bad) {
      assert.deepStrictEqual(
        Reducer.step(Reducer.initial, one),
        [{ ...Reducer.initial, ignored: 1 }],
        one.header.msg_type,
      )
    }
  })

  it("step accepts an invalid reply as the reply", () => {
    assert.deepStrictEqual(Reducer.step(Reducer.initial, message("execute_reply", {})), [
      { ...Reducer.initial, reply: "aborted", ignored: 1 },
    ])
  })

  it.prop(
    "loses nothing but the message",
    [Type, Schema.Union([Content, Schema.JsonObject])],
    ([type, content]) => {
      const before = follow(reply).progress
      const [after, output] = Reducer.step(before, message(type, content))
      if (after.ignored === 0) {
        assert.include(knownTypes, type)
      } else {
        assert.deepStrictEqual([after, output], [{ ...before, ignored: 1 }, undefined])
      }
    },
    { arbitrary: { runs: 1000 } },
  )

  it.prop(
    "always comes to a result",
    [Schema.Array(Schema.Struct({ type: Type, content: Content }))],
    ([messages]) => {
      const { outputs, progress } = follow(...messages.map(({ content, type }) => message(type, content)))
      const transcript = outputs.reduce(
        (transcript, output) => Transcript.append(transcript, toChunk(output), output.outputWidget),
        Transcript.empty(),
      )
      assert.instanceOf(Transcript.toResult(transcript, progress.executionCount), ExecutionResult)
    },
    { arbitrary: { runs: 500 } },
  )
})

describe("append", () => {
  it("comes to an empty result without output", () => {
    const result = Transcript.toResult(Transcript.empty(), 7)
    assert.deepStrictEqual(
      result,
      new ExecutionResult({ text: undefined, images: [], displays: [], executionCount: 7 }),
    )
    assert.isUndefined(resultOf(clear, shown(undefined), clearLater).text)
  })

  it("strips line breaks at both ends and white space at the end", () => {
    assert.strictEqual(resultOf(said("\n\r\n "), said(" a \n b"), said("\t\n")).text, "  a \n b")
    assert.strictEqual(resultOf(said("\n")).text, "")
    assert.strictEqual(resultOf(said("  x   y\n0 1   2")).text, "  x   y\n0 1   2")
  })

  it("gives each display lines of its own", () => {
    assert.strictEqual(resultOf(shown("'a'"), shown("'b'"), said("c\n"), shown("5")).text, "'a'\n'b'\nc\n5")
    assert.strictEqual(
      resultOf(said("a"), shown("b\n"), shown(""), shown(undefined), said("c")).text,
      "a\nb\nc",
    )
    assert.strictEqual(resultOf(shown("a"), said(""), said("\x1b[0m"), shown("b")).text, "a\n\x1b[0mb")
  })

  it("begins a line where the stream changes within a line", () => {
    assert.strictEqual(
      resultOf(warned("\r 1%"), warned("\r100%"), said("done\n"), warned("x")).text,
      "100%\ndone\nx",
    )
    assert.strictEqual(resultOf(said("a"), warned(""), said("b"), warned("c"), said("\nd")).text, "ab\nc\nd")
    // An erased line does not count, and a colored one does.
    assert.strictEqual(resultOf(said("a\n"), warned("50%"), warned("\r   \r"), said("b")).text, "a\nb")
    assert.strictEqual(
      resultOf(said("a\n\x1b[31m"), warned("b\n\x1b[0m"), said("c")).text,
      "a\n\x1b[31mb\n\x1b[0mc",
    )
  })

  it.prop("joins all texts, whatever else happens", [Schema.Array(Chunk)], ([chunks]) => {
    const texts = chunks.flatMap((chunk) => {
      if (chunk._tag === "TextChunk") return [chunk.text]
      return chunk._tag === "DisplayChunk" && !chunk.update && chunk.text !== undefined ? [chunk.text] : []
    })
    const { text } = resultOf(...chunks)
    const spaceless = (text: string) => text.replace(/\s/g, "")
    assert.strictEqual(text === undefined, texts.length === 0)
    assert.strictEqual(spaceless(text ?? ""), spaceless(texts.join("")))
  })

  it("keeps the beginning and the end of the text within the limit", () => {
    const transcript = [said("aaaa"), said("bbbb"), shown("cccc")]
      .reduce((transcript, chunk) => Transcript.append(transcript, chunk), Transcript.empty(6))
    assert.strictEqual(
      Transcript.toResult(transcript, undefined).text,
      "aaa\n[effect-jupyter] 7 bytes left out\nccc",
    )
  })

  it("keeps images in the order they were shown", () => {
    const [a, b, c] = [image("a"), image("b"), image("c")]
    const result = resultOf(shown("1", { image: a }), said("2"), shown("3", { image: b }), shown("4"), {
      update: shown("5", { id: "unknown", image: c }),
    })
    assert.deepStrictEqual(result.images, [a, b, c])
    assert.deepStrictEqual(
      resultOf(shown("1", { image: a }), clear).images,
      [a],
      "Files stay when displays go",
    )
  })
})

describe("append, on updates", () => {
  it("replaces the display and its image, wherever the id was shown", () => {
    const { displays, images, text } = resultOf(
      shown("a", { id: "1", image: image("a") }),
      shown("b", { id: "2", image: image("b") }),
      shown("c", { id: "1" }),
      { update: shown("d", { id: "1", image: image("d") }) },
    )
    const updated = shown("d", { id: "1", image: image("d") })
    assert.deepStrictEqual(displays, [updated, shown("b", { id: "2", image: image("b") }), updated])
    assert.deepStrictEqual(images, [image("d"), image("b")])
    assert.strictEqual(text, "a\nb\nc", "An update is not printed")
  })

  it("keeps the image when the update has none", () => {
    const result = resultOf(shown("a", { id: "1", image: image("a") }), { update: shown("b", { id: "1" }) })
    assert.deepStrictEqual(result.images, [image("a")])
    assert.deepStrictEqual(textsOf(result), ["b"])
  })

  it("adds no display for an unknown id", () => {
    const result = resultOf(shown("a", { id: "1" }), { update: shown("b", { id: "2" }) })
    assert.deepStrictEqual(textsOf(result), ["a"])
    assert.deepStrictEqual(textsOf(resultOf({ update: shown("b", { id: "2" }) })), [])
  })

  it("replaces nothing without an id", () => {
    const result = resultOf(shown("a", { image: image("a") }), shown("b"), {
      update: shown("c", { image: image("c") }),
    })
    assert.deepStrictEqual(textsOf(result), ["a", "b"])
    assert.deepStrictEqual(result.images, [image("a"), image("c")])
  })
})

describe("append, on clearing", () => {
  it("clears displays at once, and text never", () => {
    const result = resultOf(said("a"), shown("b"), clear)
    assert.deepStrictEqual([textsOf(result), result.text], [[], "a\nb"])
    assert.deepStrictEqual(textsOf(resultOf(shown("a"), clear, shown("b"))), ["b"])
  })

  it("waits for the next output, be it text or a display", () => {
    assert.deepStrictEqual(textsOf(resultOf(shown("a"), clearLater)), ["a"])
    assert.deepStrictEqual(textsOf(resultOf(shown("a"), clearLater, said("b"))), [])
    const result = resultOf(shown("a"), clearLater, shown("b"), shown("c"))
    assert.deepStrictEqual([textsOf(result), result.text], [["b", "c"], "a\nb\nc"])
  })

  it("does not take an update for output", () => {
    const update = { update: shown("b", { id: "1" }) }
    assert.deepStrictEqual(textsOf(resultOf(shown("a", { id: "1" }), clearLater, update)), ["b"])
    assert.deepStrictEqual(textsOf(resultOf(shown("a", { id: "1" }), clearLater, update, said("c"))), [])
  })
})

describe("append, as a notebook", () => {
  it("updates what is there when a known id is shown again", () => {
    const result = resultOf(shown("a", { id: "1" }), shown("b"), shown("c", { id: "1" }))
    assert.deepStrictEqual(textsOf(result), ["c", "b", "c"])
    assert.strictEqual(result.text, "a\nb\nc")
  })

  it("changes the content of a display, not whose value it is", () => {
    const value = new DisplayChunk({ ...shown("a", { id: "1" }), executionCount: 3 })
    const [display] = resultOf(value, { update: shown("b", { id: "1" }) }).displays
    assert.deepStrictEqual([display?.text, display?.executionCount], ["b", 3])
  })

  it("forgets the ids of what was cleared", () => {
    const update = { update: shown("b", { id: "1" }) }
    assert.deepStrictEqual(textsOf(resultOf(shown("a", { id: "1" }), clear, update)), [])
    assert.deepStrictEqual(textsOf(resultOf(shown("a", { id: "1" }), clear, shown("c"), update)), ["c"])
    assert.deepStrictEqual(
      textsOf(resultOf(shown("a", { id: "1" }), clearLater, shown("c", { id: "1" }), update)),
      ["b"],
    )
  })

  it("takes what was raised for an output that a clearing waits for", () => {
    const transcript = [said("a"), shown("b"), clearLater].reduce(
      (transcript, chunk) => Transcript.append(transcript, chunk),
      Transcript.empty(),
    )
    assert.lengthOf(Transcript.toResult(transcript, undefined).displays, 1)
    const result = Transcript.toResult(Transcript.applyPendingClear(transcript), undefined)
    assert.deepStrictEqual([textsOf(result), result.text], [[], "a\nb"])
  })
})

describe("append, on overwritten text", () => {
  it("append replaces overwritten text, of any stream", () => {
    const bar = (text: string) => new TextChunk({ name: "stderr", text })
    assert.strictEqual(
      resultOf(said("start\n"), bar("\r 1%"), bar("\r 2%"), said("\rout\n")).text,
      "start\nout",
    )
    assert.strictEqual(resultOf(bar("\r 1%"), bar("\r100%"), said("\nend")).text, "100%\nend")
  })

  it("never writes over a display", () => {
    assert.strictEqual(resultOf(said("1%"), shown("plot"), said("\r2%")).text, "1%\nplot\n2%")
    assert.strictEqual(resultOf(said("1%\r"), shown("a\rb"), said("2%")).text, "1%\na\rb\n2%")
  })
})

describe("append, in widgets", () => {
  type Step = readonly [Chunk, string?]
  const shownBy = (...steps: ReadonlyArray<Step>) =>
    textsOf(Transcript.toResult(
      steps.reduce(
        (transcript, [chunk, where]) => Transcript.append(transcript, chunk, where),
        Transcript.empty(),
      ),
      undefined,
    ))
  const inside = "1"

  it("clears a widget without the rest", () => {
    const before: ReadonlyArray<Step> = [[shown("a")], [shown("b"), inside], [shown("c"), "2"]]
    assert.deepStrictEqual(shownBy(...before, [clear, inside], [shown("d"), inside]), ["a", "c", "d"])
    assert.deepStrictEqual(shownBy(...before, [clear, inside], [clear, "2"]), ["a"])
    assert.deepStrictEqual(shownBy(...before, [clear]), [])
    assert.deepStrictEqual(shownBy(...before, [clear, inside], [clear], [shown("d"), inside]), ["d"])
  })

  it("waits for the next output of the widget", () => {
    const before: ReadonlyArray<Step> = [[shown("a")], [shown("b"), inside], [clearLater, inside]]
    assert.deepStrictEqual(shownBy(...before, [shown("c")]), ["a", "b", "c"])
    assert.deepStrictEqual(shownBy(...before, [said("c"), inside]), ["a"])
    assert.deepStrictEqual(shownBy(...before, [shown("c"), inside], [shown("d"), inside]), ["a", "c", "d"])
    assert.deepStrictEqual(shownBy([shown("a")], [clearLater], [said("b"), inside], [shown("c")]), ["c"])
  })

  it("updates displays in widgets, and forgets those that are cleared", () => {
    const updated = updateOf(shown("c", { id: "1" }))
    assert.deepStrictEqual(
      shownBy([shown("a", { id: "1" })], [shown("b", { id: "1" }), inside], [updated]),
      ["c", "c"],
    )
    assert.deepStrictEqual(
      shownBy([shown("a", { id: "1" }), inside], [clear, inside], [updated]),
      [],
    )
  })
})

describe("append, in great numbers", () => {
  const timeOf = (steps: Iterable<readonly [Chunk, string?]>) => {
    const started = process.threadCpuUsage()
    let transcript = Transcript.empty(10_000_000)
    for (const [chunk, where] of steps) transcript = Transcript.append(transcript, chunk, where)
    const result = Transcript.toResult(transcript, undefined)
    const { system, user } = process.threadCpuUsage(started)
    return { result, time: (system + user) / 1000, transcript }
  }
  const plot = (id: string, at: number) => shown(`${at}`, { id, image: image(`${at}`) })

  function* updates(count: number): Generator<readonly [Chunk, string?]> {
    for (let at = 0; at < count; at++) yield [plot(`${at}`, at)]
    for (let round = 0; round < 10; round++) {
      for (let at = 0; at < count; at++) yield [updateOf(plot(`${at}`, round))]
    }
  }
  function* clearings(count: number): Generator<readonly [Chunk, string?]> {
    for (let at = 0; at < count; at++) yield [shown("cell")]
    for (let at = 0; at < 10 * count; at++) {
      yield [clearLater, "1"]
      yield [shown("widget", { id: `${at}` }), "1"]
    }
  }

  for (const [what, steps] of [["updates", updates], ["clearings of a widget", clearings]] as const) {
    it(`${what} of many displays take time in proportion`, () => {
      timeOf(steps(1000))
      const { time: some } = timeOf(steps(2000))
      const { time: all } = timeOf(steps(16_000))
      assert.isBelow(all / Math.max(some, 10), 30)
    })
  }

  it("what is not shown any more is let go", () => {
    const { result, transcript } = timeOf(clearings(1000))
    assert.lengthOf(result.displays, 1001)
    assert.isAtMost(transcript.displays.length, 2100)
    assert.isAtMost([...transcript.contents].length, 2100)
    const { result: updated, transcript: last } = timeOf(updates(100))
    assert.deepStrictEqual(updated.images.map(({ path }) => path), Array<string>(100).fill("9"))
    assert.deepStrictEqual([last.displays.length, last.images.length], [100, 100])
  })

  it("200,000 updates and as many clearings leave what is shown in the end", () => {
    function* many(): Generator<readonly [Chunk, string?]> {
      yield [shown("0", { id: "1" })]
      for (let at = 1; at <= 200_000; at++) yield [updateOf(shown(`${at}`, { id: "1" }))]
      for (let at = 1; at <= 200_000; at++) {
        yield [clearLater]
        yield [shown(`${at}`, { id: "2" })]
      }
    }
    const { result, transcript } = timeOf(many())
    assert.deepStrictEqual(textsOf(result), ["200000"])
    assert.deepStrictEqual([transcript.displays.length, [...transcript.contents].length], [1, 1])
  }, 120_000)
})
