/** Attacks that other files run with a user that root became, as an ordinary user. */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as Platform from "../src/platform.ts"
import { slow } from "./support/kernel.ts"
import { testsAsOrdinaryUser } from "./support/ordinary_user.ts"
import { isRoot } from "./support/sandbox.ts"

layer(Platform.layer, slow)("an ordinary user", (it) => {
  for (
    const [file, name, least] of [
      ["sandbox_git_attack_test.ts", "", 7],
      ["sandbox_file_attack_test.ts", "", 10],
      ["sandbox_test.ts", "limits", 10],
    ] as const
  ) {
    // Others are ordinary users when they run these files.
    it.effect.runIf(isRoot)(
      `is protected as one that root became: ${file} ${name}`,
      () =>
        Effect.gen(function* () {
          const { failures, passed } = yield* testsAsOrdinaryUser(file, name)
          assert.deepStrictEqual(failures, [])
          assert.isAtLeast(passed, least)
        }),
      300_000,
    )
  }
})
