/**
 * Messages of the Jupyter messaging protocol: their shape, the requests this library sends and the
 * contents it acts upon.
 *
 * Follows {@link https://jupyter-client.readthedocs.io/en/stable/messaging.html Messaging in Jupyter}.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaJITCompiler from "effect/schema/SchemaJITCompiler"
import * as Json from "./json.ts"

/**
 * The version of the messaging protocol that outgoing messages declare.
 *
 * @category constants
 * @since 0.1.0
 */
export const protocolVersion = "5.3"

/**
 * The username in the header of outgoing messages.
 *
 * @category constants
 * @since 0.1.0
 */
export const username = "effect-jupyter"

/**
 * A JSON object with any keys.
 *
 * @category models
 * @since 0.1.0
 */
export type JsonObject = { readonly [key: string]: unknown }

/**
 * The four channels of a kernel that a client uses.
 *
 * @category models
 * @since 0.1.0
 */
export type ChannelName = "shell" | "iopub" | "stdin" | "control"

/**
 * A message header. Foreign headers may carry more keys; all of them survive a round trip.
 *
 * @category models
 * @since 0.1.0
 */
export interface Header extends JsonObject {
  /** Unique id of the message. */
  readonly msg_id: string
  /** The type of the message, for instance `"execute_request"`. */
  readonly msg_type: string
}

/**
 * One message of the protocol, as it travels on a WebSocket.
 *
 * @category models
 * @since 0.1.0
 */
export interface Message {
  /** The channel on which it was received or is sent, usually a {@link ChannelName}. */
  readonly channel: string
  readonly header: Header
  /** The header of the request that caused the message; `{}` where there was none. */
  readonly parentHeader: JsonObject
  readonly metadata: JsonObject
  /** The content that the message type prescribes, not yet validated. */
  readonly content: JsonObject
  /** Binary attachments. */
  readonly buffers: ReadonlyArray<Uint8Array>
}

/**
 * A frame that is not a Jupyter message, or one past a limit.
 *
 * @category errors
 * @since 0.1.0
 */
export class WireError
  extends Schema.TaggedError<WireError>("effect-jupyter/jupyter/WireError")("WireError", {
    /** The defect of the frame. */
    detail: Schema.String,
    /** True if it is past a limit, and may be a message. */
    isTooLarge: Schema.Boolean.pipe(Schema.withConstructorDefault(Effect.succeed(false))),
    /** The `msg_id` of the request that caused it, if that is known. */
    parentId: Schema.optionalKey(Schema.String),
  }) {
  override get message(): string {
    return `The server sent a frame that is not a Jupyter message: ${this.detail}`
  }
}

/**
 * Maximum number of parts of a frame, each of which becomes an object.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxParts = 65_536

/**
 * Maximum bytes of each header of a message.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxHeaderBytes = 65_536

/**
 * Maximum characters of ids and types, some of which are kept in memory.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxIdLength = 1024

/**
 * Returns the `msg_id` of the request that caused a message, if there was one.
 *
 * @category utils
 * @since 0.1.0
 */
export function parentId(message: Message): string | undefined {
  return parentIdOf(message.parentHeader)
}

/**
 * Returns the `msg_id` in a parent header that may be malformed.
 *
 * @category utils
 * @since 0.1.0
 */
export function parentIdOf(parentHeader: unknown): string | undefined {
  const id = isJsonObject(parentHeader) ? parentHeader.msg_id : undefined
  return typeof id === "string" && id.length <= maxIdLength ? id : undefined
}

/**
 * Makes a request message.
 *
 * @example
 * ```ts
 * import { request } from "effect-jupyter/jupyter/message"
 *
 * const message = request("kernel_info_request", { id: "1", session: "s", content: {} })
 * console.log(message.header.msg_type) // => "kernel_info_request"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function request(
  type: string,
  options: {
    readonly id: string
    readonly session: string
    readonly content: JsonObject
    /** `"shell"` by default. */
    readonly channel?: ChannelName | undefined
    readonly parentHeader?: JsonObject | undefined
    readonly metadata?: JsonObject | undefined
    readonly buffers?: ReadonlyArray<Uint8Array> | undefined
  },
): Message {
  return {
    channel: options.channel ?? "shell",
    header: {
      msg_id: options.id,
      msg_type: type,
      session: options.session,
      username,
      version: protocolVersion,
    },
    parentHeader: options.parentHeader ?? {},
    metadata: options.metadata ?? {},
    content: options.content,
    buffers: options.buffers ?? [],
  }
}

/**
 * Returns the content of an `execute_request`.
 *
 * @category constructors
 * @since 0.1.0
 */
export function executeContent(
  code: string,
  options: {
    readonly silent: boolean
    readonly allowStdin: boolean
    /** True if it is counted and stored as a cell; true by default unless it is silent. */
    readonly storeHistory?: boolean | undefined
  },
): JsonObject {
  return {
    // A lone surrogate would not be valid text in the kernel.
    code: code.toWellFormed(),
    silent: options.silent,
    store_history: options.storeHistory ?? !options.silent,
    user_expressions: {},
    allow_stdin: options.allowStdin,
    // Executions are serialized here, so a failed one aborts no later ones.
    stop_on_error: false,
  }
}

const Mime = Schema.Record(Schema.String, Schema.Unknown)
const Text = Schema.optionalKey(Schema.String)

