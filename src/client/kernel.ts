/**
 * The kernel that users hold, whoever starts it: a session with the options and the services of its maker.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Chunk, ExecutionFailure, ExecutionResult, KernelError, KernelOutput } from "../execution.ts"
import type { Platform } from "../platform.ts"
import type { Images } from "../output/images.ts"
import * as Introspection from "../kernel/introspection.ts"
import * as Values from "../values/make.ts"
import type { TypedValues } from "../values/typed_values.ts"
import type { ExecuteOptions } from "../kernel/options.ts"
import * as LateOutput from "../kernel/late_output.ts"
import * as Session from "../kernel/session.ts"
import * as Span from "../kernel/span.ts"
import type { Start } from "../kernel/start.ts"

export type { ExecuteOptions } from "../kernel/options.ts"

/**
 * One kernel. Executions run one at a time, in the order they were asked for, on state that persists.
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
  /** The id on the server; another one after a `reset`. */
  readonly id: string
  /**
   * Runs code to its end. Interrupting the fiber interrupts the kernel and waits until it is idle. Code that
   * ignores two interrupts is given up after about 5 seconds, 10 if the gateway does not answer either: the
   * kernel counts as `KernelUnresponsive` until the code ends or `reset` replaces it.
   *
   * Fails with `ExecutionError` if the code raises, `ExecutionTimeout` if it takes longer than `timeout`, and
   * `KernelError` if the kernel or the connection to it fails, or an option is invalid.
   */
  execute(code: string, options?: ExecuteOptions): Effect.Effect<ExecutionResult, ExecutionFailure>
  /**
   * The same, output by output as it arrives; the last element is the result. Ending the consumption early
   * interrupts the kernel. Fails with what `execute` fails with.
   */
  stream(code: string, options?: ExecuteOptions): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure>
  /**
   * What comes from now on when the execution it is of has ended: of threads, timers, tasks and processes that go on.
   * A thread is of the cell that started it. What the kernel's main thread puts out while another execution runs, as a
   * task does that this one awaits, is output of that execution too. Goes on after a `reset`, and ends with the kernel's
   * scope. At most 1,024 outputs or 8 MiB wait for a consumer; `missed` counts what was left out. What nobody reads is
   * counted and logged at Debug.
   */
  readonly output: Stream.Stream<KernelOutput>
  /**
   * Interrupts what runs: Python raises `KeyboardInterrupt` there. Does nothing to an idle kernel. Fails with
   * `KernelError` if the kernel ended or the server cannot be asked.
   */
  readonly interrupt: Effect.Effect<void, KernelError>
  /**
   * Replaces the kernel by a new one. What runs and what waits fails with the reason `ExecutionAborted`. If
   * the reset is interrupted, the next execution starts the new kernel. Fails with
   * `KernelError` if the new kernel cannot be started.
   */
  readonly reset: Effect.Effect<void, KernelError>
}

/** What a kernel is made of. */
export interface KernelParts {
  /** Used for the first kernel and again at every reset. */
  readonly start: Start
  /** `"images"` by default. */
  readonly imagesDir?: string | undefined
  /** `"directory"` by default. */
  readonly images?: Images | undefined
  /** Folders that sandboxed code may write; none by default. */
  readonly untrusted?: ReadonlyArray<string> | undefined
  readonly platform: Context.Context<Platform>
}

/** Starts a kernel, which ends with the scope. */
export const make: (parts: KernelParts) => Effect.Effect<Kernel, KernelError, Scope.Scope> = Effect
  .fnUntraced(
    function* ({ images, imagesDir = "images", platform, start, untrusted }) {
      const output = yield* LateOutput.make({ images, imagesDir, untrusted })
      const session = yield* Session.make(start, output.publish)
      // Of the one that made it.
      yield* Effect.annotateCurrentSpan({ "kernel.id": session.id() })
      const values = yield* Effect.provideContext(
        Values.make(session, { images, imagesDir, untrusted }),
        platform,
      )
      const introspection = yield* Effect.provideContext(Introspection.make(session), platform)
      return {
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
        stream: (code, execute = {}) =>
          session.stream(code, { imagesDir, ...execute, images: execute?.images ?? images, untrusted }).pipe(
            Stream.provideContext(platform),
            Span.withStreamSpan("Kernel.stream", session),
          ),
        output: Stream.provideContext(output.stream, platform),
        interrupt: Span.withSpan("Kernel.interrupt", session)(session.interrupt),
        reset: Span.withSpan("Kernel.reset", session)(session.reset),
      }
    },
  )
