/**
 * Reads the permissions of sandboxed code: an object with the names of Deno's permissions, or a settings file.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Inspectable from "effect/Inspectable"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Assets from "../assets.ts"
import { InvalidSettings, type SandboxError, sandboxError, StartFailed } from "./error.ts"
import * as Hosts from "./hosts.ts"
import * as RuntimeFormat from "./runtime_format.ts"

/**
 * Resource limits of one kernel. Resources that are not given have no limit.
 *
 * @category options
 * @since 0.1.0
 */
export interface Limits {
  /** Maximum bytes of memory of each process, without shared libraries and files, and of all processes together. */
  readonly memory?: number | undefined
  /** Maximum number of concurrent processes and threads. An idle kernel has about 15. */
  readonly processes?: number | undefined
  /** Maximum bytes of a file that is written. */
  readonly fileSize?: number | undefined
  /** Maximum CPU time of each process. */
  readonly cpuTime?: Duration.Input | undefined
}

/**
 * The unprivileged user that sandboxed kernels run as.
 *
 * @category options
 * @since 0.1.0
 */
export interface User {
  readonly uid: number
  readonly gid: number
}

/**
 * The permissions of sandboxed code. Everything that is not given is denied, except reading, which is allowed unless it
 * is denied. Paths may be relative to the workspace, which is the option `workingDir` of the gateway.
 *
 * @example
 * ```ts
 * import { KernelGateway, type Sandbox } from "effect-jupyter"
 *
 * const permissions: Sandbox.Permissions = {
 *   allowNet: ["pypi.org:443", "*.pythonhosted.org:443"],
 *   denyRead: [".env", "secrets"],
 *   limits: { memory: 2e9, processes: 200 }
 * }
 *
 * export const gateway = KernelGateway.layer({ workingDir: "work", sandbox: permissions })
 * ```
 *
 * @category options
 * @since 0.1.0
 */
export interface Permissions {
  /** Hosts as in `"example.org"`, `"*.example.org"` or `"example.org:443"`; none by default. */
  readonly allowNet?: ReadonlyArray<string> | undefined
  /** Existing files and folders; the workspace by default. */
  readonly allowWrite?: ReadonlyArray<string> | undefined
  /** Files, folders and globs; every `.env` of the workspace by default. Evaluated when a kernel starts. */
  readonly denyRead?: ReadonlyArray<string> | undefined
  /** Takes precedence over `denyRead`; none by default. */
  readonly allowRead?: ReadonlyArray<string> | undefined
  /** Denies to read files other than those of the workspace and of Python; false by default. */
  readonly strict?: boolean | undefined
  /** Allows to write git directories, whose hooks later git commands of the owner run; false by default. */
  readonly allowGit?: boolean | undefined
  /** Allows a home directory, or one that contains a home, in `allowWrite`; false by default. */
  readonly allowHome?: boolean | undefined
  /** The user that kernels run as; required if the process runs as root. */
  readonly user?: User | undefined
  readonly limits?: Limits | undefined
  /** URL of an HTTP proxy that allowed traffic goes through; none by default. */
  readonly upstreamProxy?: string | undefined
}

/**
 * Permissions that come from a file in the format of Anthropic's sandbox runtime.
 *
 * @category options
 * @since 0.1.0
 */
export interface SettingsFile {
  /** Path of the file. */
  readonly settings: string
  /** See {@link Permissions}; the format has no such key. */
  readonly allowGit?: boolean | undefined
  /** See {@link Permissions}; the format has no such key. */
  readonly allowHome?: boolean | undefined
  /** See {@link Permissions}; the format has no such key. */
  readonly user?: User | undefined
  /** See {@link Permissions}; the format has no such key. */
  readonly limits?: Limits | undefined
  /** See {@link Permissions}; takes precedence over that of the file. */
  readonly upstreamProxy?: string | undefined
}

/**
 * The forms of permissions; `true` means the file `sandbox/default.json` of this package.
 *
 * @category options
 * @since 0.1.0
 */
export type Input = true | Permissions | SettingsFile

const Checked = (problem: (value: string) => string | undefined) =>
  Schema.String.check(Schema.makeFilter((value: string) => problem(value)))
