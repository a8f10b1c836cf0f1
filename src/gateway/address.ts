/**
 * Parses the address of a server, which may have the page and the token that Jupyter prints.
 *
 * @module
 */
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { Buffer } from "node:buffer"

/** The parts of an address. */
export interface Address {
  /** Scheme, host and path, without secrets and without a trailing slash. */
  readonly url: string
  /** The token in the query of the address. */
  readonly token: Redacted.Redacted<string> | undefined
  /** The user name and the password of the address as an `authorization` header. */
  readonly authorization: string | undefined
}

/** Parses an address. Returns `undefined` unless it is an HTTP URL. */
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

/** Returns an address that is not valid for error messages, without its token and its password. */
export function withoutSecrets(text: string): string {
  const [scheme = ""] = /^\w+:\/+/.exec(text) ?? []
  // A password may have any character.
  return text.includes("@") ? `${scheme}<redacted>` : text.replace(/([?#]|token=).*$/s, "")
}

/** Returns the address and its parent paths: the server is at one of them, the rest is the path of a page. */
export function candidates(url: string): ReadonlyArray<string> {
  const { origin, pathname } = new URL(url)
  const names = pathname.split("/").filter((name) => name !== "")
  return Array.from(
    { length: names.length + 1 },
    (_, index) => [origin, ...names.slice(0, names.length - index)].join("/"),
  )
}

/** Decodes the escapes in a part of an address. Parts that are not valid UTF-8 stay as they are. */
const decoded = (text: string): string => Option.getOrElse(decode(text), () => text)
const decode = Option.liftThrowable(decodeURIComponent)
