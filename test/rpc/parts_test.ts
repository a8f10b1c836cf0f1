/** Buffers that are packed into one, as requests and answers between processes have them. */
import { assert, describe, it } from "@effect/vitest"
import * as Parts from "../../src/rpc/parts.ts"

describe("Parts", () => {
  it("unpack returns the buffers that were packed, also empty ones and none", () => {
    for (
      const sizes of [
        [],
        [0],
        [1],
        [0, 3, 0, 2],
        Array.from({ length: 10_000 }, (_, index) => index % 3),
      ]
    ) {
      const buffers = sizes.map((size, index) => new Uint8Array(size).fill(index))
      assert.deepStrictEqual(Parts.unpack(Parts.join(Parts.pack(buffers))), buffers)
      const shifted = new Uint8Array([9, ...Parts.join(Parts.pack(buffers))]).subarray(1)
      assert.deepStrictEqual(Parts.unpack(shifted), buffers)
    }
  })

  it("unpack returns undefined for bytes that were not packed", () => {
    const packed = Parts.join(Parts.pack([new Uint8Array(2)]))
    for (
      const bytes of [
        new Uint8Array(0),
        new Uint8Array(3),
        new Uint8Array([255, 255, 255, 255]),
        new Uint8Array([0, 0, 0, 1, 255, 255, 255, 255]),
        packed.subarray(1),
        packed.subarray(0, -1),
        new Uint8Array([...packed, 0]),
      ]
    ) assert.isUndefined(Parts.unpack(bytes), String(bytes))
  })

  it("ofSize gives parts of at most that size", () => {
    const parts = Parts.ofSize([new Uint8Array(5).fill(1), new Uint8Array(0), new Uint8Array(2).fill(2)], 2)
    assert.deepStrictEqual(parts.map(({ byteLength }) => byteLength), [2, 2, 1, 2])
    assert.deepStrictEqual(Array.from(Parts.join(parts)), [1, 1, 1, 1, 1, 2, 2])
  })
})
