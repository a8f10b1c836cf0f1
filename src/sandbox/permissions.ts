/**
 * What sandboxed code may do, as it is given: permissions in Deno's words, or a settings file.
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
 * Bounds of one kernel. What is not given is not bounded.
 *
 * @category options
 * @since 0.1.0
 */
export interface Limits {
  /** Bytes of memory of each process, shared libraries and files not counted; all of them together as well. */
  readonly memory?: number | undefined
  /** Processes and threads at once. A kernel with nothing to do has about 15. */
  readonly processes?: number | undefined
  /** Bytes of the longest file that can be written. */
  readonly fileSize?: number | undefined
  /** CPU time of each process. */
  readonly cpuTime?: Duration.Input | undefined
}

/**
 * Whom to become.
 *
 * @category options
 * @since 0.1.0
 */
export interface User {
  readonly uid: number
  readonly gid: number
}

/**
 * What sandboxed code may do. What is not given is denied; reading alone is open unless it is denied. Paths may be
 * relative to the workspace, which is the option `workingDir` of the gateway.
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
  /** Files and folders that are there already; the workspace by default. */
  readonly allowWrite?: ReadonlyArray<string> | undefined
  /** Files and folders, as globs too; every `.env` of the workspace by default. Fixed when a kernel starts. */
  readonly denyRead?: ReadonlyArray<string> | undefined
  /** Wins over `denyRead`; none by default. */
  readonly allowRead?: ReadonlyArray<string> | undefined
  /** Denies to read anything but the workspace and what Python needs; false by default. */
  readonly strict?: boolean | undefined
  /** Lets kernels write what git keeps in a repository, whose owner's next git command runs it; false by default. */
  readonly allowGit?: boolean | undefined
  /** Lets `allowWrite` have a home directory, or one with a home in it; false by default. */
  readonly allowHome?: boolean | undefined
  /** Whom kernels run as if the process runs as root, which is refused without it. */
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
  /** See {@link Permissions}; wins over that of the file. */
  readonly upstreamProxy?: string | undefined
}

/**
 * How permissions can be asked for; `true` stands for the file `sandbox/default.json` of this package.
 *
 * @category options
 * @since 0.1.0
 */
export type Input = true | Permissions | SettingsFile

const Checked = (problem: (value: string) => string | undefined) =>
  Schema.String.check(Schema.makeFilter((value: string) => problem(value)))
const Host = Checked(Hosts.problem)
const AnyPath = Checked((path) =>
  path === "" || path.includes("\0") ? `"${path}" is no path; give that of a file or a folder` : undefined
)
const PlainPath = Checked((path) =>
  path === "" || path.includes("\0")
    ? `"${path}" is no path; give that of a file or a folder`
    : /[*?[\]{}]/.test(path)
    ? `"${path}" has a wildcard, which takes no effect here; name the folder`
    : undefined
)
const ProxyUrl = Checked((url) =>
  URL.canParse(url) && /^https?:/.test(url)
    ? undefined
    : `"${url}" is no http or https URL; give that of a proxy`
)
/** Whether Duration reads the value; its own reader says so by failing. */
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
/** The number after it means "leave it as it is" to the system. */
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

/** What is denied may be everything, on all ports or on one. */
const DeniedHost = Checked((host) => /^\*(:\d+)?$/.test(host) ? undefined : Hosts.problem(host))

/** A path as the runtime has it: marked as one that is no pattern, too. */
const entry = <S extends Schema.Constraint>(path: S) =>
  Schema.Union([path, Schema.Struct({ path: PlainPath, literal: Schema.Literal(true) })])
const pathOf = (path: string | { readonly path: string }): string =>
  typeof path === "string" ? path : path.path

/** The part of the format of Anthropic's sandbox runtime that has a meaning for kernels. */
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

/** The failure of a setting. */
export function invalid(key: string, detail: string, file?: string): SandboxError {
  return sandboxError(new InvalidSettings({ file, key, detail }))
}

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** `["a", 0, "b"]` as `"a[0].b"`. */
function keyOf(path: ReadonlyArray<PropertyKey>): string {
  return path.map((part) => typeof part === "number" ? `[${part}]` : `.${String(part)}`).join("").replace(
    /^\./,
    "",
  )
}

const valueAt = (value: unknown, path: ReadonlyArray<PropertyKey>): unknown =>
  path.reduce((inner, key) => Predicate.hasProperty(inner, key) ? inner[key] : undefined, value)

/** Makes Schema's own messages name the value; ours do. */
const explain = (message: string, value: unknown): string =>
  message === "Expected no excess property"
    ? "There is no such key; remove it, or correct its name"
    : message.startsWith("Expected") && value !== undefined
    ? `${message}, not "${Inspectable.toStringUnknown(value, 0)}"`
    : message

const decode = <S extends Schema.ConstraintDecoder<unknown>>(
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

/** Permissions as the library takes them, wherever they come from. */
export interface Given extends Permissions {
  readonly denyNet?: ReadonlyArray<string> | undefined
  readonly denyWrite?: ReadonlyArray<string> | undefined
  readonly parentProxy?: ParentProxy | undefined
  /** The file that they come from and the names that the keys have there. */
  readonly file?: string | undefined
}

/** The proxy for the traffic that is allowed. */
export interface ParentProxy {
  readonly http?: string | undefined
  readonly https?: string | undefined
  /** Hosts that are reached without it. */
  readonly noProxy?: string | undefined
}

/** A settings file of this package. */
const preset = (name: string) =>
  Effect.mapError(
    Assets.find(`../sandbox/${name}`),
    ({ message }) => sandboxError(new StartFailed({ detail: message, output: [] })),
  )

/** Reads and checks what was given. */
export const read: (input: unknown) => Effect.Effect<Given, SandboxError, FileSystem.FileSystem> = Effect
  .fnUntraced(function* (input: unknown) {
    const asked = input === true ? { settings: yield* preset("default.json") } : input
    if (!Predicate.hasProperty(asked, "settings")) return yield* decode(PermissionsSchema, asked)
    const { settings, ...rest } = yield* decode(SettingsFileSchema, asked)
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
  const { filesystem, network } = yield* decode(RuntimeSchema, yield* RuntimeFormat.strip(json, file), file)
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
