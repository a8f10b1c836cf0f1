/**
 * The kernel of a client or a pool: its executions, values, introspection and late output over one session.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  type Chunk,
  type ExecutionFailure,
  ExecutionRef,
  type ExecutionResult,
  type KernelError,
  type KernelOutput,
  type KernelRef,
} from "../execution.ts"
import type { Platform } from "../platform.ts"
import type { Images } from "../output/images.ts"
import * as Introspection from "../kernel/introspection.ts"
import * as Exchange from "../values/exchange.ts"
import * as Values from "../values/make.ts"
import * as Request from "../values/request.ts"
import type { TypedValues } from "../values/typed_values.ts"
import type { ExecuteOptions, ResumeOptions, StartCodeOptions } from "../kernel/options.ts"
import * as LateOutput from "../kernel/late_output.ts"
import * as Session from "../kernel/session.ts"
import * as Span from "../kernel/span.ts"
import type { Start } from "../kernel/start.ts"

export type { ExecuteOptions, ResumeOptions, StartCodeOptions } from "../kernel/options.ts"

/**
 * A kernel. Executions run one at a time in the order of their requests, and the state of the kernel persists.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const useTwice = Effect.fn("useTwice")(function*(kernel: KernelClient.Kernel) {
 *   yield* kernel.execute("x = 20")
 *   return yield* kernel.execute("print(x + 1)")
 * })
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface Kernel extends TypedValues, Introspection.Introspection {
  /** The id of the kernel on the server, which changes with a `reset`. */
  readonly id: string
  /**
   * Runs code and returns its result. Interrupting the fiber interrupts the kernel and waits until it is idle. If the
   * code ignores two interrupts, the wait ends after about 5 seconds, or 10 if the gateway does not answer: executions
   * then fail with the reason `KernelUnresponsive` until the code ends or `reset` replaces the kernel.
   *
   * Fails with `ExecutionError` if the code raises, `ExecutionTimeout` if it takes longer than `timeout`, and
   * `KernelError` if the kernel or its connection fails, or an option is invalid.
   */
  execute(code: string, options?: ExecuteOptions): Effect.Effect<ExecutionResult, ExecutionFailure>
  /**
   * Runs code and emits its output as it arrives; the last element is the result. If the consumer ends early, the kernel
   * is interrupted. Fails as `execute` does.
   * A chunk has `afterGap` if output before it may be lost with a connection that was cut.
   */
  stream(code: string, options?: ExecuteOptions): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure>
  /**
   * Emits output that arrives after its execution has ended, such as that of threads, timers, tasks and processes. The
   * output of a thread belongs to the execution that started it. The output of the main thread during a later execution,
   * such as that of a task, is output of that execution as well. The stream continues after a `reset` and ends with the
   * kernel's scope; it never fails. For each consumer at most 1,024 outputs or 8 MiB are buffered, and `missed` counts
   * those that were dropped. Outputs without a consumer are counted by a metric and logged at Debug.
   */
  readonly output: Stream.Stream<KernelOutput>
  /**
   * Interrupts the running execution: Python raises `KeyboardInterrupt` in its code. An idle kernel is not affected.
   * Fails with `KernelError` if the kernel has ended or the server does not answer.
   */
  readonly interrupt: Effect.Effect<void, KernelError>
  /**
   * Replaces the kernel by a new one. Running and queued executions fail with the reason `ExecutionAborted`. If the
   * reset is interrupted, the next execution starts the new kernel. Fails with `KernelError` if the new kernel cannot be
   * started.
   */
  readonly reset: Effect.Effect<void, KernelError>
  /**
   * Has the kernel stay when the scope closes or this program is killed, and returns the reference by which another
   * program attaches to it. The client stays usable. A kernel that replaces it by `reset` ends with the scope again.
   * Fails with the reason `Unsupported` if the kernel cannot outlive the program, as on a gateway that ends with it.
   */
  readonly detach: Effect.Effect<KernelRef, KernelError>
  /**
   * Sends code to the kernel and returns when it will run whatever becomes of this program, after the code that was sent
   * before. Executions that wait have their turn after it. Its outputs are kept for `resume`.
   * Fails with `KernelError`, which has the reason `Unsupported` if the server keeps no outputs.
   */
  start(code: string, options?: StartCodeOptions): Effect.Effect<ExecutionRef, KernelError>
  /**
   * Emits the outputs of code that was started, from the position of the reference on, and the result of these outputs as
   * the last element. Each output is emitted once, also if another program started the code and was killed. The code goes
   * on if the consumer ends early.
   *
   * Fails as `execute` does, with `KernelDied` after everything that the kernel put out before it died. If outputs were
   * dropped, because they were more than the gateway keeps, the stream emits the others and then fails with the reason
   * `OutputGone`. If the code did not reach the position of the reference, it fails with the reason `InvalidOption`. If
   * the code asks for input and `onInput` is not given, it fails with the reason `InputRequested`, and the code waits for
   * the next `resume`, unless `interrupts` is true.
   */
  resume(ref: ExecutionRef, options?: ResumeOptions): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure>
}

