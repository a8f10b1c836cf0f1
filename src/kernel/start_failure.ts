/**
 * Why a kernel did not start.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import {
  ConnectionLost,
  Forbidden,
  KernelError,
  type KernelErrorReason,
  KernelStartFailed,
  NoSuchKernelspec,
  ResourceLimit,
} from "../execution.ts"
import type * as Gateway from "../gateway/connection.ts"
import type { RestError } from "../jupyter/rest.ts"

/** The failure of a start that took too long. */
export function notReady(timeout: Duration.Input): KernelStartFailed {
  const bound = Duration.format(Duration.fromInputUnsafe(timeout))
  return new KernelStartFailed({
    kernelId: undefined,
    detail: `It was not ready within ${bound}; give it longer by the option "initTimeout"`,
  })
}

/** Fails with why a server did not start a kernel. */
export const startFailure = (...asked: Parameters<typeof startReason>): Effect.Effect<never, KernelError> =>
  Effect.flatMap(startReason(...asked), (reason) => Effect.fail(new KernelError({ reason })))

/** Why a server did not start a kernel; asks it for its kernelspecs where that may be the reason. */
const startReason = Effect.fnUntraced(function* (
  { rest }: Gateway.Connection,
  error: RestError,
  { kernelName, startTimeout }: {
    readonly kernelName: string | undefined
    readonly startTimeout: Duration.Input
  },
): Effect.fn.Return<KernelErrorReason> {
  if (error.kind === "Timeout") return notReady(startTimeout)
  if (error.kind === "Unreachable") return new ConnectionLost({ kernelId: undefined, detail: error.message })
  const status = error.status === undefined ? "" : `, status ${error.status}`
  const detail = `${error.detail} (${error.request}${status})`
  if (error.status === 429 || (error.kind === "Unauthorized" && isLimit.test(error.detail))) {
    const { retryAfter } = error
    return new ResourceLimit({ detail, ...(retryAfter === undefined ? {} : { retryAfter }) })
  }
  if (error.kind === "Unauthorized") return new Forbidden({ detail })
  const failed = new KernelStartFailed({ kernelId: undefined, detail })
  // A name that a server does not know is answered with any status.
  if (error.kind !== "Refused" && error.kind !== "NotFound") return failed
  const specs = yield* Effect.option(rest.kernelspecs)
  const known = Option.match(specs, {
    onNone: () => undefined,
    onSome: ({ kernelspecs }) => Object.keys(kernelspecs),
  })
  const name = kernelName ?? Option.getOrUndefined(specs)?.default
  return known === undefined || name === undefined || known.includes(name)
    ? failed
    : new NoSuchKernelspec({ kernelName: name, known })
})

/** Servers answer 403 for their limits as for what they do not allow. */
const isLimit = /limit|maximum|quota|too many/i
