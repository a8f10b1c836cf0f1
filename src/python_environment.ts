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
 * Options of an interpreter.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The interpreter to use. By default it is that of `EFFECT_JUPYTER_PYTHON`, or else of the active virtual environment if
   * it has the required packages, or else of a managed environment, which is created on first use.
   */
  readonly python?: string | undefined
  /** The interpreter to create a managed environment with; by default the newest on the PATH, from 3.10. */
  readonly base?: string | undefined
  /**
   * Requirements besides the gateway and ipykernel, in pip's notation; none by default. A managed environment also has
   * matplotlib.
   */
  readonly packages?: ReadonlyArray<string> | undefined
  /** The directory of managed environments; `effect-jupyter` in the user's cache directory by default. */
  readonly cacheDir?: string | undefined
}

/**
 * Finds the interpreter, or creates a managed environment. Fails with {@link GatewayError}: `PythonNotFound` if no
 * usable interpreter is found, and `ProvisioningFailed` if the managed environment cannot be created.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PythonEnvironment } from "effect-jupyter"
 *
 * export const withPandas = Effect.map(
 *   PythonEnvironment.make({ packages: ["pandas"] }),
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
 * Provides the interpreter to gateways without the option `python`. Fails as {@link make} does.
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
 * Provides the interpreter with options from configuration. Fails as {@link make} does, and with `ConfigError` if an
 * option is missing or invalid.
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
