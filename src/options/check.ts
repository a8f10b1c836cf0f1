/**
 * Checks the values of options where they are passed, so that later code can rely on them.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { format } from "effect/Formatter"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"

/**
 * The value of an option is not valid. Nothing was started or sent.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.scoped(KernelGateway.make({ port: 70_000 })).pipe(
 *   Effect.catchReason("GatewayError", "InvalidOption", (reason) => Effect.logError(reason.option))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOption
  extends Schema.TaggedError<InvalidOption>("effect-jupyter/InvalidOption")("InvalidOption", {
    /** The name of the option, with the path of the value in it. */
    option: Schema.String,
    /** The value as text, without secrets. */
    value: Schema.String,
    /** Describes valid values. */
    detail: Schema.String,
  }) {
  override get message(): string {
    return `The option "${this.option}" cannot be ${this.value}; ${this.detail}`
  }
}

type Findings = string | { readonly path: ReadonlyArray<PropertyKey>; readonly issue: string } | undefined

/** Makes the schema of an optional option; `find` returns a description of valid values for one that is not. */
const option = (find: (value: unknown) => Findings) =>
  Schema.optional(
    Schema.Unknown.check(Schema.makeFilter((value) => value === undefined ? undefined : find(value))),
  )

const text = (is: RegExp, advice: string) =>
  option((value) => typeof value === "string" && is.test(value) ? undefined : advice)

const whole = (least: number, most: number) =>
  option((value) =>
    Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most
      ? undefined
      : `give a whole number from ${least} to ${most}`
  )

const isDuration = Schema.is(Schema.Duration)

/** Returns a duration in milliseconds; `undefined` if it is not valid. Effect would convert NaN to zero. */
function millis(value: unknown): number | undefined {
  const parts = typeof value === "object" && value !== null && !isDuration(value)
    ? Object.values(value)
    : [value]
  if (parts.some(Number.isNaN)) return undefined
  return Option.match(Option.map(Duration.fromInput(value as Duration.Input), Duration.toMillis), {
    onNone: () => undefined,
    onSome: (found) => found,
  })
}

const timeout = option((value) =>
  (millis(value) ?? -1) >= 0 ? undefined : 'give a duration from zero up, for instance "30 seconds"'
)
const interval = option((value) =>
  (millis(value) ?? 0) >= 1
    ? undefined
    : 'give a duration of a millisecond or more, for instance "10 seconds"'
)

/** A path, or an argument of a process. */
const folder = text(/^[^\0]+$/, "give a path, which is not empty and has no character NUL")

const user = text(/^[^\0]+$/, "give the name of a user, which is not empty and has no character NUL")

const variables = option((value) => {
  if (typeof value !== "object" || value === null) return "give an object of strings"
  for (const [name, text] of Object.entries(value)) {
    if (!/^[^=\0]+$/.test(name)) {
      return {
        path: [name],
        issue: 'give a name that is not empty and has neither "=" nor the character NUL',
      }
    }
    if (text === undefined) continue
    if (typeof text !== "string" || text.includes("\0")) {
      return { path: [name], issue: "give a string without the character NUL" }
    }
  }
  return undefined
})

const toJson = Option.liftThrowable(JSON.stringify)

const headers = option((value) => {
  if (typeof value !== "object" || value === null) return "give an object of strings"
  for (const [name, text] of Object.entries(value)) {
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) {
      return { path: [name], issue: "give a name of letters, digits and hyphens" }
    }
    // The characters that HTTP allows in a value.
    if (typeof text !== "string" || !/^[\t\x20-\x7e\x80-\xff]*$/.test(text)) {
      return { path: [name], issue: "give a string of one line in Latin letters" }
    }
  }
  return undefined
})

const images = option((value) =>
  value === "directory" || value === "bytes" || typeof value === "function"
    ? undefined
    : 'give "directory", "bytes" or a function'
)

const timing = { initTimeout: timeout, pingInterval: interval, usageInterval: interval } as const

