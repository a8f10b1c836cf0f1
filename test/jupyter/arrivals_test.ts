import { assert, it } from "@effect/vitest"
import * as Arrivals from "../../src/jupyter/arrivals.ts"
import { request } from "../../src/jupyter/message.ts"
import { ChannelError } from "../../src/jupyter/socket.ts"

const message = (id: string) => ({
  ...request("status", { id, session: "kernel", channel: "iopub", content: {} }),
  parentHeader: { msg_id: "request", session: "client" },
})
const cut = new ChannelError({ detail: "cut" })

it("record returns false for each message that it recorded before, numbered or not", () => {
  const arrivals = Arrivals.make("client")
  for (const id of ["kernel_1_1", "other", "kernel_1_2"]) assert.isTrue(arrivals.record(message(id)), id)
  for (const id of ["kernel_1_1", "other", "kernel_1_2"]) assert.isFalse(arrivals.record(message(id)), id)
})

it("record remembers 8,192 messages, and at most twice as many", () => {
  const arrivals = Arrivals.make("client")
  for (let number = 0; number <= 16_384; number++) arrivals.record(message(`id ${number}`))
  assert.isFalse(arrivals.record(message("id 8193")))
  assert.isTrue(arrivals.record(message("id 0")))
})

it("isComplete is false after a cut while a number is missing, and begin forgets the cut", () => {
  const arrivals = Arrivals.make("client")
  for (const number of [1, 2]) arrivals.record(message(`kernel_1_${number}`))
  arrivals.begin()
  arrivals.cut(cut)
  arrivals.record(message("kernel_1_4"))
  assert.isFalse(arrivals.isComplete())
  assert.strictEqual(arrivals.disconnectError(), cut)
  arrivals.record(message("kernel_1_3"))
  assert.isTrue(arrivals.isComplete())
  arrivals.begin()
  assert.isUndefined(arrivals.disconnectError())
})

it("isComplete is false after a cut for a kernel that does not number its messages", () => {
  const arrivals = Arrivals.make("client")
  arrivals.record(message("some id"))
  assert.isFalse(arrivals.isNumbered())
  assert.isTrue(arrivals.isComplete())
  arrivals.cut(cut)
  assert.isFalse(arrivals.isComplete())
})