const Host = Checked(Hosts.problem)
const AnyPath = Checked((path) =>
  path === "" || path.includes("\0") ? `"${path}" is not a path; give that of a file or a folder` : undefined
)
const PlainPath = Checked((path) =>
  path === "" || path.includes("\0")
    ? `"${path}" is not a path; give that of a file or a folder`
    : /[*?[\]{}]/.test(path)
    ? `"${path}" has a wildcard, which takes no effect here; name the folder`
    : undefined
)
const ProxyUrl = Checked((url) =>
  URL.canParse(url) && /^https?:/.test(url)
    ? undefined
    : `"${url}" is not an http or https URL; give that of a proxy`
)
/** Tells whether Duration can parse the value; its own parser throws instead. */
const isDuration = (value: unknown): value is Duration.Input =>
  Duration.isDuration(value) || typeof value === "number" || typeof value === "bigint" ||
  (typeof value === "string" &&
    /^-?\d+(\.\d+)?\s+(nano|micro|milli|second|minute|hour|day|week)s?$/.test(value))
const Time = Schema.declare(isDuration, { expected: 'a duration as in "30 seconds"' }).check(
  Schema.makeFilter((value: Duration.Input) =>
    Option.exists(Duration.fromInput(value), (time) => Duration.isGreaterThan(time, Duration.zero))
      ? undefined
      : "It has to be longer than nothing"
  ),
)
/** A user or group id. The number after the maximum means "unchanged" to the system. */
const Id = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4294967294 }))
const Count = Schema.Int.check(Schema.isGreaterThan(0))
const list = <S extends Schema.Constraint>(element: S) => Schema.optional(Schema.Array(element))

const UserSchema = Schema.Struct({ uid: Id, gid: Id })
const LimitsSchema = Schema.Struct({
  memory: Schema.optional(Count),
  processes: Schema.optional(Count),
  fileSize: Schema.optional(Count),
  cpuTime: Schema.optional(Time),
})
const PermissionsSchema = Schema.Struct({
  allowNet: list(Host),
  allowWrite: list(PlainPath),
  denyRead: list(AnyPath),
  allowRead: list(AnyPath),
  strict: Schema.optional(Schema.Boolean),
  allowGit: Schema.optional(Schema.Boolean),
  allowHome: Schema.optional(Schema.Boolean),
  user: Schema.optional(UserSchema),
  limits: Schema.optional(LimitsSchema),
  upstreamProxy: Schema.optional(ProxyUrl),
})
const SettingsFileSchema = Schema.Struct({
  settings: Schema.NonEmptyString,
  upstreamProxy: Schema.optional(ProxyUrl),
  allowGit: Schema.optional(Schema.Boolean),
  allowHome: Schema.optional(Schema.Boolean),
  user: Schema.optional(UserSchema),
  limits: Schema.optional(LimitsSchema),
})

/** A pattern of denied hosts, which may be all hosts, on all ports or on one. */
const DeniedHost = Checked((host) => /^\*(:\d+)?$/.test(host) ? undefined : Hosts.problem(host))

/** A path in the format of the sandbox runtime, which may be marked as literal. */
const entry = <S extends Schema.Constraint>(path: S) =>
  Schema.Union([path, Schema.Struct({ path: PlainPath, literal: Schema.Literal(true) })])
const pathOf = (path: string | { readonly path: string }): string =>
  typeof path === "string" ? path : path.path

/** The part of the format of Anthropic's sandbox runtime that applies to kernels. */
const RuntimeSchema = Schema.Struct({
  network: Schema.Struct({
    allowedDomains: Schema.Array(Host),
    deniedDomains: list(DeniedHost),
    parentProxy: Schema.optional(Schema.Struct({
      http: Schema.optional(ProxyUrl),
      https: Schema.optional(ProxyUrl),
      noProxy: Schema.optional(Schema.String),
    })),
  }),
  filesystem: Schema.Struct({
    denyRead: Schema.Array(entry(AnyPath)),
    allowRead: list(entry(AnyPath)),
    allowWrite: Schema.Array(entry(PlainPath)),
    denyWrite: list(entry(PlainPath)),
  }),
})

/** Makes the error of an invalid setting. */
export function invalid(key: string, detail: string, file?: string): SandboxError {
  return sandboxError(new InvalidSettings({ file, key, detail }))
}

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** Formats a path: `["a", 0, "b"]` as `"a[0].b"`. */
function keyOf(path: ReadonlyArray<PropertyKey>): string {
  return path.map((part) => typeof part === "number" ? `[${part}]` : `.${String(part)}`).join("").replace(
    /^\./,
    "",
  )
}

