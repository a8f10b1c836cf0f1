/**
 * Host patterns, as in `"example.org"`, `"*.example.org"` and `"example.org:443"`.
 *
 * @module
 */
import { isIP } from "node:net"

interface Pattern {
  readonly host: string
  /** All ports if absent. */
  readonly port: string | undefined
}

function parse(pattern: string): Pattern {
  const bracketed = /^\[([^\]]*)\](?::(\d+))?$/.exec(pattern)
  const plain = bracketed ?? /^([^:]*)(?::(\d+))?$/.exec(pattern)
  return { host: (plain?.[1] ?? pattern).toLowerCase(), port: plain?.[2] }
}

const name = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/

/** Returns the reason why a pattern is not valid; `undefined` if it is. */
export function problem(pattern: string): string | undefined {
  const instead = 'give a host as in "example.org", "*.example.org" or "example.org:443"'
  if (pattern.includes("://") || pattern.includes("/")) return `"${pattern}" is a URL; ${instead}`
  const { host, port } = parse(pattern)
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535)) return `"${pattern}" has no such port`
  if (pattern.startsWith("[")) {
    return isIP(host) === 6 ? undefined : `"${pattern}" is not an address; ${instead}`
  }
  if (isIP(host) === 4 || host === "localhost") return undefined
  const labels = (host.startsWith("*.") ? host.slice(2) : host).split(".")
  if (labels.length < 2 || !labels.every((label) => name.test(label))) {
    return `"${pattern}" is not a host with a domain; ${instead}`
  }
  return undefined
}

/** Tells whether `wide` allows all hosts and ports that `narrow` allows. */
export function covers(wide: string, narrow: string): boolean {
  const [outer, inner] = [parse(wide), parse(narrow)]
  if (outer.port !== undefined && outer.port !== inner.port) return false
  if (outer.host === inner.host) return true
  return outer.host.startsWith("*.") && inner.host.endsWith(outer.host.slice(1))
}