/**
 * Contents of the messages that carry or end an execution, by message type.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Content = {
  stream: Schema.Struct({ name: Schema.Literals(["stdout", "stderr"]), text: Schema.String }),
  display: Schema.Struct({
    data: Mime,
    metadata: Schema.optionalKey(Schema.NullOr(Mime)),
    // A malformed value must not invalidate the display.
    transient: Schema.optionalKey(Schema.Unknown),
    execution_count: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  }),
  clearOutput: Schema.Struct({ wait: Schema.optionalKey(Schema.Boolean) }),
  status: Schema.Struct({ execution_state: Schema.String }),
  error: Schema.Struct({
    ename: Text,
    evalue: Text,
    traceback: Schema.optionalKey(Schema.Array(Schema.String)),
  }),
  executeReply: Schema.Struct({
    status: Schema.String,
    execution_count: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
    ename: Text,
    evalue: Text,
    traceback: Schema.optionalKey(Schema.Array(Schema.String)),
    // A malformed value must not invalidate the reply.
    payload: Schema.optionalKey(Schema.Unknown),
  }),
  /** A request of an `execute_reply` to the frontend, such as to show a text in a pager. */
  payload: Schema.StructWithRest(Schema.Struct({ source: Schema.String }), [Mime]),
  /** A widget that starts or stops capturing the outputs of an execution. */
  capture: Schema.Struct({
    comm_id: Schema.String,
    data: Schema.Struct({ state: Schema.Struct({ msg_id: Schema.String }) }),
  }),
  inputRequest: Schema.Struct({ prompt: Schema.String, password: Schema.optionalKey(Schema.Boolean) }),
  kernelInfoReply: Schema.Struct({
    implementation: Text,
    language_info: Schema.optionalKey(Schema.Struct({ name: Schema.String })),
  }),
} as const

// They run for every message. Where code generation is forbidden, Schema interprets them.
for (const { ast } of Object.values(Content)) SchemaJITCompiler.enable(ast)

type Decoder<S extends Schema.ConstraintDecoder<unknown>> = (
  content: unknown,
) => Exit.Exit<S["Type"], unknown>

/**
 * Decoders of {@link Content}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const decode: { readonly [K in keyof typeof Content]: Decoder<(typeof Content)[K]> } = {
  stream: Schema.decodeUnknownExit(Content.stream),
  display: Schema.decodeUnknownExit(Content.display),
  clearOutput: Schema.decodeUnknownExit(Content.clearOutput),
  status: Schema.decodeUnknownExit(Content.status),
  error: Schema.decodeUnknownExit(Content.error),
  executeReply: Schema.decodeUnknownExit(Content.executeReply),
  payload: Schema.decodeUnknownExit(Content.payload),
  capture: Schema.decodeUnknownExit(Content.capture),
  inputRequest: Schema.decodeUnknownExit(Content.inputRequest),
  kernelInfoReply: Schema.decodeUnknownExit(Content.kernelInfoReply),
}

/**
 * Returns the failure of a decoder.
 *
 * @category utils
 * @since 0.1.0
 */
export function malformed(detail: string): Result.Result<never, WireError> {
  return Result.fail(new WireError({ detail }))
}

/**
 * Returns the failure of a decoder for a frame that is past a limit.
 *
 * @category utils
 * @since 0.1.0
 */
export function tooLarge(detail: string, parentId?: string): Result.Result<never, WireError> {
  return Result.fail(
    new WireError({ detail, isTooLarge: true, ...(parentId === undefined ? {} : { parentId }) }),
  )
}

/**
 * Parses a part of a message.
 *
 * @category decoding
 * @since 0.1.0
 */
export function parsePart(text: string, parentId?: string): Result.Result<unknown, WireError> {
  return Result.mapError(
    Json.parse(text),
    ({ detail, isTooLarge }) =>
      new WireError({ detail, isTooLarge, ...(parentId === undefined ? {} : { parentId }) }),
  )
}

/**
 * Tells whether a parsed JSON value is an object.
 *
 * @category guards
 * @since 0.1.0
 */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

function isHeader(value: unknown): value is Header {
  return isJsonObject(value) && typeof value.msg_id === "string" && typeof value.msg_type === "string"
}

/**
 * Makes a message of parsed parts. Fails if they are not a message.
 *
 * @category constructors
 * @since 0.1.0
 */
export function fromParts(parts: {
  readonly channel: unknown
  readonly header: unknown
  readonly parentHeader: unknown
  readonly metadata: unknown
  readonly content: unknown
  readonly buffers: ReadonlyArray<Uint8Array>
}): Result.Result<Message, WireError> {
  const { buffers, channel, content, header } = parts
  if (typeof channel !== "string") return malformed("It names no channel")
  if (!isHeader(header)) return malformed(`Its header has no "msg_id" and "msg_type"`)
  if (!isJsonObject(content)) return malformed("Its content is not an object")
  if ([channel, header.msg_id, header.msg_type].some(({ length }) => length > maxIdLength)) {
    return tooLarge(`One of its ids has more than ${maxIdLength} characters`, parentIdOf(parts.parentHeader))
  }
  return Result.succeed({
    channel,
    header,
    // Servers send null or omit it if there is no parent.
    parentHeader: isJsonObject(parts.parentHeader) ? parts.parentHeader : {},
    metadata: isJsonObject(parts.metadata) ? parts.metadata : {},
    content,
    buffers,
  })
}
