/**
 * The kernel that users hold, whoever starts it: a session with the options and the services of its maker.
 *
 * @module
 */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Chunk, ExecutionFailure, ExecutionResult, KernelError } from "../execution.ts"
import type { Platform } from "../platform.ts"
import type { Images } from "./images.ts"
import * as Introspection from "./introspection.ts"
import type { InputRequest } from "./run.ts"
import * as Session from "./session.ts"
import type { Start } from "./start.ts"

/** How to run one piece of code. */
export interface ExecuteOptions {
  /**
   * Bound of the execution, from when its turn comes; none by default. When it passes, the kernel is
   * interrupted and awaited, and the execution fails with `ExecutionTimeout`.
   */
  readonly timeout?: Duration.Input
  /**
   * Bytes of text that the result keeps: the first and the last half of them, with a line between that says
   * how many are left out. Chunks of a stream are not cut. 500 MB by default.
   */
  readonly outputLimit?: number
  /**
   * Answers code that calls `input()` or `getpass()`. Without it such code fails with the reason
   * `InputRequested`.
   */
  readonly onInput?: (request: InputRequest) => Effect.Effect<string>
  /** What becomes of images; what the client's options say by default. */
  readonly images?: Images
}

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
 */
export interface Kernel extends Introspection.Introspection {
  /** The id on the server; another one after a `reset`. */
  readonly id: string
  /**
   * Runs code to its end. Interrupting the fiber interrupts the kernel and waits until it is idle. Code that
   * ignores two interrupts is given up after about 5 seconds, 10 if the gateway does not answer either: the
   * kernel counts as `KernelUnresponsive` until the code ends or `reset` replaces it.
   */
  execute(code: string, options?: ExecuteOptions): Effect.Effect<ExecutionResult, ExecutionFailure>
  /**
   * The same, output by output as it arrives; the last element is the result. Ending the consumption early
   * interrupts the kernel.
   */
  stream(code: string, options?: ExecuteOptions): Stream.Stream<Chunk | ExecutionResult, ExecutionFailure>
  /** Interrupts what runs: Python raises `KeyboardInterrupt` there. Does nothing to an idle kernel. */
  readonly interrupt: Effect.Effect<void, KernelError>
  /**
   * Replaces the kernel by a new one. What runs and what waits fails with the reason `ExecutionAborted`. If
   * the reset is interrupted, the next execution starts the new kernel.
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
  readonly platform: Context.Context<Platform>
}

/** Starts a kernel, which ends with the scope. */
export const make: (parts: KernelParts) => Effect.Effect<Kernel, KernelError, Scope.Scope> = Effect
  .fnUntraced(
    function* ({ images, imagesDir = "images", platform, start }) {
      const session = yield* Session.make(start)
      const introspection = yield* Effect.provideContext(Introspection.make(session), platform)
      const annotations = () => ({ "kernel.id": session.id() })
      return {
        ...introspection,
        get id() {
          return session.id()
        },
        execute: Effect.fn("Kernel.execute")(function* (code: string, execute: ExecuteOptions = {}) {
          yield* Effect.annotateCurrentSpan(annotations())
          return yield* session.execute(code, { images, imagesDir, ...execute })
        }, Effect.provideContext(platform)),
        stream: (code, execute = {}) =>
          session.stream(code, { images, imagesDir, ...execute }).pipe(
            Stream.provideContext(platform),
            Stream.withSpan("Kernel.stream"),
          ),
        interrupt: Effect.withSpan(session.interrupt, "Kernel.interrupt"),
        reset: Effect.withSpan(session.reset, "Kernel.reset"),
      }
    },
  )
