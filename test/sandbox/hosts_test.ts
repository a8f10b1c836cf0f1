import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import * as Hosts from "../../src/sandbox/hosts.ts"

const Label = Schema.Literals(["a", "bc", "x-1", "example", "org"])
const labels = Arbitrary.array(Arbitrary.schema(Label), { minLength: 2, maxLength: 4 })
const Port = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65535 }))

describe("hosts", () => {
  it("problem accepts hosts, wildcards, addresses and ports", () => {
    const good = [
      "example.org",
      "*.example.org",
      "example.org:443",
      "127.0.0.1:80",
      "[::1]",
      "[::1]:8080",
      "localhost",
    ]
    for (const pattern of good) assert.isUndefined(Hosts.problem(pattern), pattern)
  })

  it("problem names the invalid pattern", () => {
    const bad = [
      "",
      "*",
      "*.org",
      "org",
      "a.*.org",
      "https://example.org",
      "example.org/path",
      "example.org:0",
      "example.org:65536",
      "example.org:http",
      "exam ple.org",
      "example..org",
      ".example.org",
      "example.org.",
      "-a.org",
      "[::1",
      "[example.org]",
      "evil.test\n.example.org",
      "example.org\0",
    ]
    for (const pattern of bad) {
      const problem = Hosts.problem(pattern)
      assert.isDefined(problem, pattern)
      assert.include(problem, `"${pattern}"`)
    }
  })

  it.prop(
    "covers accepts a host for itself and for a wildcard of a parent domain, on any port",
    [labels, Port],
    ([parts, port]) => {
      const host = parts.join(".")
      assert.isTrue(Hosts.covers(host, host))
      assert.isTrue(Hosts.covers(host, `${host}:${port}`))
      assert.isTrue(Hosts.covers(host.toUpperCase(), host))
      assert.isTrue(Hosts.covers(`*.${host}`, `sub.${host}`))
      assert.isTrue(Hosts.covers(`*.${host}`, `*.sub.${host}:${port}`))
    },
  )

  it.prop("covers refuses a narrower pattern", [labels, Port], ([parts, port]) => {
    const host = parts.join(".")
    assert.isFalse(Hosts.covers(`${host}:${port}`, host))
    assert.isFalse(Hosts.covers(`${host}:${port}`, `${host}:${port === 1 ? 2 : port - 1}`))
    assert.isFalse(Hosts.covers(host, `*.${host}`))
    assert.isFalse(Hosts.covers(`*.${host}`, host))
    assert.isFalse(Hosts.covers(`*.${host}`, `evil${host}`))
    assert.isFalse(Hosts.covers(host, `${host}.evil.test`))
  })
})
