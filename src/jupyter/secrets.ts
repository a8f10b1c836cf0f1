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
  // Made when it is needed, which is seldom.
  let pattern: RegExp | undefined
  return {
    add: (headers) => {
      for (const secret of Object.entries(headers).flatMap(secretsOf)) {
        // The latest are at the end.
        secrets.delete(secret)
        secrets.add(secret)
      }
      for (const oldest of [...secrets].slice(0, -maxSecrets)) secrets.delete(oldest)
      pattern = undefined
    },
    redact: (text) => secrets.size === 0 ? text : text.replace(pattern ??= toPattern(secrets), "<redacted>"),
  }
}

/** Returns the secrets in a header: its value, and the credential, the password or the cookies in it. */
function secretsOf([name, value]: readonly [string, string]): ReadonlyArray<string> {
  const [, scheme = "", credential = ""] = /^(\S+)\s+(\S.*)$/.exec(value) ?? []
  const password = scheme.toLowerCase() === "basic"
    ? Buffer.from(credential, "base64").toString().replace(/^[^:]*:/, "")
    : ""
  const cookies = /cookie$/i.test(name) ? value.split(";").map(cookieValue) : []
  const isSecret = (secret: string) =>
    secret.length >= minLength || (/authorization$/i.test(name) && secret !== "")
  return [value, credential, password, ...cookies].filter(isSecret)
}

const cookieValue = (cookie: string): string => cookie.replace(/^[^=]*=\s*"?|"?\s*$/g, "")

/** Returns a pattern of secrets. The longest is the first: one may be part of another. */
function toPattern(secrets: Iterable<string>): RegExp {
  const patterns = [...secrets].toSorted((a, b) => b.length - a.length).map((secret) => {
    const pattern = [...secret].map(formsOf).join("")
    // A short one is matched as a whole word only.
    return secret.length < minLength ? `(?<!\\w)${pattern}(?!\\w)` : pattern
  })
  return new RegExp(patterns.join("|"), "g")
}

/** Returns a pattern of a character as it is, and as it is in addresses, in JSON and in HTML. */
function formsOf(character: string): string {
  if (/^\w$/.test(character)) return character
  const code = character.codePointAt(0) ?? 0
  const anyCase = (digits: string) => digits.replace(/[a-f]/g, (digit) => `[${digit}${digit.toUpperCase()}]`)
  const hex = (value: number, length: number) => anyCase(value.toString(16).padStart(length, "0"))
  // An address may be a part of another address.
  const percent = [...Buffer.from(character)].map((byte) => `%(?:25)*${hex(byte, 2)}`).join("")
  const named = htmlNames[character]
  return `(?:${
    [
      `\\\\?${character.replace(/[^\s]/u, "\\$&")}`,
      percent,
      `\\\\u${hex(code, 4)}`,
      `&#(?:0*${code}|[xX]0*${hex(code, 1)});`,
      ...named === undefined ? [] : [`&${named};`],
    ].join("|")
  })`
}

/** The characters that have names in HTML. */
const htmlNames: Readonly<Record<string, string>> = {
  "&": "amp",
  "<": "lt",
  ">": "gt",
  '"': "quot",
  "'": "apos",
}
