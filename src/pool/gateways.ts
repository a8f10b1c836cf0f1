/**
 * Pools whose kernels are started on gateways.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { KernelError } from "../execution.ts"
import * as Gateway from "../gateway/connection.ts"
import type { Instance } from "../kernel/instance.ts"
import * as Setup from "../kernel/setup.ts"
import * as Span from "../kernel/span.ts"
import * as Start from "../kernel/start.ts"
import { notReady } from "../kernel/start_failure.ts"
import * as Platform from "../platform.ts"
import type { PoolOptions } from "./options.ts"
import * as PoolService from "./service.ts"
import type { Source } from "./source.ts"

const annotate = ({ id }: Instance) => Effect.annotateCurrentSpan({ "kernel.id": id })

/** Makes a pool and starts its kernels; all of them are deleted with the scope. */
export const make: (
  gateways: ReadonlyArray<Parameters<typeof Gateway.of>[0]>,
  options: PoolOptions,
) => Effect.Effect<PoolService.Pool, never, Scope.Scope> = Effect.fnUntraced(
  function* (gateways, options) {
    const { initTimeout = Start.defaultTimeout } = options
    const platform = yield* Platform.services
    const starting = yield* Effect.provideContext(Start.load(options), platform)
    const cells = typeof options.setup === "string" ? [options.setup] : options.setup ?? []

    const prepare = (instance: Instance) =>
      // The first execution of a kernel takes a millisecond longer than later ones.
      Effect.ignore(instance.isDirect ? Setup.runSilently(instance, "None") : Effect.void).pipe(
        Effect.andThen(Effect.forEach(cells, (code) => Setup.run(instance, code), { discard: true })),
        Effect.timeoutOrElse({
          duration: initTimeout,
          orElse: () => new KernelError({ reason: notReady(initTimeout) }),
        }),
      )
    // Of all gateways: a kernel of another one may have made the link.
    const untrusted = gateways.flatMap((gateway) => Gateway.sandboxOf(gateway)?.rules.allowWrite ?? [])
    const sources = yield* Effect.forEach(
      gateways,
      (gateway) =>
        Effect.map(Gateway.of(gateway), (connection): Source<Instance> => ({
          name: gateway.url,
          // A root span: the kernel may go to another request than the one that caused the start.
          start: Span.withSpan("KernelPool.start", { root: true })(
            Effect.tap(Effect.tap(starting(connection), prepare), annotate),
          ),
          gone: connection.ended,
        })),
    ).pipe(Effect.provideContext(platform))

    const { images, imagesDir, maxMessageSize } = options
    return yield* PoolService.make(sources, options, {
      images,
      imagesDir,
      maxMessageSize,
      untrusted,
      platform,
    })
  },
)