/** The options of a local gateway. */
export const Gateway = Schema.Struct({
  host: text(/^[^\s/?#@\0]+$/, "give the name or the address of a network interface of this machine"),
  port: whole(0, 65_535),
  workingDir: folder,
  env: variables,
  logLevel: option((value) =>
    ["Debug", "Info", "Warn", "Error"].includes(String(value))
      ? undefined
      : 'give "Debug", "Info", "Warn" or "Error"'
  ),
  startTimeout: timeout,
  preload: option((value) =>
    Array.isArray(value) && value.every((name) => typeof name === "string" && /^[^\s\0]+$/.test(name))
      ? undefined
      : "give the names of modules"
  ),
})

/** The options of a gateway that programs share, besides those of a local one. */
export const Shared = Schema.Struct({
  name: text(
    /^(?!\.)[\w.-]{1,40}$/,
    "give at most 40 letters, digits, dots, hyphens and underscores, of which the first is no dot",
  ),
  idleTimeToLive: timeout,
  outputRetention: whole(0, Number.MAX_SAFE_INTEGER),
})

const remote = {
  // White space around it is ignored, such as the line end of a file.
  token: option((value) => {
    const token = Redacted.isRedacted(value) ? Redacted.value(value) : value
    return typeof token === "string" && token.length <= 16_384 && /^[\x21-\x7e]*$/.test(token.trim())
      ? undefined
      : "give the characters of the token alone, which are those of one word, at most 16,384"
  }),
  headers,
  user,
  startConcurrency: whole(1, Number.MAX_SAFE_INTEGER),
} as const

/** The options of a remote server. */
export const Remote = Schema.Struct(remote)

/** The options of a server on a JupyterHub, whose names are parts of the paths of requests. */
export const Hub = Schema.Struct({
  ...remote,
  user: text(
    /^(?!\.{1,2}$)[^\0\p{Cs}]+$/u,
    'give the name of a user, which is not empty, and neither "." nor "..", and has no character NUL',
  ),
  server: text(
    /^(?!\.{1,2}$)[^\0\p{Cs}]*$/u,
    'give the name of a server, which is neither "." nor "..", and has no character NUL',
  ),
  startTimeout: timeout,
  options: option((value) =>
    Option.isSome(toJson(value)) ? undefined : "give values that JSON has, without cycles"
  ),
})

/** The options of a kernel. */
export const Kernel = Schema.Struct({
  workingDir: folder,
  imagesDir: folder,
  kernelName: text(
    /^[\w.-]+$/,
    "give the name of a kernelspec: letters, digits, dots, hyphens and underscores",
  ),
  env: variables,
  user,
  images,
  maxMessageSize: whole(1, Number.MAX_SAFE_INTEGER),
  ...timing,
})

/** The options of sessions besides those of a kernel. */
export const Sessions = Schema.Struct({
  idleTimeToLive: timeout,
  max: whole(1, Number.MAX_SAFE_INTEGER),
})

/** The key of a session. Encodings of texts have one code for all surrogates that are alone. */
export const Session = Schema.Struct({
  key: option((value) =>
    typeof value === "string" && value.isWellFormed() && value.length <= 10_000
      ? undefined
      : "give a string of at most 10,000 characters, in which no surrogate is alone"
  ),
})

/** The key of a session in a cluster, whose storage has columns of this size, and texts without NUL. */
export const ClusterSession = Schema.Struct({
  key: option((value) =>
    typeof value === "string" && value.isWellFormed() && value.length <= 255 && !value.includes("\0")
      ? undefined
      : "give a string of at most 255 characters, without NUL, in which no surrogate is alone"
  ),
})

/** The options of an execution. */
export const Execute = Schema.Struct({
  timeout,
  outputLimit: whole(0, Number.MAX_SAFE_INTEGER),
  images,
})

const secrets = new Set(["env", "headers", "options", "token"])
const findings = SchemaIssue.makeFormatterStandardSchemaV1()

/** Fails with the first option whose value is not valid. */
export function check(
  schema: Schema.ConstraintDecoder<unknown>,
  options: Readonly<Record<string, unknown>>,
): Effect.Effect<void, InvalidOption> {
  // Executions usually have no options, and there are many of them.
  if (Object.values(options).every((value) => value === undefined)) return Effect.void
  const decoded = Schema.decodeExit(schema)(options)
  if (Exit.isSuccess(decoded)) return Effect.void
  const error = Exit.findErrorOption(decoded)
  const [found] = Option.isSome(error) ? findings(error.value.issue).issues : []
  const [name = "", ...keys] = (found?.path ?? []).map((key) =>
    String(typeof key === "object" ? key.key : key)
  )
  return Effect.fail(
    new InvalidOption({
      option: [name, ...keys].join("."),
      value: secrets.has(name) ? "the given value" : textOf(options[name]),
      detail: found?.message ?? "give another",
    }),
  )
}

/** Returns the absolute path of a folder. Fails if it is relative and the current directory was deleted. */
export function resolve(
  path: Path.Path,
  option: string,
  value: string = ".",
): Effect.Effect<string, InvalidOption> {
  return Effect.mapError(
    Effect.try(() => path.resolve(value)),
    () =>
      new InvalidOption({
        option,
        value: textOf(value),
        detail: "the current directory was deleted; give an absolute path",
      }),
  )
}

/** Returns a value as text, truncated for a message. */
function textOf(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 200))
  return format(value).slice(0, 200)
}
