/** The cookies of a server: which are kept, and which are sent to which address. */
import { assert, it } from "@effect/vitest"
import * as HttpCookies from "effect/http/Cookies"
import * as Cookies from "../../src/jupyter/cookies.ts"

const from = "http://hub.example.org/user/ada/api/kernels"

/** The cookies that are sent to an address after a server has set these. */
const sentTo = (url: string, ...lines: ReadonlyArray<string>): string | undefined => {
  const { addTo, keep } = Cookies.make()
  keep(HttpCookies.fromSetCookie(lines), from, 0)
  return addTo({}, url, 1000).cookie
}

it("Cookies.addTo sends cookies by path, host, scheme and expiry, to WebSockets too", () => {
  const lines = [
    "root=1; Path=/",
    "here=2",
    "user=3; Path=/user/ada",
    "else=4; Path=/user/adam",
    "safe=5; Path=/; Secure",
    "all=6; Path=/; Domain=.example.org",
    "other=7; Path=/; Domain=elsewhere.org",
    "late=8; Path=/; Max-Age=1",
    "soon=9; Path=/; Expires=Thu, 01 Jan 1970 00:00:10 GMT; Max-Age=2",
    "gone=10; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    "odd=11; Path=/; Expires=garbage; Max-Age=soon",
    "no name; Path=/",
    "=empty; Path=/",
  ]
  const everywhere = "root=1; all=6; soon=9; odd=11"
  assert.strictEqual(sentTo(from, ...lines), `here=2; user=3; ${everywhere}`)
  assert.strictEqual(sentTo("ws://hub.example.org/user/ada/x", ...lines), `user=3; ${everywhere}`)
  assert.strictEqual(sentTo("wss://hub.example.org/", ...lines), "root=1; safe=5; all=6; soon=9; odd=11")
  assert.strictEqual(sentTo("http://ada.example.org/", ...lines), "all=6")
  assert.isUndefined(sentTo("http://elsewhere.org/", ...lines))
})

it("Cookies.keep takes names of Object.prototype, replaces and removes, and merges with given ones", () => {
  assert.strictEqual(
    sentTo(from, "__proto__=1; Path=/", "constructor=2; Path=/", "toString=3; Path=/"),
    "__proto__=1; constructor=2; toString=3",
  )
  assert.strictEqual(sentTo(from, "a=1; Path=/", "a=2; Path=/"), "a=2")
  assert.isUndefined(sentTo(from, `long=${"x".repeat(5000)}; Path=/`))
  const { addTo, keep, redact } = Cookies.make()
  keep(HttpCookies.fromSetCookie(["a=1; Path=/", "sid=0123456789abcdef; Path=/"]), from, 0)
  assert.deepStrictEqual(addTo({ Cookie: "mine=1" }, from, 0), {
    Cookie: "mine=1; a=1; sid=0123456789abcdef",
  })
  keep(HttpCookies.fromSetCookie("sid=; Path=/; Max-Age=0"), from, 0)
  assert.deepStrictEqual(addTo({}, from, 0), { cookie: "a=1" })
  assert.strictEqual(redact("the session 0123456789abcdef of 1"), "the session <redacted> of 1")
})
