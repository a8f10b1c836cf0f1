/**
 * The Python interpreter that runs the gateway and, unless a kernelspec says otherwise, the kernels.
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Interpreter from "./environment/interpreter.ts"
import * as Managed from "./environment/managed.ts"
import type { GatewayError } from "./gateway/error.ts"
import * as Platform from "./platform.ts"

/**
 * A Python interpreter that can run a kernel gateway.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PythonEnvironment } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const { python } = yield* PythonEnvironment.PythonEnvironment
 *   yield* Effect.log(python)
 * }).pipe(Effect.provide(PythonEnvironment.layer()))
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class PythonEnvironment extends Context.Service<PythonEnvironment, {
  /** Path of the interpreter. */
  readonly python: string
}>()("effect-jupyter/PythonEnvironment") {}

/**
 * Which interpreter to use, or what to install.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The interpreter to use. By default: `EFFECT_JUPYTER_PYTHON`, else the active virtual environment if it
   * has the packages, else a managed environment, which is made on first use.
   */
  readonly python?: string | undefined
  /** The interpreter that a managed environment is made with; by default the newest of the PATH, 3.10 or later. */
  readonly base?: string | undefined
  /**
   * Requirements besides the gateway and ipykernel, in pip's notation; none by default. A managed environment has
   * matplotlib too.
   */
  readonly packages?: ReadonlyArray<string> | undefined
  /** Where managed environments live; `effect-jupyter` in the user's cache directory by default. */
  readonly cacheDir?: string | undefined
}

/**
 * Finds the interpreter, or makes a managed environment. Fails with {@link GatewayError} for the reasons
 * `PythonNotFound` and `ProvisioningFailed`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PythonEnvironment } from "effect-jupyter"
 *
 * export const withPandas = Effect.map(
 *   PythonEnvironment.make({ packages: ["pandas>=2"] }),
 *   ({ python }) => python
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => Effect.Effect<PythonEnvironment["Service"], GatewayError> = Effect
  .fn(
    "PythonEnvironment.make",
  )(
    function* (options: Options = {}) {
      const { packages = [] } = options
      const named = options.python ?? Platform.variable("EFFECT_JUPYTER_PYTHON")
      if (named !== undefined) {
        yield* Interpreter.check(named, packages)
        return PythonEnvironment.of({ python: named })
      }
      const active = Platform.variable("VIRTUAL_ENV")
      if (active !== undefined) {
        const python = `${active}/bin/python`
        const failure = yield* Interpreter.check(python, packages).pipe(Effect.flip, Effect.option)
        if (Option.isNone(failure)) return PythonEnvironment.of({ python })
        yield* Effect.logInfo(
          `A managed Python environment is used instead of the active one "${active}". ${failure.value.message}`,
        )
      }
      const { base, cacheDir } = options
      return PythonEnvironment.of({ python: yield* Managed.get({ packages, cacheDir, base }) })
    },
    Platform.provide,
    Effect.scoped,
  )

/**
 * Provides the interpreter, see {@link make}, to gateways whose options name none.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { KernelGateway, PythonEnvironment } from "effect-jupyter"
 *
 * export const gateway = KernelGateway.layer().pipe(
 *   Layer.provide(PythonEnvironment.layer({ python: "/usr/bin/python3" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layer(options?: Options): Layer.Layer<PythonEnvironment, GatewayError> {
  return Layer.effect(PythonEnvironment, make(options))
}

/**
 * Provides the interpreter with options that come from configuration, see {@link make}.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { PythonEnvironment } from "effect-jupyter"
 *
 * export const python = PythonEnvironment.layerConfig({ python: Config.String("PYTHON") })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layerConfig(
  options: Config.Wrap<Options>,
): Layer.Layer<PythonEnvironment, GatewayError | Config.ConfigError> {
  return Layer.effect(PythonEnvironment, Effect.flatMap(Config.unwrap(options), make))
}
