/**
 * Where a server is, from an address as people copy it: Jupyter prints one with a page and a token.
 *
 * @module
 */
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { Buffer } from "node:buffer"

/** An address in its parts. */
export interface Address {
  /** Scheme, host and path: nothing secret, and no slash at the end. */
  readonly url: string
  /** What the address says to authenticate with. */
  readonly token: Redacted.Redacted<string> | undefined
  /** The name and the password in front of the host, as a header has them. */
  readonly authorization: string | undefined
}

/** Takes an address apart; `undefined` if it is none of HTTP. */
export function parse(text: string): Address | undefined {
  const trimmed = text.trim()
  const url = URL.canParse(trimmed) ? new URL(trimmed) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) return undefined
  const token = url.searchParams.get("token")?.trim()
  const { password, username } = url
  return {
    url: `${url.origin}${url.pathname}`.replace(/\/+$/, ""),
    token: token ? Redacted.make(token) : undefined,
    authorization: username === "" && password === ""
      ? undefined
      : `Basic ${Buffer.from(`${decoded(username)}:${decoded(password)}`).toString("base64")}`,
  }
}

/** What is left of a text for messages: no token, no password. */
export function withoutSecrets(text: string): string {
  return text.replace(/[?#].*$/s, "").replace(/^([^/]*\/\/)?[^/]*@/, "$1")
}

/** The path of an address and those above it: the server is at one of them, the rest is a page of it. */
export function candidates(url: string): ReadonlyArray<string> {
  const { origin, pathname } = new URL(url)
  const names = pathname.split("/").filter((name) => name !== "")
  return Array.from(
    { length: names.length + 1 },
    (_, index) => [origin, ...names.slice(0, names.length - index)].join("/"),
  )
}

/** A part of an address without its escapes; one that has others than of UTF-8 is taken as it is. */
const decoded = (text: string): string => Option.getOrElse(decode(text), () => text)
const decode = Option.liftThrowable(decodeURIComponent)
