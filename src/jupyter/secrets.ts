/**
 * Removes secrets from texts of a server, which may repeat what it was sent.
 *
 * @module
 */
import { Buffer } from "node:buffer"

/**
 * The secrets of a server's credentials.
 *
 * @category models
 * @since 0.1.0
 */
export interface Secrets {
  /** Adds the values of headers. */
  readonly add: (headers: Readonly<Record<string, string>>) => void
  /** Returns the text with `<redacted>` in place of each secret. */
  readonly redact: (text: string) => string
}

/** Number of secrets that are remembered: those of the last tokens. */
const maxSecrets = 64

/** Characters of the shortest header value that counts as a secret; shorter ones are words of many texts. */
const minLength = 6

/**
 * Makes an empty set of secrets.
 *
 * @category constructors
 * @since 0.1.0
 */
export function make(): Secrets {
  const secrets = new Set<string>()
  let pattern: RegExp | undefined
  return {
    add: (headers) => {
      for (const secret of Object.entries(headers).flatMap(secretsOf)) {
        // The latest are at the end.
        secrets.delete(secret)
        secrets.add(secret)
      }
      for (const oldest of [...secrets].slice(0, -maxSecrets)) secrets.delete(oldest)
      // The longest first: one may be part of another.
      const forms = [...secrets].toSorted((a, b) => b.length - a.length).map(toPattern)
      pattern = forms.length === 0 ? undefined : new RegExp(forms.join("|"), "g")
    },
    redact: (text) => pattern === undefined ? text : text.replace(pattern, "<redacted>"),
  }
}

/** Returns the secrets in a header: its value, and the token or the password in an authorization. */
function secretsOf([name, value]: readonly [string, string]): ReadonlyArray<string> {
  if (name.toLowerCase() !== "authorization") return value.length < minLength ? [] : forms(value)
  const [, scheme = "", credential = ""] = /^(\S+)\s+(.*)$/.exec(value) ?? []
  const password = scheme.toLowerCase() === "basic"
    ? Buffer.from(credential, "base64").toString().replace(/^[^:]*:/, "")
    : ""
  return [value, credential, password].filter((secret) => secret !== "").flatMap(forms)
}

/** Returns a secret as it is, and as it is in an address. */
const forms = (secret: string): ReadonlyArray<string> => [...new Set([secret, encodeURIComponent(secret)])]

/** Returns the source of a pattern; a short secret is matched as a whole word only. */
function toPattern(secret: string): string {
  const escaped = secret.replace(/[^\w\s]/g, "\\$&")
  return secret.length < minLength ? `(?<!\\w)${escaped}(?!\\w)` : escaped
}
