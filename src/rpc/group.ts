/**
 * The procedures by which a kernel is used from another process.
 *
 * @module
 */
import * as ClusterSchema from "effect/cluster/ClusterSchema"
import * as Rpc from "effect/rpc/Rpc"
import * as RpcGroup from "effect/rpc/RpcGroup"
import * as Schema from "effect/Schema"
import {
  Chunk,
  ExecutionFailure,
  ExecutionRef,
  ExecutionResult,
  KernelError,
  KernelOutput,
  KernelRef,
} from "../execution.ts"
import {
  Completeness,
  Completion,
  HistoryEntry,
  Inspection,
  IntrospectionFailed,
  KernelBusy,
  KernelInfo,
  Variable,
} from "../introspection.ts"
import { UnsupportedValue } from "../values/error.ts"
import { Fragment } from "./fragment.ts"
import { Question } from "./question.ts"
import * as Uploads from "./uploads.ts"

/** The session that a request is for. */
const target = {
  key: Schema.String,
  /**
   * The `session` of the attachment that the client has. A request for a session that has been replaced fails with the
   * reason `ExecutionAborted`. If absent, the request is for the session that the key has at the moment.
   */
  session: Schema.optional(Schema.String),
} as const

/** Options of an execution that can be sent. Without `asksImages` images are sent as bytes. */
const executeOptions = {
  timeout: Schema.optional(Schema.DurationFromString),
  outputLimit: Schema.optional(Schema.Finite),
  allowStdin: Schema.optional(Schema.Boolean),
  /** Sends the output while the code runs, and not only in the result; true by default. */
  chunks: Schema.optional(Schema.Boolean),
  /** True if the client answers requests for input, and stores images; false by default. */
  asksInput: Schema.optional(Schema.Boolean),
  asksImages: Schema.optional(Schema.Boolean),
  /** An id by which `settled` waits for the end of the request; with it the first element is `Accepted`. */
  requestId: Schema.optional(Schema.String),
} as const

const timeout = { timeout: Schema.optional(Schema.DurationFromString) } as const

/** The state of the session of a key, as its client needs it. */
export class Attachment extends Schema.Class<Attachment>("effect-jupyter/KernelRpc/Attachment")({
  /** Identifies the session among those that the key has in the course of time; a reset does not change it. */
  session: Schema.String,
  /** The id of the kernel, which a reset changes. */
  kernelId: Schema.String,
  /** For instance `"python"`. */
  language: Schema.String,
  /** For instance `"ipython"`. */
  implementation: Schema.String,
}) {}

/** The request has its place in the queue of the kernel. It is sent again while nothing else is. */
export class Accepted
  extends Schema.TaggedClass<Accepted>("effect-jupyter/KernelRpc/Accepted")("Accepted", {}) {}

/** The kernel takes a request for values. */
export class Started extends Schema.TaggedClass<Started>("effect-jupyter/KernelRpc/Started")("Started", {
  kernelId: Schema.String,
}) {}

/** The number of messages of the kernel up to the chunk that follows. */
export class Position extends Schema.TaggedClass<Position>("effect-jupyter/KernelRpc/Position")("Position", {
  position: Schema.Int,
}) {}

/** The code is sent; another owner of the kernel resumes it by the reference. */
export class Begun extends Schema.TaggedClass<Begun>("effect-jupyter/KernelRpc/Begun")("Begun", {
  ref: ExecutionRef,
}) {}

/** A part of the packed buffers of all answers. */
export class Bytes extends Schema.TaggedClass<Bytes>("effect-jupyter/KernelRpc/Bytes")("Bytes", {
  bytes: Schema.Uint8Array,
}) {}

/** The answers to a request for values, whose packed buffers were sent before. */
export class Answers extends Schema.TaggedClass<Answers>("effect-jupyter/KernelRpc/Answers")("Answers", {
  kernelId: Schema.UndefinedOr(Schema.String),
  answers: Schema.Array(Schema.Struct({
    kind: Schema.String,
    isLast: Schema.Boolean,
    detail: Schema.String,
    path: Schema.String,
    valueType: Schema.String,
    /** The number of its buffers. */
    buffers: Schema.Int,
  })),
}) {}

const IntrospectionFailure = Schema.Union([KernelBusy, IntrospectionFailed, KernelError])

