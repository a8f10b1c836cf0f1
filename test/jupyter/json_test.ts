import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Json from "../../src/jupyter/json.ts"

describe("parse", () => {
  it.prop("returns the value of JSON.parse", [Schema.Json], ([value]) => {
    assert.deepStrictEqual(
      Result.getOrThrow(Json.parse(JSON.stringify(value))),
      JSON.parse(JSON.stringify(value)),
    )
  }, { arbitrary: { runs: 300 } })

  it("refuses JSON that is too deep, without counting brackets in strings", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth)
    assert.isTrue(Result.isSuccess(Json.parse(nested(256))))
    for (const text of [nested(257), '{"a":'.repeat(257) + "1" + "}".repeat(257), "[".repeat(100_000)]) {
      assert.deepInclude(Result.getOrThrow(Result.flip(Json.parse(text))), { isTooLarge: true })
    }
    for (const text of ["[{".repeat(1000), `${"\\".repeat(7)}"${"[".repeat(1000)}`, `"[\\`.repeat(1000)]) {
      assert.deepStrictEqual(Result.getOrThrow(Json.parse(JSON.stringify([text, text]))), [text, text])
    }
    const flat = JSON.stringify(Array.from({ length: 10_000 }, () => [{}]))
    assert.isTrue(Result.isSuccess(Json.parse(flat)))
  })

  it("refuses JSON with too many values before it creates any", () => {
    for (const item of ["[],", "{},", "1,", '"",']) {
      const error = Result.getOrThrow(Result.flip(Json.parse(`[${item.repeat(Json.maxValues + 1)}1]`)))
      assert.isTrue(error.isTooLarge, item)
    }
  })

  it("describes invalid JSON without control characters", () => {
    const error = Result.getOrThrow(Result.flip(Json.parse("\x1b]0;title\x07")))
    assert.isFalse(error.isTooLarge)
    assert.notInclude(error.message, "\x1b")
  })
})

describe("hasMoreValues", () => {
  it("counts all values", () => {
    assert.isFalse(Json.hasMoreValues({ a: [1, 2], b: "x" }, 5))
    assert.isTrue(Json.hasMoreValues({ a: [1, 2], b: "x" }, 4))
    assert.isFalse(Json.hasMoreValues("x", 1))
  })
})
