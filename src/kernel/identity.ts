/**
 * What a kernel is: its language, and who implements it. Kernels of languages other than Python execute, and what
 * needs Python is refused before anything is sent to them.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { KernelError, Unsupported } from "../execution.ts"
import type { JsonObject } from "../jupyter/message.ts"

/** What is known of a kernel when it has started. */
export interface Identity {
  /** For instance `"python"`. */
  readonly language: string
  /** For instance `"ipython"`; kernels that wrap others are built on ipykernel too, but are not IPython. */
  readonly implementation: string
  /** The reply to `kernel_info_request`; `undefined` for a kernel that is known without asking. */
  readonly info: JsonObject | undefined
}

/** The default kernel of our own gateways. */
export const ipython: Identity = { language: "python", implementation: "ipython", info: undefined }

/** Whether it runs Python, be it IPython or not. */
export const isPython = ({ language }: Identity): boolean => language === "python"

/** Whether all of ipykernel's protocol means what it says. */
export const isIPython = ({ implementation }: Identity): boolean => implementation === "ipython"

/** The refusal of an operation that the kernel has not got. */
export const unsupported = ({ language }: Identity, operation: string): KernelError =>
  new KernelError({ reason: new Unsupported({ language, operation }) })

/** Fails with `Unsupported` unless the kernel runs Python. */
export const requirePython = (identity: Identity, operation: string): Effect.Effect<void, KernelError> =>
  isPython(identity) ? Effect.void : Effect.fail(unsupported(identity, operation))
