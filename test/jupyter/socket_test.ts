import { assert, it } from "@effect/vitest"
import { Effect, Scheduler } from "effect"
import * as Socket from "../../src/jupyter/socket.ts"
import { YieldsBefore } from "../support/yields_before.ts"

it.live("open fails at once if the connection ends while its fiber yields", () =>
  Effect.gen(function* () {
    const opening = Effect.flip(Effect.scoped(Socket.open("ws://localhost/", {
      headers: {},
      protocols: [],
      socketPath: "/does/not/exist",
      openTimeout: "1 hour",
    })))
    for (let operation = 1; operation <= 40; operation++) {
      const error = yield* Effect.provideService(
        opening,
        Scheduler.Scheduler,
        new YieldsBefore(operation),
      )
      assert.include(error.detail, "ENOENT")
    }
  }))