const valueAt = (value: unknown, path: ReadonlyArray<PropertyKey>): unknown =>
  path.reduce((inner, key) => Predicate.hasProperty(inner, key) ? inner[key] : undefined, value)

/** Adds the value to messages of Schema. */
const explain = (message: string, value: unknown): string =>
  message === "Expected no excess property"
    ? "There is no such key; remove it, or correct its name"
    : message.startsWith("Expected") && value !== undefined
    ? `${message}, not "${Inspectable.toStringUnknown(value, 0)}"`
    : message

const decodeAs = <S extends Schema.ConstraintDecoder<unknown>>(
  schema: S,
  value: unknown,
  file?: string,
): Effect.Effect<S["Type"], SandboxError> =>
  Effect.mapError(
    Schema.decodeUnknownEffect(schema, { onExcessProperty: "error" })(value),
    ({ issue }) => {
      const first = format(issue).issues[0]
      const path = (first?.path ?? []).map((part) => typeof part === "object" ? part.key : part)
      return invalid(keyOf(path), explain(first?.message ?? "It cannot be read", valueAt(value, path)), file)
    },
  )

/** Permissions from an object or from a file. */
export interface Given extends Permissions {
  readonly denyNet?: ReadonlyArray<string> | undefined
  readonly denyWrite?: ReadonlyArray<string> | undefined
  readonly parentProxy?: ParentProxy | undefined
  /** The file that they come from, whose names of keys appear in errors. */
  readonly file?: string | undefined
}

/** The proxy for allowed traffic. */
export interface ParentProxy {
  readonly http?: string | undefined
  readonly https?: string | undefined
  /** Hosts that are connected to without it. */
  readonly noProxy?: string | undefined
}

const GivenSchema = Schema.Struct({
  ...PermissionsSchema.fields,
  denyNet: list(DeniedHost),
  denyWrite: list(AnyPath),
  parentProxy: Schema.optional(RuntimeSchema.fields.network.fields.parentProxy),
})

/** Returns permissions as JSON for another machine, which does not have the file that they come from. */
export const encode = ({ file: _, limits, ...given }: Given): string => {
  const { cpuTime, ...others } = limits ?? {}
  return JSON.stringify({
    ...given,
    limits: cpuTime === undefined
      ? others
      : { ...others, cpuTime: Duration.toMillis(Duration.fromInputUnsafe(cpuTime)) },
  })
}

/** Checks permissions that another machine has encoded. */
export const decode = (value: unknown): Effect.Effect<Given, SandboxError> => decodeAs(GivenSchema, value)

/** Finds a settings file of this package. */
const preset = (name: string) =>
  Effect.mapError(
    Assets.find(`../sandbox/${name}`),
    ({ message }) => sandboxError(new StartFailed({ detail: message, output: [] })),
  )

/** Reads and checks permissions. */
export const read: (input: unknown) => Effect.Effect<Given, SandboxError, FileSystem.FileSystem> = Effect
  .fnUntraced(function* (input: unknown) {
    const source = input === true ? { settings: yield* preset("default.json") } : input
    if (!Predicate.hasProperty(source, "settings")) return yield* decodeAs(PermissionsSchema, source)
    const { settings, ...rest } = yield* decodeAs(SettingsFileSchema, source)
    return { ...yield* readFile(settings), ...rest }
  })

const readFile = Effect.fnUntraced(function* (file: string) {
  const fs = yield* FileSystem.FileSystem
  const text = yield* Effect.mapError(
    fs.readFileString(file),
    (error) => invalid("", `It cannot be read: ${error.message}`, file),
  )
  const json = yield* Effect.mapError(
    Schema.decodeEffect(Schema.fromJsonString(Schema.Unknown))(text),
    () => invalid("", "It is not valid JSON", file),
  )
  const { filesystem, network } = yield* decodeAs(RuntimeSchema, yield* RuntimeFormat.strip(json, file), file)
  const { denyRead, allowRead = [], allowWrite, denyWrite = [] } = filesystem
  const { allowedDomains: allowNet, deniedDomains: denyNet = [], parentProxy } = network
  return {
    file,
    allowNet,
    denyNet,
    denyRead: denyRead.map(pathOf),
    allowRead: allowRead.map(pathOf),
    allowWrite: allowWrite.map(pathOf),
    denyWrite: denyWrite.map(pathOf),
    parentProxy,
  }
})
