import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import * as Message from "../../src/jupyter/message.ts"

const parts = {
  channel: "iopub",
  header: { msg_id: "1", msg_type: "stream", session: "s", extra: [1] },
  parentHeader: { msg_id: "0" },
  metadata: { a: 1 },
  content: { b: 2 },
  buffers: [Uint8Array.of(1)],
}

describe("message", () => {
  it("request makes a message on the shell channel by default", () => {
    const options = { id: "1", session: "s", content: { a: 1 } }
    assert.deepStrictEqual(Message.request("kernel_info_request", options), {
      channel: "shell",
      header: {
        msg_id: "1",
        msg_type: "kernel_info_request",
        session: "s",
        username: "effect-jupyter",
        version: "5.3",
      },
      parentHeader: {},
      metadata: {},
      content: { a: 1 },
      buffers: [],
    })
    const reply = Message.request("input_reply", {
      ...options,
      channel: "stdin",
      parentHeader: { msg_id: "0" },
    })
    assert.deepStrictEqual([reply.channel, Message.parentId(reply)], ["stdin", "0"])
  })

  it("executeContent does not abort later executions on an error", () => {
    assert.deepStrictEqual(Message.executeContent("1", { silent: false, allowStdin: true }), {
      code: "1",
      silent: false,
      store_history: true,
      user_expressions: {},
      allow_stdin: true,
      stop_on_error: false,
    })
    const silent = Message.executeContent("1", { silent: true, allowStdin: false })
    assert.deepStrictEqual([silent.silent, silent.store_history, silent.allow_stdin], [true, false, false])
  })

  it("parentId returns the id of the request, if there is one", () => {
    const message = Message.request("status", { id: "1", session: "s", content: {} })
    for (const parentHeader of [{}, { msg_id: null }, { msg_id: 1 }, { id: "0" }]) {
      assert.isUndefined(Message.parentId({ ...message, parentHeader }))
    }
    assert.strictEqual(Message.parentId({ ...message, parentHeader: { msg_id: "0" } }), "0")
  })

  it.effect("fromParts makes a message of parsed parts", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* Effect.fromResult(Message.fromParts(parts)), parts)
      for (const nothing of [undefined, null, [], "", 0]) {
        const message = yield* Effect.fromResult(
          Message.fromParts({ ...parts, parentHeader: nothing, metadata: nothing }),
        )
        assert.deepStrictEqual([message.parentHeader, message.metadata], [{}, {}])
      }
    }))

  it.effect("fromParts fails without a channel, ids or content", () =>
    Effect.gen(function* () {
      for (const bad of [undefined, null, [], 1]) {
        for (const key of ["channel", "header", "content"]) {
          const error = yield* Effect.flip(Effect.fromResult(Message.fromParts({ ...parts, [key]: bad })))
          assert.instanceOf(error, Message.WireError)
          assert.match(error.message, /^The server sent a frame that is not a Jupyter message: It.*[^.]$/)
        }
      }
    }))
})

describe("decode", () => {
  it("drops unknown keys", () => {
    const content = { name: "stdout", text: "a", extra: 1 }
    assert.deepStrictEqual(Message.decode.stream(content), Exit.succeed({ name: "stdout", text: "a" }))
  })

  it("keeps all representations of a display unchanged", () => {
    // As a kernel may well send it; an assignment to this key would be lost.
    const data: Message.JsonObject = JSON.parse(`{"text/plain":"1","x":{"y":[null]},"__proto__":{"z":1}}`)
    assert.deepStrictEqual(Message.decode.display({ data }), Exit.succeed({ data }))
    const decoded = Message.decode.display({ data })
    assert.isTrue(Exit.isSuccess(decoded) && Object.hasOwn(decoded.value.data, "__proto__"))
  })

  it("accepts messages with required keys only", () => {
    const least: ReadonlyArray<Exit.Exit<unknown, unknown>> = [
      Message.decode.display({ data: {} }),
      Message.decode.display({ data: {}, execution_count: null, transient: { display_id: null } }),
      Message.decode.clearOutput({}),
      Message.decode.status({ execution_state: "idle" }),
      Message.decode.error({}),
      Message.decode.executeReply({ status: "ok" }),
      Message.decode.inputRequest({ prompt: "" }),
      Message.decode.kernelInfoReply({}),
    ]
    for (const exit of least) assert.isTrue(Exit.isSuccess(exit))
  })

  it("refuses values of the wrong type", () => {
    const bad: ReadonlyArray<Exit.Exit<unknown, unknown>> = [
      Message.decode.stream({ name: "stdin", text: "" }),
      Message.decode.stream({ name: "stdout" }),
      Message.decode.display({ data: null }),
      Message.decode.clearOutput({ wait: 1 }),
      Message.decode.status({}),
      Message.decode.error({ traceback: "frame" }),
      Message.decode.executeReply({}),
      Message.decode.inputRequest({}),
      Message.decode.kernelInfoReply({ language_info: "python" }),
    ]
    for (const exit of bad) assert.isTrue(Exit.isFailure(exit))
  })
})
