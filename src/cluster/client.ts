/**
 * The kernel of a key, wherever in the cluster its owner is.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { Sharding } from "effect/cluster/Sharding"
import type * as Scope from "effect/Scope"
import type { Kernel } from "../client/kernel.ts"
import { ConnectionLost, KernelError } from "../execution.ts"
import * as Options from "../options/check.ts"
import * as Remote from "../rpc/client.ts"
import { entity } from "./owner.ts"

/** The time after which a request that has no answer looks for an owner of the key, and the maximum it waits for one. */
const checkInterval: Duration.Input = "30 seconds"
const ownerTimeout: Duration.Input = "1 minute"

/** Connects to the kernel of a key. */
export const make: (key: string) => Effect.Effect<Kernel, KernelError, Sharding | Scope.Scope> = Effect
  .fnUntraced(function* (key) {
    yield* Effect.mapError(
      Options.check(Options.ClusterSession, { key }),
      (reason) => new KernelError({ reason }),
    )
    const client = (yield* entity.client)(key)
    // The cluster itself waits without end until there is a runner.
    const checkOwner = client.settled({ requestId: "" }).pipe(
      Effect.ignore,
      Effect.timeoutOrElse({ duration: ownerTimeout, orElse: () => noOwner(key) }),
    )
    return yield* Remote.makeWith(
      key,
      client,
      checkOwner.pipe(
        Effect.schedule(Schedule.spaced(checkInterval)),
        Effect.delay(checkInterval),
        Effect.andThen(Effect.never),
      ),
    )
  })

const noOwner = (key: string) =>
  new KernelError({
    reason: new ConnectionLost({
      kernelId: undefined,
      detail: `No runner of the cluster has the key "${key}" for ${
        Duration.format(Duration.fromInputUnsafe(ownerTimeout))
      }`,
    }),
  })
