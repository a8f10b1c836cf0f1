/**
 * The language and the implementation of a kernel. Kernels of other languages than Python execute code; operations that
 * need Python are refused before anything is sent.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { KernelError, Unsupported } from "../execution.ts"
import type { JsonObject } from "../jupyter/message.ts"

/** The language and the implementation of a kernel that has started. */
export interface Identity {
  /** For instance `"python"`. */
  readonly language: string
  /** For instance `"ipython"`; wrapper kernels are built on ipykernel as well, and have other names. */
  readonly implementation: string
  /** The reply to `kernel_info_request`; `undefined` for the default kernel of a local gateway, which is not asked. */
  readonly info: JsonObject | undefined
}

/** The identity of the default kernel of a local gateway. */
export const ipython: Identity = { language: "python", implementation: "ipython", info: undefined }

/** Tells whether the kernel runs Python, with IPython or without. */
export const isPython = ({ language }: Identity): boolean => language === "python"

/** Tells whether the kernel is IPython, which follows the protocol of ipykernel in all details. */
export const isIPython = ({ implementation }: Identity): boolean => implementation === "ipython"

/** Returns the error of an operation that the kernel does not support. */
export const unsupported = ({ language }: Identity, operation: string): KernelError =>
  new KernelError({ reason: new Unsupported({ language, operation }) })

/** Fails with `Unsupported` unless the kernel runs Python. */
export const requirePython = (identity: Identity, operation: string): Effect.Effect<void, KernelError> =>
  isPython(identity) ? Effect.void : Effect.fail(unsupported(identity, operation))
