/**
 * Options of a pool over gateways.
 *
 * @module
 */
import type { ClientOptions } from "../client/options.ts"
import type * as PoolService from "./service.ts"

/**
 * Options of a pool; those of `ClientOptions` apply to each kernel.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolOptions extends ClientOptions, PoolService.PoolOptions {
  /** Python code that each kernel runs before it is handed out, within `initTimeout`; several cells run in order. */
  readonly setup?: string | ReadonlyArray<string> | undefined
}
