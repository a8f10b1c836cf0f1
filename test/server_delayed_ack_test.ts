/** Servers that delay small messages until earlier ones are acknowledged. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fake from "./support/fake_server.ts"
import { eventually } from "./support/processes.ts"

it.live("Link.acknowledge sends a pong for small messages and none for large ones", () =>
  Effect.gen(function* () {
    const { kernel, server } = yield* Fake.client()
    yield* kernel.execute("small")
    yield* eventually(() => server.pongs() > 0 ? undefined : "no pong yet")
    const large = "x".repeat(200_000)
    const before = server.pongs()
    for (let count = 0; count < 10; count++) yield* kernel.execute(large)
    // Of the five messages of a cell two contain the code; the other three may arrive alone, and five are in transit.
    assert.isAtMost(server.pongs() - before, 10 * 3 + 5)
  }).pipe(Effect.scoped))
