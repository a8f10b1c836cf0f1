/** Executions that begin when the kernel ends; the connection is a fake one, which ends at that moment. */
import { assert, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import { Execution } from "../../src/mod.ts"
import * as Durable from "../../src/kernel/durable.ts"
import type { KernelConnection, Request } from "../../src/kernel/connection.ts"
import * as Identity from "../../src/kernel/identity.ts"
import * as Instance from "../../src/kernel/instance.ts"
import * as Run from "../../src/kernel/run.ts"

it.effect("start fails with the reason of a kernel that ends while a request gets ready, and sends nothing", () =>
  Effect.gen(function* () {
    const requests: Array<Request> = []
    const ended = Deferred.makeUnsafe<never, Execution.KernelError>()
    const connection: KernelConnection = {
      id: "fake",
      isDirect: false,
      request: (request) => {
        requests.push(request)
        return Effect.die("nothing is asked")
      },
      onUnsolicited: () => {},
      durable: Durable.refused("A kernel for tests"),
      interrupt: Effect.void,
      ended: Deferred.await(ended),
    }
    const instance = yield* Instance.make(connection, Identity.ipython)
    const reason = new Execution.KernelDied({ kernelId: "fake" })
    const error = yield* Effect.scoped(Run.start(instance, "1", {
      imagesDir: "images",
      internalRequest: {
        prepare: () =>
          Effect.as(Deferred.fail(ended, new Execution.KernelError({ reason })), {
            metadata: {},
            buffers: [],
          }),
        isAnswer: () => false,
        take: () => {},
        maxBytes: 1_000_000,
      },
      onStuck: () => {},
      onFree: Effect.void,
    })).pipe(Effect.flip)
    assert.instanceOf(error, Execution.KernelError)
    assert.strictEqual(error.reason._tag, "KernelDied")
    assert.lengthOf(requests, 0)
  }))
