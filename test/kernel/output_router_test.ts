import { assert, it } from "@effect/vitest"
import type { Unsolicited } from "../../src/kernel/late_output.ts"
import * as OutputRouter from "../../src/kernel/output_router.ts"
import { request } from "../../src/jupyter/message.ts"

it("route knows the execution counts of the latest 1,024 executions, and of at most twice as many", () => {
  const router = OutputRouter.make()
  const late: Array<Unsolicited> = []
  router.onLateOutput((output) => late.push(output))
  const ids = Array.from({ length: 5000 }, OutputRouter.executionId)
  for (const [index, id] of ids.entries()) router.claim(id, () => {})(index + 1)
  for (const id of ids) {
    const content = { name: "stdout", text: "late" }
    router.route(request("stream", { id: "1", session: "kernel", parentHeader: { msg_id: id }, content }), 1)
  }
  const known = late.flatMap(({ executionCount, executionId }, index) => {
    assert.strictEqual(executionId, ids[index])
    return executionCount === undefined ? [] : [executionCount]
  })
  assert.isAtLeast(known.length, 1024)
  assert.isAtMost(known.length, 2048)
  assert.deepStrictEqual(known, ids.map((_, index) => index + 1).slice(-known.length))
})
