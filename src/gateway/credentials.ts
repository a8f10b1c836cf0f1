/**
 * Makes the credentials of a remote server of its options, which are values or Effects.
 *
 * @module
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Credentials from "../jupyter/credentials.ts"
import * as Options from "../options/check.ts"
import type * as Address from "./address.ts"
import { authorization } from "./connection.ts"
import type { ExpiringToken, RemoteOptions } from "./remote.ts"

type Token = Redacted.Redacted<string> | string | ExpiringToken

/** The credentials of a server, and its token at first. */
export interface Made {
  readonly headers: Credentials.Credentials
  readonly token: Redacted.Redacted<string> | undefined
}

/** Makes credentials; Effects run once, and later as `Credentials` of the protocol say. */
export const make: (
  options: Pick<RemoteOptions, "token" | "headers">,
  address: Address.Address,
) => Effect.Effect<Made, Credentials.CredentialsError> = Effect.fnUntraced(
  function* ({ headers, token }, address) {
    const base = address.authorization === undefined ? {} : { authorization: address.authorization }
    let latest: Redacted.Redacted<string> | undefined
    const source = Effect.gen(function* () {
      const { expiresAt, ...given } = asExpiring(yield* ask("token", token))
      yield* check("token", { token: given.token })
      const own = yield* ask("headers", headers)
      yield* check("headers", { headers: own })
      const value = (Redacted.isRedacted(given.token) ? Redacted.value(given.token) : given.token ?? "")
        .trim()
      latest = value === "" ? address.token : Redacted.make(value)
      return {
        headers: { ...base, ...own, ...authorization(latest) },
        expiresAt: yield* toMillis(expiresAt),
      }
    })
    const credentials = Effect.isEffect(token) || Effect.isEffect(headers)
      ? yield* Credentials.make(source)
      : Credentials.constant((yield* source).headers)
    yield* credentials.headers
    return { headers: credentials, token: latest }
  },
)

/** Returns the value of an option. Fails with a description if its Effect fails. */
const ask = <A>(
  option: string,
  value: A | Effect.Effect<A, unknown>,
): Effect.Effect<A, Credentials.CredentialsError> =>
  Effect.isEffect(value) ? Effect.catch(value, (error) => failed(option, error)) : Effect.succeed(value)

const failed = (option: string, cause: unknown) =>
  Effect.fail(
    new Credentials.CredentialsError({
      detail: `The Effect of the option "${option}" failed with "${
        String(Predicate.hasProperty(cause, "message") ? cause.message : cause)
      }"`,
    }),
  )

const check = (option: string, values: Record<string, unknown>) =>
  Effect.mapError(
    Options.check(Options.Remote, values),
    ({ detail }) =>
      new Credentials.CredentialsError({
        detail: `The Effect of the option "${option}" gave a value that is not valid; ${detail}`,
      }),
  )

const asExpiring = (token: Token | undefined): Partial<ExpiringToken> =>
  token === undefined ? {} : typeof token === "string" || Redacted.isRedacted(token) ? { token } : token

const toMillis = (expiresAt: DateTime.DateTime.Input | undefined) =>
  expiresAt === undefined ? Effect.undefined : Option.match(DateTime.make(expiresAt), {
    onNone: () => failed("token", `"expiresAt" is no date`),
    onSome: (time) => Effect.succeed(DateTime.toEpochMillis(time)),
  })
