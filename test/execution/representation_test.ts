import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Option } from "effect"
import { Execution } from "../../src/mod.ts"

const display = (data: Execution.DisplayChunk["data"]) =>
  new Execution.DisplayChunk({
    data,
    metadata: {},
    text: undefined,
    image: undefined,
    displayId: undefined,
    executionCount: undefined,
  })
const all = {
  "text/plain": "plain",
  "text/html": ["<b>", "html</b>"],
  "image/png": "AAAA",
  "application/vnd.vegalite.v5+json": { mark: "bar" },
}

describe("best", () => {
  it("takes the first of the preferences that is there", () => {
    const found = Execution.best(display(all), ["text/latex", "text/html", "image/png", "text/plain"])
    assert.deepStrictEqual(found, Option.some({ mimeType: "text/html", data: "<b>html</b>" }))
    assert.deepStrictEqual(Execution.best(display(all), ["image/jpeg"]), Option.none())
    assert.deepStrictEqual(Execution.best(display({})), Option.none())
    assert.deepStrictEqual(Execution.best(display(all), []), Option.none())
  })

  it("prefers what JupyterLab does", () => {
    const order = Object.keys({ ...all, "image/svg+xml": 1, "text/latex": 1, "text/markdown": 1 })
    const data: Record<string, unknown> = Object.fromEntries(order.map((mimeType) => [mimeType, mimeType]))
    const preferred: Array<string> = []
    for (const _ of order) {
      const { mimeType } = Option.getOrThrow(Execution.best(display(data)))
      preferred.push(mimeType)
      delete data[mimeType]
    }
    assert.deepStrictEqual(preferred, [
      "application/vnd.vegalite.v5+json",
      "text/html",
      "text/markdown",
      "text/latex",
      "image/svg+xml",
      "image/png",
      "text/plain",
    ])
  })

  it("takes anything for a star, and a point for a point", () => {
    const { mimeType } = Option.getOrThrow(Execution.best(display(all), ["application/vnd.vegalite.*"]))
    assert.strictEqual(mimeType, "application/vnd.vegalite.v5+json")
    assert.isTrue(Option.isNone(Execution.best(display(all), ["text.*", "application/vndXvegalite*"])))
  })

  it("passes over what is not what its type says", () => {
    const odd = display({
      "text/html": { a: 1 },
      "image/png": null,
      "application/json": null,
      "text/plain": "x",
    })
    assert.strictEqual(Option.getOrThrow(Execution.best(odd)).mimeType, "text/plain")
    assert.isTrue(Option.isNone(Execution.best(display({ toString: "x" }), ["constructor"])))
  })

  it("has the type of what was asked for", () => {
    expectTypeOf(Execution.best(display(all), ["text/html", "application/json"])).toEqualTypeOf<
      Option.Option<Execution.Representation<"text/html" | "application/json">>
    >()
    expectTypeOf<Execution.Representation<"text/html" | "image/png">["data"]>().toEqualTypeOf<string>()
    expectTypeOf<Execution.Representation["data"]>().toEqualTypeOf<unknown>()
  })
})
