/** The header of a server that says when to come back. */
import { assert, it } from "@effect/vitest"
import { Duration } from "effect"
import { parseRetryAfter } from "../../src/jupyter/rest_error.ts"

it("parseRetryAfter takes seconds and dates of HTTP, and nothing else that JavaScript takes for a date", () => {
  const now = Date.UTC(1994, 10, 6, 8, 49, 37)
  const millisOf = (value: string | undefined) => {
    const delay = parseRetryAfter(value, now)
    return delay === undefined ? undefined : Duration.toMillis(delay)
  }
  const cases: ReadonlyArray<readonly [string | undefined, number | undefined]> = [
    ["7", 7000],
    [" 0 ", 0],
    ["Sun, 06 Nov 1994 08:49:47 GMT", 10_000],
    ["Sunday, 06-Nov-94 08:49:47 GMT", 10_000],
    ["Sun, 06 Nov 1994 08:49:27 GMT", 0],
    ["9".repeat(400), Number.MAX_SAFE_INTEGER],
    ...[undefined, "", "-5", "1.5", "1e3", "5, 10", "soon 1", "2099-01-01", "Sun, garbage"]
      .map((value) => [value, undefined] as const),
  ]
  for (const [value, expected] of cases) assert.strictEqual(millisOf(value), expected, value)
})
