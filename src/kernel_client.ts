/**
 * A kernel as a scoped resource: code goes in, a Stream of chunks and a result come out.
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Chunk, type ExecutionFailure, type ExecutionResult, KernelError } from "./execution.ts"
import * as Gateway from "./gateway/connection.ts"
import * as Connection from "./kernel/connection.ts"
import type { InputRequest } from "./kernel/run.ts"
import * as Session from "./kernel/session.ts"
import * as Setup from "./kernel/setup.ts"
import * as Usage from "./kernel/usage.ts"
import { KernelGateway } from "./kernel_gateway.ts"
import * as Platform from "./platform.ts"

export type { InputRequest } from "./kernel/run.ts"

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
export interface Kernel {
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

/**
 * The kernel of an application.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { KernelClient, KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const kernel = yield* KernelClient.KernelClient
 *   const result = yield* kernel.execute("6 * 7")
 *   yield* Effect.log(result.text)
 * }).pipe(Effect.provide(KernelClient.layer().pipe(Layer.provide(KernelGateway.layer()))))
 * ```
 */
export class KernelClient extends Context.Service<KernelClient, Kernel>()("effect-jupyter/KernelClient") {}

/** Which kernel to start and how. */
export interface ClientOptions {
  /**
   * The kernel's working directory, restored after each execution that changed it, with a line on stdout that
   * says so. By default the kernel starts in the gateway's `workingDir` and may go elsewhere.
   */
  readonly workingDir?: string
  /** Where images are written; `"images"` by default. Made with the first image. */
  readonly imagesDir?: string
  /** The kernelspec; the gateway's default, Python, if absent. */
  readonly kernelName?: string
  /** Environment variables of the kernel, besides those of the gateway's option `env`. */
  readonly env?: Record<string, string>
  /** Bound of the start; 30 seconds by default. */
  readonly initTimeout?: Duration.Input
  /** How often the connection and the kernel are checked for life; 10 seconds by default. */
  readonly pingInterval?: Duration.Input
  /** How often the kernel is asked for its memory and CPU use, for the metrics; never by default. */
  readonly usageInterval?: Duration.Input
}

/**
 * Starts a kernel and connects to it. The kernel is deleted when the scope closes.
 *
 * Fails with {@link KernelError} for the reasons `KernelStartFailed` and `ConnectionLost`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient, KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const [a, b] = yield* Effect.all([KernelClient.make(), KernelClient.make()])
 *   yield* Effect.all([a.execute("x = 1"), b.execute("x = 2")], { concurrency: 2 })
 * }).pipe(Effect.scoped, Effect.provide(KernelGateway.layer()))
 * ```
 */
export const make: (
  options?: ClientOptions,
) => Effect.Effect<Kernel, KernelError, KernelGateway | Scope.Scope> = Effect.fn("KernelClient.make")(
  function* (options: ClientOptions = {}) {
    const { imagesDir = "images", initTimeout = "30 seconds", pingInterval = "10 seconds" } = options
    const platform = yield* Layer.build(Platform.layer)
    const gateway = yield* Effect.provideContext(Gateway.of(yield* KernelGateway), platform)
    const setup = yield* Effect.provideContext(
      Effect.gen(function* () {
        const path = yield* Path.Path
        const workingDir = options.workingDir === undefined ? undefined : path.resolve(options.workingDir)
        return yield* Setup.load({ workingDir })
      }),
      platform,
    )
    const start = Effect.gen(function* () {
      const connection = yield* Connection.make(gateway, {
        kernelName: options.kernelName,
        env: options.env ?? {},
        startTimeout: initTimeout,
        pingInterval,
      })
      yield* setup(connection)
      if (options.usageInterval !== undefined) yield* Usage.report(connection, options.usageInterval)
      return connection
    }).pipe(
      Effect.timeoutOrElse({
        duration: initTimeout,
        orElse: () => new KernelError({ reason: Connection.notReady(initTimeout) }),
      }),
    )
    const session = yield* Session.make(start)
    const annotations = () => ({ "kernel.id": session.id() })
    return {
      get id() {
        return session.id()
      },
      execute: Effect.fn("Kernel.execute")(function* (code: string, execute: ExecuteOptions = {}) {
        yield* Effect.annotateCurrentSpan(annotations())
        return yield* session.execute(code, { imagesDir, ...execute })
      }, Effect.provideContext(platform)),
      stream: (code, execute = {}) =>
        session.stream(code, { imagesDir, ...execute }).pipe(
          Stream.provideContext(platform),
          Stream.withSpan("Kernel.stream"),
        ),
      interrupt: Effect.withSpan(session.interrupt, "Kernel.interrupt"),
      reset: Effect.withSpan(session.reset, "Kernel.reset"),
    }
  },
)

/**
 * Provides a kernel, see {@link make}.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { KernelClient, KernelGateway } from "effect-jupyter"
 *
 * export const kernel = KernelClient.layer({ workingDir: "data", imagesDir: "plots" }).pipe(
 *   Layer.provide(KernelGateway.layer())
 * )
 * ```
 */
export function layer(options?: ClientOptions): Layer.Layer<KernelClient, KernelError, KernelGateway> {
  return Layer.effect(KernelClient, make(options))
}

/**
 * Provides a kernel with options that come from configuration, see {@link make}.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { KernelClient } from "effect-jupyter"
 *
 * export const kernel = KernelClient.layerConfig({ imagesDir: Config.String("IMAGES_DIR") })
 * ```
 */
export function layerConfig(
  options: Config.Wrap<ClientOptions>,
): Layer.Layer<KernelClient, KernelError | Config.ConfigError, KernelGateway> {
  return Layer.effect(KernelClient, Effect.flatMap(Config.unwrap(options), make))
}
