/**
 * The reasons for which a kernel does not start.
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

/** Returns the reason of a start that took too long. */
export function notReady(timeout: Duration.Input): KernelStartFailed {
  const bound = Duration.format(Duration.fromInputUnsafe(timeout))
  return new KernelStartFailed({
    kernelId: undefined,
    detail: `It was not ready within ${bound}; give it longer by the option "initTimeout"`,
  })
}

/** Fails with the reason for which a server did not start a kernel. */
export const startFailure = (...args: Parameters<typeof startReason>): Effect.Effect<never, KernelError> =>
  Effect.flatMap(startReason(...args), (reason) => Effect.fail(new KernelError({ reason })))

/** Returns the reason of an error of the server. Requests its kernelspecs if an unknown name may be the reason. */
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
  const { retryAfter } = error
  const isBusy = error.status === 429 || (error.status === 503 && retryAfter !== undefined)
  if (isBusy || (error.kind === "Unauthorized" && isLimit(error.detail))) {
    return new ResourceLimit({ detail, ...(retryAfter === undefined ? {} : { retryAfter }) })
  }
  if (error.kind === "Unauthorized") return new Forbidden({ detail })
  const failed = new KernelStartFailed({ kernelId: undefined, detail })
  // Servers answer an unknown kernelspec with different statuses.
  if (error.kind !== "Refused" && error.kind !== "NotFound") return failed
  const specs = yield* Effect.option(rest.kernelspecs)
  const known = Option.match(specs, {
    onNone: () => undefined,
    onSome: ({ kernelspecs }) => Object.keys(kernelspecs),
  })
  const name = kernelName ?? Option.getOrUndefined(specs)?.default ?? undefined
  return known === undefined || name === undefined || known.includes(name)
    ? failed
    : new NoSuchKernelspec({ kernelName: name, known })
})

/** Tells the details of a limit, for which servers use status 403, from those of a missing permission. */
const isLimit = (detail: string): boolean =>
  // Not by the names of users and kernelspecs, which are in quotes.
  /limit|maximum|quota|too many/i.test(detail.replace(/'[^']*'|"[^"]*"/g, ""))