/** The parts of a kernel that depend on its maker. */
export interface KernelParts {
  /** Starts the first kernel, and a new one at every reset. */
  readonly start: Start
  /** Connects to the first kernel in place of `start`. */
  readonly attach?: Start | undefined
  /** `"images"` by default. */
  readonly imagesDir?: string | undefined
  /** `"directory"` by default. */
  readonly images?: Images | undefined
  /** Maximum bytes of a message of the kernel; 512 MiB by default. */
  readonly maxMessageSize?: number | undefined
  /** Folders that sandboxed code may write; none by default. */
  readonly untrusted?: ReadonlyArray<string> | undefined
  readonly platform: Context.Context<Platform>
}

/** Makes a kernel, which is deleted when the scope closes. */
export const make: (parts: KernelParts) => Effect.Effect<Kernel, KernelError, Scope.Scope> = Effect
  .fnUntraced(
    function* ({ attach, images, imagesDir = "images", maxMessageSize, platform, start, untrusted }) {
      const output = yield* LateOutput.make({ images, imagesDir, untrusted })
      const session = yield* Session.make({ start, attach }, output.publish)
      // On the span of the caller.
      yield* Effect.annotateCurrentSpan({ "kernel.id": session.id() })
      const exchange = yield* Effect.provideContext(
        Request.make(session, { images, imagesDir, untrusted, maxMessageSize }),
        platform,
      )
      const values = yield* Values.make(session, exchange)
      const introspection = yield* Effect.provideContext(Introspection.make(session), platform)
      const stream: Exchange.Carrier["stream"] = (code, execute) =>
        session.stream(code, { imagesDir, ...execute, images: execute.images ?? images, untrusted }).pipe(
          Stream.provideContext(platform),
          Span.withStreamSpan("Kernel.stream", session),
        )
      const resume: Exchange.Carrier["resume"] = (ref, { interrupts = false, onChunk, ...options }) =>
        session.resume(ref, {
          imagesDir,
          ...options,
          images: options.images ?? images,
          untrusted,
          interrupts,
          ...(onChunk === undefined ? {} : {
            onChunk: (chunk, position = ref.position) =>
              onChunk(chunk, new ExecutionRef({ ...ref, position })),
          }),
        }).pipe(
          Stream.provideContext(platform),
          Span.withStreamSpan("Kernel.resume", session),
        )
      const kernel: Kernel = {
        ...values,
        ...introspection,
        get id() {
          return session.id()
        },
        execute: (code, execute = {}) =>
          session.execute(code, { imagesDir, ...execute, images: execute?.images ?? images, untrusted }).pipe(
            Effect.provideContext(platform),
            Span.withSpan("Kernel.execute", session),
          ),
        stream: (code, execute = {}) => stream(code, execute),
        output: Stream.provideContext(output.stream, platform),
        interrupt: Span.withSpan("Kernel.interrupt", session)(session.interrupt),
        reset: Span.withSpan("Kernel.reset", session)(session.reset),
        detach: Span.withSpan("Kernel.detach", session)(session.detach),
        start: (code, options = {}) => Span.withSpan("Kernel.start", session)(session.start(code, options)),
        resume: (ref, options = {}) => resume(ref, options),
      }
      return Exchange.attach(kernel, { exchange, identity: session.identity, stream, resume })
    },
  )
