/** Credentials that are asked for again, and secrets in texts. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import * as Credentials from "../../src/jupyter/credentials.ts"
import * as Secrets from "../../src/jupyter/secrets.ts"

/** Credentials whose Effect gives a new token each time, which lives for the given time. */
const counted = Effect.fnUntraced(function* (lifetime?: number) {
  let count = 0
  const credentials = yield* Credentials.make(
    Effect.gen(function* () {
      const expiresAt = lifetime === undefined ? undefined : (yield* Clock.currentTimeMillis) + lifetime
      yield* Effect.yieldNow
      return { headers: { authorization: `token number-${++count}` }, expiresAt }
    }),
  )
  return { credentials, asked: () => count }
})

describe("Credentials.make", () => {
  it.effect("asks once for all requests, and once for all that were refused", () =>
    Effect.gen(function* () {
      const { asked, credentials } = yield* counted()
      const all = yield* Effect.all(Array.from({ length: 9 }, () => credentials.headers), {
        concurrency: "unbounded",
      })
      assert.strictEqual(asked(), 1)
      const renewed = yield* Effect.forEach(all, credentials.renew, {
        concurrency: "unbounded",
      })
      const second = { authorization: "token number-2" }
      assert.deepStrictEqual(renewed, Array.from({ length: 9 }, () => Option.some(second)))
      assert.strictEqual(asked(), 2)
      assert.deepStrictEqual(yield* credentials.headers, second)
      yield* TestClock.adjust("1000 days")
      yield* credentials.headers
      assert.strictEqual(asked(), 2)
    }))

  it.effect("asks again when a tenth of the lifetime is left, and 30 seconds at most", () =>
    Effect.gen(function* () {
      for (const [lifetime, margin] of [[10_000, 1000], [3_600_000, 30_000]] as const) {
        const { asked, credentials } = yield* counted(lifetime)
        yield* credentials.headers
        yield* TestClock.adjust(lifetime - margin - 1)
        yield* credentials.headers
        assert.strictEqual(asked(), 1)
        yield* TestClock.adjust(2)
        yield* credentials.headers
        assert.strictEqual(asked(), 2)
      }
    }))

  it.effect("an Effect that never ends is a failure after 30 seconds", () =>
    Effect.gen(function* () {
      const { headers } = yield* Credentials.make(Effect.never)
      const asking = yield* Effect.forkChild(Effect.flip(headers), { startImmediately: true })
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* Fiber.join(asking)).detail, "None within 30s")
    }))

  it.effect("renew tells that there are no others, and a failure is not kept", () =>
    Effect.gen(function* () {
      let isBroken = true
      const credentials = yield* Credentials.make(
        Effect.suspend(() =>
          isBroken
            ? Effect.fail(new Credentials.CredentialsError({ detail: "no vault" }))
            : Effect.succeed({ headers: { authorization: "token same" }, expiresAt: undefined })
        ),
      )
      assert.strictEqual((yield* Effect.flip(credentials.headers)).detail, "no vault")
      isBroken = false
      assert.deepStrictEqual(yield* credentials.renew(yield* credentials.headers), Option.none())
    }))
})

describe("Secrets.redact", () => {
  it("removes values of headers, tokens and passwords, in addresses too; of short ones whole words", () => {
    const { add, redact } = Secrets.make()
    add({ authorization: "token s3cr/et+1", "x-key": "another-secret", "x-version": "2" })
    assert.strictEqual(
      redact("s3cr/et+1 ?token=s3cr%2Fet%2B1& another-secret 2"),
      "<redacted> ?token=<redacted>& <redacted> 2",
    )
    add({ authorization: `Basic ${btoa("ada:pass word.")}` })
    assert.strictEqual(redact("pass word. passwords"), "<redacted> passwords")
    add({ Authorization: "Bearer abc" })
    assert.strictEqual(redact("abc, abcd (abc)"), "<redacted>, abcd (<redacted>)")
  })

  it("removes a secret as it is in addresses, in JSON and in HTML, and parts of headers", () => {
    const { add, redact } = Secrets.make()
    const token = `top+"se'/<c>\\ret&é`
    add({ authorization: `token ${token}` })
    const html = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" } as const
    const escaped = encodeURIComponent(token)
    const forms = [
      token,
      escaped,
      escaped.toLowerCase(),
      escaped.replaceAll("'", "%27"),
      encodeURIComponent(escaped),
      JSON.stringify(token).slice(1, -1),
      JSON.stringify(token).slice(1, -1).replaceAll("/", "\\/").replaceAll("é", "\\u00e9"),
      token.replaceAll(/[&<>"']/g, (character) => html[character as keyof typeof html]),
      token.replaceAll("'", "&#39;").replaceAll("é", "&#233;"),
    ]
    assert.deepStrictEqual(forms.map((form) => redact(`(${form})`)), forms.map(() => "(<redacted>)"))
    add({ "x-auth": "Bearer bearer-secret", cookie: `lang=en; sid="cookie-secret"; other=second-secret` })
    assert.strictEqual(
      redact("bearer-secret, cookie-secret, second-secret, Bearer sid en"),
      "<redacted>, <redacted>, <redacted>, Bearer sid en",
    )
  })

  it("remembers the latest", () => {
    const { add, redact } = Secrets.make()
    for (let index = 0; index < 200; index++) add({ authorization: `token number-${index}-` })
    assert.strictEqual(redact("number-199- number-0-"), "<redacted> number-0-")
  })
})
