/**
 * Requests for values and their answers, whatever carries them to the kernel.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type * as Stream from "effect/Stream"
import {
  type Chunk,
  ExecutionAborted,
  type ExecutionFailure,
  type ExecutionRef,
  type ExecutionResult,
  KernelError,
  ProtocolViolation,
} from "../execution.ts"
import { plain } from "../jupyter/control_codes.ts"
import type { Identity } from "../kernel/identity.ts"
import type { ExecuteOptions, ResumeOptions } from "../kernel/options.ts"
import type { RunOptions } from "../kernel/run.ts"
import { UnsupportedValue } from "./error.ts"
import * as Decode from "./decode.ts"
import * as Encode from "./encode.ts"
import type { GivenValue } from "./given_value.ts"
import type { ValueOptions } from "./options.ts"

/** An answer of the Python module in the kernel. */
export interface Answer {
  /** The kind of answer: `"value"`, `"batch"`, `"done"`, `"unsupported"` or `"unreadable"`. */
  readonly kind: string
  /** True if it is the last batch. */
  readonly isLast: boolean
  readonly detail: string
  readonly path: string
  readonly valueType: string
  readonly buffers: ReadonlyArray<Uint8Array>
  /** The value of a kernel for tests, in place of the buffers. */
  readonly given: GivenValue | undefined
}

/** The answers to a request, and the exit of its execution. */
export interface Response {
  readonly answers: ReadonlyArray<Answer>
  readonly exit: Exit.Exit<ExecutionResult, ExecutionFailure>
  readonly kernelId: string | undefined
}

/** A request whose arguments are encoded. */
export interface EncodedRequest {
  readonly operation: string
  readonly buffers: ReadonlyArray<Uint8Array>
  /** The request as it was, for kernels for tests. */
  readonly value: unknown
}

/** Options of the exchange of a request. */
export interface ExchangeOptions extends ValueOptions {
  /** The id of the only kernel that takes the request; any if absent. */
  readonly kernelId?: string | undefined
  /** Called with the id of the kernel before the request is sent to it. */
  readonly onKernel?: ((kernelId: string) => void) | undefined
}

/** Sends a request to the kernel when it is its turn, and collects the answers. */
export type Exchange = (request: EncodedRequest, options: ExchangeOptions) => Effect.Effect<Response>

/** Sends requests to a kernel. */
export interface Requests {
  /** Sends a request and collects its answers. Output without `onChunk` is logged. */
  readonly send: (
    request: { readonly operation: string; readonly [name: string]: unknown },
    options: ExchangeOptions,
  ) => Effect.Effect<Response, UnsupportedValue>
}

/** Makes requests that are carried by an exchange. */
export const requests = (exchange: Exchange): Requests => ({
  send: Effect.fnUntraced(function* (request, options) {
    const encoded = Encode.encode({ ...request, arrow: options.tables === "arrow" })
    if (Result.isFailure(encoded)) return yield* encodeError(encoded.failure)
    const { buffers, text } = encoded.success
    const response = yield* exchange(
      {
        operation: request.operation,
        buffers: [new TextEncoder().encode(text), ...buffers],
        value: request,
      },
      options,
    )
    if (options.onChunk === undefined && Exit.isSuccess(response.exit)) {
      yield* logOutput(response.exit.value, response)
    }
    return response
  }),
})

/** Logs the output of an execution without `onChunk`. */
const logOutput = (
  { displays, images, text }: ExecutionResult,
  { kernelId }: Response,
): Effect.Effect<void> =>
  text === undefined && images.length === 0 && displays.length === 0 ? Effect.void : Effect.logInfo(
    plain(text ?? ""),
    ...images.map(({ path }) => path),
    ...displays.map(({ data }) => data),
  ).pipe(
    Effect.annotateLogs({ kernel: kernelId }),
  )

/** Returns the error for a value without an encoding, with its path relative to the value instead of the request. */
function encodeError({ detail, path, valueType }: Encode.EncodeError): UnsupportedValue {
  return new UnsupportedValue({ detail, path: path.replace(/^\$\.value/, "$"), valueType })
}

/** Returns the Python value of a response, before a schema decodes it. */
export const valueOf = Effect.fnUntraced(
  function* (response: Response): Effect.fn.Return<unknown, ExecutionFailure | UnsupportedValue> {
    const result = yield* response.exit
    const answer = response.answers.at(-1)
    // Servers drop messages of kernels that send too many.
    if (answer === undefined) return yield* responseError(response, "The kernel sent no value")
    return yield* unsupportedError(response, answer, result) ?? read(response, answer)
  },
)

/** Returns the error for a missing or malformed answer to a request that ran. */
export function responseError({ exit, kernelId }: Response, detail: string): KernelError {
  return new KernelError({
    reason: new ExecutionAborted({ kernelId, detail }),
    ...(Exit.isSuccess(exit) ? { partial: exit.value } : {}),
  })
}

/** Returns the error that an answer reports for the value or the request, if there is one. */
export function unsupportedError(
  response: Response,
  { detail, kind, path, valueType }: Answer,
  partial: ExecutionResult | undefined,
): UnsupportedValue | KernelError | undefined {
  if (kind === "unreadable") {
    return responseError(response, `The kernel could not read the request: ${detail}`)
  }
  return kind !== "unsupported" ? undefined : new UnsupportedValue({
    valueType,
    path,
    detail,
    ...(partial === undefined ? {} : { partial }),
  })
}

/** Decodes the value in an answer. */
export function read(
  { exit, kernelId }: Response,
  { buffers, given, kind }: Answer,
): Effect.Effect<unknown, KernelError> {
  if (given !== undefined) return Effect.succeed(kind === "batch" ? given.value : given)
  return kind === "done" ? Effect.undefined : Effect.mapError(
    Effect.fromResult(Decode.decode(buffers)),
    ({ detail }) =>
      new KernelError({
        reason: new ProtocolViolation({ kernelId, detail }),
        ...(Exit.isSuccess(exit) ? { partial: exit.value } : {}),
      }),
  )
}

/** The parts of a kernel besides its members that requests of another process use. */
export interface Carrier {
  readonly identity: Identity
  readonly exchange: Exchange
  /** `stream` and `resume` of code that another process may go on with. */
  readonly stream: (code: string, options: ExecuteOptions & Continuation) => Outputs
  readonly resume: (ref: ExecutionRef, options: ResumeOptions & Continuation) => Outputs
}

type Continuation = Pick<RunOptions, "continued">
type Outputs = Stream.Stream<Chunk | ExecutionResult, ExecutionFailure>

/** The member of a kernel that has its carrier; a copy of the kernel has it, too. */
const CarrierKey: unique symbol = Symbol("effect-jupyter/Kernel/carrier")

interface Carrying {
  readonly [CarrierKey]: Carrier
}

const isCarrying = (kernel: object): kernel is Carrying => Predicate.hasProperty(kernel, CarrierKey)

/** Gives a kernel its carrier. */
export function attach<K extends object>(kernel: K, carrier: Carrier): K {
  return Object.defineProperty(kernel, CarrierKey, { value: carrier, enumerable: true })
}

/** Returns the carrier of a kernel, if it has one. */
export function of(kernel: object): Carrier | undefined {
  return isCarrying(kernel) ? kernel[CarrierKey] : undefined
}
