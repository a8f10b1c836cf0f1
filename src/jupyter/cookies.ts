/**
 * The cookies of one server. Load balancers tell by them which of their servers has a kernel.
 *
 * @module
 */
import * as HttpCookies from "effect/http/Cookies"
import type { Headers } from "./credentials.ts"
import * as Secrets from "./secrets.ts"

/**
 * The cookies that a server has set.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cookies {
  /** Returns the headers with the cookies for an address; those that the headers have come first. */
  readonly addTo: (headers: Headers, url: string, now: number) => Headers
  /** Keeps the cookies of an answer, or removes those that it lets expire. */
  readonly keep: (received: HttpCookies.Cookies, url: string, now: number) => void
  /** Returns the text without cookies that are as long as those of sessions. */
  readonly redact: (text: string) => string
}

/** Number of cookies that are kept; the oldest are dropped. */
const maxCookies = 64

/** Characters of the largest cookie that is kept, as in browsers. */
const maxLength = 4096

/** Characters of the shortest cookie that may be a secret; shorter ones name the servers of a balancer. */
const minSecretLength = 16

/**
 * Makes an empty set of cookies.
 *
 * @category constructors
 * @since 0.1.0
 */
export function make(): Cookies {
  const { add, redact } = Secrets.make()
  let kept: ReadonlyArray<HttpCookies.Cookie> = []
  return {
    redact,
    addTo: (headers, url, now) => {
      const cookie = HttpCookies.toRequestCookieHeader(kept, toHttp(url), now)
      if (cookie === undefined) return headers
      const name = Object.keys(headers).find((name) => name.toLowerCase() === "cookie") ?? "cookie"
      const given = headers[name]
      return { ...headers, [name]: given === undefined ? cookie : `${given}; ${cookie}` }
    },
    keep: (received, url, now) => {
      if (HttpCookies.isEmpty(received)) return
      kept = HttpCookies.mergeIntoArray(kept, toHttp(url), received, now)
        .filter(({ name, valueEncoded }) => name.length + valueEncoded.length <= maxLength)
        .slice(-maxCookies)
      for (const { value } of kept) if (value.length >= minSecretLength) add({ cookie: value })
    },
  }
}

/** Returns the address of a WebSocket as one of HTTP, which cookies are bound to. */
const toHttp = (url: string): string => url.replace(/^ws/, "http")
