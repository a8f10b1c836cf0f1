/**
 * The kernelspecs and the kernels of a server.
 *
 * @module
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { KernelRef } from "../execution.ts"
import { orAbsent } from "../execution/json.ts"
import * as Connection from "./connection.ts"
import type { GatewayError } from "./error.ts"

/**
 * A kernelspec of a server, which says how to start a kernel.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelClient, KernelGateway } from "effect-jupyter"
 *
 * export const program = Effect.gen(function*() {
 *   const { kernelspecs } = yield* KernelGateway.KernelGateway
 *   const julia = (yield* kernelspecs).find(({ language }) => language === "julia")
 *   return yield* KernelClient.make(julia === undefined ? {} : { kernelName: julia.name })
 * })
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class Kernelspec extends Schema.Class<Kernelspec>("effect-jupyter/KernelGateway/Kernelspec")({
  /** The value of the option `kernelName`. */
  name: Schema.String,
  /** The name for people. */
  displayName: Schema.String,
  /** The language, for instance `"python"`; empty if the server does not tell. */
  language: Schema.String,
  /** True if kernels without `kernelName` are of this kernelspec. */
  isDefault: Schema.Boolean,
}) {}

/**
 * A kernel that runs on a server, of this program or of another.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { KernelGateway } from "effect-jupyter"
 *
 * export const busy = KernelGateway.KernelGateway.use(({ kernels }) => kernels).pipe(
 *   Effect.map((kernels) => kernels.filter(({ state }) => state === "busy"))
 * )
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export class RunningKernel extends Schema.Class<RunningKernel>("effect-jupyter/KernelGateway/RunningKernel")({
  id: Schema.String,
  /** The name of its kernelspec. */
  name: Schema.String,
  /** For instance `"idle"`, `"busy"` or `"starting"`. */
  state: orAbsent(Schema.String),
  /** The time of its last message. */
  lastActivity: orAbsent(Schema.DateTimeUtcFromString),
  /** The number of clients that are connected to it. */
  connections: orAbsent(Schema.Finite),
  /** The reference for `KernelClient.attach`; absent on a gateway whose kernels end with their program. */
  ref: orAbsent(KernelRef),
}) {}

/** The members of a gateway that list what is on its server. */
export interface Listing {
  /** Returns the kernelspecs of the server. */
  readonly kernelspecs: Effect.Effect<ReadonlyArray<Kernelspec>, GatewayError>
  /** Returns the kernels that run on the server, those of other clients included. */
  readonly kernels: Effect.Effect<ReadonlyArray<RunningKernel>, GatewayError>
}

/** Makes the listing of a server. */
export function make(connection: Connection.Connection): Listing {
  const { rest, url } = connection
  const server = Connection.serverOf(connection)
  const isAttachable = Connection.refusalOf(connection) === undefined
  return {
    kernelspecs: rest.kernelspecs.pipe(
      Effect.mapBoth({
        onFailure: (error) => Connection.toGatewayError(url, error),
        onSuccess: ({ default: defaultName, kernelspecs }) =>
          Object.entries(kernelspecs).map(([name, { spec }]) =>
            new Kernelspec({
              name,
              displayName: spec?.display_name ?? name,
              language: spec?.language ?? "",
              isDefault: name === defaultName,
            })
          ),
      }),
    ),
    kernels: rest.kernels.pipe(
      Effect.mapBoth({
        onFailure: (error) => Connection.toGatewayError(url, error),
        onSuccess: (models) =>
          models.map(({ connections, execution_state: state, id, last_activity: lastActivity, name }) =>
            new RunningKernel({
              id,
              name,
              state: state ?? undefined,
              connections: connections ?? undefined,
              lastActivity: Option.getOrUndefined(toUtc(lastActivity ?? "")),
              ref: isAttachable ? new KernelRef({ server, kernelId: id, session: id }) : undefined,
            })
          ),
      }),
    ),
  }
}

/** Parses a date of the server; one that is not valid counts as absent. */
const toUtc = (text: string): Option.Option<DateTime.Utc> => Option.map(DateTime.make(text), DateTime.toUtc)
