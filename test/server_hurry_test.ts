/** Servers that keep small messages back until what they sent before is acknowledged. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fake from "./support/fake_server.ts"
import { eventually } from "./support/processes.ts"

it.live("what arrives is acknowledged by a pong, and large output is not", () =>
  Effect.gen(function* () {
    const { kernel, server } = yield* Fake.client()
    yield* kernel.execute("small")
    yield* eventually(() => server.pongs() > 0 ? undefined : "no pong yet")
    const large = "x".repeat(200_000)
    const before = server.pongs()
    for (let count = 0; count < 10; count++) yield* kernel.execute(large)
    // Of five messages a cell, each may come alone; two have the code in them. Five are still on their way.
    assert.isAtMost(server.pongs() - before, 10 * 3 + 5)
  }).pipe(Effect.scoped))
