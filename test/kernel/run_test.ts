/** Executions that begin when the kernel ends; the connection is a fake one, which ends at that moment. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { Execution } from "../../src/mod.ts"
import type { Message } from "../../src/jupyter/message.ts"
import type { Connection } from "../../src/kernel/connection.ts"
import * as Identity from "../../src/kernel/identity.ts"
import * as Run from "../../src/kernel/run.ts"

it.effect("a kernel that ends while a request gets ready is a typed error, and nothing is sent to it", () =>
  Effect.gen(function* () {
    const requests: Array<Message> = []
    let ended: Execution.KernelErrorReason | undefined
    const connection: Connection = {
      identity: Identity.ipython,
      id: "fake",
      session: "client",
      maxMessageSize: 1_000_000_000,
      channel: {
        protocol: "v1",
        request: (message) => {
          requests.push(message)
          return Effect.die("nothing is asked")
        },
        isConnected: () => true,
        lost: Effect.never,
      },
      interrupt: Effect.void,
      ended: () => ended,
      end: () => {},
      onStopped: () => {},
      onEnded: (listener) => {
        if (ended !== undefined) listener(ended)
        return () => {}
      },
      unsolicited: () => {},
      claim: () => () => {},
      onOutput: () => {},
    }
    const error = yield* Effect.scoped(Run.start(connection, "1", {
      imagesDir: "images",
      internalRequest: {
        prepare: () =>
          Effect.sync(() => {
            ended = new Execution.KernelDied({ kernelId: "fake" })
            return { metadata: {}, buffers: [] }
          }),
        isAnswer: () => false,
        take: () => {},
      },
      onStuck: () => {},
      onFree: Effect.void,
    })).pipe(Effect.flip)
    assert.instanceOf(error, Execution.KernelError)
    assert.strictEqual(error.reason._tag, "KernelDied")
    assert.lengthOf(requests, 0)
  }))