/**
 * The procedures; `kernel_rpc.ts` describes them. Those that end only with the session do not hold up an owner that hands
 * the session over.
 */
export const group = RpcGroup.make(
  Rpc.make("open", { payload: { key: Schema.String }, success: Attachment, error: KernelError }),
  Rpc.make("hold", { payload: target, success: Attachment, error: KernelError, stream: true })
    .annotate(ClusterSchema.InterruptOnTermination, true),
  Rpc.make("execute", {
    payload: {
      ...target,
      ...executeOptions,
      code: Uploads.Text,
      /** Emits `Begun`, and a `Position` before each chunk, if the kernel outlives its owner; false by default. */
      continues: Schema.optional(Schema.Boolean),
    },
    success: Schema.Union([Chunk, ExecutionResult, Fragment, Question, Accepted, Begun, Position]),
    error: ExecutionFailure,
    stream: true,
  }),
  Rpc.make("detach", { payload: target, success: KernelRef, error: KernelError }),
  Rpc.make("start", {
    payload: { ...target, code: Uploads.Text, allowStdin: Schema.optional(Schema.Boolean) },
    success: ExecutionRef,
    error: KernelError,
  }),
  Rpc.make("resume", {
    payload: {
      ...target,
      ...executeOptions,
      ref: ExecutionRef,
      interrupts: Schema.optional(Schema.Boolean),
    },
    success: Schema.Union([Chunk, ExecutionResult, Fragment, Question, Accepted, Position]),
    error: ExecutionFailure,
    stream: true,
  }),
  Rpc.make("evaluate", {
    payload: { ...target, ...timeout, expression: Schema.String },
    success: Schema.Json,
    error: Schema.Union([ExecutionFailure, UnsupportedValue]),
  }),
  Rpc.make("exchange", {
    payload: {
      ...target,
      ...executeOptions,
      operation: Schema.String,
      /** The id of the only kernel that takes the request. */
      kernelId: Schema.optional(Schema.String),
      /** The packed buffers of the request. */
      bytes: Uploads.Bytes,
    },
    success: Schema.Union([Chunk, ExecutionResult, Fragment, Question, Accepted, Started, Bytes, Answers]),
    error: ExecutionFailure,
    stream: true,
  }),
  Rpc.make("answer", {
    /** Without a value the client has none. */
    payload: {
      id: Schema.String,
      value: Schema.optional(Uploads.Text),
      detail: Schema.optional(Schema.String),
    },
    error: KernelError,
  }),
  Rpc.make("upload", {
    payload: { id: Schema.String, index: Schema.Int, bytes: Schema.Uint8Array },
    error: KernelError,
  }),
  Rpc.make("settled", { payload: { requestId: Schema.String } }),
  Rpc.make("interrupt", { payload: target, error: KernelError }),
  Rpc.make("reset", { payload: target, success: Attachment, error: KernelError }),
  Rpc.make("complete", {
    payload: { ...target, ...timeout, code: Uploads.Text, cursor: Schema.optional(Schema.Finite) },
    success: Completion,
    error: IntrospectionFailure,
  }),
  Rpc.make("inspect", {
    payload: {
      ...target,
      ...timeout,
      code: Uploads.Text,
      cursor: Schema.optional(Schema.Finite),
      detail: Schema.optional(Schema.Literals([0, 1])),
    },
    success: Inspection,
    error: IntrospectionFailure,
  }),
  Rpc.make("isComplete", {
    payload: { ...target, ...timeout, code: Uploads.Text },
    success: Completeness,
    error: IntrospectionFailure,
  }),
  Rpc.make("history", {
    payload: { ...target, ...timeout, last: Schema.optional(Schema.Finite) },
    success: Schema.Array(HistoryEntry),
    error: IntrospectionFailure,
  }),
  Rpc.make("info", { payload: target, success: KernelInfo, error: IntrospectionFailure }),
  Rpc.make("variables", {
    payload: target,
    success: Schema.Array(Variable),
    error: IntrospectionFailure,
  }),
  Rpc.make("output", {
    payload: target,
    success: Schema.Union([KernelOutput, Fragment]),
    error: KernelError,
    stream: true,
  }).annotate(ClusterSchema.InterruptOnTermination, true),
)
